"""`fromnoise train`: a recipe or a recorded run, with any field changed, trained in a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fromnoise.cli.flags import parse
from fromnoise.cli.report import reported
from fromnoise.cli.started import find
from fromnoise.core.config import Config
from fromnoise.core.ranks import is_first
from fromnoise.recipes import all_recipes, summary
from fromnoise.training.run import Run, VAERun

USAGE = "fromnoise train RECIPE|RUN.yaml [--directory DIR] [--some.field VALUE ...]"
EPILOG = """\
The same command again goes on from the last checkpoint in the directory. When it ends, report.html and README.md there
tell of the run.

Where a field is a choice between configs, only the one in force has flags. --KEY.type NAME puts another in force,
with its own defaults; with --help it lists their flags:
  fromnoise train shapes --training.optimizer.type adamw --training.optimizer.lr 1e-3
  fromnoise train shapes --model.path.type vp --help
"""


class Kept(Config):
    """What every start needs beside the run."""

    directory: Path = Path("runs/run")
    """Where checkpoints, metrics and previews are kept; a run already there goes on."""


class Started(Kept, Run):
    """A run, and where it is kept."""


class StartedVAE(Kept, VAERun):
    """A VAE's run, and where it is kept."""


def main(args: Sequence[str]) -> None:
    if not args or args[0].startswith("-"):
        if not {"-h", "--help"} & set(args):
            raise ValueError(f"a recipe or a run.yaml must come first; recipes: {', '.join(all_recipes())}")
        print(_help())
        return
    begun, description = start(args[0])
    chosen, words = parse(begun, args[1:], usage=USAGE, description=description, epilog=EPILOG)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; a value goes after its flag: --some.field VALUE")
    if isinstance(chosen, StartedVAE):
        from fromnoise.training.loop import train_vae

        with reported(chosen.directory):
            train_vae(VAERun.model_validate(chosen.model_dump(exclude={"directory"})), chosen.directory)
        return
    from fromnoise.training.loop import carry_out

    with reported(chosen.directory):
        carry_out(Run.model_validate(chosen.model_dump(exclude={"directory"})), chosen.directory)
    if is_first():
        from fromnoise.reporting.card import sampling_command

        print(f"draw with it: {sampling_command(chosen, chosen.directory)}")


def start(name: str) -> tuple[Started | StartedVAE, str]:
    """What flags are applied to, and a description of it, by the name of a recipe, a YAML file or a run directory."""
    found = find(name)
    kind = StartedVAE if isinstance(found.run, VAERun) else Started
    return kind(**dict(found.run), directory=found.directory), found.description


def _help() -> str:
    width = max(map(len, all_recipes())) + 2
    listed = [f"  {name:<{width}}{summary(recipe)}" for name, recipe in all_recipes().items()]
    return "\n".join([f"usage: {USAGE}", "", "recipes:", *listed, "", EPILOG, _MORE])


_MORE = "fromnoise train RECIPE --help lists every field of a run, with its type, unit and default."
