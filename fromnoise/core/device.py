"""Where a model runs, and how fast that place can be at best."""

from __future__ import annotations

import ctypes
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch

from fromnoise.core.chips import chip_of


def available() -> list[str]:
    """Names that `pick` accepts here, best first, besides "auto"."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    names = ["cuda", *names] if names else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def pick(name: str) -> torch.device:
    """The device called `name`; "auto" takes cuda, mps or cpu, the first there is.

    Raises:
        ValueError: when there is no such device here; it lists those there are.
    """
    names = available()
    if name == "auto":
        return torch.device(names[0])
    if name not in names:
        raise ValueError(f"device {name!r} is not here; allowed: auto, {', '.join(names)}")
    return torch.device(name)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """A context in which matrix products run in `dtype`; None leaves every operation as it is.

    Weights are cast where they are used, which is once: kept to its end, as PyTorch would have it, they would all be
    there once more, also where processes share them out.
    """
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype, cache_enabled=False)


def has_bfloat16(device: torch.device) -> bool:
    """Whether PyTorch has more for matrix products in bfloat16 on `device` than plain loops, which it falls back to on
    a CPU without AVX-512 or ARM's own: 20 to 40 times as slow as float32."""
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def queues(device: torch.device) -> bool:
    """Whether `device` is told of work ahead of what it does, so that to read a number of it is to wait for it."""
    return device.type == "cuda"


def busy(device: torch.device) -> bool:
    """Whether `device` has work left that it was told of."""
    return queues(device) and not torch.cuda.current_stream(device).query()


@lru_cache(maxsize=8)
def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products are clearly faster in bfloat16 than in float32 on `device`: tried, in milliseconds."""
    if not has_bfloat16(device):
        return False
    # What a GPU does of a smaller product takes less time than to ask for it, whatever the type.
    side = 384 if device.type == "cpu" else 2048
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    for _ in range(40):  # the best of many: other processes may hold a core for most of them
        for dtype in best:
            x = torch.ones(side, side, device=device, dtype=dtype)
            start = time.perf_counter()
            (x @ x).sum().item()  # .item() waits for the device
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] > 1.5 * best[torch.bfloat16]


def keep_freed_memory(largest: int | None = None) -> None:
    """Let the C library keep what this process frees, up to 2 GiB, for its next tensors: of `largest` bytes at most, or
    of any size. Only glibc needs to be told.

    It would give large buffers back to the system at once, and then every kernel waits for their pages anew: compiled
    drawing takes 1.4 times as long so. Tensors above 32 MiB it would never keep, as scores of attention are where
    pictures are large: a step on 1,040 tokens takes 2.4 times as long so. Threads that begin later take of one heap,
    as that of a thread holds none so large.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, largest or 0)  # M_MMAP_THRESHOLD
        mallopt(-4, 2**16 if largest else 0)  # M_MMAP_MAX
        mallopt(-8, 1)  # M_ARENA_MAX


def release_freed_memory() -> None:
    """Give the system back what this process freed, which the C library may keep. Only glibc needs to be told.

    Small things that are kept, allocated by several threads between large ones that are freed, hold hundreds of MiB
    otherwise: it took 460 MiB in place of 750 after 512 pictures were prepared.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s that `device` can reach at best; None where it is not known."""
    chip = chip_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return chip.flops if chip else None
