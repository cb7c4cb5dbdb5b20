"""Position codes side by side: one small model of shapes, trained alike but for how it knows where a patch stands.

`python -m benchmarks.positions` trains all of them and measures each at sizes that it was not trained on.
"""

from __future__ import annotations

from typing import Any

from fromnoise.conditioning.config import TextConfig
from fromnoise.core.config import hint
from fromnoise.data.config import ShapesConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.times import LogitNormal
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.space.config import PixelConfig
from fromnoise.training.run import Muon, Run, Training

CODES: dict[str, dict[str, Any]] = {
    "learned": {"rotation": "none", "absolute": "learned"},
    "sincos": {"rotation": "none", "absolute": "sincos"},
    "rope": {"rotation": "rope", "absolute": "none"},
    "scaling": {"rotation": "scaling", "absolute": "none"},
    "msrope": {"rotation": "msrope", "absolute": "none"},
}
"""The position codes by name: what each changes in the backbone. Nothing else differs, first weights included."""

BACKBONE = MMDiTConfig(patch=4, width=128, depth=4, head_width=32, grid=8, rope_theta=1000.0, pooled=True)


def positions(code: str = "msrope") -> Run:
    """One of five position codes on the shapes at 32 pixels; the other four are two flags away.

    --model.backbone.rotation none, rope, scaling or msrope, --model.backbone.absolute none, sincos or learned: one of
    the two is none. `code` names the pair, as `CODES` has it. Everything but the depth and the length of the training
    is the recipe shapes'.

    Hardware: two CPU cores; 6 to 8 minutes on one of them.
    Expect:   95 % of single objects right at 32 pixels; docs/positions.md has all five codes, there and larger.
    Command:  fromnoise train positions --directory runs/positions/msrope

    Raises:
        ValueError: when there is no such code; it lists those there are, and names the nearest.
    """
    if code not in CODES:
        raise ValueError(f"unknown position code {code!r}; {hint(code, CODES)}")
    model = ModelConfig(
        backbone=BACKBONE.model_copy(update=CODES[code]),
        conditioner=TextConfig(width=128, depth=2, heads=4),
        space=PixelConfig(shift=0.9),
        objective=Objective(target="x0", measure="flow", max_weight=10.0, times=LogitNormal(shift=3.0)),
        sampling=Sampling(sampler="ddim", eta=1.0, steps=24, guidance=3.0, interval=(0.0, 0.8), shift=3.0),
    )
    training = Training(
        steps=3500,
        batch=32,
        optimizer=Muon(lr=3e-3, adamw_lr=1e-3),
        warmup=100,
        decay=0.7,
        previews=("a red circle", "a large blue cross", "a black ring above a yellow star"),
    )
    return Run(recipe="positions", data=ShapesConfig(), model=model, training=training)
