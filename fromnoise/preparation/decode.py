"""The bytes of a picture's file to pixels, whatever the bytes are."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image

from fromnoise.data.buckets import Size
from fromnoise.data.pictures import Loaded, load, upright

ALBUMS = ("MPO", "TIFF")
"""Formats whose frames are pages, or one view from several cameras of a phone, and no animation."""


class Decoded(NamedTuple):
    """A picture that is still to be cropped and resized, by `fit`."""

    loaded: Loaded
    wanted: Size
    animated: bool
    """Whether it is the first of several frames."""


def decode(content: bytes, choose: Callable[[Size], Size], background: int) -> Decoded:
    """The picture in `content`, to be made the size that `choose` takes for its own; of an animation the first frame.

    Raises:
        ValueError: one line, the same for the same bytes: no picture, damaged, or one of more pixels than Pillow
            opens (`Image.MAX_IMAGE_PIXELS`), whose number is told; or what `choose` raises.
    """
    with _opened(content) as image:
        animated = getattr(image, "is_animated", False) and image.format not in ALBUMS
        wanted = choose(upright(image))
        return Decoded(load(image, wanted, background), wanted, animated)


def measured(content: bytes) -> Size:
    """Height and width of the upright picture in `content`, from its header alone; errors as in `decode`."""
    with _opened(content) as image:
        return upright(image)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The picture in `content`, not decoded yet; errors, also of what is done with it, as in `decode`."""
    if not content:
        raise ValueError("the file is empty")
    # A filter of the process, as those of a block are not safe with threads. It is added once, however often it is set.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    try:
        with Image.open(io.BytesIO(content)) as image:
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = next(iter(re.findall(r"\d+", str(error))), "many")
        raise ValueError(f"{int(pixels):,} pixels, more than the {Image.MAX_IMAGE_PIXELS:,} that are opened") from None
    except Exception as error:  # a damaged file can make Pillow's decoders raise almost anything
        said = re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", str(error))  # where in memory it was
        raise ValueError(" ".join(said.split()) or type(error).__name__) from None
