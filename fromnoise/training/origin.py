"""Runs that begin with the weights of another, at a larger size of pictures as a rule: progressive resolution.

Most of what a picture shows is learned from small ones, many times sooner; what is left to learn at the larger size is
detail (Pixart-alpha: Chen et al. 2023; SD3: Esser et al. 2024, section 5.3; Qwen-Image: Wu et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.data.config import OWN_DATA
from fromnoise.diffusion.path import Linear
from fromnoise.diffusion.times import shifted
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.load import load, weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.directory import TOLD, another, differences
from fromnoise.training.run import Run, read_run


def find_origin(run: Run, directory: Path | None) -> Run | None:
    """The run that `run` begins with; None where weights are drawn by chance, or where `directory` has a record of
    `run` as it is here: then nothing is left to derive, and the other run may be gone.

    Raises:
        ValueError: one line: there is no run, or none with a checkpoint.
    """
    place, record = run.start.run, directory / "run.yaml" if directory else None
    if place is None or (record and record.is_file() and not another(read_run(record), run)):
        return None
    if not (place / "run.yaml").is_file():
        what = "has no run.yaml" if place.is_dir() else "is no directory"
        raise ValueError(f"start.run is {place}, which {what}; allowed: the directory of a trained run")
    weights(place)
    old = read_run(place / "run.yaml")
    if not isinstance(old, Run):
        raise ValueError(f"start.run is {place}, the run of a VAE; allowed: that of a model that draws")
    return old


def unsealed(run: Run, old: Run) -> Run:
    """`run` free to be trained on other pictures than those that were recorded with `old`."""
    data, there = run.data, old.data
    if isinstance(data, OWN_DATA) and isinstance(there, OWN_DATA) and data.sha256 == there.sha256:
        return run.model_copy(update={"data": data.model_copy(update={"sha256": None})})
    return run


def adapt(run: Run, old: Run, say: Callable[[str], None]) -> Run:
    """`run` with what is still as in `old`, and hangs on the size of pictures, derived for its own size, and told.

    Both have the size and the channels of their data.

    Raises:
        ValueError: one line: the weights of `old` do not fit; it names the first setting that differs.
    """
    ratio = run.model.size / old.model.size
    different = differences(old.model, _compared(run.model, old.model, ratio))
    if found := next((one for one in different if f"model.{one[0]}" not in TOLD), None):
        key, there, here = found
        raise ValueError(f"the weights of {run.start.run} do not fit: model.{key} is {there!r} there, {here!r} here")
    adapted = _adapted(run, old, ratio) if run.start.adapt else run
    told = ", ".join(f"{key} {_text(before)} -> {_text(now)}" for key, before, now in differences(run, adapted))
    if ratio != 1:
        say(f"{ratio:.4g} times the side of the pictures of {run.start.run}: {told or 'all settings as given'}")
    return adapted


def _compared(model: ModelConfig, old: ModelConfig, ratio: float) -> ModelConfig:
    """`model` with that of `old` in it that weights do not hang on."""
    backbone = old.backbone if model.backbone == old.backbone.stretched(ratio) else model.backbone
    objective = old.objective.model_copy(update={"target": model.objective.target})
    unlike = {"backbone": backbone, "objective": objective, "sampling": old.sampling, "size": old.size}
    return model.model_copy(update=unlike)


def _adapted(run: Run, old: Run, ratio: float) -> Run:
    """`run` for pictures with `ratio` times the side of those of `old`.

    n pixels tell of one value what one pixel told, so the same noise hides less of a larger picture. On the linear path
    all is as it was at times shifted by sqrt(m / n), for m pixels where there were n (Esser et al. 2024, Eq. 23): those
    trained on, the sampler's, and the interval of guidance. The batch keeps the pixels of a step, and thus its cost and
    about the noise of its gradient; so the learning rate stays.
    """
    model, training = run.model, run.training
    objective, sampling = model.objective, model.sampling
    if model.backbone == old.model.backbone:
        model = model.model_copy(update={"backbone": model.backbone.stretched(ratio)})
    if isinstance(model.path, Linear):
        if objective.times == old.model.objective.times:
            times = objective.times.model_copy(update={"shift": objective.times.shift * ratio})
            objective = objective.model_copy(update={"times": times})
        if sampling.shift == old.model.sampling.shift:
            sampling = sampling.model_copy(update={"shift": sampling.shift * ratio})
        if sampling.interval == old.model.sampling.interval:
            first, last = sampling.interval
            sampling = sampling.model_copy(update={"interval": (shifted(first, ratio), shifted(last, ratio))})
    if training.batch == old.training.batch != 0:
        parts = training.accumulate
        batch = parts * max(1, round(training.batch / ratio**2 / parts))
        training = training.model_copy(update={"batch": batch})
    model = model.model_copy(update={"objective": objective, "sampling": sampling})
    return run.model_copy(update={"model": model, "training": training})


def begin(model: ModelConfig, place: Path, say: Callable[[str], None], hollow: bool = False) -> Pipeline:
    """A pipeline of `model`, on the CPU, with the averaged weights of the run in the directory `place`; a `hollow` one
    has none, to be filled later.

    Text is read with the vocabulary learned there, and latents are measured as there. Places learned on another grid
    are interpolated between the 16 nearest (bicubic, as DeiT does: Touvron et al. 2021, section 6).

    Raises:
        ValueError: one line: the checkpoint cannot be read.
    """
    file = weights(place)
    old = Pipeline.load_hollow(file) if hollow else load(file, device="cpu")
    with torch.random.fork_rng(devices=[]):  # chance is spent on weights that are overwritten at once
        pipeline = Pipeline(model, old.conditioner, old.space, hollow)
    if hollow:
        return pipeline
    wanted = pipeline.backbone.state_dict()
    state = {name: _fitted(value, wanted[name].shape) for name, value in old.backbone.state_dict().items()}
    pipeline.backbone.load_state_dict(state)
    say(f"begun with the weights of {file}")
    return pipeline


def _fitted(weight: Tensor, shape: torch.Size) -> Tensor:
    """The weight itself, or a table of places (1, D, h, w) interpolated to a grid of `shape`."""
    return weight if weight.shape == shape else F.interpolate(weight, shape[-2:], mode="bicubic")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
