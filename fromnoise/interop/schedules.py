"""Schedulers as diffusers writes them, as path, target and sampling; and back."""

from __future__ import annotations

from pathlib import Path as File
from typing import Any, NamedTuple

from fromnoise.core.config import hint
from fromnoise.diffusion.path import VP, Linear, Path
from fromnoise.interop.folder import read_json
from fromnoise.pipeline.config import Sampling

FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
BETAS = {
    "DDIMScheduler": ("ddim", 50),
    "DDPMScheduler": ("ddpm", 50),
    "PNDMScheduler": ("ddim", 50),
    "EulerDiscreteScheduler": ("ddim", 30),  # Euler's method in sigma is DDIM
    "DPMSolverMultistepScheduler": ("dpmpp_2m", 25),
}
"""Schedulers by betas: the sampler of ours that steps likewise, and steps that it usually takes."""
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
"""Targets by the names that diffusers' schedulers have for them."""
TARGETS = {theirs: ours for ours, theirs in PREDICTIONS.items()}
POWERS = {"linear": 1, "scaled_linear": 2}
GUIDANCE = {"StableDiffusionPipeline": 7.5, "StableDiffusion3Pipeline": 7.0, "PixArtAlphaPipeline": 4.5}


class Drawing(NamedTuple):
    """How a folder's pipeline draws."""

    path: Path
    target: str
    sampling: Sampling
    counted: bool  # whether the network is told timestep i where 1000 t is i + 1

    @classmethod
    def usual(cls, backbone: str) -> Drawing:
        """Of a backbone that no scheduler lies beside."""
        if backbone.startswith(("SD3", "Qwen")):
            return cls(Linear(), "flow", Sampling(shift=3.0), False)
        path = VP() if backbone.startswith("DiT") else VP(beta_start=0.00085, beta_end=0.012, power=2)
        return cls(path, "eps", Sampling(sampler="ddim", steps=50), True)


def drawing_of(folder: File, pipeline: str) -> tuple[Drawing, list[str]]:
    """What the scheduler in `folder` says, and what it says that is not done.

    Raises:
        ValueError: one line: it is missing, or a path that there is not here.
    """
    told = read_json(folder / "scheduler_config.json")
    name = str(told.get("_class_name"))
    guidance = GUIDANCE.get(pipeline, 4.0)
    if name in FLOWS:
        dynamic = bool(told.get("use_dynamic_shifting"))
        shift = float(told.get("shift", 1.0))
        notes = [f"its shift hangs on the size of the picture; here it is {shift:g} at every size"] if dynamic else []
        return Drawing(Linear(), "flow", Sampling(guidance=guidance, shift=shift), False), notes
    if name not in BETAS:
        raise ValueError(f"{folder}: _class_name is {name!r}; {hint(name, [*FLOWS, *BETAS])}")
    for key, allowed in (("trained_betas", None), ("rescale_betas_zero_snr", False)):
        if (given := told.get(key, allowed)) != allowed:
            raise ValueError(f"{folder}: {key} is given; allowed: {allowed}, not {str(given)[:40]}")
    schedule, prediction = told.get("beta_schedule", "linear"), told.get("prediction_type", "epsilon")
    for key, value, known in (("beta_schedule", schedule, POWERS), ("prediction_type", prediction, TARGETS)):
        if value not in known:
            raise ValueError(f"{folder}: {key} is {value!r}; {hint(str(value), known)}")
    path = VP(
        beta_start=told.get("beta_start", 1e-4),
        beta_end=told.get("beta_end", 0.02),
        steps=told.get("num_train_timesteps", 1000),
        power=POWERS[schedule],
    )
    if path.steps != 1000:
        raise ValueError(f"{folder}: num_train_timesteps is {path.steps}; allowed: 1000")
    sampler, steps = BETAS[name]
    return Drawing(path, TARGETS[prediction], Sampling(sampler=sampler, steps=steps, guidance=guidance), True), []


def betas(path: VP, prediction: str) -> dict[str, Any]:
    """The settings of diffusers' schedulers that follow `path`, whose timestep i is our 1000 t = i + 1."""
    names = {power: name for name, power in POWERS.items()}
    told: dict[str, Any] = {
        "num_train_timesteps": path.steps,
        "beta_start": path.beta_start,
        "beta_end": path.beta_end,
        "prediction_type": prediction,
        "timestep_spacing": "trailing",
    }
    if path.power in names:
        return told | {"beta_schedule": names[path.power]}
    first, last = path.beta_start ** (1 / path.power), path.beta_end ** (1 / path.power)
    rise = (last - first) / (path.steps - 1)
    return told | {"trained_betas": [(first + k * rise) ** path.power for k in range(path.steps)]}
