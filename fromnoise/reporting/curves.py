"""Charts of how runs went: losses, learning rate, gradient norm, loss by time; of one run, or of several in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fromnoise.pages.charts import COLOURS, Line, chart
from fromnoise.reporting.record import Record, Tree
from fromnoise.training import reference

SMOOTH = 60  # parts of a training, over one of which a line is averaged, before it and behind it
EARLY = 0.03  # share of the steps done whose losses may lie above a chart: they dwarf all others
MOST_EARLY = 0.2  # of the points of a chart
TIME = "t (0 data, 1 noise)"
EARLIER = 4  # steps whose loss by time is shown before the last


class Side(NamedTuple):
    """A run with its name and colour in charts."""

    record: Record
    name: str
    colour: str


def sides(records: Sequence[Record], names: Sequence[str]) -> list[Side]:
    """Each record with a colour of its own."""
    return [Side(*one, colour=COLOURS[i]) for i, one in enumerate(zip(records, names, strict=True))]


def training_charts(shown: Sequence[Side], curve: reference.Curve | None = None) -> list[str]:
    """Charts by optimizer step: training loss, validation loss, learning rate, norm of the gradient.

    curve: of the recipe, beside which a run's own losses are shown.
    """
    losses, validations = [], []
    if curve:
        window = curve.training.window
        steps = [round(middle + (window - 1) / 2) for middle in curve.training.steps]
        bands = [reference.expected(curve.training, step, window) for step in steps]
        losses.append(_banded(steps, [band for band in bands if band]))
        known = [reference.measured(curve.validation_ema, step) for step in curve.validation_ema.steps]
        if known:
            validations.append(_banded(curve.validation_ema.steps, [band for band in known if band]))
    for side in shown:
        steps = [line["step"] for line in side.record.logged]
        values = [line["loss"] for line in side.record.logged]
        losses.append(Line("", side.colour, steps, [values], thin=True))
        losses.append(Line(side.name or "loss", side.colour, steps, [smooth(values)]))
        validated = [line["step"] for line in side.record.validated]
        for kind, dashed in (("raw", True), ("ema", False)):
            name = " ".join(filter(None, (side.name, {"raw": "as they are", "ema": "averaged"}[kind])))
            values = [line[f"validation_{kind}"] for line in side.record.validated]
            validations.append(Line(name, side.colour, validated, [values], dashed=dashed))
    charts = [
        _chart(losses, "training loss", "loss", True, top=_top(shown, lambda record: record.logged, "loss")),
        _chart(
            validations,
            "validation loss",
            "validation",
            True,
            top=_top(shown, lambda record: record.validated, "validation_raw"),
        ),
    ]
    for key, label in (("learning_rate", "learning rate"), ("gradient_norm", "norm of the gradient")):
        lines = []
        for side in shown:
            steps = [line["step"] for line in side.record.logged]
            values = [line[key] for line in side.record.logged]
            if key == "gradient_norm":
                lines.append(Line("", side.colour, steps, [values], thin=True))
                values = smooth(values)
            lines.append(Line(side.name, side.colour, steps, [values]))
        charts.append(_chart(lines, label, key.replace("_", "-"), key == "gradient_norm"))
    return [svg for svg in charts if svg]


def time_charts(shown: Sequence[Side]) -> list[str]:
    """Validation loss by tenths of t. Of one run: at several steps, and at its end by both kinds of weights; of
    several: at the end of each."""
    known = [side for side in shown if side.record.validated and "validation_ema_by_time" in side.record.validated[-1]]
    if not known:
        return []
    if len(shown) > 1:
        return [_chart([_by_time(side, side.record.validated[-1], "ema", side.name) for side in known],
                       "validation loss, averaged weights", "by-time", True, TIME)]  # fmt: skip
    (side,) = known
    rows = side.record.validated
    last = rows[-1]
    picked = spread_out([row for row in rows if row["step"]], EARLIER + 1) or rows
    series = [
        _by_time(side, row, "ema", f"step {row['step']:,}", COLOURS[i % len(COLOURS)]) for i, row in enumerate(picked)
    ]
    both = [
        _by_time(side, last, "raw", "weights as they are", COLOURS[1], dashed=True),
        _by_time(side, last, "ema", "averaged weights", COLOURS[0]),
    ]
    return [
        _chart(series, "validation loss, averaged weights", "by-time", True, TIME),
        _chart(both, f"validation loss at step {last['step']:,}", "by-time-last", True, TIME),
    ]


def reconstruction_charts(shown: Sequence[Side]) -> list[str]:
    """Of VAEs: PSNR, SSIM and KL of held-out pictures by optimizer step."""
    charts = []
    for key, label in (("psnr", "PSNR, dB"), ("ssim", "SSIM"), ("kl", "KL, nats a latent value")):
        lines = []
        for side in shown:
            rows = [row for row in side.record.validated if key in row]
            lines.append(Line(side.name, side.colour, [row["step"] for row in rows], [[row[key] for row in rows]]))
        charts.append(_chart(lines, label, key, False))
    return [svg for svg in charts if svg]


def smooth(values: Sequence[float]) -> list[float]:
    """The mean over the values around each, about a `SMOOTH / 2`th of all; fewer at the beginning, where all falls."""
    most = len(values) // SMOOTH
    around = [values[k - min(most, k) : k + min(most, k) + 1] for k in range(len(values))]
    return [sum(near) / len(near) for near in around]


def spread_out(rows: Sequence[Tree], most: int) -> list[Tree]:
    """At most `most` of the rows: the first, the last, and others evenly between them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(k * (len(rows) - 1) / (most - 1))] for k in range(most)]


def _by_time(side: Side, row: Tree, kind: str, name: str, colour: str = "", dashed: bool = False) -> Line:
    values = row[f"validation_{kind}_by_time"]
    return Line(name, colour or side.colour, [(k + 0.5) / len(values) for k in range(len(values))], [values], dashed)


def _banded(steps: Sequence[float], bands: Sequence[reference.Band]) -> Line:
    low, high, mean = ([getattr(band, key) for band in bands] for key in ("low", "high", "mean"))
    return Line("reference", "#888888", steps, [mean], band=(low, high))


def _top(shown: Sequence[Side], rows: Callable[[Record], Sequence[Tree]], key: str) -> float | None:
    """The largest value after the first steps, and a little more; None where these are too many of all."""
    known = [(row[key], row["step"] > EARLY * side.record.steps) for side in shown for row in rows(side.record)]
    later = [value for value, is_later in known if is_later]
    few = len(later) < (1 - MOST_EARLY) * len(known)
    return 1.1 * max(later) if later and not few and max(later) > 0 else None


def _chart(
    lines: Sequence[Line], label: str, name: str, log: bool, x: str = "optimizer steps", top: float | None = None
) -> str:
    """A chart of the lines that have points, on a logarithmic axis where that is asked for and possible."""
    drawn = [line for line in lines if len(line.x)]
    positive = all(value > 0 for line in drawn for row in line.seeds for value in row)
    return chart(drawn, x, label, name=name, log_y=log and positive, top=top if positive else None) if drawn else ""
