"""What the model can tell of places, and whether it can be anywhere but here."""

from __future__ import annotations

import copy
import math

import torch

from fromnoise.core.types import Cond
from fromnoise.doctor.blocks import condition
from fromnoise.doctor.finding import Finding, judged, left_out
from fromnoise.doctor.subject import Chance, Subject
from fromnoise.models import mmdit
from fromnoise.models.config import MMDiTConfig
from fromnoise.models.mmdit import MMDiT
from fromnoise.space.config import PixelConfig
from fromnoise.training.run import Run

CELL = 8  # pixels along the side of a latent cell, where the VAE is not here: Stable Diffusion's
STILL = 0.1
"""Turn in radians over the whole picture below which a frequency tells nothing: its cosine changes by .5 %."""
LARGEST_STILL = 0.34
"""Share of the frequencies that stand still. At theta 1000 and 8 patches a side it is a quarter; at 10000 and 16, 7 of
16."""


def rotary(subject: Subject) -> Finding:
    """How far each rotary frequency of an axis turns from one side of the picture to the other."""
    name, run = "rotary places", subject.run
    assert isinstance(run, Run)
    config = run.model.backbone
    if not isinstance(config, MMDiTConfig) or config.rotation == "none":
        return left_out(name, "the backbone turns no queries and keys")
    h, w = grid(subject, run)
    c = config
    turns = mmdit.turns_of(c.rotation, h, w, 4, c.grid, c.head_width, c.rope_theta, torch.device("cpu"))
    assert turns.image is not None
    cos, sin = turns.image  # (N, 1, d / 2), (N, 2, d / 2)
    angles = torch.atan2(sin[:, 1], cos[:, 0])[[0, w]]  # (2, d / 2) of the first patches of two rows
    step = (angles[1] - angles[0] + math.pi).remainder(2 * math.pi) - math.pi  # (d / 2,) between neighbours
    across = h * step[: c.head_width // 4].abs()  # (d / 4,) of the half that turns with the row
    quarter, still = int((across > math.pi / 2).sum()), int((across < STILL).sum())
    told = f"{quarter} of {len(across)} frequencies turn by more than a quarter over {h} patches, {still} stand still"
    fixed = stock(subject)
    if fixed:
        told += f" (theta {c.rope_theta:g} is that of diffusers' class, which these weights fit)"
    return judged(
        name,
        fixed or still <= LARGEST_STILL * len(across),
        f"{told}, at theta {c.rope_theta:g}" if not fixed else told,
        "a frequency that hardly turns tells no place apart: the numbers of each head that it turns are lost to places",
        "derive model.backbone.rope_theta from the grid: about 100 for 16 patches a side, 1000 at most for 8",
    )


def grid(subject: Subject, run: Run) -> tuple[int, int]:
    """Patches down and across of the run's own pictures."""
    latent = isinstance(run.model.space, PixelConfig) and isinstance(subject.served, Chance)
    factor = CELL if latent else subject.model.space.factor
    side = max(1, subject.size // factor // run.model.backbone.multiple)
    return side, side


def stock(subject: Subject) -> bool:
    """Whether the weights fit diffusers' class, which has a theta of its own."""
    backbone = subject.model.backbone
    if not isinstance(backbone, MMDiT):
        return False
    try:
        backbone.export_state()
    except ValueError:
        return False
    return True


def devices(subject: Subject) -> Finding:
    """A forward of the backbone on torch's device without memory, where a tensor made on a fixed device stands out."""
    name, model = "devices", subject.model
    sample = subject.sample(model)
    cond = condition(model, sample.features)
    backbone = copy.deepcopy(model.backbone).to("meta")
    x, t, *said = (value.to("meta") for value in (sample.eps, sample.t, cond.tokens, cond.mask, cond.vector))
    fault = ""
    try:
        backbone(x, t, Cond(*said))
    except (RuntimeError, AssertionError) as error:
        fault = " ".join(str(error).split())[:120]
    return judged(
        name,
        not fault,
        fault or "the backbone runs wherever its inputs are",
        "a device written into the code keeps a model from every other",
        "make tensors on the device of the inputs (device=x.device)",
    )
