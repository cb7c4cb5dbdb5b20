"""What all tests share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Examples are the same each time, and a busy machine fails nothing.
settings.register_profile("fromnoise", deadline=None, derandomize=True)
settings.load_profile("fromnoise")


@pytest.fixture(scope="session")
def save_vae() -> Callable[..., Path]:
    """`save_vae(folder, seed)`: diffusers' own class at its tiniest (half the side), with chance weights, saved there.

    Further arguments are of its config.
    """
    import torch
    from diffusers import AutoencoderKL

    def save(folder: Path, seed: int = 0, **changes: Any) -> Path:
        options: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "block_out_channels": (4, 8),
            "norm_num_groups": 2,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            AutoencoderKL(**(options | changes)).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def vae(save_vae: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny VAE: pictures of 3 channels, latents of 4 on half the side."""
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="session")
def taef2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of TAEF2 that a reader of docs/latents.md makes of its published files."""
    page = (Path(__file__).parent.parent / "docs" / "latents.md").read_text(encoding="utf-8")
    published = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "weights" / "taef2"
    if not published.is_dir():
        pytest.skip("$FROMNOISE_DATA/weights/taef2 is absent")
    place = tmp_path_factory.mktemp("latents")
    for file in published.glob("*.pth"):
        (place / file.name).symlink_to(file)
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        exec(block, {})
    return place / "taef2"
