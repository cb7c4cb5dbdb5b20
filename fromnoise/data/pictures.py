"""Picture files of any kind to upright RGB squares of one size. Legend: S side; h, w height and width in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"))


def read_picture(path: Path, size: int, background: int) -> np.ndarray:
    """The picture of a file, upright, centre-cropped to a square and resized: (3, S, S) uint8.

    Transparent pictures are laid on the grey level `background`. Of an animation, the first frame.

    Raises:
        OSError, SyntaxError, ValueError or whatever else Pillow raises for a file that it cannot read.
    """
    with Image.open(path) as image:
        # A JPEG decodes several times faster at 1/2, 1/4 or 1/8 of its size; twice the target is left for the filter.
        drafted = image.draft(None, (2 * size, 2 * size))
        image.load()
        width, height = drafted[1][2:] if drafted else image.size  # of a draft, a fraction of its last pixel is padding
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        square = to_rgb(image, background).resize(
            (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
        # Turning the small square is the same as turning the whole picture, as the square is its centre.
        square.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return np.asarray(ImageOps.exif_transpose(square)).transpose(2, 0, 1)  # (3, S, S)


def to_rgb(image: Image.Image, background: int) -> Image.Image:
    """A picture of any mode as RGB: 16 bits become 8, and what is transparent shows the grey level `background`.

    Raises:
        ValueError: for floating-point pictures: their white may be 1 or 255 or anything.
    """
    if image.mode == "F":
        raise ValueError("floating-point pictures have no known white")
    if image.mode.startswith("I"):
        levels = np.asarray(image).clip(0, 65535)  # (h, w) of 16 bits, also where Pillow holds them in 32
        return Image.fromarray((levels / 257).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*[background] * 3, 255)), image).convert("RGB")
    return image.convert("RGB")
