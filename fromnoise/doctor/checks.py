"""All checks, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fromnoise.doctor import (
    blocks,
    captions,
    data,
    fields,
    gradients,
    keeping,
    latents,
    optimisation,
    positions,
    sampling,
    schedule,
    time,
    vae,
)
from fromnoise.doctor.finding import Finding
from fromnoise.doctor.subject import Subject
from fromnoise.training.run import Run

Check = Callable[[Subject], Finding | None]

OF_DATA: tuple[Check, ...] = (
    latents.stored_scale,
    captions.cut_when_prepared,
    captions.contents,
    data.flips,
    data.held_out,
    data.memory,
    data.stored,
    data.shards,
)
"""What can be said of data by themselves."""

OF_STEPS: tuple[Check, ...] = (
    data.rehearsal,
    schedule.learning_rate,
    schedule.recorded_rate,
    optimisation.average,
    gradients.without_gradient,
    gradients.optimized,
    fields.unread_fields,
    keeping.seeds,
    keeping.round_trip,
    keeping.recorded_config,
    data.wait,
    data.recorded_wait,
    optimisation.one_batch,
)
"""What holds for whatever is trained."""

OF_RUN: tuple[Check, ...] = (
    schedule.terminal_signal,
    schedule.determinants,
    time.rank,
    time.same_time,
    positions.rotary,
    sampling.to_noise_and_back,
    sampling.guided_mean,
    sampling.null_condition,
    blocks.padding,
    blocks.fresh_blocks,
    blocks.logits,
    positions.devices,
    latents.latents,
    captions.cut,
    data.frozen_encoders,
    *OF_DATA,
    optimisation.parameters,
    *OF_STEPS,
)
"""Of a run that learns to draw."""

OF_VAE: tuple[Check, ...] = (vae.kl_weight, vae.scale, data.flips, data.held_out, data.memory, *OF_STEPS)
"""Of a run of a VAE."""


def checks_of(subject: Subject) -> tuple[Check, ...]:
    """The checks for what the subject is."""
    if subject.run is None:
        return OF_DATA
    return OF_RUN if isinstance(subject.run, Run) else OF_VAE


def examine(subject: Subject, advance: Callable[[int, int], None] = lambda done, total: None) -> list[Finding]:
    """What all checks find; `advance` is told (done, of how many)."""
    checks = checks_of(subject)
    found: list[Finding] = []
    for done, check in enumerate(checks, 1):
        finding = tried(check, subject)
        if finding is not None:
            found.append(finding)
        advance(done, len(checks))
    return found


def tried(check: Check, subject: Subject) -> Finding | None:
    """What `check` finds; where what it examines breaks under it, that."""
    try:
        return check(subject)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        name = check.__name__.replace("_", " ")
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Finding(name, "wrong", said, "what is examined here cannot be done at all", "mend what it names first")


def wrong(found: Iterable[Finding]) -> list[Finding]:
    """Those that tell of a fault."""
    return [finding for finding in found if finding.level == "wrong"]
