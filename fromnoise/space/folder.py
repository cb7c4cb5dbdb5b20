"""A VAE's folder as diffusers writes it: config.json and diffusion_pytorch_model.safetensors. Free of torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from fromnoise.core.config import explain
from fromnoise.models.config import VAEConfig

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
SD_SCALE = 0.18215  # 1 / the standard deviation of Stable Diffusion's latents (Rombach et al. 2022)
ONLY = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D", "act_fn": "silu"}
FIELDS = {
    "in_channels": "channels",
    "latent_channels": "latent_channels",
    "layers_per_block": "layers",
    "norm_num_groups": "groups",
    "mid_block_add_attention": "attention",
    "use_quant_conv": "quant",
    "use_post_quant_conv": "post_quant",
}


class VAEFault(ValueError):
    """The VAE that a model needs is not there, cannot be read, or is another one: the model itself is sound."""


class Description(NamedTuple):
    """What a folder's config.json says."""

    config: VAEConfig
    shift: tuple[float, ...]  # per channel of the latent
    scale: tuple[float, ...]


def describe(folder: Path) -> Description:
    """Read the config.json of `folder`, and find that weights lie beside it.

    Shift and scale are those published with the VAE (diffusers' scaling_factor, shift_factor, latents_mean and
    latents_std), else Stable Diffusion's: 0 and 0.18215.

    Raises:
        VAEFault: one line, when something is missing, no AutoencoderKL, or one that `VAE` cannot be.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            what = f"no file {folder / name}" if folder.is_dir() else f"no folder at {folder}"
            raise VAEFault(f"{what}; model.space.path is that of a VAE as diffusers saves it: {CONFIG} and {WEIGHTS}")
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VAEFault(f"cannot read {folder / CONFIG}: {' '.join(str(error).split())}") from None
    name = told.get("_class_name") if isinstance(told, dict) else None
    if name != "AutoencoderKL":
        raise VAEFault(f"{folder / CONFIG}: _class_name is {name!r}; allowed: 'AutoencoderKL'")
    try:
        config = _config(told)
        z = config.latent_channels
        mean, std = (
            told.get("latents_mean") or [told.get("shift_factor") or 0.0] * z,
            told.get("latents_std") or [1.0] * z,
        )
        scale = told.get("scaling_factor", SD_SCALE)
        return Description(config, tuple(map(float, mean)), tuple(scale / one for one in std))
    except ValidationError as error:
        raise VAEFault(f"{folder / CONFIG}: {explain(error)}") from None
    except (TypeError, ValueError) as error:
        raise VAEFault(f"{folder / CONFIG}: {error}") from None


def _config(told: dict[str, Any]) -> VAEConfig:
    """The architecture that a config.json tells; what it leaves out is as the stock class has it."""
    for key, only in ONLY.items():
        given = told.get(key, only)
        if set([given] if isinstance(given, str) else given) != {only}:
            raise ValueError(f"{key} is {given!r}; allowed: {only}")
    if told.get("in_channels", 3) != told.get("out_channels", 3):
        raise ValueError(f"out_channels is {told.get('out_channels', 3)}; allowed: as many as in_channels")
    widths = told.get("block_out_channels", (64,))
    width = math.gcd(*widths)
    given = {ours: told[key] for key, ours in FIELDS.items() if key in told}
    stock = {"layers": 1, "width": width, "multipliers": [one // width for one in widths]}
    return VAEConfig(**(stock | given))
