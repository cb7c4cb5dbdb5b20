"""plan.json: what a data set is being prepared with, and in which portions; written before anything else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from fromnoise.core.config import Config, explain
from fromnoise.core.files import write_text
from fromnoise.core.lock import LOCK
from fromnoise.data.manifest import Layout, refuse_another
from fromnoise.data.pictures import RESIZING
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.sources.source import Source

PLAN = "plan.json"
PARTIAL = re.compile(r"\..*\.tmp")  # what a killed process leaves of a file
KNOWN = {"vae", "text"}  # told by the layout: by what these files hold, wherever they lie


class Plan(Config):
    """What decides every byte of a prepared data set."""

    format: Literal["fromnoise plan 1"] = "fromnoise plan 1"
    """Name and version."""
    source: str
    """How much there is, and where it is said."""
    parts: dict[str, str]
    """What decides the entries of the source, by name, to a sha256 each."""
    layout: Layout
    settings: dict[str, Any]
    """How pictures are read and resized: the fields of `Preparation`, less those that the layout tells, and by what."""
    portions: tuple[dict[str, Any], ...]
    """What each shard is made of, in order."""

    @classmethod
    def of(cls, source: Source, settings: Preparation, layout: Layout) -> Plan:
        """The plan to prepare `source`."""
        return cls(
            source=source.about,
            parts=source.parts,
            layout=layout,
            settings=settings.model_dump(mode="json", exclude=KNOWN) | {"resizing": RESIZING},
            portions=tuple(source.portions),
        )

    @property
    def shards(self) -> list[str]:
        """Names of the files, portion by portion."""
        return [f"{i:06}.safetensors" for i in range(len(self.portions))]

    def write(self, directory: Path) -> None:
        """Write it to `directory`, whole or not at all; errors as in `write_text`."""
        write_text(directory / PLAN, json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def check(directory: Path, plan: Plan) -> None:
    """Find that `directory` is free, or that what is there is prepared by the same plan.

    Raises:
        ValueError: one line that names the first difference.
    """
    path = directory / PLAN
    if not path.exists():
        names = sorted(one.name for one in directory.iterdir())
        if other := next((name for name in names if name != LOCK and not PARTIAL.fullmatch(name)), None):
            raise ValueError(f"{directory} holds files ({other}) but no {PLAN}; choose a new or an empty directory")
        return
    try:
        there = Plan.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    refuse_another(directory, there.layout, plan.layout)
    for name in [*there.settings, *plan.settings]:
        old, new = there.settings.get(name), plan.settings.get(name)
        if old != new:
            raise ValueError(f"{directory} was prepared with {name} {old!r}, not {new!r}; choose another directory")
    for name in [*there.parts, *plan.parts]:
        if there.parts.get(name) != plan.parts.get(name):
            what = f"{name} is another one than {directory} was prepared from, or has changed since"
            raise ValueError(f"{what} (it was {there.source}); choose another directory")


def sweep(directory: Path) -> None:
    """Remove what killed processes left of files in `directory`."""
    for path in directory.iterdir():
        if PARTIAL.fullmatch(path.name):
            path.unlink()
