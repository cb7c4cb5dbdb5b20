"""What a training would run on: this machine, or a chip by its data sheet; and how fast its processes talk."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fromnoise.core.chips import Chip, chip_named, chip_of
from fromnoise.core.device import available, pick
from fromnoise.core.needs import physical_memory

GB = 1e9
LOOPBACK = 1e9  # bytes/s between two processes of a CPU machine by gloo, about


class Where(NamedTuple):
    """What a training would run on."""

    name: str
    chip: Chip | None
    """What is known of it, where it is not here."""
    device: torch.device
    """Where things are tried: here."""
    memory: int
    """Bytes."""

    @property
    def shared(self) -> bool:
        """Whether the program itself takes of that memory, and so do all processes of the machine."""
        return self.chip is None and self.device.type == "cpu"


def where(name: str) -> Where:
    """The device called `name`: auto, cuda, mps or cpu are those here, all others come from the table.

    Raises:
        ValueError: one line, when it is neither; it names the nearest.
    """
    if name not in ("auto", *available()) and not name.startswith(("cuda", "mps")):
        told, chip = chip_named(name)
        return Where(told, chip, torch.device("cpu"), int(chip.memory * 2**30))
    device = pick(name)
    if device.type == "cuda":
        return Where(str(device), None, device, torch.cuda.get_device_properties(device).total_memory)
    return Where(str(device), None, device, physical_memory())


class Crew(NamedTuple):
    """The processes that train together, and how fast they tell each other anything."""

    processes: int
    machines: int
    link: float
    """Bytes/s of one process to the others of its machine, one way."""
    network: float
    """Bytes/s of one process to other machines, one way."""

    @property
    def here(self) -> int:
        """Processes of a machine."""
        return self.processes // self.machines


def crew_at(place: Where, processes: int, machines: int, link: float | None, network: float | None) -> Crew:
    """So many processes at `place`. link, network: GB/s one way; left out, as the table of chips has them.

    Raises:
        ValueError: one line, when the machines do not come out even.
    """
    if processes % machines:
        raise ValueError(f"{processes} processes on {machines} machines; allowed: as many on each")
    known = place.chip or (chip_of(torch.cuda.get_device_name(place.device)) if place.device.type == "cuda" else None)
    rates = (known.link, known.network) if known else (LOOPBACK, Chip._field_defaults["network"])
    inside, outside = (GB * told if told else rate for told, rate in zip((link, network), rates, strict=True))
    return Crew(processes, machines, inside, outside)
