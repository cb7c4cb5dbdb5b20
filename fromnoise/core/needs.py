"""What long work needs of a machine, told before it begins: disk and memory."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
from pathlib import Path


def refuse_full(directory: Path, need: int, remedy: str) -> None:
    """Find that the disk of `directory` has room for `need` bytes; `remedy` is what else a user can choose.

    Raises:
        ValueError: one line.
    """
    free = shutil.disk_usage(directory).free
    if need > free:
        raise ValueError(
            f"{directory} needs about {size(need)}, and its disk has {size(free)} free; choose another disk, {remedy}"
        )


def lacked(error: Exception) -> str | None:
    """One line, where `error` was raised for want of memory, of a CPU or of another device; else None."""
    asked = re.search(
        r"tried to allocate (\d+) bytes|(?:tried|unable) to allocate ([\d.]+ [KMGTPE]iB)", str(error), re.I
    )
    if not asked and not isinstance(error, MemoryError):
        return None
    more = f" for {size(int(asked[1])) if asked[1] else asked[2]} more" if asked else ""
    return f"there is no memory{more}; choose a smaller size, batch, count or network"


def size(count: float) -> str:
    """Bytes as people read them: 3.2 GiB."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count, units = count / 1024, units[1:]
    return f"{count:,.0f} {units[0]}" if count >= 100 or units[0] == "bytes" else f"{count:.1f} {units[0]}"


def peak_memory() -> int:
    """Bytes of memory that this process had at most; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    if sys.platform != "win32":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status.total


class MemoryStatus(ctypes.Structure):
    """What Windows calls MEMORYSTATUSEX: its own length, and eight numbers of which the first of 64 bits is told."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    )


def memory_of(kind: str) -> int:
    """Bytes of memory of this process, by the name that Linux has for them: VmRSS now, VmHWM at most, RssAnon what no
    file stands for; 0 where the system does not tell (but for Linux)."""
    status = Path("/proc/self/status")
    found = re.search(rf"^{kind}:\s+(\d+) kB$", status.read_text(encoding="utf-8"), re.M) if status.is_file() else None
    return 1024 * int(found[1]) if found else 0


def used_memory() -> int:
    """Bytes of memory that this process has now; 0 where the system does not tell (but for Linux)."""
    return memory_of("VmRSS")
