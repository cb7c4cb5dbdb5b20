"""A run as a training would begin it: with its data, and all that is derived from them; and how far it has come."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fromnoise.core.config import read_yaml
from fromnoise.core.line import quiet
from fromnoise.core.types import Data
from fromnoise.data.prepared import PreparedData
from fromnoise.pipeline.place import list_checkpoints
from fromnoise.planning.absent import Say, find_data
from fromnoise.space.config import LatentConfig
from fromnoise.training.checkpoint import read_progress
from fromnoise.training.directory import another
from fromnoise.training.fast import Choices
from fromnoise.training.latents import recorded_space
from fromnoise.training.loop import settled
from fromnoise.training.origin import find_origin
from fromnoise.training.reconstruction import fit
from fromnoise.training.run import Run, VAERun, read_run

BATCH = 64  # assumed where a run leaves it to be found by trying


class Done(NamedTuple):
    """How far a run has come."""

    step: int
    seconds: float
    choices: Choices | None
    """Batch, precision and compilation, as they were found when it began."""


def done_in(run: Run | VAERun, directory: Path | None, assume: Say) -> Done:
    """What of `run` is done in `directory`; nothing where there is none.

    Raises:
        ValueError: one line, when the directory has no checkpoint.
    """
    if directory is None:
        return Done(0, 0.0, None)
    if found := another(read_run(directory / "run.yaml"), run):
        key, old, new = found
        assume(f"a training from the start: {key} is {old!r} in {directory}, {new!r} here")
        return Done(0, 0.0, None)
    saved = list_checkpoints(directory / "checkpoints")
    if not saved:
        raise ValueError(f"no checkpoint in {directory}: nothing of it is done; plan it as {directory / 'run.yaml'}")
    progress = read_progress(saved[-1] / "optimizer.safetensors")
    measured = directory / "measured.yaml"
    choices = read_yaml(Choices, measured) if measured.is_file() else None
    return Done(progress.step, progress.seconds, choices)


def settle(
    run: Run | VAERun, directory: Path | None, choices: Choices | None, processes: int, assume: Say
) -> tuple[Run | VAERun, Data]:
    """`run` with all that is derived, and its data or what stands in for them."""
    if run.training.batch == 0:
        batch = choices.batch if choices else BATCH * run.training.accumulate * processes
        if not choices:
            assume(f"batch {batch}: training.batch is 0, which finds one by trying as the training begins")
        run = run.model_copy(update={"training": run.training.model_copy(update={"batch": batch})})
    data = find_data(run, assume)
    if isinstance(run, VAERun):
        return fit(run, data, quiet), data
    old = find_origin(run, directory)
    run = _scaled(recorded_space(run, directory, run.start.run), data, assume)
    return settled(run, old, directory, data, quiet), data


def _scaled(run: Run, data: Data, assume: Say) -> Run:
    """`run` with shift 0 and scale 1 where a training would measure them first, which takes long."""
    space = run.model.space
    told = isinstance(data, PreparedData) or not isinstance(space, LatentConfig) or (space.shift and space.scale)
    if told:
        return run
    assume("shift and scale of the latents are measured as the training begins")
    space = space.model_copy(update={"shift": (0.0,), "scale": (1.0,)})
    return run.model_copy(update={"model": run.model.model_copy(update={"space": space})})
