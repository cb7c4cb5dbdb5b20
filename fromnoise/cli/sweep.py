"""`fromnoise sweep`: the best way to draw with a finished run, or what any fields of a recipe do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import kept, say, watch
from fromnoise.cli.train import Started, start
from fromnoise.evaluation.comparison.asked import FieldsAsked, SweepAsked
from fromnoise.training.run import Run

USAGE = "fromnoise sweep RUN [--option VALUE ...]"
DESCRIPTION = """\
Finds how a finished run draws best: pictures are drawn by every sampler, number of steps, guidance scale and guidance
interval, and judged by the judge of the run's data. RUN/sweep.html shows heat maps and quality against time, with
RUN/sweep.json beside it; the setting that is fastest while as good as the best is written into RUN/sampling.yaml, by
which sample, plot, load, evaluate and export draw from then on, unless flags say otherwise.

The same command again goes on where it was stopped.
"""
EPILOG = """\
fromnoise sweep RECIPE --field KEY=VALUE,VALUE ... trains a recipe with other values of any of its fields, and compares
what came of them; fromnoise sweep --field --help says more.
"""
FIELDS_USAGE = "fromnoise sweep RECIPE|RUN.yaml|RUN --field KEY=VALUE,VALUE [KEY=VALUE,VALUE ...] [--option VALUE ...]"
FIELDS_DESCRIPTION = """\
Trains a recipe with every combination of the values given, from the same seeds, each run in a directory of its own, and
compares them by validation loss and by the judge of the data, with differences seed by seed:

  fromnoise sweep shapes --field training.optimizer.lr=1e-3,2e-3 --field training.batch=32,64

Every field that fromnoise train RECIPE --help lists may be named; a value of several numbers is quoted and holds
spaces. The same command again goes on where it was stopped, and does nothing twice.
"""


class FieldsOptions(FieldsAsked):
    """Which fields, and where to put what comes of them."""

    field: tuple[str, ...] = ()
    """KEY=VALUE,VALUE of each field that is varied."""
    out: Path | None = None
    """Directory for runs, measurements and the page; left out, sweep/ and the recipe's and the fields' names, with a
    hash of the runs if that of others is there; values added to those of a sweep go on in its directory."""


def main(args: Sequence[str]) -> None:
    if any(arg.partition("=")[0] == "--field" for arg in args):
        _fields(args)
        return
    options, words = parse(SweepAsked(), args, usage=USAGE, description=DESCRIPTION, epilog=EPILOG)
    if len(words) != 1:
        raise ValueError(f"one run is wanted, {len(words)} words are given; usage: {USAGE}")
    from fromnoise.evaluation.comparison.sweep import sweep

    with kept(Path(words[0]) / "sweep"):
        print(sweep(Path(words[0]), options, say, watch))


def _fields(args: Sequence[str]) -> None:
    options, words = parse(FieldsOptions(), args, usage=FIELDS_USAGE, description=FIELDS_DESCRIPTION)
    if len(words) != 1:
        raise ValueError(f"one recipe is wanted, {len(words)} words are given; usage: {FIELDS_USAGE}")
    begun, _ = start(words[0])
    if not isinstance(begun, Started):
        raise ValueError(f"{words[0]} trains a VAE, which draws nothing to compare; allowed: models that draw")
    fields = dict(map(field_of, options.field))
    if len(fields) < len(options.field):
        raise ValueError("a field is given twice: give all its values at once, as in --field training.batch=32,64")
    runs = list(combinations(begun, fields))
    from fromnoise.evaluation.comparison.fields import Variant, sweep_fields
    from fromnoise.evaluation.comparison.place import free

    variants = [Variant(*one) for one in runs]
    names = "-".join(key.rpartition(".")[2] for key in fields)
    out = options.out or free(Path("sweep") / f"{begun.recipe}-{names}", [one.identity for one in variants])
    asked = FieldsAsked.model_validate(options.model_dump(exclude={"field", "out"}))
    with kept(out):
        print(sweep_fields(variants, out, asked, say, watch))


def field_of(text: str) -> tuple[str, list[str]]:
    """A field and its values, of KEY=VALUE,VALUE; ValueError in one line where it is none."""
    key, equals, values = text.partition("=")
    if not equals or not all(values.split(",")) or "," not in values:
        raise ValueError(
            f"--field {text}: allowed: KEY=VALUE,VALUE with two values or more, as in training.batch=32,64"
        )
    if key.removeprefix("--") == "training.seed":
        raise ValueError("--field training.seed: seeds are paired, and counted by --seeds")
    return key.removeprefix("--"), values.split(",")


def combinations(begun: Started, fields: dict[str, list[str]]) -> list[tuple[str, dict[str, str], Run]]:
    """Name, values and run of every combination, in the order given."""
    found = []
    for values in product(*fields.values()):
        chosen = dict(zip(fields, values, strict=True))
        flags = [word for key, value in chosen.items() for word in (f"--{key}", *value.split())]
        run, words = parse(begun, flags, usage=FIELDS_USAGE, description="")
        if words:
            raise ValueError(f"{words[0]!r} is no value of {', '.join(fields)}")
        name = "_".join(f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items())
        name = re.sub(r"[^\w.=+-]+", "-", name)
        found.append((name, chosen, Run.model_validate(run.model_dump(exclude={"directory"}))))
    return found
