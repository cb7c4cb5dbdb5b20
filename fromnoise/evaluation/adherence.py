"""Prompt adherence on shapes: does the picture show exactly what was asked for? A strict yes or no, from pixels alone.

The rules are GenEval's (Ghosh et al. 2023): a relation's offset is first shrunk by a tenth of both objects' widths, one
object too many is wrong, and so is foreground that is no object.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image

from fromnoise.data.scenes import TASKS, Prompt, draw_prompt
from fromnoise.evaluation.detect import SPECK, Seen, detect
from fromnoise.pipeline.pipeline import Pipeline

HELD_OUT_TASKS = ("colors", "position", "color_attr")


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
    batch: int = 100,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, float]]:
    """Draw n prompts over the six tasks (and n / 6 held out) and judge each picture.

    Returns {"adherence": share of pictures that are right for each task, "overall" (mean of the six) and "held_out",
    "drawing": how they were drawn}. Raises ValueError if the model does not draw square RGB pictures.
    """
    if pipeline.config.channels != 3:
        raise ValueError(f"adherence judges RGB pictures; this model draws {pipeline.config.channels} channels")
    asked = draw_prompts(n, seed)
    queue = [(task, prompt) for task, prompts in asked.items() for prompt in prompts]
    right = dict.fromkeys(asked, 0)
    begin = time.perf_counter()
    for first in range(0, len(queue), batch):
        part = queue[first : first + batch]
        pictures = pipeline([prompt.text for _, prompt in part], steps=steps, guidance=guidance, seed=seed + first)
        for (task, prompt), picture in zip(part, pictures, strict=True):
            right[task] += correct(prompt, as_array(picture))
        progress(first + len(part), len(queue))
    scores = {task: right[task] / max(len(prompts), 1) for task, prompts in asked.items()}
    held_out = scores.pop("held_out")
    adherence = {**scores, "overall": sum(scores.values()) / len(scores), "held_out": held_out}
    settings = pipeline.config.sampling
    drawing = {
        "prompts": n,
        "seed": seed,
        "steps": steps or settings.steps,
        "guidance": settings.guidance if guidance is None else guidance,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return {"adherence": adherence, "drawing": drawing}


def as_array(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    return np.asarray(picture.convert("RGB"), np.float32) / 255
