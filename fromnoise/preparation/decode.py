"""The bytes of a picture's file to pixels, whatever the bytes are. Legend: H, W height and width of what is wanted."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from fromnoise.data.buckets import Size
from fromnoise.data.pictures import measure, read_picture

T = TypeVar("T")


class Decoded(NamedTuple):
    """A picture as it is trained on."""

    pixels: np.ndarray
    """(3, H, W) uint8, upright."""
    animated: bool
    """Whether it is the first of several frames."""


def decode(content: bytes, size: int | Size, background: int) -> Decoded:
    """The picture in `content`, as `read_picture` gives it.

    Raises:
        ValueError: one line, the same for the same bytes: no picture, damaged, or one of more pixels than Pillow
            opens (`Image.MAX_IMAGE_PIXELS`), whose number is told.
    """

    def read(file: io.BytesIO) -> Decoded:
        with Image.open(file) as image:
            animated = getattr(image, "is_animated", False) and image.format != "TIFF"  # whose frames are pages
        return Decoded(read_picture(file, size, background), animated)

    return _safely(content, read)


def size_of(content: bytes) -> Size:
    """Height and width of the upright picture in `content`, from its header alone; errors as in `decode`."""
    return _safely(content, measure)


def _safely(content: bytes, read: Callable[[io.BytesIO], T]) -> T:
    if not content:
        raise ValueError("the file is empty")
    # A filter of the process, as those of a block are not safe with threads. It is added once, however often it is set.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    try:
        return read(io.BytesIO(content))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = next(iter(re.findall(r"\d+", str(error))), "many")
        raise ValueError(f"{int(pixels):,} pixels, more than the {Image.MAX_IMAGE_PIXELS:,} that are opened") from None
    except Exception as error:  # a damaged file can make Pillow's decoders raise almost anything
        said = re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", str(error))  # where in memory it was
        raise ValueError(" ".join(said.split()) or type(error).__name__) from None
