"""Files of a folder as diffusers writes it: what they are called, and how they are read. Nothing is unpickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.core.files import read_tensors
from fromnoise.space.folder import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model_index.json"
RECORD, ORIGINALS = "fromnoise.json", "fromnoise.safetensors"
"""What an exported folder has beside: the run it is of, and weights that a stock class holds in another form only."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; ValueError, one line, where there is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(told, dict):
        raise ValueError(f"{path} must hold a mapping of keys to values")
    return told


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in `folder`, in float32: one safetensors file, or the parts that its index names.

    Raises:
        ValueError: one line: there are none, or pickled ones only, which are never read.
    """
    index = folder / f"{WEIGHTS}.index.json"
    names = sorted(set(read_json(index).get("weight_map", {}).values())) if index.is_file() else [WEIGHTS]
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index} names {name!r}, which is not in {folder}")
        if not (folder / name).is_file():
            pickled = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
            others = sorted(path.name for path in folder.glob("*.safetensors"))
            why = f"; {pickled[0]} is pickled, and never read: save it as safetensors" if pickled else ""
            why = f"; {others[0]} is there: give it that name" if others else why
            raise ValueError(f"no file {folder / name}{why}")
        state |= read_tensors(folder / name)
    return {key: value.float() for key, value in state.items()}


def refuse_used(folder: Path) -> None:
    """Find that `folder` is new, or an empty directory; ValueError, one line, where it is not."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; allowed: a new or an empty directory")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; allowed: a new or an empty directory")


def copy(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy the files called `names` from one folder to another, made if need be."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
