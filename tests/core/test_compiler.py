"""Modules that run compiled for a while, and what a killed compiler leaves in the cache."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo import config

from fromnoise.core.compiler import SIZES, compiled, remove_unlinked


def test_what_a_killed_process_left_unlinked_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for name, content, age in (("unlinked", b"", 100), ("being-linked", b"", 5), ("whole", b"code", 100)):
        library = tmp_path / name[:2] / f"{name}.so"
        library.parent.mkdir(exist_ok=True)
        library.write_bytes(content)
        os.utime(library, (time.time() - age, time.time() - age))
    remove_unlinked()
    assert sorted(path.name for path in tmp_path.rglob("*.so")) == ["being-linked.so", "whole.so"]


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_modules_are_compiled_for_any_number_of_sizes_and_only_inside() -> None:
    modules, limits = [nn.Linear(1, 1), nn.ReLU()], (config.recompile_limit, config.accumulated_recompile_limit)
    with pytest.raises(KeyboardInterrupt), compiled(modules):
        assert all(module._compiled_call_impl for module in modules)
        assert (config.recompile_limit, config.accumulated_recompile_limit) == (SIZES, SIZES)
        raise KeyboardInterrupt
    assert not any(module._compiled_call_impl for module in modules)
    assert (config.recompile_limit, config.accumulated_recompile_limit) == limits


class Block(nn.Module):
    """Of 4 MiB, which are sent in several messages."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)  # (B, 512)
        return x


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_a_block_is_compiled_whole_within_ddp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is without, where a fresh training compiles it: what is resumed compiles it there."""
    graphs: list[Any] = []
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", lambda graph, *_, **__: graphs.append(graph) or graph)
    torch.compiler.reset()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        block = Block()
        model = nn.parallel.DistributedDataParallel(block, bucket_cap_mb=1)
        with compiled([block]):
            model(torch.zeros(1, 512))
    finally:
        dist.destroy_process_group()
    assert len(graphs) == 1
