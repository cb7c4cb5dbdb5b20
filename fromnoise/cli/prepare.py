"""`fromnoise prepare`: a data set of any kind, encoded once, as shards that trainings read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from fromnoise.cli.flags import parse
from fromnoise.preparation.config import Preparation

if TYPE_CHECKING:
    from fromnoise.preparation.prepare import Prepared

USAGE = "fromnoise prepare SOURCE --out DIR [--option VALUE ...]"
DESCRIPTION = """\
Reads pictures and captions, encodes them by frozen models, and writes shards that fromnoise train reads. What cannot be
read is left out and told in DIR/quarantine.jsonl. The same command again goes on where it was stopped.

SOURCE is a folder of pictures, a CSV, JSONL or parquet file, webdataset tars (shards-{000..127}.tar), hub:owner/name,
mnist, cifar10 or shapes:COUNT.
"""


class Options(Preparation):
    """What to prepare a data set with, and where to put it."""

    out: Path | None = None
    """Directory for the shards; must be given."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    ray: NonNegativeInt = 0
    """Workers of Ray that share the work: those of the cluster at $RAY_ADDRESS, else of this machine; 0 without Ray."""


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) != 1:
        given = f"{words[1]!r} is not expected here" if words else "no SOURCE is given"
        raise ValueError(f"{given}; usage: {USAGE}")
    if options.out is None:
        raise ValueError(f"no --out is given; usage: {USAGE}")
    from fromnoise.preparation.prepare import prepare

    settings = Preparation.model_validate(options.model_dump(exclude={"out", "device", "ray"}))
    done = prepare(words[0], options.out, settings, options.device, options.ray)
    print(table(done))
    print(f"train on it: --data.type prepared --data.path {options.out}")


def table(done: Prepared) -> str:
    """What came of it, a line each."""
    counts, statistics = done.manifest.counts, done.manifest.statistics
    lines = [f"{stage:<16}{rate:12,.0f} images/s of a thread" for stage, rate in done.rates.items()]
    lines += [
        f"{'samples':<16}{counts.samples:12,}",
        f"{'captions':<16}{counts.captions:12,}",
        *([f"{'without caption':<16}{counts.uncaptioned:12,}"] if counts.uncaptioned else []),
        f"{'quarantined':<16}{counts.faults:12,}" + (" (see quarantine.jsonl)" if counts.faults else ""),
        f"{'duplicates':<16}{done.manifest.duplicates:12,}",
    ]
    if counts.animated:
        lines.append(f"{'animations':<16}{counts.animated:12,} (the first frame of each)")
    if done.manifest.layout.texts:
        lines.append(f"{'captions cut':<16}{counts.cut:12,}")
    lines.append(f"{'latent mean':<16}{_row(statistics.mean)}")
    lines.append(f"{'latent std':<16}{_row(statistics.std)}")
    return "\n".join(lines)


def _row(numbers: Sequence[float]) -> str:
    shown = " ".join(f"{number:.3f}" for number in numbers[:4])
    return f"{shown} ... ({len(numbers)} channels)" if len(numbers) > 4 else shown
