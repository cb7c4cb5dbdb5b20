"""A contact sheet: some pictures of each bucket as a model sees them, scaled and cropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fromnoise.data.buckets import Size
from fromnoise.data.pictures import read_picture
from fromnoise.data.survey import Filled

SMALLEST, LARGEST = 128, 256  # longer side of a picture on the sheet: smaller ones are enlarged, larger ones shrunk
GAP = 6  # pixels
TEXT, TITLE = 11, 15  # heights of letters, in pixels


Opened = Callable[[str], Path | BinaryIO]
"""The file of a picture, by its name."""


def contact_sheet(
    opened: Opened, filled: Sequence[Filled], columns: int, background: int, advance: Callable[[int, int], None]
) -> Image.Image:
    """A row for each bucket, `columns` of its pictures in it, from the one that is cropped least to that cropped most.

    A picture that cannot be read shows as a grey tile. `advance` is called with how many rows are done of how many.
    """
    rows = []
    for done, bucket in enumerate(filled, start=1):
        rows.append(_row(opened, bucket, columns, background))
        advance(done, len(filled))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def chosen(bucket: Filled, columns: int) -> dict[str, float]:
    """The pictures shown of a bucket, spread evenly from the least to the most cropped, and how much of each is."""
    crops = sorted(bucket.crops.items(), key=lambda item: (item[1], item[0]))
    places = np.linspace(0, len(crops) - 1, min(columns, len(crops))).round().astype(int)
    return dict(crops[place] for place in places)


def _row(opened: Opened, bucket: Filled, columns: int, background: int) -> Image.Image:
    width, height = _shown(bucket.size)
    small, large = ImageFont.load_default(TEXT), ImageFont.load_default(TITLE)
    title = f"{bucket.size} (height x width): {len(bucket.pictures):,} pictures"
    cell = max(width, SMALLEST)  # room for a label
    sides = (
        max(columns * (cell + GAP), int(large.getlength(title))) + 2 * GAP,
        height + 2 * TITLE + 2 * TEXT + 2 * GAP,
    )
    row = Image.new("RGB", sides, "white")
    draw = ImageDraw.Draw(row)
    draw.text((GAP, GAP), title, fill="black", font=large)
    for column, (name, crop) in enumerate(chosen(bucket, columns).items()):
        x, y = GAP + column * (cell + GAP), 2 * GAP + TITLE
        picture = _picture(opened, name, bucket.size, background)
        row.paste(picture.resize((width, height), _filter(bucket.size)), (x, y))
        label = f"{100 * crop:.0f} % off, {Path(name).stem}"
        while small.getlength(label) > cell:
            label = label[:-1]
        draw.text((x, y + height + 2), label, fill="black", font=small)
    return row


def _picture(opened: Opened, name: str, size: Size, background: int) -> Image.Image:
    try:
        return Image.fromarray(read_picture(opened(name), size, background).transpose(1, 2, 0))
    except Exception:  # a damaged file can make Pillow's decoders raise almost anything; training says what and why
        return Image.new("RGB", (size.width, size.height), "grey")


def _filter(size: Size) -> Image.Resampling:
    return Image.Resampling.LANCZOS if max(size) > LARGEST else Image.Resampling.NEAREST


def _shown(size: Size) -> tuple[int, int]:
    """Width and height on the sheet: whole pixels of the model's, unless it has too many."""
    if max(size) > LARGEST:
        factor = LARGEST / max(size)
        return round(size.width * factor), round(size.height * factor)
    times = max(1, -(-SMALLEST // max(size)))
    return size.width * times, size.height * times
