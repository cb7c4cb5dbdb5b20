"""`fromnoise train`: a recipe or a recorded run, with any field changed, trained in a directory."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path

from fromnoise.cli.flags import parse
from fromnoise.core.config import read_yaml
from fromnoise.recipes import RECIPES, named, summary
from fromnoise.training.run import Run

USAGE = "fromnoise train RECIPE|RUN.yaml [--directory DIR] [--some.field VALUE ...]"
EPILOG = """\
The same command again goes on from the last checkpoint in the directory.

Where a field is a choice between configs, only the one in force has flags. --KEY.type NAME puts another in force,
with its own defaults; with --help it lists their flags:
  fromnoise train shapes --training.optimizer.type adamw --training.optimizer.lr 1e-3
  fromnoise train shapes --model.path.type vp --help
"""


class Started(Run):
    """A run, and where it is kept."""

    directory: Path = Path("runs/run")
    """Where checkpoints, metrics and previews are kept; a run already there goes on."""


def main(args: Sequence[str]) -> None:
    if not args or args[0].startswith("-"):
        if not {"-h", "--help"} & set(args):
            raise ValueError(f"a recipe or a run.yaml must come first; recipes: {', '.join(RECIPES)}")
        print(_help())
        return
    start, description = _start(args[0])
    chosen, words = parse(start, args[1:], usage=USAGE, description=description, epilog=EPILOG)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; a value goes after its flag: --some.field VALUE")
    from fromnoise.training.loop import train

    train(Run.model_validate(chosen.model_dump(exclude={"directory"})), chosen.directory)
    prompt, *_ = *chosen.training.previews, "a prompt"
    print(f'draw with it: fromnoise sample {chosen.directory} "{prompt}"')


def _start(name: str) -> tuple[Started, str]:
    """What flags are applied to, and a description of it, by the name of a recipe, a YAML file or a run directory."""
    path = Path(name)
    if name not in RECIPES and (path.exists() or os.sep in name or path.suffix in (".yaml", ".yml")):
        file = path / "run.yaml" if path.is_dir() else path
        directory = file.parent if file.name == "run.yaml" else Path("runs") / file.stem
        return Started(**dict(read_yaml(Run, file)), directory=directory), f"The run recorded in {file}."
    run = named(name)
    return Started(**dict(run), directory=Path("runs") / name), inspect.getdoc(RECIPES[name]) or ""


def _help() -> str:
    recipes = [f"  {name:<12}{summary(recipe)}" for name, recipe in RECIPES.items()]
    return "\n".join([f"usage: {USAGE}", "", "recipes:", *recipes, "", EPILOG, _MORE])


_MORE = "fromnoise train RECIPE --help lists every field of a run, with its type, unit and default."
