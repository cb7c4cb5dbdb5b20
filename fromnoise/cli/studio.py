"""`fromnoise studio`: drawing and training in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fromnoise.cli.flags import parse
from fromnoise.pipeline.place import shipped
from fromnoise.studio.serve import Served, serve

USAGE = "fromnoise studio [RUN ...] [--option VALUE ...]"
DESCRIPTION = """\
Serves a page to draw, look inside, compare and train in: http://127.0.0.1:7860.

RUN is a run directory (its latest checkpoint), a checkpoint directory or a .safetensors file; beside them the page
offers the model that came with fromnoise, and every run in the folder of runs. It fetches nothing from elsewhere.
"""
SHIPPED = "shapes, which came along"


def main(args: Sequence[str]) -> None:
    options, words = parse(Served(), args, usage=USAGE, description=DESCRIPTION)
    given = {}
    for word in words:
        place = Path(word)
        if not place.exists():
            kinds = "a run directory, a checkpoint directory, a .safetensors file"
            raise ValueError(f"nothing at {word}; allowed: {kinds}")
        name = place.resolve().name
        given[word if name in given else name] = place
    serve(options, given | {SHIPPED: shipped()})
