"""What `fromnoise prepare --precision bfloat16` saves, and what it costs. Writes one JSON record.

Legend: N pictures, S side, Z channels and h, w sides of a latent.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import PositiveInt
from rich.console import Console
from torch import Tensor

from benchmarks.harness import describe_machine, ratio, run_main, take_turns, write_record
from fromnoise.autoencoder.fidelity import psnr
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.core.device import autocast, keep_freed_memory
from fromnoise.data.listing import list_pictures
from fromnoise.data.pictures import read_picture
from fromnoise.models.config import VAEConfig
from fromnoise.space.latent import LatentSpace

RECORD = Path(__file__).parent / "results" / "encoding.json"
CPU = torch.device("cpu")
USAGE = "python -m benchmarks.encoding TAEF2 [--option VALUE ...]"
DESCRIPTION = """\
Encodes photographs by TAEF2, whose folder docs/latents.md shows how to make, in float32 and in bfloat16, by one thread
in turns; and by a VAE of Stable Diffusion's size, of chance weights, for its time alone. Of TAEF2 also how far latents
move, and what the pictures that come back lose. Needs $FROMNOISE_DATA.
"""


class Settings(Config):
    """How much is encoded."""

    pictures: PositiveInt = 24
    """Photographs of COCO."""
    side: PositiveInt = 256
    """Side that they are cropped and resized to."""
    rounds: PositiveInt = 6
    """Turns, of two pictures each."""
    out: Path = RECORD
    """File of the record."""


def encode(space: LatentSpace, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    """What `fromnoise prepare` stores of pictures (N, 3, S, S), two together: (N, 2 Z or Z, h, w) float16."""
    with autocast(CPU, dtype):
        parts = [space.encode(part) for part in images.split(2)]  # (2, 2 Z or Z, h, w) each
    return torch.cat(parts).half()  # (N, 2 Z or Z, h, w)


def times(space: LatentSpace, images: Tensor, rounds: int) -> dict[str, object]:
    """Seconds of a picture in each precision, and how many times as fast bfloat16 is."""
    two = images[:2]
    took = take_turns(
        {
            "float32": lambda: encode(space, two, None),
            "bfloat16": lambda: encode(space, two, torch.bfloat16),
        },
        rounds,
        CPU,
        lambda done, of: None,
    )
    seconds = {name: statistics.median(each) / len(two) for name, each in took.items()}
    return {"seconds": seconds, "speed": ratio(took["bfloat16"], took["float32"])._asdict()}


def returned(space: LatentSpace, stored: Tensor, images: Tensor) -> float:
    """The PSNR of pictures that come back, in dB: the mean of the pictures'."""
    pairs = zip(stored.split(2), images.split(2), strict=True)
    return float(torch.cat([psnr(space.decode(part.float()), image) for part, image in pairs]).mean())


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) != 1:
        raise ValueError(f"{len(words)} folders are given; usage: {USAGE}")
    if "FROMNOISE_DATA" not in os.environ:
        raise ValueError("photographs are those of $FROMNOISE_DATA, which is not set")
    folder = Path(os.environ["FROMNOISE_DATA"]) / "coco_mini_256"
    files = [folder / name for name in list_pictures(folder).captions][: settings.pictures]
    pictures = [torch.tensor(read_picture(file, settings.side, 255)) for file in files]
    images = torch.stack(pictures).float() / 127.5 - 1  # (N, 3, S, S)
    machine = describe_machine()
    torch.set_num_threads(1)
    keep_freed_memory()
    tiny = LatentSpace(Path(words[0]), (0.0,), (1.0,))
    torch.manual_seed(0)
    found = {
        "taef2": times(tiny, images, settings.rounds),
        "large": times(LatentSpace(Path(), None, None, VAEConfig().build()), images, settings.rounds),
    }
    exact, rounded = encode(tiny, images, None), encode(tiny, images, torch.bfloat16)  # (N, Z, h, w) each
    found["taef2"] |= {
        "moved": float((rounded - exact).float().std() / exact.float().std()),
        "psnr": {"float32": returned(tiny, exact, images), "bfloat16": returned(tiny, rounded, images)},
    }
    command = " ".join(["python -m benchmarks.encoding", Path(words[0]).name, *args[1:]])
    told = settings.model_dump(mode="json", exclude={"out"})
    write_record(settings.out, {"command": command, "machine": machine, "settings": told, "found": found})
    Console(stderr=True).print(found)


if __name__ == "__main__":
    run_main(main)
