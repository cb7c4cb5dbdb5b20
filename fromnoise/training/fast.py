"""How a training runs fastest on this device: batch size, precision, compilation. Measured once, then kept.

A resumed run must make the same choices, or its weights would differ in the last bits: they are in measured.yaml.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from fromnoise.core.config import Config, read_yaml, write_yaml
from fromnoise.core.device import fast_bfloat16, has_bfloat16
from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.pipeline.pipeline import Precision
from fromnoise.training.run import Training, TrainingBase
from fromnoise.training.step import accumulate_gradients
from fromnoise.training.trainee import Model, Sample

SMALLEST_PART, LARGEST_PART = 16, 4096  # pictures of one forward that are tried
COMPILE_SECONDS = {"cpu": 40.0, "cuda": 90.0}  # to compile two kinds of block, forward and backward, and to try them
COMPILE_SAVES = 0.25  # share of an eager step
COMPILE_SAVES_CONVOLUTIONS = 0.05  # where blocks have them: on a CPU the same kernels, compiled or not
CLEARLY = 0.1  # share of an eager step that another precision than float32 must save: timings differ from run to run
TURNS = 3  # in which an eager step and a compiled one are compared; the middle one decides
SPARE_MEMORY = 0.1  # share of a GPU's memory left for what a trial does not see

Serve = Callable[[int], Sample]
"""A sample of as many pictures, on the CPU."""


class Choices(Config):
    """What was chosen, and where."""

    device: str
    """Kind of device it was measured on."""
    batch: int
    """Pictures an optimizer step sees."""
    precision: Precision
    """What matrix products run in."""
    compile: bool
    """Whether the backbone's blocks are compiled."""

    @property
    def dtype(self) -> torch.dtype | None:
        """For `autocast`."""
        return dtype_of(self.precision)


