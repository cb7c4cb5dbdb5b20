"""`fromnoise buckets`: how the pictures of a source fall into buckets, before anything is trained on them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.data.buckets import Buckets
    from fromnoise.data.sheet import Opened
    from fromnoise.data.survey import Survey

USAGE = "fromnoise buckets SOURCE [--option VALUE ...]"
DESCRIPTION = """\
Shows what training with --data.type buckets, or fromnoise prepare --buckets, makes of the pictures of SOURCE: which
buckets there are, how many pictures fall into each, how much of them is cropped, and which are left out and why. Only
headers are decoded, and captions are not looked at; --sheet draws what a model will see.

SOURCE is a directory of pictures, or any other source that fromnoise prepare takes: a table, parquet files, webdataset
tars, hub:owner/name.
"""


class Options(Config):
    """The buckets; the first six are settings of --data.type buckets."""

    size: Annotated[int, Field(ge=8, le=4096)] = 64
    """Side of the square that has as many pixels as the largest bucket."""
    multiple: Annotated[int, Field(ge=1, le=512)] | None = None
    """Sides of buckets are multiples of this many pixels; left out, about a sixteenth of size, at least 8."""
    largest_aspect: Annotated[float, Field(ge=1, le=8)] = 2.0
    """How many times as long as the other a side of a bucket may be; what is longer is cropped."""
    tiers: Annotated[int, Field(ge=1, le=8)] = 2
    """Resolutions: size, its half, its quarter, ...; what is too small for one goes to the next, then is left out."""
    upscale: bool = False
    """Enlarge what is smaller than its bucket, in place of lower tiers."""
    background: Annotated[int, Field(ge=0, le=255)] = 255
    """Grey level that transparent pictures are laid on, on the sheet."""
    sheet: Path | None = None
    """File to write a contact sheet to (PNG): some pictures of each bucket, scaled and cropped."""
    columns: Annotated[int, Field(ge=1, le=64)] = 8
    """Pictures of each bucket on the sheet."""
    picture_column: str | None = None
    """Column of a table with the pictures, as of fromnoise prepare."""
    caption_columns: tuple[str, ...] = ()
    """Columns of a table with captions, as of fromnoise prepare."""
    output: Literal["table", "json"] = "table"
    """How results are printed; --json is short for --output json."""


def main(args: Sequence[str]) -> None:
    args = ["--output=json" if arg == "--json" else arg for arg in args]
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if not words:
        raise ValueError(f"a source of pictures must be given; usage: {USAGE}")
    if len(words) > 1:
        raise ValueError(f"{words[1]!r} is not expected here; usage: {USAGE}")
    if options.sheet and options.sheet.suffix.lower() != ".png":
        raise ValueError(f"sheet is {options.sheet}; allowed: the name of a .png file")
    from fromnoise.data.buckets import Buckets
    from fromnoise.data.listing import list_files

    buckets = Buckets(options.size, options.multiple, options.largest_aspect, options.tiers, options.upscale)
    folder = Path(words[0])
    names = list_files(folder) if folder.is_dir() else []
    found, opened = _in_folder(folder, names, buckets) if names else _in_source(words[0], options, buckets)
    print(json.dumps(record(buckets, found)) if options.output == "json" else table(found), flush=True)
    if options.sheet:
        draw(opened, found, options)


def _in_folder(folder: Path, names: list[str], buckets: Buckets) -> tuple[Survey, Opened]:
    from fromnoise.data.survey import survey

    with progress("reading headers") as advance:
        return survey(folder, names, buckets, advance), folder.joinpath


def _in_source(where: str, options: Options, buckets: Buckets) -> tuple[Survey, Opened]:
    from fromnoise.data.sheet import chosen
    from fromnoise.data.survey import sorted_out
    from fromnoise.preparation.sources.config import SourceOptions
    from fromnoise.preparation.sources.headers import contents_of, sizes_of
    from fromnoise.preparation.sources.open import open_source

    columns = {"picture_column": options.picture_column, "caption_columns": options.caption_columns}
    source = open_source(where, SourceOptions.model_validate(columns))
    with progress("reading headers") as advance:
        sizes, unreadable = sizes_of(source, advance)
    found = sorted_out(where, sizes, unreadable, buckets)
    shown = [name for bucket in found.filled for name in chosen(bucket, options.columns)] if options.sheet else []
    contents = contents_of(source, set(shown)) if shown else {}
    return found, lambda name: io.BytesIO(contents[name])


def draw(opened: Opened, found: Survey, options: Options) -> None:
    """Write the contact sheet, over an older one."""
    from fromnoise.core.files import write_bytes
    from fromnoise.data.sheet import contact_sheet

    assert options.sheet is not None
    with progress("drawing the sheet") as advance:
        sheet = contact_sheet(opened, found.filled, options.columns, options.background, advance)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(options.sheet, buffer.getvalue())


def record(buckets: Buckets, found: Survey) -> dict[str, Any]:
    """What was found, for programs."""
    return {
        "multiple": buckets.multiple,
        "buckets": [
            {
                "height": bucket.size.height,
                "width": bucket.size.width,
                "pictures": len(bucket.pictures),
                "crop_mean": sum(bucket.crops.values()) / len(bucket.pictures),
                "crop_largest": max(bucket.crops.values()),
                "enlarged": bucket.enlarged,
            }
            for bucket in found.filled
        ],
        "empty": [list(size) for size in found.empty],
        "small": {name: list(size) for name, size in found.small.items()},
        "unreadable": found.unreadable,
    }


def table(found: Survey) -> str:
    """What was found, a line for each bucket, and what is left out."""
    from fromnoise.data.reading import few

    lines = [f"{'height x width':<16}{'aspect':>8}{'pictures':>10}{'crop %':>9}{'largest':>9}{'enlarged':>10}"]
    crops: list[float] = []
    for bucket in found.filled:
        own = list(bucket.crops.values())
        crops += own
        aspect = f"{bucket.size.width / bucket.size.height:>8.2f}"
        lines.append(f"{bucket.size!s:<16}{aspect}{_columns(own, bucket.enlarged)}")
    lines.append(f"{'all':<24}{_columns(crops, sum(bucket.enlarged for bucket in found.filled))}")
    if found.empty:
        lines.append(f"empty: {', '.join(map(str, found.empty))}")
    small = [f"{name} ({size})" for name, size in found.small.items()]
    unreadable = [f"{name}: {why}" for name, why in found.unreadable.items()]
    for what, which in (("smaller than every bucket", small), ("cannot be read", unreadable)):
        if which:
            lines.append(f"left out, {what}: {len(which):,}: {few(which)}")
    return "\n".join(lines)


def _columns(crops: list[float], enlarged: int) -> str:
    mean, largest = 100 * sum(crops) / len(crops), 100 * max(crops)
    return f"{len(crops):>10,}{mean:>9.1f}{largest:>9.1f}{enlarged:>10,}"
