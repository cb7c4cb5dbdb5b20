"""What a command begins with: a recipe, a recorded run or a run's directory, by its name."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import NamedTuple

from fromnoise.core.config import hint
from fromnoise.recipes import all_recipes
from fromnoise.training.run import Run, VAERun, read_run


class Found(NamedTuple):
    """What a name stands for."""

    run: Run | VAERun
    directory: Path
    """Where it is kept, or would be."""
    under_way: bool
    """Whether a run's directory was named."""
    description: str


def find(name: str) -> Found:
    """The run called `name`: a recipe, a YAML file, or a run's directory.

    Raises:
        ValueError: one line: there is none; the nearest recipe is named.
    """
    path, known = Path(name), all_recipes()
    if name not in known and (path.exists() or os.sep in name or path.suffix in (".yaml", ".yml")):
        file = path / "run.yaml" if path.is_dir() else path
        directory = file.parent if file.name == "run.yaml" else Path("runs") / file.stem
        return Found(read_run(file), directory, path.is_dir(), f"The run recorded in {file}.")
    if name not in known:
        raise ValueError(f"unknown recipe {name!r}; {hint(name, known)}")
    return Found(known[name](), Path("runs") / name, False, inspect.getdoc(known[name]) or "")
