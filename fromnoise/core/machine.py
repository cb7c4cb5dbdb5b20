"""The machine and the software that numbers come from: what a reader must know to compare his own with them.

Torch is imported only where a device is asked about, so that `fromnoise --version` stays quick.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = ("fromnoise", "torch", "numpy", "safetensors", "tokenizers", "transformers")
"""Whose versions decide what a training does."""


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """What the machine is, and what of it is used, in words and numbers for JSON."""
    import torch

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python and of each of `PACKAGES` that is there."""
    told = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            told[name] = version(name)
        except PackageNotFoundError:
            continue
    return told


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpuinfo(key: str) -> str:
    """The first value of `key` in Linux's table of processors; "" elsewhere."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
