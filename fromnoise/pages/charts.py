"""Line charts as SVG to stand inside an HTML page: text stays text, and nothing is fetched."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

SIZE = (5.2, 3.3)  # inches
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#332288", "#117733", "#882255", "#666666")
"""Okabe and Ito's, then Tol's: told apart by the colour-blind too."""

DECADE = 10  # times as much at the top of an axis as at its bottom: fewer, and labelled powers of ten are too few

STYLE: Any = {
    "svg.fonttype": "none",  # text, not outlines: it can be selected and searched
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


class Line(NamedTuple):
    """One line of a chart: of a recipe, of a run, of one thing that was measured."""

    name: str  # in the legend; "" for none there
    colour: str
    x: Sequence[float]
    seeds: Sequence[Sequence[float]]  # a row of values for each seed
    dashed: bool = False
    thin: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None  # from which value to which, shaded


def chart(
    lines: Sequence[Line],
    x: str,
    y: str,
    *,
    name: str,
    log_x: bool = False,
    log_y: bool = False,
    marks: bool = False,
    top: float | None = None,
) -> str:
    """An SVG of the mean of each line over its seeds, each seed thinly beside it; `name` is unique in a page.

    top: what is larger lies above the chart; for values above 0.
    """
    with rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            style = "--" if line.dashed else "-"
            if len(line.seeds) > 1:
                for row in line.seeds:
                    axes.plot(line.x, row, style, color=line.colour, linewidth=0.7, alpha=0.5)
            mean = [math.fsum(column) / len(column) for column in zip(*line.seeds, strict=True)]
            marker = "o" if marks or len(line.x) == 1 else None  # one point alone makes no line
            if line.band:
                axes.fill_between(line.x, *line.band, color=line.colour, alpha=0.2, linewidth=0)
            width, alpha = (0.7, 0.5) if line.thin else (1.8, 1.0)
            axes.plot(line.x, mean, style, color=line.colour, linewidth=width, alpha=alpha, marker=marker, markersize=4)
            axes.lines[-1].set_label(literal(line.name))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        if top is not None:
            lows = [value for line in lines for row in (*line.seeds, *(line.band or ())) for value in row]
            axes.set_ylim(0.97 * min(lows), top)
        if log_y:
            low, high = axes.get_ylim()
            some = "123456789" if high < DECADE * low else "25" if high < DECADE**2 * low else ""
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: _leading(value, some)))
        if marks:
            ticks = sorted({value for line in lines for value in line.x})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        if any(line.name for line in lines):
            axes.legend(fontsize=8.5)
        return svg_of(figure, name)


def _leading(value: float, digits: str) -> str:
    """The value, where its first digit is one of these."""
    return f"{value:g}" if f"{value:e}"[0] in digits else ""


def literal(text: str) -> str:
    """A label as it stands: matplotlib would read mathematics between dollars, and hide what begins with a line."""
    return text.replace("$", r"\$").lstrip("_")


def svg_of(figure: Figure, name: str) -> str:
    """The <svg> element alone, as wide as its place, its ids its own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    element = buffer.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", element)
    return re.sub(r' (width|height)="[^"]*pt"', "", element, count=2)
