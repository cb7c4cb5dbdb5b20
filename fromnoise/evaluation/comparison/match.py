"""Who is compared, and what must be equal for the comparison to mean something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fromnoise.core.line import quiet
from fromnoise.core.types import Data
from fromnoise.evaluation import cost
from fromnoise.evaluation.comparison.place import identity
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.checkpoint import steps_done
from fromnoise.training.directory import another, derive
from fromnoise.training.drawing import CAPTIONS
from fromnoise.training.run import Run

Match = Literal["parameters", "compute", "none"]
TOLERANCE = 0.02  # by which what is to be equal may differ


class Entry(NamedTuple):
    """What was named: a run to be trained, or, where there is a directory, one that is finished."""

    name: str
    run: Run
    directory: Path | None

    @property
    def identity(self) -> str:
        """As `place.identity`."""
        return identity(self.run, self.directory)


class Contender(NamedTuple):
    """One side of the comparison: settings, and a run of them for each seed."""

    name: str
    run: Run
    runs: dict[int, Path | None]  # by seed; None is still to be trained
    parameters: int
    flops: int  # of one forward of one sample
    training_flops: int  # of one sample of an optimizer step

    @property
    def pictures(self) -> int:
        """Pictures trained on, with repetition."""
        return self.run.training.steps * self.run.training.batch

    @property
    def compute(self) -> int:
        """Operations of the whole training."""
        return self.pictures * self.training_flops


def contenders(entries: Sequence[Entry], seeds: int, data: Data) -> list[Contender]:
    """The sides: a recipe has a run for each seed from 0; finished runs that differ in the seed only are one, whatever
    they are called and however they were watched and kept (`another`).

    Raises:
        ValueError: one line, when they cannot be compared at all.
    """
    if len(entries) < 2:
        raise ValueError(f"{len(entries)} recipe is given; allowed: two or more, or finished runs of them")
    groups: list[tuple[str, Run, dict[int, Path | None]]] = []
    for name, run, directory in entries:
        run = derive(run, data, quiet)
        if run.training.batch == 0:
            raise ValueError(f"training.batch of {name} is 0 (found by trying); a comparison needs a number")
        if directory is None:
            groups.append((name, run, dict.fromkeys(range(seeds))))
            continue
        refuse_unfinished(run, directory)
        seed = run.training.seed
        unseeded = [(seeded(other, 0), runs) for _, other, runs in groups if None not in runs.values()]
        same = [runs for other, runs in unseeded if not another(other, seeded(run, 0))]
        if any(seed in runs for runs in same):
            raise ValueError(f"{directory} is given twice, or is the same run with the same seed as another one")
        if same:
            same[0][seed] = directory
        else:
            groups.append((name, run, {seed: directory}))
    if len(groups) < 2:
        raise ValueError(f"all runs given are of {groups[0][0]}, with other seeds: there is nothing to compare it with")
    return [counted(name, run, runs, data) for (_, run, runs), name in zip(groups, _names(groups), strict=True)]


def refuse_other_data(entries: Sequence[Entry]) -> None:
    """Find that all are trained on the same pictures, as far as is recorded.

    Raises:
        ValueError: one line, naming two that are not, and how they differ.
    """
    first = entries[0]
    for other in entries[1:]:
        a, b = first.run.data.model_dump(mode="json"), other.run.data.model_dump(mode="json")
        if None in (a.get("sha256"), b.get("sha256")):  # of a recipe, whose data tell it when they are read
            a["sha256"] = b["sha256"] = None
        key = next((key for key in a if a[key] != b.get(key)), None)
        if key:
            raise ValueError(
                f"recipes cannot be matched: data.{key} is {a[key]!r} in {first.name}, {b.get(key)!r} in {other.name}; "
                f"compare recipes on the same data"
            )


def refuse_unfinished(run: Run, directory: Path) -> None:
    """Find that the training in `directory` has come to its end; else ValueError in one line."""
    step = steps_done(directory / "checkpoints")
    if step < run.training.steps:
        more = f"finish it first: fromnoise train {directory}"
        raise ValueError(f"{directory} is not finished: step {step} of {run.training.steps}; {more}")


def matched(
    sides: Sequence[Contender], match: Match, steps: int | None, say: Callable[[str], None]
) -> tuple[list[Contender], str]:
    """The sides with the steps they are to be trained for, and what is equal, in one sentence.

    steps: for all, or, with equal compute, for the first; None as each recipe has it.

    Raises:
        ValueError: one line, when what is to be equal is not, and cannot be made so.
    """
    asked = [with_steps(side, steps) if steps else side for side in sides]
    if match == "none":
        return asked, "Nothing was asked to be equal: look at parameters, pictures and FLOPs before all else."
    if match == "parameters":
        _alike("parameters", {side.name: side.parameters for side in asked}, "--match compute or --match none")
        _alike("pictures trained on", {side.name: side.pictures for side in asked}, "--training-steps or --match none")
        return asked, "Equal parameters (within 2 %) and equal numbers of pictures trained on."
    budget = asked[0].compute
    derived = [asked[0]]
    for side in asked[1:]:
        each = side.training_flops * side.run.training.batch
        derived.append(with_steps(side, max(1, round(budget / each))))
        if derived[-1].run.training.steps != side.run.training.steps:
            before, now = side.run.training.steps, derived[-1].run.training.steps
            say(f"{side.name}: {now:,} steps in place of {before:,}, for the FLOPs of {asked[0].name}")
    _alike("training FLOPs", {side.name: side.compute for side in derived}, "more --training-steps or --match none")
    return derived, f"Equal training compute: {budget:.3g} FLOPs each (within 2 %), as the first one needs."


def with_steps(side: Contender, steps: int) -> Contender:
    """The side trained for other steps; finished runs stay as they are."""
    if None not in side.runs.values():
        return side
    training = side.run.training.model_copy(update={"steps": steps})
    return side._replace(run=side.run.model_copy(update={"training": training}))


def seeded(run: Run, seed: int) -> Run:
    """The same run from another seed: initial weights, order of the data, times and noise."""
    return run.model_copy(update={"training": run.training.model_copy(update={"seed": seed})})


def _alike(what: str, counts: dict[str, int], instead: str) -> None:
    if max(counts.values()) > (1 + TOLERANCE) * min(counts.values()):
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise ValueError(f"recipes cannot be matched: {what} differ: {listed}; allowed: within 2 %; or use {instead}")


def counted(name: str, run: Run, runs: dict[int, Path | None], data: Data) -> Contender:
    """One side, and what its model costs."""
    pipeline = Pipeline.build(run.model, data.captions(CAPTIONS), 0)
    return Contender(name, run, runs, cost.parameters(pipeline), cost.flops(pipeline), cost.training_flops(pipeline))


def _names(groups: Sequence[tuple[str, Run, dict[int, Path | None]]]) -> list[str]:
    """A name for each that no other has."""
    names: list[str] = []
    for name, _, _ in groups:
        taken = [name, *(f"{name}-{n}" for n in range(2, len(groups) + 1))]
        names.append(next(free for free in taken if free not in names))
    return names
