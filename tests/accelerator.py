"""A device with a memory of its own, as a GPU has, on a machine without one: what mixes it with the CPU's is an error.

Its tensors each hold one of the CPU, by which everything is computed. PyTorch keeps a place for devices that are not
its own (PrivateUse1), which can be filled from Python. `install` cannot be undone: call it in a process of its own.
"""

from __future__ import annotations

from threading import current_thread
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default, aten._copy_from.default)
"""What may have to do with both."""
READS = (aten._local_scalar_dense.default, aten.equal.default)
"""What tells the CPU a number."""
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""What may be given the CPU's indices, as by CUDA."""
MADE = (
    *("empty.memory_format", "empty_strided", "scalar_tensor", "zeros", "ones", "full", "eye"),
    *("arange", "arange.start", "arange.start_step", "linspace"),
)
"""What makes tensors of none; all else that does goes by these."""
kept: list[torch.library.Library] = []
waits: list[str] = []
"""The name of a thread, each time that it would wait until a GPU has done what it was told: where it asks for a number,
or sends one and does not say that it may go on meanwhile."""


class There(Tensor):
    """A tensor of the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        place, layout = torch.device(NAME, 0), {"dtype": held.dtype, "layout": held.layout}
        about = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        return Tensor._make_wrapper_subclass(cls, held.size(), **about, **layout, device=place)  # type: ignore[return-value]

    def __init__(self, held: Tensor):
        assert held.device.type == "cpu" and not isinstance(held, There)
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = There(self.held.clone()).requires_grad_(self.requires_grad)
        return memo.setdefault(id(self), torch.nn.Parameter(copy) if isinstance(self, torch.nn.Parameter) else copy)

    def tolist(self) -> Any:
        waits.append(current_thread().name)
        return self.held.tolist()

    def numpy(self, *args: Any, **options: Any) -> Any:
        raise TypeError(f"can't convert a tensor of {self.device} to numpy")

    __array__ = numpy


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What `func` makes, by the tensors held."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, There)]
    checked = [args[0], *args[2:]] if func in INDEXED else tensors
    here = [x for x in checked if isinstance(x, Tensor) and not isinstance(x, There) and x.ndim]
    if there and here and func not in COPIES:
        raise RuntimeError(f"{func}: expected all tensors on one device, found {here[0].device} beside {NAME}")
    if any(isinstance(x, torch.Generator) for x in tree_leaves((args, kwargs))):
        raise RuntimeError(f"{func}: expected a generator of {NAME}, found one of the CPU")
    leaves = kwargs.get("device") is not None and torch.device(kwargs["device"]).type != NAME
    given = kwargs if leaves else kwargs | ({"device": torch.device("cpu")} if "device" in kwargs else {})
    made = func(*tree_map(own, args), **tree_map(own, given))
    if there and (leaves or func in READS or (func is aten.copy_.default and not isinstance(args[0], There))):
        waits.append(current_thread().name)
    sent = func is aten.copy_.default and isinstance(args[0], There) and not isinstance(args[1], There)
    if sent and True not in (*args[2:], kwargs.get("non_blocking")):
        waits.append(current_thread().name)
    if leaves:
        return made
    known = {id(own(x)): x for x in tensors}  # what is done in place gives what it was given
    wrapped = tree_map(lambda x: known[id(x)] if id(x) in known else There(x) if isinstance(x, Tensor) else x, made)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def own(x: Any) -> Any:
    return x.held if isinstance(x, There) else x


def install() -> None:
    """Have PyTorch know the device, and fromnoise."""
    module: Any = ModuleType(f"torch.{NAME}")
    answers = {"is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0}
    answers |= {"_is_in_bad_fork": False, "manual_seed_all": None, "get_amp_supported_dtype": [torch.bfloat16]}
    for name, answer in answers.items():
        setattr(module, name, lambda *args, answer=answer: answer)
    _setup_privateuseone_for_python_backend(NAME, backend_module=module)
    library = torch.library.Library("aten", "IMPL")
    for name in MADE:
        base, _, overload = name.partition(".")
        library.impl(name, maker(getattr(getattr(aten, base), overload or "default")), "PrivateUse1")
    library.impl("_copy_from", lambda x, out, *ahead: computed(aten.copy_.default, (out, x, *ahead), {}), "PrivateUse1")
    kept.append(library)
    adopt()


def maker(op: Any) -> Any:
    def make(*args: Any, **options: Any) -> There:
        return There(op(*args, **options | {"device": torch.device("cpu"), "pin_memory": False}))

    return make


def adopt() -> None:
    """fromnoise takes it for one that is told of work ahead, and whose products in bfloat16 are no faster."""
    from fromnoise.core import device
    from fromnoise.training import outcomes, step

    others, has_bfloat16 = device.available(), device.has_bfloat16
    device.available = lambda: [NAME, *others]
    device.has_bfloat16 = lambda place: place.type != NAME and has_bfloat16(place)
    asking: list[Any] = [outcomes, step]
    for module in asking:
        module.queues = lambda place: place.type == NAME
