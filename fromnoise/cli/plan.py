"""`fromnoise plan`: what a training will need, before it begins or while it is under way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from fromnoise.cli.flags import parse
from fromnoise.cli.started import find
from fromnoise.core.chips import CHIPS, spelt
from fromnoise.core.config import Config
from fromnoise.recipes import all_recipes
from fromnoise.training.run import Run, VAERun

USAGE = (
    "fromnoise plan RECIPE|RUN.yaml|RUN [--device NAME] [--price NUMBER] [--processes N [--machines M]] [--json] "
    "[--some.field VALUE ...]"
)
DESCRIPTION = f"""\
Tells what a training will need without training: parameters by part, operations of a picture, memory by what holds it,
pictures a second, hours, cost, disk, whether it fits and what to change if not, and all that is derived.

RUN is a run directory: then what is left of it. Here (--device auto, cpu, cuda or mps) a few steps are timed; for any
other device its data sheet is read, and how much of it a training reaches is assumed, and said. Known are
{", ".join(map(spelt, CHIPS))}.

With --processes, for several that train together (torchrun): what each holds and sends, which of ddp, fsdp and hsdp
(--training.parallel) fits and is quickest, what is read and written.

Any field of the run can be changed as for fromnoise train; fromnoise train RECIPE --help lists them.
"""


class Asked(Config):
    """What is asked beside the run."""

    device: str = "auto"
    """Where it would run: auto, cpu, cuda or mps are here; or the name of a chip, as in h100."""
    price: PositiveFloat | None = None
    """Of an hour there of one process, in any currency; left out, no cost is told."""
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Share of a chip's peak that products are assumed to reach, where the chip is not here."""
    processes: PositiveInt = 1
    """That torchrun would start in all, each on a device of its own; on CPUs they share the cores of their machine."""
    machines: PositiveInt = 1
    """On which they would run, as many on each."""
    link: PositiveFloat | None = None
    """GB/s from one process to the others of its machine, one way; left out, by the data sheet of the device."""
    network: PositiveFloat | None = None
    """GB/s from one process to other machines, one way; left out, by the data sheet of NVIDIA's machines with it."""
    output: Literal["table", "json"] = "table"
    """How the plan is printed; --json is short for --output json."""


class Planned(Asked, Run):
    """A run, and what is asked of it."""


class PlannedVAE(Asked, VAERun):
    """A VAE's run, and what is asked of it."""


def main(args: Sequence[str]) -> None:
    args = ["--output=json" if arg == "--json" else arg for arg in args]
    if not args or args[0].startswith("-"):
        if not {"-h", "--help"} & set(args):
            raise ValueError(
                f"a recipe, a run.yaml or a run directory must come first; recipes: {', '.join(all_recipes())}"
            )
        parse(Asked(), args, usage=USAGE, description=DESCRIPTION)
        return
    found = find(args[0])
    vae = isinstance(found.run, VAERun)
    begun = (PlannedVAE if vae else Planned)(**dict(found.run))
    chosen, words = parse(begun, args[1:], usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    run = (VAERun if vae else Run).model_validate(chosen.model_dump(exclude=set(Asked.model_fields)))
    from fromnoise.planning.place import crew_at, where
    from fromnoise.planning.plan import make_plan
    from fromnoise.planning.table import table

    directory = found.directory if found.under_way else None
    place = where(chosen.device)
    crew = crew_at(place, chosen.processes, chosen.machines, chosen.link, chosen.network)
    told = make_plan(run, directory, place, chosen.price, chosen.utilisation, crew)
    print(json.dumps(told) if chosen.output == "json" else table(told))
