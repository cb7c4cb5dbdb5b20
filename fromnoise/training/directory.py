"""A run's directory: what is derived from the data, and whether what is there already is the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from fromnoise.core.config import Config, read_yaml, write_yaml
from fromnoise.core.types import Data
from fromnoise.data.bucketed import BucketData
from fromnoise.data.config import OWN_DATA
from fromnoise.data.folder import FolderData
from fromnoise.data.prepared import PreparedData
from fromnoise.pipeline.place import directory_of
from fromnoise.training.latents import measured_space
from fromnoise.training.prepared import matched
from fromnoise.training.run import Run, VAERun, read_run

AnyRun = TypeVar("AnyRun", Run, VAERun)
TOLD = ("recipe", "model.conditioner.names")
"""Fields for people, which decide nothing."""
HARMLESS = (
    *("parallel", "recompute", "log_every", "save_every", "keep", "validate_every", "preview_every", "previews"),
    "tensorboard",
)
"""Fields of `Training` that decide nothing about the weights: they may change from one start to the next."""


def derive(run: Run, data: Data, say: Callable[[str], None]) -> Run:
    """`run` with what follows from the data filled in, and told; errors as in `sealed`, and where they do not fit."""
    run = sealed(run, data)
    channels, size, _ = data.image_shape
    if run.training.batch % run.training.accumulate:
        raise ValueError(
            f"training.batch is {run.training.batch}; allowed: multiples of training.accumulate, "
            f"{run.training.accumulate}"
        )
    if size % run.model.backbone.multiple:
        raise ValueError(
            f"pictures of {size} pixels do not fit model.backbone ({run.model.backbone.type}), which takes multiples "
            f"of {run.model.backbone.multiple}: choose another data.size, patch or number of levels"
        )
    if (channels, size) != (run.model.channels, run.model.size):
        say(f"from the data: model.size {size}, model.channels {channels}")
    run = run.model_copy(update={"model": run.model.model_copy(update={"channels": channels, "size": size})})
    return measured_space(matched(run, data, say) if isinstance(data, PreparedData) else run, data, say)


def sealed(run: AnyRun, data: Data) -> AnyRun:
    """`run` with the hash of its data filled in, where they are a user's own.

    Raises:
        ValueError: one line, when others were recorded with the run.
    """
    config = run.data
    if not isinstance(config, OWN_DATA) or not isinstance(data, FolderData | BucketData | PreparedData):
        return run
    if config.sha256 not in (None, data.sha256):
        raise ValueError(
            f"{config.path} holds other pictures or captions (sha256 {data.sha256[:12]}...) than the run was begun "
            f"with ({str(config.sha256)[:12]}...): put those back, or begin another run, with its weights by start.run"
        )
    return run.model_copy(update={"data": config.model_copy(update={"sha256": data.sha256})})


def refuse_another(run: Run | VAERun, directory: Path) -> None:
    """Find that `directory` is that of `run`, or free.

    Raises:
        ValueError: one line, when another run is there, or files that are no run.
    """
    record = directory / "run.yaml"
    if record.is_file():
        if found := another(read_run(record), run):
            key, old, new = found
            if key == "training.steps":
                why = "its learning rate and its average depend on the steps planned, from the first one on"
                raise ValueError(f"{directory} holds a run of {old} steps, not {new}: {why}; choose another directory")
            difference = f"{key} is {old!r} there, {new!r} here"
            if key == "data.sha256":
                difference += ", as its pictures or captions have changed since"
            raise ValueError(f"{directory} holds another run: {difference}; choose another directory")
    elif directory.is_dir() and any(not path.name.startswith(".") for path in directory.iterdir()):
        raise ValueError(f"{directory} holds files but no run.yaml: it is no run; choose a new or an empty directory")


def run_of(weights: Path) -> Run | None:
    """The run that a file of weights is from; None where only the file is known."""
    directory = directory_of(weights)
    return read_yaml(Run, directory / "run.yaml") if directory else None


def claim(run: Run | VAERun, directory: Path) -> None:
    """Make `directory` that of `run`; for a run that is known to build, so that no mistake claims a directory.

    Raises:
        ValueError: as `refuse_another`.
    """
    refuse_another(run, directory)
    write_yaml(run, directory / "run.yaml")


def another(there: Run | VAERun, here: Run | VAERun) -> tuple[str, Any, Any] | None:
    """The first key that makes them different runs, and both values; None where they are the same. What a run learned
    from is not known of those begun before it was recorded."""
    harmless = {*TOLD, *(f"training.{name}" for name in HARMLESS)}
    if dict(there.data).get("sha256") is None:
        harmless.add("data.sha256")
    return next((found for found in differences(there, here) if found[0] not in harmless), None)


def differences(there: Config, here: Config) -> Iterator[tuple[str, Any, Any]]:
    """The keys whose values differ, and both values."""
    old, new = dict(leaves(there.model_dump(mode="json"))), dict(leaves(here.model_dump(mode="json")))
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a tree of mappings, each with its dotted key."""
    if not isinstance(tree, dict):
        yield prefix.rstrip("."), tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{prefix}{key}.")
