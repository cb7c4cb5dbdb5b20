"""Training and drawing speed of fromnoise's backbones beside diffusers' classes of the same size, and how soon
fromnoise is there: `make bench`.

Of each pair both have the same weights, pictures, noise and conditions, and are seen to give the same loss and the same
pictures before they are timed, in turns (benchmarks/contests.py says how each is run; benchmarks/stock, what they are).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from rich.console import Console
from rich.table import Table

from benchmarks.contests import EAGER, OURS, Result, Work, check, time_sampling, time_training
from benchmarks.harness import describe_machine, ratio, run_main, write_record
from benchmarks.starts import starts
from benchmarks.stock.dit import DiT
from benchmarks.stock.mmdit import QwenImage
from benchmarks.stock.rival import Rival
from benchmarks.stock.sd3 import SD3
from benchmarks.stock.unet import UNet
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config, Name

RIVALS: dict[str, type[Rival]] = {"mmdit": QwenImage, "dit": DiT, "unet": UNet, "sd3": SD3}
"""The networks by name, in the order in which they are measured."""
RESULTS = Path(__file__).parent / "results" / "speed.json"
USAGE = "python -m benchmarks.speed [--option VALUE ...]"
DESCRIPTION = """\
Measures training and drawing beside diffusers' classes of the same networks, on the CPU and, where there is one, on the
GPU, and how long fromnoise takes to start; prints tables and writes everything measured as JSON.
"""


class Settings(Config):
    """What is measured."""

    networks: Annotated[tuple[Annotated[str, Name(RIVALS)], ...], Field(min_length=1)] = tuple(RIVALS)
    """Which networks: mmdit, dit, unet, sd3."""
    mmdit: QwenImage = QwenImage()
    dit: DiT = DiT()
    unet: UNet = UNet()
    sd3: SD3 = SD3()
    batch: PositiveInt = 64
    """Pictures of an optimizer step."""
    pictures: PositiveInt = 16
    """Pictures drawn together."""
    steps: PositiveInt = 28
    """Euler steps from noise to picture."""
    guidance: NonNegativeFloat = 4.0
    """Classifier-free guidance scale."""
    training_rounds: PositiveInt = 10
    """Times that each takes one optimizer step, in turns."""
    sampling_rounds: PositiveInt = 5
    """Times that each draws its pictures, in turns."""
    starts: Annotated[int, Field(ge=0)] = 3
    """Times that fromnoise is started, each of its ways; 0 leaves this out."""
    planned: PositiveInt = 2000
    """Steps of the training that compilation must repay, for fromnoise to compile."""
    compile: bool = True
    """Draw compiled."""
    thorough: bool = False
    """Also measure the stock classes compiled, and a first step that is compiled from nothing: five minutes more."""
    out: Path = RESULTS
    """File to write."""

    @property
    def work(self) -> Work:
        """How much is done of each."""
        return Work(self.batch, self.planned, self.pictures, self.steps, self.guidance, self.compile, self.thorough)


def measure(
    name: str, settings: Settings, device: torch.device, console: Console
) -> Iterator[dict[str, float] | Result]:
    """How far a network and the stock class are apart in float32, then what each work takes."""
    rival: Rival = getattr(settings, name)
    work = settings.work
    pipeline, stock = rival.build(max(work.batch, work.pictures), device)
    yield check(rival, pipeline, stock, work)
    yield time_sampling(name, rival, pipeline, stock, work, settings.sampling_rounds, console.print)
    yield time_training(name, rival, pipeline, stock, work, settings.training_rounds, console.print)


def summary(result: Result) -> dict[str, object]:
    """A result with what follows from it, for the record."""
    ratios = {name: ratio(result.seconds[OURS], s) for name, s in result.seconds.items() if name != OURS}
    target = RIVALS[result.network].targets[result.work]
    return result._asdict() | {
        "images_per_second": {name: result.images / statistics.median(s) for name, s in result.seconds.items()},
        "times_as_fast_as": {name: found._asdict() for name, found in ratios.items()},
        "target": target,
        "reached": ratios[EAGER].median >= target,
    }


def show(results: Sequence[Result]) -> Table:
    """The results as a table."""
    table = Table("network", "work", "on", "who", "how", "images/s", "fromnoise is faster by")
    for result in results:
        for name, seconds in result.seconds.items():
            found = ratio(result.seconds[OURS], seconds)
            times = f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})" if name != OURS else ""
            wanted = RIVALS[result.network].targets[result.work]
            goal = f", wanted {wanted}" if name == EAGER else ""
            speed = f"{result.images / statistics.median(seconds):.1f}"
            table.add_row(result.network, result.work, result.device, name, result.how[name], speed, times + goal)
        table.add_section()
    return table


def show_starts(seconds: dict[str, list[float]]) -> Table:
    """How soon fromnoise is there, as a table."""
    table = Table("start", "seconds")
    for what, spent in seconds.items():
        table.add_row(what, f"{statistics.median(spent):.2f} ({min(spent):.2f} to {max(spent):.2f})")
    return table


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    console, machine, results = Console(stderr=True), describe_machine(), list[Result]()
    gaps: dict[str, dict[str, dict[str, float]]] = {}
    begun = starts(settings.starts, settings.thorough) if settings.starts else {}
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        gaps[device] = {}
        for name in settings.networks:
            for found in measure(name, settings, torch.device(device), console):
                if isinstance(found, Result):
                    results.append(found)
                else:
                    gaps[device][name] = found
            record = {
                "command": " ".join(["python -m benchmarks.speed", *args]),
                "machine": machine,
                "settings": settings.model_dump(mode="json", exclude={"out"}),
                "relative_difference_in_float32": gaps,
                "results": [summary(result) for result in results],
                "seconds_to_start": {
                    what: {"seconds": statistics.median(spent), "each": spent} for what, spent in begun.items()
                },
            }
            write_record(settings.out, record)  # after each, for all take long
    Console().print(show(results))
    if begun:
        Console().print(show_starts(begun))


if __name__ == "__main__":
    run_main(main)
