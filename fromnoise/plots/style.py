"""The look that all plots share, and how a figure becomes a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple
from warnings import catch_warnings, filterwarnings

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from PIL import Image

BLUE, RED, GREEN, PINK, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
"""Okabe and Ito's colours, which colour-blind people can tell apart (Okabe and Ito 2008)."""
INK, GREY = "#222222", "#777777"
HEAT = "cividis"
"""Colour map of amounts: as dark or light to colour-blind people as to others (Nunez et al. 2018)."""
LABEL = 18  # letters in a line beside a row
TIME = "t  (0 data, 1 noise)"
LOG_SNR = "log-SNR  ln(α² / σ²)"

styled = rc_context(
    {
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,  # a dollar in a prompt is a dollar
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#EBEBEB",
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
    }
)
"""A decorator of functions that draw: inside, new artists have this look."""


class Drawn(NamedTuple):
    """A figure to be written."""

    stem: str
    """Name of the file, less its ending."""
    figure: Figure
    metadata: dict[str, str]
    """What the PNG says of itself."""


def sheet(width: float, height: float, title: str, caption: str) -> Figure:
    """An empty figure of `width` x `height` inches: `title` above says what is seen, `caption` below how to read it."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, int(9.5 * width)), x=0.01, ha="left", size=12.5, weight="bold")
    figure.supxlabel(textwrap.fill(caption, int(15 * width)), x=0.01, ha="left", size=8.5, color=GREY)
    return figure


def grid(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """`rows` x `columns` axes for pictures, close together: an array of Axes."""
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)  # type: ignore[union-attr]
    return figure.subplots(rows, columns, squeeze=False)


def show(axes: Axes, picture: Image.Image) -> None:
    """The picture in `axes`, its pixels square and sharp, without ticks."""
    axes.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest")
    bare(axes)


def bare(axes: Axes) -> None:
    """No ticks, no grid, no frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def beside(axes: Axes, text: str) -> None:
    """`text` to the left of `axes`, in short lines."""
    axes.set_ylabel(textwrap.fill(text, LABEL), rotation=0, ha="right", va="center", labelpad=6, size=9.5)


def margin(texts: Sequence[str]) -> float:
    """Inches that the widest of `texts` takes when it stands `beside` a row."""
    return 0.25 + 0.078 * max(len(line) for text in texts for line in textwrap.wrap(text, LABEL))


def missing(figure: Figure) -> list[str]:
    """The letters in `figure` that its font lacks: empty boxes stand for them."""
    found: dict[str, None] = {}
    for text in figure.findobj(Text):
        font = get_font(findfont(text.get_fontproperties()))
        letters = "".join(text.get_text().split())
        found |= dict.fromkeys(letter for letter in letters if not font.get_char_index(ord(letter)))
    return list(found)


def image(figure: Figure, dpi: int) -> Image.Image:
    """The figure as pixels, `dpi` to the inch."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with catch_warnings():
        filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)  # `missing` tells of all of them
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
