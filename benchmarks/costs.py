"""What a larger picture takes of time, and a larger batch of memory: fromnoise's backbones beside diffusers' classes.

Of each pair both have the same weights and are given the same pictures (benchmarks/stock). What is measured is a
forward and a backward of the network, eager, in bfloat16 where that is fast; memory is what the allocator has given out
at most beyond the weights and gradients that were there before, so that it does not hang on what the process did else.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from matplotlib.figure import Figure
from pydantic import Field, PositiveInt
from rich.console import Console

from benchmarks import speed
from benchmarks.given import conditioned
from benchmarks.harness import allocated, describe_machine, put, ratio, run_main, take_turns, write_record
from benchmarks.stock.rival import Rival, Way, flow_loss
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config, Name
from fromnoise.core.device import fast_bfloat16, keep_freed_memory
from fromnoise.core.files import write_bytes, write_text
from fromnoise.plots.style import BLUE, RED, sheet, styled
from fromnoise.training.step import accumulate_gradients

ROOT = Path(__file__).parent.parent
OURS, STOCK = "fromnoise", "diffusers"
MIB = 2**20
USAGE = "python -m benchmarks.costs [--option VALUE ...]"
DESCRIPTION = """\
Measures what a forward and a backward take on the CPU: time by the size of a picture, memory by the batch. Writes a
record, the picture docs/images/costs.png and the table of docs/plan.md.
"""


class Settings(Config):
    """What is measured."""

    networks: Annotated[tuple[Annotated[str, Name(speed.RIVALS)], ...], Field(min_length=1)] = tuple(speed.RIVALS)
    """Which networks: mmdit, dit, unet, sd3."""
    times: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (1, 2, 3, 4)
    """Sides of pictures, in multiples of what the network is measured at by `make bench`."""
    pictures: PositiveInt = 4
    """Pictures of a step whose time is taken."""
    rounds: PositiveInt = 5
    """Times that each takes that step, in turns."""
    batches: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (8, 16, 32, 64)
    """Pictures of a step whose memory is taken."""
    out: Path = ROOT
    """Folder in which record, picture and table have their places."""


def steps_of(rival: Rival, pictures: int) -> dict[str, Callable[[], object]]:
    """A forward and a backward of both, with gradients to be added to."""
    device = torch.device("cpu")
    dtype = torch.bfloat16 if fast_bfloat16(device) else None
    pipeline, stock = rival.build(pictures, device)
    sample, cond = conditioned(pipeline, pictures)
    way = Way(dtype, torch.float32, last=rival.layouts[-1])
    model = rival.held(stock, way, compile=False)
    answer = partial(rival.answer, model, told=rival.prompt(stock, cond, way), way=way)
    return {
        OURS: lambda: accumulate_gradients(pipeline, sample, 1, dtype),
        STOCK: lambda: flow_loss(answer, sample).backward(),
    }


def places(rival: Rival) -> int:
    """Tokens of a picture; of a U-Net cells of its finest level."""
    return (rival.side // getattr(rival.backbone, "patch", 1)) ** 2


def at(rival: Rival, side: int) -> Rival:
    """The same for pictures of `side` pixels; positions that are learnt or cut from a table reach as far."""
    backbone: Any = rival.backbone
    if getattr(backbone, "largest", None):
        reach = max(backbone.largest, side // backbone.patch)
        backbone = backbone.model_copy(update={"largest": reach})
    return rival.model_copy(update={"side": side, "backbone": backbone})


def by_side(rival: Rival, settings: Settings) -> list[dict[str, Any]]:
    """Seconds a picture, side by side."""
    found = []
    for times in settings.times:
        larger = at(rival, times * rival.side)
        seconds = take_turns(
            steps_of(larger, settings.pictures), settings.rounds, torch.device("cpu"), lambda done, rounds: None
        )
        medians = {who: statistics.median(spent) / settings.pictures for who, spent in seconds.items()}
        faster = ratio(seconds[OURS], seconds[STOCK])._asdict()
        found.append({"side": larger.side, "tokens": places(larger), "seconds": medians, "times_as_fast": faster})
    return found


def by_batch(rival: Rival, settings: Settings) -> list[dict[str, Any]]:
    """MiB at most, batch by batch."""
    found = []
    for batch in settings.batches:
        mib = {}
        for who, step in steps_of(rival, batch).items():
            step()  # leaves gradients, and whatever is kept for a shape
            mib[who] = allocated(step) / MIB
        found.append({"batch": batch, "mib": mib})
    return found


def table(record: Mapping[str, Any]) -> str:
    """A row for each network, in Markdown: smallest and largest beside each other."""
    head = ("network", "tokens", "ms a picture", "times as fast as diffusers", "batch", "MiB", "of diffusers'")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, told in record["networks"].items():
        sides, batches = (told[key] for key in ("by_side", "by_batch"))
        ends, full = (sides[0], sides[-1]), (batches[0], batches[-1])
        cells = [
            name,
            " to ".join(f"{one['tokens']:,}" for one in ends),
            " to ".join(f"{1000 * one['seconds'][OURS]:.1f}" for one in ends),
            " to ".join(f"{one['times_as_fast']['median']:.2f}" for one in ends),
            " to ".join(f"{one['batch']}" for one in full),
            " to ".join(f"{one['mib'][OURS]:,.0f}" for one in full),
            " to ".join(f"{one['mib'][OURS] / one['mib'][STOCK]:.2f}" for one in full),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@styled
def figure(record: Mapping[str, Any]) -> Figure:
    """Above, time by tokens; below, memory by batch: of each network a column."""
    networks = record["networks"]
    drawn = sheet(
        3 * len(networks) + 0.4,
        5.6,
        "What a larger picture takes of time, and a larger batch of memory",
        "A forward and a backward, eager, on two cores. Above: milliseconds a picture by its tokens (of a U-Net, cells "
        "of the finest level), both axes logarithmic: a line that is as steep as the dotted one grows with the tokens. "
        "Below: MiB that activations and what is computed on the way take at most, by the pictures of a step.",
    )
    axes = drawn.subplots(2, len(networks), squeeze=False)
    for (name, told), above, below in zip(networks.items(), *axes, strict=True):
        tokens, batches = [one["tokens"] for one in told["by_side"]], [one["batch"] for one in told["by_batch"]]
        for who, colour in ((OURS, BLUE), (STOCK, RED)):
            above.plot(
                tokens, [1000 * one["seconds"][who] for one in told["by_side"]], "o-", color=colour, ms=4, label=who
            )
            below.plot(batches, [one["mib"][who] for one in told["by_batch"]], "o-", color=colour, ms=4)
        start = 1000 * told["by_side"][0]["seconds"][OURS]
        above.plot(tokens, [start * n / tokens[0] for n in tokens], ":", color=BLUE, lw=1)
        above.set(title=name, xscale="log", yscale="log", xlabel="tokens")
        above.set_xticks(tokens, [f"{n:,}" for n in tokens], size=8)
        above.minorticks_off()
        below.set(xlabel="pictures of a step", xticks=batches, ylim=(0, None))
    axes[0, 0].set_ylabel("ms a picture")
    axes[1, 0].set_ylabel("MiB")
    axes[0, 0].legend()
    return drawn


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    keep_freed_memory()  # as a training has it, for both
    say, machine, found = Console(stderr=True).print, describe_machine(), {}
    for name in settings.networks:
        rival = getattr(speed.Settings(), name)
        found[name] = {"by_side": by_side(rival, settings), "by_batch": by_batch(rival, settings)}
        say(table({"networks": {name: found[name]}}).splitlines()[-1])
    record: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.costs", *args]),
        "machine": machine,
        "settings": settings.model_dump(mode="json", exclude={"out"}),
        "networks": found,
    }
    write_record(settings.out / "benchmarks/results/costs.json", record)
    buffer = io.BytesIO()
    figure(record).savefig(buffer, dpi=110, format="png")
    (settings.out / "docs/images").mkdir(parents=True, exist_ok=True)
    write_bytes(settings.out / "docs/images/costs.png", buffer.getvalue())
    page = settings.out / "docs/plan.md"
    if not page.exists():
        write_text(page, (ROOT / "docs/plan.md").read_text(encoding="utf-8"))
    put(table(record), page, "costs")


if __name__ == "__main__":
    run_main(main)
