"""`fromnoise import`: a folder of diffusers' as a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fromnoise.cli.flags import parse
from fromnoise.core.config import Config

USAGE = "fromnoise import DIR --out RUN [--option VALUE ...]"
DESCRIPTION = """\
Makes a run of a folder as diffusers saves it, to sample, evaluate and train on: one that fromnoise export wrote, a
pipeline (Stable Diffusion, DiT, SD3, PixArt-alpha, Qwen-Image), a backbone of one alone, or an AutoencoderKL.

Only safetensors and JSON are read, and nothing of the folder is executed. Autoencoder and text encoders are copied.
To train on pictures of your own, begin another run with this one:
  fromnoise train RUN --start.run RUN --directory runs/mine --data.type folder --data.path PICTURES
"""


class Options(Config):
    """Where to, and what stands around a backbone."""

    out: Path | None = None
    """Directory of the run to make, new or empty."""
    text: tuple[str, ...] = ()
    """Frozen text encoders to read prompts with, in place of the folder's: PATH or PATH,length=77 each."""
    vae: Path | None = None
    """Folder of the autoencoder, in place of the folder's."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) != 1:
        raise ValueError(f"one folder must be given, not {len(words)} words; usage: {USAGE}")
    if options.out is None:
        raise ValueError(f"--out must name the directory of the run to make; usage: {USAGE}")
    from fromnoise.interop.from_diffusers import bring

    done = bring(Path(words[0]), options.out, options.text, options.vae)
    print(f"{done.directory}: {done.about}")
    for note in done.notes:
        print(f"note: {note}")
