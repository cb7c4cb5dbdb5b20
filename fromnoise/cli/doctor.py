"""`fromnoise doctor`: what is wrong with a run or with data, found in under a minute, before hours are spent."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.cli.train import Started, StartedVAE, start
from fromnoise.core.config import Config, hint
from fromnoise.data.config import CIFAR10Config, DataConfig, FolderConfig, PreparedConfig
from fromnoise.recipes import RECIPES, all_recipes
from fromnoise.recipes.generations import MATCHED
from fromnoise.training.run import Run, VAERun

if TYPE_CHECKING:
    from fromnoise.doctor.finding import Finding
    from fromnoise.doctor.subject import Subject

USAGE = "fromnoise doctor RECIPE|RUN|DATA [--some.field VALUE ...] [--json]"
DESCRIPTION = """\
Examines a run, or data, in under a minute on a CPU, and changes nothing. Every check tells its number; what is wrong is
told with why it matters and what to do. Exit code 0 where all is well, 1 where something is wrong.

RECIPE is the name of a recipe, RUN the directory of a run or its run.yaml, DATA a directory that `fromnoise prepare`
wrote, a directory of captioned pictures, or cifar10. Flags change fields as for `fromnoise train`, or of the data.
"""
WIDTH = 110  # characters of a line
NAME = 24  # of them for a check's name


def main(args: Sequence[str]) -> int:
    as_json, args = "--json" in args, [arg for arg in args if arg != "--json"]
    if not args or args[0].startswith("-"):
        if {"-h", "--help"} & set(args):
            print(f"usage: {USAGE}\n\n{DESCRIPTION}")
            return 0
        raise ValueError(f"a recipe, a run or data must come first; usage: {USAGE}")
    name = args[0]
    begun, description = data_at(name) or start(name)
    chosen, words = parse(begun, args[1:], usage=USAGE, description=description)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; a value goes after its flag: --some.field VALUE")
    from fromnoise.doctor.checks import examine, wrong

    with progress(f"examining {name}") as advance:
        subject = subject_of(name, chosen)
        found = examine(subject, advance)
    faults = len(wrong(found))
    if as_json:
        told = {"examined": name, "faults": faults, "absent": subject.absent, "smaller": subject.smaller}
        print(json.dumps(told | {"findings": [finding._asdict() for finding in found]}, ensure_ascii=False))
    else:
        print(table(subject, found))
    return 1 if faults else 0


def data_at(name: str) -> tuple[DataConfig, str] | None:
    """The data that a user means by `name`; None where it is the name of a recipe, or a run.

    Raises:
        ValueError: one line, when it is a single word that nothing is called.
    """
    path, recipes = Path(name), all_recipes()
    if name == "cifar10":
        return CIFAR10Config(), "CIFAR-10."
    if name not in recipes and not path.exists() and path.name == name and not path.suffix:
        raise ValueError(f"unknown recipe {name!r}, and no folder here is called so; {hint(name, recipes)}")
    if name in recipes or not path.is_dir() or (path / "run.yaml").is_file():
        return None
    if (path / "manifest.json").is_file():
        return PreparedConfig(path=path), f"The prepared data set at {path}."
    return FolderConfig(path=path), f"The captioned pictures at {path}."


def subject_of(name: str, chosen: Config) -> Subject:
    """What is to be examined."""
    from fromnoise.doctor.subject import of_data, of_run

    if isinstance(chosen, DataConfig):
        return of_data(name, chosen)
    assert isinstance(chosen, Started | StartedVAE)
    kind = VAERun if isinstance(chosen, StartedVAE) else Run
    run = kind.model_validate(chosen.model_dump(exclude={"directory"}))
    place = Path(name)
    there = place if (place / "run.yaml").is_file() else place.parent if place.name == "run.yaml" else None
    family = {one: RECIPES[one]() for one in MATCHED} if name in MATCHED else {}
    return of_run(name, run, there, family)


def table(subject: Subject, found: Sequence[Finding]) -> str:
    """What was examined, a line each; under what is wrong, why it matters and what to do."""
    lines = [f"left out: {subject.absent}"] if subject.absent else []
    lines += [f"examined: {subject.smaller}"] if subject.smaller else []
    marks = {"fine": "ok   ", "wrong": "WRONG", "left out": "-    "}
    for finding in found:
        told = finding.number if finding.level != "left out" else f"left out: {finding.why}"
        lines += paragraph(f"{marks[finding.level]} {finding.name:<{NAME}}", told)
        if finding.level == "wrong":
            lines += paragraph("", f"why: {finding.why}") + paragraph("", f"do:  {finding.remedy}")
    counts = [sum(one.level == level for one in found) for level in ("wrong", "fine", "left out")]
    return "\n".join([*lines, f"{counts[0]} wrong, {counts[1]} fine, {counts[2]} left out: {subject.name}"])


def paragraph(first: str, text: str) -> list[str]:
    """Lines that begin with `first`, the next ones indented as far."""
    indent = " " * (len("WRONG ") + NAME)
    return textwrap.wrap(text, WIDTH, initial_indent=first or indent, subsequent_indent=indent)
