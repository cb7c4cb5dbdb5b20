"""The folder of an autoencoder, as diffusers writes it: config.json, and weights beside it. Free of torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from fromnoise.core.config import explain, hint
from fromnoise.models.config import FrozenVAEConfig, TinyConfig, VAEConfig

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
KL_ONLY = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D", "act_fn": "silu"}
KL_FIELDS = {  # of an AutoencoderKL's config.json, by our names
    "in_channels": "channels",
    "latent_channels": "latent_channels",
    "layers_per_block": "layers",
    "norm_num_groups": "groups",
    "mid_block_add_attention": "attention",
    "use_quant_conv": "quant",
    "use_post_quant_conv": "post_quant",
}
TOLERANCE = 0.1  # of a published mean, in standard deviations; of a published scale, as a share


class VAEFault(ValueError):
    """The VAE that a model needs is not there, cannot be read, or is another one: the model itself is sound."""


class Description(NamedTuple):
    """What a folder's config.json says."""

    config: FrozenVAEConfig
    shift: tuple[float, ...] | None  # per channel of the latent, as published; None where it says nothing
    scale: tuple[float, ...] | None


def describe(folder: Path) -> Description:
    """Read the config.json of `folder`, and find that weights lie beside it.

    Its `_class_name` decides the architecture. Shift and scale are diffusers' shift_factor and scaling_factor, or
    latents_mean and latents_std.

    Raises:
        VAEFault: one line, when something is missing, of another class, or one that the class here cannot be.
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
    if name not in CLASSES:
        raise VAEFault(f"{folder / CONFIG}: _class_name is {name!r}; {hint(str(name), CLASSES)}")
    try:
        config = CLASSES[name](told)
        return Description(config, *_published(told, config.latent_channels))
    except ValidationError as error:
        raise VAEFault(f"{folder / CONFIG}: {explain(error)}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise VAEFault(f"{folder / CONFIG}: {error}") from None


def disagreement(described: Description, shift: Sequence[float], scale: Sequence[float]) -> str:
    """What a user is told where measured latents are not those that a config.json tells of; "" where they are."""
    told = []
    if described.shift and any(
        abs(a - b) * c > TOLERANCE for a, b, c in zip(shift, described.shift, scale, strict=True)
    ):
        told.append(f"shift {_span(described.shift)}, measured {_span(shift)}")
    if described.scale and any(abs(a / b - 1) > TOLERANCE for a, b in zip(scale, described.scale, strict=True)):
        told.append(f"scale {_span(described.scale)}, measured {_span(scale)}")
    return "; ".join(told)


def _span(numbers: Sequence[float]) -> str:
    low, high = f"{min(numbers):.4g}", f"{max(numbers):.4g}"
    return low if low == high else f"{low} to {high}"


def _published(told: dict[str, Any], channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Shift and scale of each channel, where a config.json tells them."""
    mean, std = told.get("latents_mean"), told.get("latents_std")
    offset, factor = told.get("shift_factor"), told.get("scaling_factor")
    shift = mean or (None if offset is None else [offset] * channels)
    scale = None if factor is None else [float(factor)] * channels
    if std:
        scale = [(1.0 if factor is None else float(factor)) / float(one) for one in std]
    for key, numbers in (("latents_mean", shift), ("latents_std", scale)):
        if numbers and len(numbers) != channels:
            raise ValueError(f"{key} has {len(numbers)} numbers; allowed: {channels}, as latent_channels says")
    if scale and min(scale) <= 0:
        raise ValueError(f"latents are scaled by {min(scale)}; allowed: more than 0")
    return tuple(map(float, shift)) if shift else None, tuple(scale) if scale else None


def _kl(told: dict[str, Any]) -> VAEConfig:
    """What the config.json of an AutoencoderKL tells; what it leaves out is as that class has it."""
    _refuse_others(told, KL_ONLY)
    widths = told.get("block_out_channels", (64,))
    width = math.gcd(*widths)
    stock = {"layers": 1, "width": width, "multipliers": [one // width for one in widths]}
    return VAEConfig(**(stock | _renamed(told, KL_FIELDS)))


def _tiny(told: dict[str, Any]) -> TinyConfig:
    """What the config.json of an AutoencoderTiny tells, as `_kl`; `use_midblock_gn`, which that class has not, is
    TAEF2's."""
    sides = ("encoder_block_out_channels", "decoder_block_out_channels")
    widths = [width for side in sides for width in told.get(side, (64,))]
    if len(set(widths)) > 1:
        raise ValueError(f"{' and '.join(sides)} are {widths}; allowed: one number throughout")
    _refuse_others(told, {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2})
    fields = {
        "in_channels": "channels",
        "latent_channels": "latent_channels",
        "num_encoder_blocks": "encoder_layers",
        "num_decoder_blocks": "decoder_layers",
        "use_midblock_gn": "midblock_norm",
    }
    return TinyConfig(width=widths[0], **_renamed(told, fields))


CLASSES: dict[str, Callable[[dict[str, Any]], FrozenVAEConfig]] = {"AutoencoderKL": _kl, "AutoencoderTiny": _tiny}


def _refuse_others(told: dict[str, Any], only: dict[str, Any]) -> None:
    """Find that what a config.json says under the keys of `only` is that; ValueError where it is not."""
    for key, allowed in only.items():
        given = told.get(key, allowed)
        if set(given if isinstance(given, list) else [given]) != {allowed}:
            raise ValueError(f"{key} is {given!r}; allowed: {allowed}")
    if told.get("in_channels", 3) != told.get("out_channels", 3):
        raise ValueError(f"out_channels is {told.get('out_channels', 3)}; allowed: as many as in_channels")


def _renamed(told: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """What a config.json tells under the keys of `fields`, by our names."""
    return {ours: told[key] for key, ours in fields.items() if key in told}
