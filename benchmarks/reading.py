"""How fast prepared data sets of several sizes are read, and how much memory that takes. Writes one JSON record."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from rich.console import Console

from benchmarks.harness import describe_machine, run_main, write_record
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.core.needs import memory_of
from fromnoise.data.manifest import Layout
from fromnoise.data.prepared import PreparedData
from fromnoise.data.shards import Latent, Sample, Text, finish, write_shard

SHAPE = (4, 32, 32)  # Stable Diffusion's latents of 256 x 256 pixels
SHARD = 1024  # samples
RECORD = Path(__file__).parent / "results" / "reading.json"
USAGE = "python -m benchmarks.reading [--option VALUE ...]"
DESCRIPTION = """\
Writes data sets of latents of 4 x 32 x 32 with a standard deviation, and one caption each with its features, into a
temporary folder, and reads each by one thread of a fresh process, from the memory that files are cached in.
"""


class Settings(Config):
    """What is written and read."""

    small: PositiveInt = 10_000
    """Samples of the first data set."""
    large: PositiveInt = 100_000
    """Samples of the second."""
    largest: PositiveInt | None = None
    """Samples of a third: 1,000,000 take 20 GB of disk at the defaults; left out, there is none."""
    tokens: PositiveInt = 20
    """Tokens of a caption."""
    width: PositiveInt = 64
    """Numbers of a token."""
    batch: PositiveInt = 256
    """Samples of a batch."""
    batches: PositiveInt = 40
    """Batches of a round."""
    rounds: PositiveInt = 5
    """Rounds measured; one more before does not count."""
    folder: Path | None = None
    """Where the temporary folder is made; left out, where the system has its own."""
    out: Path = RECORD
    """File of the record."""


def write(directory: Path, samples: int, settings: Settings) -> None:
    """A data set of chance; the numbers are those of a few samples, over and over: reading does not look at them."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(16, *SHAPE, generator=generator)
    tokens = torch.randn(16, settings.tokens, settings.width, generator=generator)
    layout = Layout(
        encoders={"vae": "chance", "text": "chance"},
        size=8 * SHAPE[-1],
        factor=8,
        latent=SHAPE[0],
        sizes=(SHAPE[1:],),
        texts=(settings.width,),
    )
    directory.mkdir()
    names = []
    for first in range(0, samples, SHARD):
        rows = range(first, min(first + SHARD, samples))
        there = [Sample(f"{i:09}", Latent(latents[i % 16], latents[i % 16].abs()), [f"caption {i}"]) for i in rows]
        texts = {f"caption {i}": Text((tokens[i % 16],), (tokens[i % 16, 0],)) for i in rows}
        names.append(f"{len(names):06}.safetensors")
        write_shard(directory / names[-1], layout, there, texts, [], cut=0)
    finish(directory, layout, names, "chance")


def measure(directory: Path, settings: Settings) -> dict[str, Any]:
    """Samples/s of each round, and MiB of memory: of its own ("held"), and of files mapped, which the system takes back
    when it needs them ("mapped"). Reads by one thread."""
    torch.set_num_threads(1)
    before, start = memory(), time.perf_counter()
    data = PreparedData(directory, 0)
    opened = time.perf_counter() - start
    rates = []
    for first in range(0, (settings.rounds + 1) * settings.batches, settings.batches):
        start = time.perf_counter()
        for step in range(first, first + settings.batches):
            data.train(step, settings.batch)
        rates.append(settings.batches * settings.batch / (time.perf_counter() - start))
    after = memory()
    return {
        "samples": data.manifest.counts.samples,
        "bytes": sum(shard.bytes for shard in data.manifest.shards),
        "seconds_to_open": opened,
        "samples_per_second": statistics.median(rates[1:]),
        "samples_per_second_by_round": rates[1:],
        "mib_held": after["RssAnon"] - before["RssAnon"],
        "mib_mapped": after["RssFile"] - before["RssFile"],
        "mib_of_the_process": after["VmRSS"],
    }


def memory() -> dict[str, float]:
    """MiB of this process's memory by kind, as Linux tells it."""
    return {kind: memory_of(kind) / 2**20 for kind in ("VmRSS", "RssAnon", "RssFile")}


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    say = Console(stderr=True).print
    machine, found = describe_machine(), []
    for samples in filter(None, (settings.small, settings.large, settings.largest)):
        with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
            start = time.perf_counter()
            write(Path(folder) / "data", samples, settings)
            seconds = time.perf_counter() - start
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # what writing left in memory is not counted
                measured = fresh.submit(measure, Path(folder) / "data", settings).result()
        found.append(measured | {"written_per_second": samples / seconds})
        say(
            f"{samples:,} samples: {measured['samples_per_second']:,.0f} samples/s, {measured['mib_held']:,.0f} MiB "
            f"held, {measured['mib_mapped']:,.0f} MiB mapped"
        )
    record = {
        "command": " ".join(["python -m benchmarks.reading", *args]),
        "machine": machine,
        "settings": settings.model_dump(mode="json", exclude={"folder", "out"}),
        "sizes": found,
    }
    write_record(settings.out, record)


if __name__ == "__main__":
    run_main(main)
