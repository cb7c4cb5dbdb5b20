"""Pictures as HTML that needs nothing else: each stands in it whole, so that no file is left behind on the server."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from PIL import Image

from fromnoise.pipeline.pictures import as_png

SMALL = 64  # pixels; larger pictures are shown as JPEG where that is smaller, for noise does not compress


class Frame(NamedTuple):
    """What a film shows at one time."""

    pictures: Sequence[Image.Image]  # side by side
    said: str  # below


def film(frames: Sequence[Frame], captions: Sequence[str], label: str, first: int = -1) -> str:
    """Frames with a slider that goes through them and a button that plays them; one frame alone stands still.

    captions: above each of the pictures. label: what the slider is, for those who do not see it. first: frame shown.
    """
    first %= len(frames)
    shown = [[source(picture) for picture in frame.pictures] for frame in frames]
    figures = "".join(
        f'<figure><figcaption>{escape(caption)}</figcaption><img src="{one}" alt="{escape(caption)}"></figure>'
        for caption, one in zip(captions, shown[first], strict=True)
    )
    said = f"<output>{escape(frames[first].said)}</output>"
    if len(frames) == 1:
        return f'<div class="film"><div class="pair">{figures}</div><p>{said}</p></div>'
    reel = [[*pictures, frame.said] for pictures, frame in zip(shown, frames, strict=True)]
    control = (
        f'<button type="button" class="play" aria-label="Play" onclick="{_PLAY}">&#9654;</button>'
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{first}" step="1" aria-label="{escape(label)}"'
        f' oninput="{_SHOW}">'
    )
    return (
        f'<div class="film" data-reel="{escape(json.dumps(reel))}"><div class="pair">{figures}</div>'
        f'<p class="time">{control}</p><p>{said}</p></div>'
    )


_SHOW = (
    "const f=this.closest('.film'),r=(f.reel??=JSON.parse(f.dataset.reel))[this.value];"
    "f.querySelectorAll('img').forEach((m,i)=>{m.src=r[i]});f.querySelector('output').textContent=r[r.length-1]"
)
_PLAY = (
    "const s=this.nextElementSibling;clearInterval(this.clock);if(s.value==s.max)s.value=-1;"
    "this.clock=setInterval(()=>{if(+s.value>=+s.max||!s.isConnected)return clearInterval(this.clock);"
    "s.value=+s.value+1;s.dispatchEvent(new Event('input'))},Math.max(40,2500/s.max))"
)


def table(corner: str, columns: Sequence[str], rows: Sequence[str], pictures: Sequence[Image.Image | None]) -> str:
    """A grid of pictures, row by row, under and beside what they differ in; None where one is still to come."""
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in columns)
    body = ""
    for i, row in enumerate(rows):
        cells = zip(columns, pictures[i * len(columns) : (i + 1) * len(columns)], strict=True)
        told = "".join(f"<td>{_cell(one, f'{row}, {column}')}</td>" for column, one in cells)
        body += f"<tr><th scope=row>{escape(row)}</th>{told}</tr>"
    return f'<table class="sweep"><thead><tr><td>{corner}</td>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(picture: Image.Image | None, about: str) -> str:
    return f'<img src="{source(picture)}" alt="{escape(about)}">' if picture else "<i></i>"


def strip(pictures: Sequence[Image.Image], captions: Sequence[str]) -> str:
    """Small pictures side by side, each over its caption."""
    figures = "".join(
        f'<figure><img src="{source(picture)}" alt="{said}"><figcaption>{said}</figcaption></figure>'
        for picture, said in zip(pictures, map(escape, captions), strict=True)
    )
    return f'<div class="strip">{figures}</div>'


def download(data: bytes, kind: str, name: str, words: str) -> str:
    """A link that saves `data`, of a kind such as image/png, under `name`."""
    encoded = base64.b64encode(data).decode()
    return f'<a class="save" download="{escape(name)}" href="data:{kind};base64,{encoded}">{escape(words)}</a>'


def note(line: str) -> str:
    """A line below the pictures, or nothing."""
    return f'<p class="note">{escape(line)}</p>' if line else ""


def source(picture: Image.Image) -> str:
    """The picture as an address that holds it."""
    data, kind = as_png(picture), "png"
    if max(picture.size) > SMALL:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=90)
        if buffer.tell() < len(data):
            data, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
