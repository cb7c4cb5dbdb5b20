"""`fromnoise export`: a run as a folder that diffusers opens, and its backbone as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import say
from fromnoise.core.config import Config
from fromnoise.pipeline.place import shipped

if TYPE_CHECKING:
    from fromnoise.interop.to_diffusers import Exported

USAGE = "fromnoise export [RUN] DIR [--option VALUE ...]"
DESCRIPTION = """\
Writes a run as a folder that diffusers opens without a network and without fromnoise, and that draws the same pictures
of the same noise. RUN is a run directory (its latest checkpoint), that of a VAE too, a checkpoint directory or a
.safetensors file; without it the model that came with fromnoise is exported. DIR is new or empty.

It prints which layout was taken: a pipeline of diffusers' own where one draws the same, else diffusers' parts with a
small pipeline file beside them (opened with trust_remote_code=True); and what the folder leaves out.
"""


class Options(Config):
    """How to export."""

    raw: bool = False
    """Export the weights as trained, in place of their average."""
    onnx: bool = False
    """Also write the backbone as DIR/onnx/backbone.onnx, and check it in onnxruntime (needs the extra)."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) not in (1, 2):
        raise ValueError(f"a run and a folder must be given, not {len(words)} words; usage: {USAGE}")
    from fromnoise.interop.folder import refuse_used
    from fromnoise.interop.to_diffusers import export

    folder = Path(words[-1])
    refuse_used(folder)
    run = Path(words[0]) if len(words) == 2 else shipped()
    if options.onnx:
        say("the backbone is also traced as ONNX, and checked: that takes longer than all else")
    done = export(run, folder, raw=options.raw, onnx=options.onnx)
    print(told(done))


def told(done: Exported) -> str:
    """What was written, a line each."""
    lines = [f"{done.folder}: {done.layout.pipeline}"]
    lines += [f"  {part:<16}{cls}" for part, cls in done.parts.items()]
    lines += [f"not {done.layout.nearest}, for {'; '.join(done.layout.why)}"] if done.layout.why else []
    lines += [f"left out: {what}" for what in done.left_out]
    return "\n".join([*lines, "", done.usage])
