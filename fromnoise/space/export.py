"""Writing a VAE as diffusers saves it: the other way round of `folder.describe` and `latent.read_vae`."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from fromnoise.core.files import save_tensors, write_text
from fromnoise.models.vae import VAE
from fromnoise.space.folder import CONFIG, KL_FIELDS, KL_ONLY, WEIGHTS


def save_vae(vae: VAE, folder: Path, mean: Tensor, std: Tensor, size: int) -> None:
    """Write `vae` into `folder`, made if need be, as diffusers' `AutoencoderKL`; config.json comes last.

    mean, std: (Z,) of the latents, by channel: what they are shifted and scaled by. size: side of the pictures trained
    on, in pixels.

    Raises:
        ValueError: one line, when it cannot be written.
    """
    config = vae.config
    levels = len(config.multipliers)
    told = {
        "_class_name": "AutoencoderKL",
        **{theirs: getattr(config, ours) for theirs, ours in KL_FIELDS.items()},
        "out_channels": config.channels,
        "block_out_channels": [config.width * multiplier for multiplier in config.multipliers],
        "down_block_types": [KL_ONLY["down_block_types"]] * levels,
        "up_block_types": [KL_ONLY["up_block_types"]] * levels,
        "act_fn": KL_ONLY["act_fn"],
        "sample_size": size,
        "scaling_factor": 1.0,
        "latents_mean": mean.tolist(),
        "latents_std": std.tolist(),
        "force_upcast": False,
    }
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make {folder}: {error.strerror}") from None
    save_tensors(folder / WEIGHTS, vae.export_state(), {"format": "pt"})
    write_text(folder / CONFIG, json.dumps(told, indent=2) + "\n")
