"""Prompt adherence on shapes: does the picture show exactly what was asked for? A strict yes or no, from pixels alone.

The rules are GenEval's (Ghosh et al. 2023): a relation's offset is first shrunk by a tenth of both objects' widths, one
object too many is wrong, and so is foreground that is no object.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from fromnoise.core.device import fast_bfloat16
from fromnoise.core.files import write_bytes
from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.data.scenes import COLOURS, HELD_OUT, SHAPES, TASKS, Prompt, draw_prompt, draw_things
from fromnoise.data.shapes import render
from fromnoise.evaluation.intervals import mean_share, wilson
from fromnoise.evaluation.judges import second
from fromnoise.evaluation.judges.detect import SPECK, Seen, detect
from fromnoise.evaluation.judges.instead import Instead, confusion, instead, reasons
from fromnoise.pipeline.pictures import as_png, grid
from fromnoise.pipeline.pipeline import Pipeline

HELD_OUT_TASKS = ("colors", "position", "color_attr")
SHOWN = 64  # most pictures on a sheet
REAL = 400  # true renders that both judges are tried on
CHANCE = (1 / len(SHAPES) + 1 / (len(SHAPES) * len(COLOURS) - len(HELD_OUT))) * 7 / 8 / len(TASKS)
"""Most that `overall` is of pictures that do not hang on their prompts: 1/36, by one and the same single object. One of
6 prompts of single_object asks for it and one of 42 of colors, less the eighth that asks for it in the other size. Two
objects fit one of 15 pairs of shapes in two_object, and a few prompts of other tasks; alike ones fit only counting."""

Progress = Callable[[int, int], None]


class Picture(NamedTuple):
    """One picture, drawn and judged."""

    task: str
    prompt: Prompt
    pixels: np.ndarray  # (H, W, 3) float32 in [0, 1]
    instead: Instead  # by the checker
    glance: second.Glance  # by the second judge

    @property
    def right(self) -> bool:
        return not self.instead.reasons

    @property
    def disputed(self) -> bool:
        return self.right != self.glance.shows(self.prompt)


def correct(prompt: Prompt, picture: np.ndarray, size: int | None = None) -> bool:
    """True if a picture (H, W, 3) of float values in [0, 1] shows what the prompt says, no less and no more.

    size: as in `detect`, for a picture on a larger canvas.
    """
    return shows(detect(picture, size), prompt)


def shows(seen: Seen, prompt: Prompt) -> bool:
    """True if what is seen is what the prompt says, no less and no more."""
    return seen.unexplained <= SPECK and prompt.holds(seen.things)


def draw_prompts(n: int, seed: int) -> dict[str, list[Prompt]]:
    """About n / 6 prompts of each task, and as many under "held_out" that name a pair never seen in training."""
    rng = Random(f"evaluation/{seed}")
    shares = [n // len(TASKS) + (k < n % len(TASKS)) for k in range(len(TASKS))]
    drawn = {task: [draw_prompt(rng, task) for _ in range(share)] for task, share in zip(TASKS, shares, strict=True)}
    drawn["held_out"] = [
        draw_prompt(rng, HELD_OUT_TASKS[k % len(HELD_OUT_TASKS)], held_out=True) for k in range(shares[0])
    ]
    return drawn


def evaluate(
    pipeline: Pipeline,
    n: int = 1000,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = 64,
    progress: Progress = lambda done, total: None,
    sheets: Path | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Draw n prompts over the six tasks (and n / 6 held out) and judge each picture, picture i from the noise of
    `seed` + i.

    Returns, plain for JSON: "adherence", the share of pictures that are right for each task, "overall" (mean of the
    six) and "held_out"; "intervals" of them at 95 % (`wilson`, `mean_share`); "instead", why pictures are wrong and
    what was seen for what was asked; "second", what the second judge makes of them; "drawing", how they were drawn.

    sheets: a directory to write failures.png and disputed.png into, the first `SHOWN` of each. ranks: processes that
    share drawing; each then has all pictures.

    Raises:
        ValueError: one line, when the model does not draw square RGB pictures, or a task would have no prompt.
    """
    if pipeline.config.channels != 3:
        raise ValueError(f"adherence judges RGB pictures; this model draws {pipeline.config.channels} channels")
    if n < len(TASKS):
        raise ValueError(f"n is {n}; adherence needs {len(TASKS)} prompts at least, one of each task")
    asked = draw_prompts(n, seed)
    queue = [(task, prompt) for task, prompts in asked.items() for prompt in prompts]
    begin, used = time.perf_counter(), time.process_time()
    begun, end = ranks.share(len(queue))
    drawn = [np.empty((0, pipeline.config.size, pipeline.config.size, 3), np.float32)]
    for first in range(begun, end, batch):
        last = min(first + batch, end)
        images = pipeline([prompt.text for _, prompt in queue[first:last]], steps, guidance, seed + first)
        drawn.append(np.stack([as_array(image) for image in images]))
        progress(last - begun, end - begun)
    pictures = ranks.rows(torch.from_numpy(np.concatenate(drawn)), len(queue)).numpy()  # (N, H, W, 3)
    middle = time.perf_counter()
    drawing = {
        "prompts": n,
        "pictures": len(queue),
        "seed": seed,
        **pipeline.sampling(None, steps, guidance).model_dump(mode="json"),
        "precision": "bfloat16" if fast_bfloat16(pipeline.device) else "float32",
        "seconds": round(middle - begin, 2),
        "processor_seconds": round(time.process_time() - used, 2),
    }
    found = judge(queue, pictures)
    if sheets:
        write_sheets(found, sheets)
    results = summary(found) | {"second": opinion(found, seed)}
    return results | {"drawing": drawing | {"judging_seconds": round(time.perf_counter() - middle, 2)}}