def choose(
    model: Model,
    serve: Serve,
    training: Training,
    file: Path,
    say: Callable[[str], None],
    sizes: int = 1,
    ranks: Ranks = ALONE,
) -> Choices:
    """The choices in `file`, or else those measured now, told, and written there.

    `sizes` is how many sizes pictures have: each has to be compiled. Of `ranks` each measures its share of a batch, at
    the same time; the slowest counts.

    Gradients are left at zero, and nothing else of the model is touched.
    """
    device, able = model.device.type, has_bfloat16(model.device)
    if training.precision == "bfloat16" and not able:
        say("training.precision is bfloat16, which this CPU multiplies number by number: float32 is far faster")
    if file.is_file():
        choices = read_yaml(Choices, file)
        slow = not able and choices.precision == "bfloat16" != training.precision
        if choices.device == device and not slow:
            return choices
        here = f"a {device} that cannot multiply bfloat16" if choices.device == device else device
        say(f"begun on {choices.device}, going on on {here}: measured anew, and not the same to the last bit")
        training = training.model_copy(update={"batch": choices.batch})
    parts = training.accumulate

    def sample(rows: int) -> Sample:
        return serve(rows).to(model.device)

    fast = fast_precision(model.device, training)  # where timings of two processes disagree, what is quick in both
    fast = fast if all(quick for (quick,) in ranks.every(fast == "bfloat16")) else "float32"
    batch = training.batch
    if batch == 0:
        part = _find_part(model, lambda part, who: seconds_of(model, sample(part), 1, dtype_of(fast), 1, who), ranks)
        batch = ranks.size * parts * part
        say(f"batch {batch}, found by trying")
    precision, compile = _quickest(model, sample(batch // ranks.size), training, fast, say, sizes, ranks)
    choices = Choices(device=device, batch=batch, precision=precision, compile=compile)
    choices = Choices.model_validate_json(ranks.agreed(choices.model_dump_json()))
    if ranks.first:  # as all have agreed, none is left that could find the file it has just written
        write_yaml(choices, file)
    return choices


def dtype_of(precision: Precision) -> torch.dtype | None:
    """For `autocast`."""
    return torch.bfloat16 if precision == "bfloat16" else None


def seconds_of(
    model: Model,
    sample: Sample,
    parts: int,
    dtype: torch.dtype | None,
    repeats: int,
    ranks: Ranks = ALONE,
    first: int = 1,
) -> float:
    """Seconds of a forward and backward: the best of `repeats`, after the `first`, which do not count, of the slowest
    process."""
    best = float("inf")
    for trial in range(first + repeats):
        start = time.perf_counter()
        accumulate_gradients(model, sample, parts, dtype).sum().item()  # .item() waits for the device
        if trial >= first:
            best = min(best, time.perf_counter() - start)
        model.zero_grad()
    return max(ranks.every(best))[0]


def quickest_part(seconds: Callable[[int], float]) -> int:
    """The smallest number of pictures at which a second trains nearly as many as it can. For CPUs: more would only
    mean fewer steps."""
    speeds = {}
    part = SMALLEST_PART
    while part <= LARGEST_PART:
        speeds[part] = part / seconds(part)
        if speeds[part] < 1.02 * max([0.0, *(speed for other, speed in speeds.items() if other < part)]):
            break
        part *= 2
    return min(part for part, speed in speeds.items() if speed >= 0.95 * max(speeds.values()))


def largest_part(fits: Callable[[int], bool]) -> int:
    """The largest power of two of pictures that fits. For GPUs.

    Raises:
        ValueError: one line, when not even the smallest does.
    """
    part = SMALLEST_PART
    while part <= LARGEST_PART and fits(part):
        part *= 2
    if part == SMALLEST_PART:
        raise ValueError(f"not even {part} pictures fit this GPU's memory; choose a smaller model, size or batch")
    return part // 2


def _find_part(model: Model, seconds: Callable[[int, Ranks], float], ranks: Ranks) -> int:
    """seconds: of a part of as many pictures, the slowest's among the ranks that it is given."""
    if model.device.type != "cuda":
        return quickest_part(lambda part: seconds(part, ranks))
    _, total = torch.cuda.mem_get_info(model.device)
    moments = 8 * sum(p.numel() for p in model.parameters())  # bytes that AdamW takes at its first step

    def fits(part: int) -> bool:
        torch.cuda.reset_peak_memory_stats(model.device)
        try:
            seconds(part, ALONE)  # where it does not fit one, the others must not wait for its time
            peak = torch.cuda.max_memory_allocated(model.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            peak = total
        return all(told for (told,) in ranks.every(peak + moments <= (1 - SPARE_MEMORY) * total))

    return largest_part(fits)


def fast_precision(device: torch.device, training: TrainingBase) -> Precision:
    """What a compiled step runs in, and an eager one on a GPU: bfloat16 wherever its products are the faster ones."""
    if training.precision != "auto":
        return training.precision
    return "bfloat16" if fast_bfloat16(device) else "float32"


def eager_precisions(device: torch.device, training: TrainingBase, fast: Precision) -> tuple[Precision, ...]:
    """What an eager step may run in, where `fast` has the faster products. On a CPU only trying tells: a small network
    spends more time on casting to bfloat16 than its products save."""
    return ("float32", fast) if (device.type, training.precision, fast) == ("cpu", "auto", "bfloat16") else (fast,)


def quickest(seconds: Mapping[Precision, float]) -> Precision:
    """The precision of the fewest seconds; float32 where another is not clearly the quicker."""
    return min(seconds, key=lambda one: seconds[one] * (1 - CLEARLY if one == "float32" else 1))


def convolves(model: Model) -> bool:
    """Whether what would be compiled of it has convolutions."""
    return any(isinstance(module, nn.Conv2d) for block in model.blocks() for module in block.modules())


def _quickest(
    model: Model,
    sample: Sample,
    training: Training,
    fused: Precision,
    say: Callable[[str], None],
    sizes: int,
    ranks: Ranks,
) -> tuple[Precision, bool]:
    """Precision, and whether to compile, which is tried in `fused`: what ends the planned steps soonest, compilation
    included.

    Raises:
        ValueError: one line, when it is to compile, and cannot.
    """
    parts, steps = training.accumulate, training.steps
    if training.compile == "on":
        if error := _compiling(model, sample, parts, fused):
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"training.compile is on, and compiling fails: {why}; allowed: auto, off") from error
        return fused, True
    precisions = eager_precisions(model.device, training, fused)
    if training.compile == "off" and len(precisions) == 1:
        return fused, False
    tried = _eager(model, sample, parts, precisions, ranks)
    plain = quickest(tried)
    if training.compile == "off":
        say(f"{plain}, not compiled: a forward and backward takes {_told(tried)}")
        return plain, False
    if not repays(model, steps, tried[plain], sizes):
        say(f"{plain}, not compiled: {steps} steps of {tried[plain]:.3g} s would not repay {_compilations(sizes)}")
        return plain, False
    start = time.perf_counter()
    error = _compiling(model, sample, parts, fused)
    if any(failed for (failed,) in ranks.every(error is not None)):
        say(f"{plain}, not compiled: it fails here ({type(error).__name__ if error else 'in another process'})")
        return plain, False
    turns = [_turn(model, sample, parts, plain, fused, ranks) for _ in range(TURNS)]
    spent = time.perf_counter() - start
    tried[plain], quick = sorted(turns, key=lambda turn: turn[1] / turn[0])[TURNS // 2]
    pays = quick < tried[plain]
    times = f"a forward and backward takes {quick:.3g} s compiled in {fused}, {_told(tried)}"
    say(f"{fused + ', compiled' if pays else plain + ', not compiled'}: {times}; tried in {spent:.0f} s")
    return (fused, True) if pays else (plain, False)


def _compiling(model: Model, sample: Sample, parts: int, precision: Precision) -> Exception | None:
    """Take a compiled step; what is wrong where that cannot be: no compiler, or one of the many ways in which it gives
    up."""
    try:
        with model.compiled():
            seconds_of(model, sample, parts, dtype_of(precision), 0)
    except Exception as error:
        return error
    return None


def _eager(
    model: Model, sample: Sample, parts: int, precisions: Sequence[Precision], ranks: Ranks
) -> dict[Precision, float]:
    """Seconds of an eager step in each of the precisions, taken in turns, as a slow minute is no reason to choose one:
    the best of two, after one that does not count."""
    turns = [
        [seconds_of(model, sample, parts, dtype_of(one), 1, ranks, first) for one in precisions] for first in (1, 0)
    ]
    return {one: min(seconds) for one, *seconds in zip(precisions, *turns, strict=True)}


def _turn(
    model: Model, sample: Sample, parts: int, plain: Precision, fused: Precision, ranks: Ranks
) -> tuple[float, float]:
    """Seconds of an eager step and of a compiled one right after it: a slow minute slows both."""
    eager = seconds_of(model, sample, parts, dtype_of(plain), 1, ranks, 0)
    with model.compiled():
        return eager, seconds_of(model, sample, parts, dtype_of(fused), 1, ranks, 0)


def _told(tried: Mapping[Precision, float]) -> str:
    return ", ".join(f"{seconds:.3g} s eager in {one}" for one, seconds in tried.items())


def repays(model: Model, steps: int, eager: float, sizes: int) -> bool:
    """Whether so many steps of `eager` seconds are enough to try to compile them for pictures of so many `sizes`."""
    cost = COMPILE_SECONDS.get(model.device.type)
    saves = COMPILE_SAVES_CONVOLUTIONS if model.device.type == "cpu" and convolves(model) else COMPILE_SAVES
    return cost is not None and steps * eager * saves >= cost * sizes


def _compilations(sizes: int) -> str:
    return "compilation" if sizes == 1 else f"{sizes} compilations, one for each size of pictures"
