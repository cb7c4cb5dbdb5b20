"""`fromnoise push`: a run, exported with its model card, on the hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fromnoise.cli.flags import parse
from fromnoise.core.config import Config

USAGE = "fromnoise push RUN OWNER/NAME [--dry-run] [--option VALUE ...]"
DESCRIPTION = """\
Exports a run as `fromnoise export` does, and uploads the folder, model card included, to a repository of the hub, which
is made where it is not there. Who you are the hub knows by `hf auth login`.
"""


class Options(Config):
    """How to push."""

    dry_run: bool = False
    """Upload nothing: list the files that would be, and their sizes."""
    private: bool = False
    """Make a new repository private."""
    raw: bool = False
    """Push the weights as trained, in place of their average."""
    onnx: bool = False
    """Also push the backbone as ONNX (needs the extra)."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) != 2:
        raise ValueError(f"a run and OWNER/NAME must be given, not {len(words)} words; usage: {USAGE}")
    from fromnoise.core.needs import size
    from fromnoise.interop.hub import check_name, files_of, upload
    from fromnoise.interop.to_diffusers import export

    run, name = words
    check_name(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name.partition("/")[2]
        done = export(Path(run), folder, raw=options.raw, onnx=options.onnx, address=name)
        files = files_of(folder)
        for file, count in files.items():
            print(f"{size(count):>12}  {file}")
        print(f"{size(sum(files.values())):>12}  in {len(files)} files ({done.layout.pipeline})")
        print(f"nothing was uploaded to {name}" if options.dry_run else upload(folder, name, options.private))