def judge(queue: Sequence[tuple[str, Prompt]], pictures: np.ndarray) -> list[Picture]:
    """What both judges say of pictures (N, H, W, 3) of prompts, each under its task."""
    network, _ = second.load()
    seen, glances = look(pictures), network.look(pictures)
    return [
        Picture(task, prompt, pixels, instead(prompt, one), glance)
        for (task, prompt), pixels, one, glance in zip(queue, pictures, seen, glances, strict=True)
    ]


def look(pictures: np.ndarray) -> list[Seen]:
    """What the checker sees in pictures (N, H, W, 3)."""
    return [detect(picture) for picture in pictures]


def summary(found: Sequence[Picture]) -> dict[str, Any]:
    """Shares with their intervals, and what was drawn instead."""
    right = {task: [one.right for one in found if one.task == task] for task in (*TASKS, "held_out")}
    shares = {task: sum(some) / len(some) for task, some in right.items()}
    known = {task: list(wilson(sum(some), len(some))) for task, some in right.items()}
    held_out, held_interval = shares.pop("held_out"), known.pop("held_out")
    overall = list(mean_share([(sum(right[task]), len(right[task])) for task in TASKS]))
    wrong = [one.instead for one in found if not one.right]
    return {
        "adherence": {**shares, "overall": sum(shares.values()) / len(shares), "held_out": held_out},
        "intervals": {**known, "overall": overall, "held_out": held_interval},
        "instead": {
            "wrong": len(wrong),
            "reasons": reasons(wrong),
            "confusion": confusion(one.instead for one in found),
        },
    }


def opinion(found: Sequence[Picture], seed: int) -> dict[str, Any]:
    """What the second judge says beside the checker: of the pictures, and of as many true renders, at most `REAL`.

    overall: mean over the tasks of the share that it finds right. agree: share on which both say the same.
    only_checker, only_network: pictures that one of them alone finds right. pleases_checker: whether the checker alone
    is pleased more often than by true renders, beyond chance (the 95 % intervals are apart).
    """
    rng = Random(f"evaluation/real/{seed}")
    prompts = [(one.task, one.prompt) for one in found]
    queue = rng.sample(prompts, min(REAL, len(prompts)))
    side = found[0].pixels.shape[0]
    real = judge(queue, render([draw_things(rng, prompt) for _, prompt in queue], side))
    told = _beside(found)
    shares = [[one.glance.shows(one.prompt) for one in found if one.task == task] for task in TASKS]
    by_task = [sum(some) / len(some) for some in shares]
    floor = _beside(real)
    least = wilson(told["only_checker"], len(found))[0]
    most = wilson(floor["only_checker"], len(real))[1]
    _, known = second.load()
    return {
        "overall": sum(by_task) / len(by_task),
        "overall_interval": list(mean_share([(sum(some), len(some)) for some in shares])),
        **told,
        "true_renders": floor,
        "pleases_checker": least > most,
        "sha256": known["sha256"],
    }


def _beside(found: Sequence[Picture]) -> dict[str, Any]:
    """How both judges stand to each other on these pictures."""
    pairs = [(one.right, one.glance.shows(one.prompt)) for one in found]
    agree = sum(a == b for a, b in pairs)
    return {
        "pictures": len(pairs),
        "checker": sum(a for a, _ in pairs) / len(pairs),
        "network": sum(b for _, b in pairs) / len(pairs),
        "agree": agree / len(pairs),
        "agree_interval": list(wilson(agree, len(pairs))),
        "only_checker": sum(a and not b for a, b in pairs),
        "only_network": sum(b and not a for a, b in pairs),
    }


def write_sheets(found: Sequence[Picture], directory: Path) -> None:
    """failures.png and disputed.png: the first pictures that are wrong, and those on which the judges part, each over
    its prompt and what is said against it. One that has no picture is not written, and an older one goes."""
    directory.mkdir(parents=True, exist_ok=True)
    failures = [(one, ", ".join(one.instead.reasons)) for one in found if not one.right]
    disputed = [(one, "checker: right" if one.right else "network: right") for one in found if one.disputed]
    for name, some in (("failures", failures[:SHOWN]), ("disputed", disputed[:SHOWN])):
        path = directory / f"{name}.png"
        path.unlink(missing_ok=True)
        if some:
            pictures = [Image.fromarray((one.pixels * 255).round().astype(np.uint8)) for one, _ in some]
            labels = [f"{one.prompt.text} [{said}]" for one, said in some]
            write_bytes(path, as_png(grid(pictures, 8, labels)))


def as_array(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    return np.asarray(picture.convert("RGB"), np.float32) / 255
