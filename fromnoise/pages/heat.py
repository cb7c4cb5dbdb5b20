"""Heat maps, and quality against time, as SVG to stand inside an HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from fromnoise.pages.charts import COLOURS, STYLE, literal, svg_of

CELL = (0.95, 0.5)  # inches
AROUND = (1.6, 1.0)  # inches for the names of rows and columns


class Cell(NamedTuple):
    """One measurement in a heat map."""

    row: str
    column: str
    value: float
    marked: bool = False  # outlined


def heat_map(
    cells: Sequence[Cell], row: str, column: str, shown: Callable[[float], str], bounds: tuple[float, float],
    *, title: str, name: str, high_is_good: bool = True,
) -> str:  # fmt: skip
    """An SVG: a cell for each row and column that were measured together, light where it is good, its number in it.

    bounds: least and most of all maps that are looked at beside each other. `name` is unique in a page.
    """
    rows = list(dict.fromkeys(cell.row for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    low, high = bounds
    with rc_context(STYLE | {"svg.hashsalt": name, "axes.grid": False}):
        size = (AROUND[0] + CELL[0] * len(columns), AROUND[1] + CELL[1] * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        table = [[float("nan")] * len(columns) for _ in rows]
        for cell in cells:
            table[rows.index(cell.row)][columns.index(cell.column)] = cell.value
        colours = "viridis" if high_is_good else "viridis_r"
        axes.pcolormesh(table, cmap=colours, vmin=low, vmax=max(high, low + 1e-9), edgecolors="white", linewidth=1)
        for cell in cells:
            x, y = columns.index(cell.column), rows.index(cell.row)
            share = (cell.value - low) / max(high - low, 1e-9)
            light = share if high_is_good else 1 - share
            ink = "black" if light > 0.6 else "white"
            axes.text(x + 0.5, y + 0.5, shown(cell.value), ha="center", va="center", color=ink, fontsize=9)
            if cell.marked:
                axes.plot(
                    [x, x + 1, x + 1, x, x], [y, y, y + 1, y + 1, y], color=COLOURS[1], linewidth=3, clip_on=False
                )
        axes.set_xticks([i + 0.5 for i in range(len(columns))], [literal(text) for text in columns])
        axes.set_yticks([i + 0.5 for i in range(len(rows))], [literal(text) for text in rows])
        axes.set_xlabel(literal(column))
        axes.set_ylabel(literal(row))
        axes.set_title(literal(title), fontsize=10)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg_of(figure, name)


def against_time(
    groups: Mapping[str, Sequence[tuple[float, float]]], front: Sequence[tuple[float, float]],
    marks: dict[str, tuple[float, float]], y: str, name: str,
) -> str:  # fmt: skip
    """An SVG: every setting as a dot at (milliseconds a picture, quality), in a colour for each group; the `front`,
    which no setting beats in both, as a line; and some settings named beside their dots."""
    with rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(6.4, 3.9), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*front, strict=True), color="#bbb", linewidth=1.2, drawstyle="steps-post", zorder=1)
        for k, (group, points) in enumerate(groups.items()):
            axes.scatter(
                *zip(*points, strict=True), color=COLOURS[k % len(COLOURS)], s=22, label=literal(group), zorder=2
            )
        for k, (mark, (x, value)) in enumerate(marks.items()):
            axes.annotate(
                mark, (x, value), (-16, -24 - 14 * k), textcoords="offset points", ha="right", fontsize=9,
                arrowprops={"arrowstyle": "-", "color": "#666"},
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("milliseconds a picture")
        axes.set_ylabel(y)
        axes.legend(fontsize=8.5)
        return svg_of(figure, name)
