"""Accelerators by name: how fast they are at best, and what they hold. Free of torch, so that `--help` stays quick."""

from __future__ import annotations

from typing import NamedTuple

from fromnoise.core.config import hint


class Chip(NamedTuple):
    """One of them."""

    flops: float
    """Dense bfloat16 peak, in FLOP/s (float16 for T4 and V100, which have no bfloat16)."""
    memory: float
    """GiB, as its driver tells it."""
    bandwidth: float
    """Of its memory, in bytes/s."""
    link: float
    """To each other one in the same machine, in bytes/s one way: NVLink where it joins all of them, else PCIe."""
    network: float = 12.5e9 / 8
    """To other machines, in bytes/s one way: what NVIDIA's own machines have for each (DGX B200, H100, A100, DGX-1);
    of others it is assumed that eight share 100 Gb/s."""


CHIPS = {
    "B200": Chip(2250e12, 179.0, 7700e9, 900e9, 50e9),
    "H200 NVL": Chip(835e12, 140.4, 4800e9, 64e9),
    "H200": Chip(989e12, 140.4, 4800e9, 450e9, 50e9),
    "GH200": Chip(989e12, 95.6, 4000e9, 64e9),
    "H100 NVL": Chip(835e12, 93.6, 3900e9, 64e9),
    "H100 PCIe": Chip(756e12, 79.6, 2000e9, 64e9),
    "H100": Chip(989e12, 79.6, 3350e9, 450e9, 50e9),
    "A100-SXM4-40GB": Chip(312e12, 40.0, 1555e9, 300e9, 25e9),
    "A100-PCIE-40GB": Chip(312e12, 40.0, 1555e9, 32e9),
    "A100": Chip(312e12, 80.0, 1935e9, 32e9),
    "A10G": Chip(70e12, 22.5, 600e9, 32e9),
    "A10": Chip(125e12, 22.5, 600e9, 32e9),
    "RTX A6000": Chip(155e12, 48.0, 768e9, 32e9),
    "L40S": Chip(362e12, 45.0, 864e9, 32e9),
    "L40": Chip(181e12, 45.0, 864e9, 32e9),
    "L4": Chip(121e12, 22.5, 300e9, 32e9),
    "RTX 5090": Chip(210e12, 31.8, 1792e9, 64e9),
    "RTX 4090": Chip(165e12, 24.0, 1008e9, 32e9),
    "RTX 4080": Chip(97e12, 16.0, 717e9, 32e9),
    "RTX 3090": Chip(71e12, 24.0, 936e9, 32e9),
    "T4": Chip(65e12, 15.0, 320e9, 16e9),
    "V100": Chip(125e12, 16.0, 900e9, 16e9),
}
"""By a part of the name that the driver gives it. From NVIDIA's data sheets, which print twice as many FLOP/s for
sparse matrices, and count a link both ways; of a name for several (A100 of 80 GB, V100 of 16) the slower or smaller
one."""


def spelt(name: str) -> str:
    """The name as it is typed: h100, 4090, h200-nvl."""
    return name.lower().removeprefix("rtx ").replace(" ", "-")


def chip_named(name: str) -> tuple[str, Chip]:
    """The chip that somebody types as `name`, and its name in the table.

    Raises:
        ValueError: when there is none; it lists those there are, and names the nearest.
    """
    typed = {spelt(one): one for one in CHIPS}
    if spelt(name) not in typed:
        raise ValueError(f"unknown device {name!r}; {hint(name, ['cpu', *typed])}")
    return typed[spelt(name)], CHIPS[typed[spelt(name)]]


def chip_of(told: str) -> Chip | None:
    """The chip whose driver tells this name ("NVIDIA H100 80GB HBM3"); the longest part that fits decides."""
    parts = [part for part in CHIPS if part in told]
    return CHIPS[max(parts, key=len)] if parts else None
