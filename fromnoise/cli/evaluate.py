"""`fromnoise evaluate`: whether pictures show what was asked for, how far they lie from real ones, and what else tells
a good model from a bad one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fromnoise.cli import evaluate_vae
from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.evaluation.wanted import Wanted
from fromnoise.pipeline.place import shipped

USAGE = "fromnoise evaluate [RUN] [--option VALUE ...]"
DESCRIPTION = """\
Draws pictures of many prompts, and measures them. Of shapes: the share that show what was asked for, by task, judged
from their pixels. Of MNIST's digits and CIFAR-10's photographs: the share in which a frozen classifier sees the class
asked for. Of all data: distances to real pictures beside their floor, precision, recall, density and coverage; whether
pictures are copies of training pictures; whether the prompt matters; and on small sets, how far the model is from
knowing all of them by heart. See docs/evaluate.md for each number.

RUN is a run directory (its latest checkpoint), a checkpoint directory or a .safetensors file; without it the model
that came with fromnoise is measured. In a run directory evaluation.json keeps the results, and neighbours.png shows
the pictures that are nearest to a training picture. Of a VAE's run, see fromnoise evaluate RUN --help.
"""


class Options(Wanted):
    """What to measure, and how to tell it."""

    output: Literal["table", "json"] = "table"
    """How results are printed; --json is short for --output json."""


def main(args: Sequence[str]) -> None:
    command = f"fromnoise evaluate {shlex.join(args)}".rstrip()
    args = ["--output=json" if arg == "--json" else arg for arg in args]
    if evaluate_vae.find(args):
        evaluate_vae.main(args)
        return
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) > 1:
        raise ValueError(f"{words[1]!r} is not expected here; usage: {USAGE}")
    from fromnoise.core.ranks import joined
    from fromnoise.evaluation.subject import Subject
    from fromnoise.evaluation.table import table
    from fromnoise.evaluation.whole import keep, measured

    wanted = Wanted.model_validate(options.model_dump(exclude={"output"}))
    with joined(wanted.device) as ranks:
        subject = Subject(Path(words[0]) if words else shipped(), wanted, progress, ranks)
        results = {**measured(subject), "command": command}
    if not ranks.first:
        return
    keep(subject, results)  # first: whoever reads what is printed may stop reading
    print(json.dumps(results) if options.output == "json" else table(results, subject.domain))
