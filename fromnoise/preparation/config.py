"""What a data set is to be prepared with. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fromnoise.conditioning.config import EncoderConfig
from fromnoise.preparation.sources.config import SourceOptions


class Preparation(SourceOptions):
    """What decides every byte of a prepared data set, together with its source and the encoders' weights."""

    size: Annotated[int, Field(ge=8, le=4096)] = 256
    """Side of the square that pictures are resized and centre-cropped to, in pixels."""
    buckets: bool = False
    """Keep the pictures' shapes: sort them into buckets of about size x size pixels."""
    multiple: Annotated[int, Field(ge=1, le=512)] | None = None
    """With buckets: their sides are multiples of this many pixels; left out, about a sixteenth of size, at least 8."""
    largest_aspect: Annotated[float, Field(ge=1, le=8)] = 2.0
    """With buckets: how many times as long as the other a side may be; what is longer is cropped."""
    tiers: Annotated[int, Field(ge=1, le=8)] = 2
    """With buckets: resolutions (size, its half, its quarter, ...); what is too small for one goes to the next."""
    upscale: bool = False
    """With buckets: enlarge what is smaller than its bucket, in place of lower tiers."""
    background: Annotated[int, Field(ge=0, le=255)] = 255
    """Grey level that transparent pictures are laid on."""
    flip: bool = False
    """Encode mirror images, too, of pictures whose captions name no side."""
    vae: Path | None = None
    """Folder of a VAE as diffusers saves it, whose latents are stored; left out, pixels are."""
    text: tuple[EncoderConfig, ...] = ()
    """Frozen text encoders, whose tokens are stored: PATH or PATH,length=77,layer=penultimate each."""
    dtype: Literal["float16", "bfloat16"] = "float16"
    """Of the numbers that are stored."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """In which the encoders compute products. bfloat16 takes half of the time where the device has it, and moves
    latents by about a hundredth of their deviation."""
