"""`fromnoise compare`: recipes or finished runs side by side, in one HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import kept, say, watch
from fromnoise.cli.started import find
from fromnoise.evaluation.comparison.asked import Asked
from fromnoise.training.run import Run, VAERun

if TYPE_CHECKING:
    from fromnoise.evaluation.comparison.match import Entry

USAGE = "fromnoise compare RECIPE|RUN.yaml|RUN RECIPE|RUN.yaml|RUN ... [--option VALUE ...]"
DESCRIPTION = """\
Compares recipes: trains each from the same seeds on the same pictures in the same order, draws from the same noise, and
writes one HTML report with a JSON beside it.

RECIPE is a recipe's name, RUN.yaml a recorded run: both are trained. RUN is the directory of a finished run, which is
taken as it is; runs count as one recipe where they differ in the seed, and in what decides no weights (logs, previews,
checkpoints kept). The same command again goes on where it was stopped, and does nothing twice.
"""


class Options(Asked):
    """What to compare, and where to put it."""

    out: Path | None = None
    """Directory for runs, measurements and the report; left out, compare/ and the names, with a
    hash of the runs if others of these names were compared there."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if not words:
        raise ValueError(f"no recipe is given; usage: {USAGE}")
    start = [_entry(word) for word in words]
    from fromnoise.evaluation.comparison.compare import compare
    from fromnoise.evaluation.comparison.match import Entry
    from fromnoise.evaluation.comparison.place import free

    entries: list[Entry] = [Entry(*one) for one in start]
    names = "-".join(entry.name for entry in entries)
    out = options.out or free(Path("compare") / names, [entry.identity for entry in entries])
    asked = Asked.model_validate(options.model_dump(exclude={"out"}))
    with kept(out):
        print(compare(entries, out, asked, say, watch))


def _entry(word: str) -> tuple[str, Run, Path | None]:
    """The name, the settings and, of a finished run, the directory that a word stands for.

    Raises:
        ValueError: one line, when there is no such recipe or run.
    """
    found = find(word)
    if isinstance(found.run, VAERun):
        raise ValueError(f"{word} is a VAE, which draws nothing to compare; allowed: models that draw")
    return found.directory.resolve().name, found.run, found.directory if found.under_way else None
