"""A VAE's folder as diffusers writes it: what is read of it, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fromnoise.models.config import TinyConfig, VAEConfig
from fromnoise.space.folder import CONFIG, WEIGHTS, Description, VAEFault, describe, disagreement

SD = {  # what lies beside Stable Diffusion 1's weights, as published
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TINY = {"_class_name": "AutoencoderTiny", "act_fn": "relu", "encoder_block_out_channels": [64, 64]}


def folder_of(path: Path, **changes: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / CONFIG).write_text(json.dumps(SD | changes))
    (path / WEIGHTS).touch()
    return path


def test_stable_diffusions_is_the_default_and_an_eighth_of_the_side(tmp_path: Path) -> None:
    config, shift, scale = describe(folder_of(tmp_path))
    assert config == VAEConfig() and config.factor == 8
    assert shift is None and scale is None


def test_what_the_stock_class_saves_is_read(tmp_path: Path, save_vae: Callable[..., Path]) -> None:
    save_vae(
        tmp_path,
        block_out_channels=(12, 8),
        layers_per_block=2,
        latent_channels=3,
        norm_num_groups=4,
        use_quant_conv=False,
        mid_block_add_attention=False,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    config, shift, scale = describe(tmp_path)
    assert config == VAEConfig(
        latent_channels=3, width=4, multipliers=(3, 2), layers=2, groups=4, attention=False, quant=False
    )
    assert shift == (0.25,) * 3 and scale == (0.5,) * 3


def test_means_and_deviations_by_channel_are_read(tmp_path: Path) -> None:
    changes = {"latents_mean": [1, 2, 3, 4], "latents_std": [1, 2, 4, 8], "scaling_factor": 0.5}
    _, shift, scale = describe(folder_of(tmp_path, **changes))
    assert shift == (1.0, 2.0, 3.0, 4.0) and scale == (0.5, 0.25, 0.125, 0.0625)


def test_taesd_and_taef2_are_read(tmp_path: Path) -> None:
    import diffusers

    diffusers.AutoencoderTiny().save_config(tmp_path)
    (tmp_path / WEIGHTS).touch()
    assert describe(tmp_path) == (TinyConfig(), (0.0,) * 4, (1.0,) * 4)
    told = {"_class_name": "AutoencoderTiny", "latent_channels": 32, "use_midblock_gn": True}
    (tmp_path / CONFIG).write_text(json.dumps(told))
    assert describe(tmp_path) == (TinyConfig(latent_channels=32, midblock_norm=True), None, None)


def test_only_what_is_a_tenth_off_what_is_published_is_told() -> None:
    described = Description(VAEConfig(latent_channels=2), (0.0, 1.0), (2.0, 4.0))
    assert disagreement(described, (0.04, 1.0), (2.19, 3.65)) == ""
    assert disagreement(described, (0.06, 1.0), (2.0, 4.0)) == "shift 0 to 1, measured 0.06 to 1"
    assert disagreement(described, (0.0, 1.0), (2.0, 3.5)) == "scale 2 to 4, measured 2 to 3.5"
    told = "shift 0, measured 1; scale 2, measured 1"
    assert disagreement(described._replace(shift=(0.0,) * 2, scale=(2.0,) * 2), (1.0,) * 2, (1.0,) * 2) == told
    assert disagreement(described._replace(shift=None, scale=None), (9.0,) * 2, (9.0,) * 2) == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"_class_name": "AutoencoderDC"},
            "_class_name is 'AutoencoderDC'; allowed: AutoencoderKL, AutoencoderTiny; nearest: AutoencoderKL",
        ),
        (
            {"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]},
            "down_block_types is ['DownEncoderBlock2D', 'AttnDownEncoderBlock2D']; allowed: DownEncoderBlock2D",
        ),
        ({"act_fn": "relu"}, "act_fn is 'relu'; allowed: silu"),
        ({"out_channels": 4}, "out_channels is 4; allowed: as many as in_channels"),
        ({"latent_channels": 0}, "latent_channels: given 0; input should be greater than 0"),
        ({"block_out_channels": "many"}, "'str' object cannot be interpreted as an integer"),
        ({"scaling_factor": "half"}, "could not convert string to float: 'half'"),
        ({"scaling_factor": 0}, "latents are scaled by 0.0; allowed: more than 0"),
        ({"latents_std": [1, 0, 1, 1]}, "division by zero"),
        ({"latents_mean": [1, 2]}, "latents_mean has 2 numbers; allowed: 4, as latent_channels says"),
        (TINY | {"act_fn": "swish"}, "act_fn is 'swish'; allowed: relu"),
        (TINY | {"upsampling_scaling_factor": 4}, "upsampling_scaling_factor is 4; allowed: 2"),
        (
            TINY | {"decoder_block_out_channels": [64, 64, 32, 32]},
            "decoder_block_out_channels are [64, 64, 64, 64, 32, 32]; allowed: one number throughout",
        ),
        (TINY | {"num_encoder_blocks": [1, 3]}, "the decoder has 4 levels; allowed: as many as the encoder, 2"),
    ],
)
def test_what_is_no_such_vae_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(VAEFault, match=re.escape(told)) as error:
        describe(folder_of(tmp_path, **changes))
    assert str(error.value).startswith(f"{tmp_path / CONFIG}: ") and "\n" not in str(error.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    def told(folder: Path) -> str:
        with pytest.raises(VAEFault) as error:
            describe(folder)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert told(tmp_path / "none").startswith(f"no folder at {tmp_path / 'none'}; model.space.path is that of a VAE")
    assert told(tmp_path).startswith(f"no file {tmp_path / CONFIG};")
    (folder_of(tmp_path) / WEIGHTS).unlink()
    assert told(tmp_path).startswith(f"no file {tmp_path / WEIGHTS};")
    for text in ("{", "[1]"):
        (folder_of(tmp_path) / CONFIG).write_text(text)
        assert str(tmp_path / CONFIG) in told(tmp_path)
