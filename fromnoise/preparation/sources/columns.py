"""Which columns of a table hold pictures, captions and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fromnoise.core.config import hint
from fromnoise.data.listing import CAPTION_COLUMNS, PICTURE_COLUMNS
from fromnoise.preparation.sources.config import SourceOptions

PICTURES = (*PICTURE_COLUMNS, "img", "picture", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
CAPTIONS = (*CAPTION_COLUMNS, "sentences", "description", "txt", "json")
LABELS = ("label", "labels", "class", "cls", "class_id", "fine_label")


class Columns(NamedTuple):
    """Names of columns, as the table has them."""

    picture: str
    captions: tuple[str, ...]
    label: str | None
    asked: bool = False
    """Whether the captions' columns were asked for: else a row of JSON without them may have another usual one."""

    def __str__(self) -> str:
        said = f"captions from {', '.join(self.captions)}" if self.captions else "no captions"
        return f"{said}, classes from {self.label}" if self.label else said


def find_columns(there: Sequence[str], options: SourceOptions, where: str) -> Columns:
    """The columns asked for, or those with the usual names; capitals and spaces around them do not matter.

    Raises:
        ValueError: one line, when there is no such column, with the nearest, and all that there are.
    """
    known = {name.strip().lower(): name for name in there}

    def asked(name: str) -> str:
        if name.strip().lower() not in known:
            raise ValueError(f"{where}: no column {name!r}; {hint(name, there)}")
        return known[name.strip().lower()]

    def usual(names: Sequence[str]) -> str | None:
        return next((known[name] for name in names if name in known), None)

    picture = asked(options.picture_column) if options.picture_column else usual(PICTURES)
    if picture is None:
        wanted = f"looked for {', '.join(PICTURES)}; {hint('image', there)}"
        raise ValueError(f"{where}: no column with pictures: {wanted}; say which by picture_column")
    caption = usual(CAPTIONS)
    captions = tuple(map(asked, options.caption_columns)) or ((caption,) if caption else ())
    label = asked(options.label_column) if options.label_column else usual(LABELS)
    if not captions and label is None:
        wanted = f"looked for {', '.join((*CAPTIONS, *LABELS))}; {hint('caption', there)}"
        raise ValueError(f"{where}: no column with captions or classes: {wanted}; say which by caption_columns")
    return Columns(picture, captions, label, bool(options.caption_columns))


def without_classes(columns: Columns, options: SourceOptions, where: str, why: ValueError) -> Columns:
    """The columns without that of the classes, which has a usual name, but holds something else.

    Raises:
        ValueError: one line, `why` at `where`: the classes were asked for, or nothing else is said of the pictures.
    """
    if options.label_column or not columns.captions:
        raise ValueError(f"{where}: {why}")
    return columns._replace(label=None)
