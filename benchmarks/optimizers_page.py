"""What benchmarks/optimizers.py measured, as tables of docs/optimizers.md and as a plot; from the record alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.harness import put, write_record
from fromnoise.core.files import write_bytes, write_text
from fromnoise.plots.style import BLUE, GREY, RED, sheet, styled

ROOT = Path(__file__).parent.parent
NAMES = {
    "shapes": "shapes, MMDiT",
    "digits-dit": "digits, DiT",
    "digits-unet": "digits, U-Net",
    "latents": "latents of emoji, MMDiT",
}
KINDS = {"adamw": "AdamW", "muon": "Muon"}


def table(record: Mapping[str, Any]) -> str:
    """Both optimizers, a row for each task, in Markdown."""
    head = (
        "task",
        "parameters",
        "rate of AdamW",
        "of Muon",
        "AdamW",
        "Muon",
        "ratio",
        "seconds a step",
        "at equal time",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for task, told in record["tasks"].items():
        losses = told["losses"]
        cells = [NAMES[task], f"{told['parameters'] / 1e6:.2f}M"]
        cells += [f"{told['rates'][name]:g}" for name in KINDS] + [
            f"{losses[name]['ema']['mean']:.4f}" for name in KINDS
        ]
        cells += [share(told["muon_over_adamw"]["ema"]), f"{told['muon_seconds_over_adamw']['median']:.2f}"]
        cells += [share(told["muon_over_adamw_as_many_seconds"]["ema"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(told: Mapping[str, Any]) -> str:
    """A ratio with its interval."""
    return f"{told['mean']:.3f}" + (f" ({told['low']:.3f} to {told['high']:.3f})" if "low" in told else "")


def shared_table(record: Mapping[str, Any]) -> str:
    """The modulations, a row each, in Markdown."""
    head = ("modulation", "width", "parameters", "loss", "over own", "seconds a step over own")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, told in record["modulation"].items():
        cells = [name, str(told["width"]), f"{told['parameters'] / 1e6:.2f}M", f"{told['losses']['ema']['mean']:.4f}"]
        cells += [share(told["over_own"]["ema"]), f"{told['seconds_over_own']['median']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@styled
def figure(record: Mapping[str, Any]) -> Figure:
    """Above, the search for a rate; below, what each came to: of each task a column."""
    tasks, settings = record["tasks"], record["settings"]
    drawn = sheet(
        3.1 * len(tasks) + 0.6,
        5.6,
        "Muon and AdamW, each at its own best rate",
        f"Validation loss of averaged weights. Above: by learning rate, after {settings['search_steps']} steps; below: "
        f"after {settings['steps']} steps of {settings['batch']} pictures, and of AdamW for as many seconds. A dot is "
        "a seed, a line joins trainings that began with the same weights and saw the same pictures and noise.",
    )
    axes = drawn.subplots(2, len(tasks), squeeze=False)
    for (task, told), above, below in zip(tasks.items(), *axes, strict=True):
        above.set(title=NAMES[task], xscale="log", xlabel="learning rate")
        for (name, label), colour in zip(KINDS.items(), (BLUE, RED), strict=True):
            rates = [float(rate) for rate in told["search"][name]]
            above.plot(rates, list(told["search"][name].values()), "o-", color=colour, ms=4, label=label)
        tried = sorted({rate for name in KINDS for rate in told["search"][name]}, key=float)
        above.set_xticks([float(rate) for rate in tried], [rate.removeprefix("0") for rate in tried], size=8)
        above.minorticks_off()
        kinds = {"adamw": "AdamW", "muon": "Muon", "adamw, as many seconds": "AdamW,\nas long"}
        each = [told["losses"][kind]["ema"]["each"] for kind in kinds]
        for seed in zip(*each, strict=True):
            below.plot(range(3), seed, "-", color=GREY, lw=0.6)
        for place, (values, colour) in enumerate(zip(each, (BLUE, RED, BLUE), strict=True)):
            below.plot([place] * len(values), values, "o", color=colour, ms=5, mfc="none" if place == 2 else colour)
        below.set(xticks=range(3), xticklabels=kinds.values(), xlim=(-0.4, 2.4))
    axes[0, 0].set_ylabel("validation loss")
    axes[1, 0].set_ylabel("validation loss")
    axes[0, 0].legend()
    return drawn


def write(record: dict[str, Any], out: Path) -> None:
    """The record, the plot and the tables, in their places under `out`."""
    write_record(out / "benchmarks/results/optimizers.json", record)
    buffer, page = io.BytesIO(), out / "docs/optimizers.md"
    figure(record).savefig(buffer, dpi=110, format="png")
    (out / "docs/images").mkdir(parents=True, exist_ok=True)
    write_bytes(out / "docs/images/optimizers.png", buffer.getvalue())
    if not page.exists():
        write_text(page, (ROOT / "docs/optimizers.md").read_text(encoding="utf-8"))
    put(table(record), page)
    if "modulation" in record:
        put(shared_table(record), page, "modulation")
