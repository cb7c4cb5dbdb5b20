"""Modules that run compiled for a while, each by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

LINKING = 60.0  # seconds in which a compiler links for sure
SIZES = 1024  # batches and sizes that a module is compiled for, more than anyone waits for


@contextmanager
def compiled(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, `modules` run compiled; equal ones share one compilation.

    Every batch and size is compiled by itself, which takes a minute or so on a CPU: the code that runs for one must not
    hang on those before it, or a resumed training would differ in the last bits. Nor on whether DDP is around them, in
    which torch would cut them to send gradients in between. What torch keeps of it on disk is what the next process
    begins with, the blocks with an `autograd.Function` of ours (`linear`) among it.
    """
    from torch._dynamo import config  # slow to import
    from torch._functorch import config as kept

    remove_unlinked()
    for module in modules:
        module.compile(dynamic=False)
    try:
        # Beyond torch's own limit of 8 sizes, the next would silently run eager, and a resumed run might differ.
        with (
            config.patch(recompile_limit=SIZES, accumulated_recompile_limit=SIZES, optimize_ddp=False),
            kept.patch(autograd_cache_allow_custom_autograd_functions=True),
        ):
            yield
    finally:
        for module in modules:
            module._compiled_call_impl = None


def is_compiled(module: nn.Module) -> bool:
    """Whether any part of `module` runs compiled now."""
    return any(part._compiled_call_impl is not None for part in module.modules())


def remove_unlinked() -> None:
    """Remove compiled code that was never linked from torch's cache.

    A process killed while the compiler links leaves an empty library there; every later one would take it for whole,
    and end. One that is younger than a minute may still be linked, by another process.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # slow to import

    for library in Path(cache_dir()).glob("*/*.so"):
        found = library.stat()
        if found.st_size == 0 and time.time() - found.st_mtime > LINKING:
            library.unlink(missing_ok=True)
