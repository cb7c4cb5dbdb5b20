"""`fromnoise diff`: two runs side by side, on a page and in a short table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from fromnoise.cli.flags import parse
from fromnoise.core.config import Config, Seed

USAGE = "fromnoise diff RUN RUN [--option VALUE ...]"
DESCRIPTION = """\
Shows how two runs differ: the settings field by field, the curves in one chart, pictures of the same prompts from the
same noise, what `fromnoise evaluate` found of each, and what they cost. Prints a short table, and writes one HTML page
that needs no network. RUN is the directory of a run, finished or in training.
"""


class Options(Config):
    """How to draw, and where to put it."""

    out: Path | None = None
    """File of the page; left out, diff/ and the names of both runs, with a hash of where they are if the page of others
    of these names is there."""
    seed: Seed = 0
    """Noise of the first picture; the next ones count on from it."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) != 2:
        raise ValueError(f"two runs are wanted, not {len(words)}; usage: {USAGE}")
    from fromnoise.core.device import pick
    from fromnoise.core.files import write_text
    from fromnoise.reporting.diff import diff, summary
    from fromnoise.reporting.record import read

    pick(options.device)
    first, second = (read(Path(word)) for word in words)
    if type(first.run) is not type(second.run):
        raise ValueError(f"one of {words[0]} and {words[1]} is the run of a VAE; allowed: two VAEs, or two that draw")
    mark = mark_of(first.directory, second.directory)
    out = options.out or free(Path("diff") / f"{first.name}-{second.name}.html", mark)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, diff(first, second, options.seed, options.device) + f"<!-- {mark} -->\n")
    print(f"{summary(first, second)}\n{out}")  # last: whoever reads it may stop reading


def mark_of(*directories: Path) -> str:
    """What tells the page of the runs in these directories from those of others of the same names."""
    return hashlib.sha256("\n".join(str(place.resolve()) for place in directories).encode()).hexdigest()[:12]


def free(file: Path, mark: str) -> Path:
    """`file`, or one beside it with `mark` in its name where `file` is there and has another mark, or none."""
    taken = file.exists() and f"<!-- {mark} -->" not in file.read_text(encoding="utf-8", errors="replace")
    return file.with_stem(f"{file.stem}-{mark}") if taken else file
