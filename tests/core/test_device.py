"""Devices: what is here, and how fast known ones can be."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fromnoise.core.chips import CHIPS, chip_named, chip_of, spelt
from fromnoise.core.device import autocast, available, fast_bfloat16, has_bfloat16, peak_flops, pick
from fromnoise.training.hollow import Living


def test_auto_is_the_best_there_is() -> None:
    assert pick("auto") == torch.device(available()[0])
    assert pick("cpu") == torch.device("cpu")
    assert available()[-1] == "cpu"


def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    for name in ("cud", "cuda:99", ""):
        with pytest.raises(ValueError, match=f"device '{name}' is not here; allowed: auto, .*cpu"):
            pick(name)


def test_autocast_runs_products_in_the_type_asked_for() -> None:
    a = torch.ones(2, 2)
    with autocast(torch.device("cpu"), torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), None):
        assert (a @ a).dtype == torch.float32


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="asks Linux of x86 instructions")
def test_a_cpu_multiplies_bfloat16_where_it_has_avx512() -> None:
    told = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    has = {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= set(told)
    assert has_bfloat16(torch.device("cpu")) == has
    assert has or not fast_bfloat16(torch.device("cpu"))
    assert has_bfloat16(torch.device("meta"))


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla T4", 65),
        ("NVIDIA A10G", 70),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name: str, teraflops: float) -> None:
    chip = chip_of(name)
    assert chip and chip.flops == pytest.approx(teraflops * 1e12)


def test_an_unknown_peak_is_none() -> None:
    assert chip_of("NVIDIA GeForce GTX 1080") is None
    assert peak_flops(torch.device("cpu")) is None
    assert all(1e13 < chip.flops < 1e16 and 10 < chip.memory < 1000 for chip in CHIPS.values())
    assert all(3e11 <= chip.bandwidth <= 1e13 for chip in CHIPS.values())


def test_chips_are_typed_in_lower_case() -> None:
    assert [spelt(name) for name in ("RTX 4090", "H100 PCIe")] == ["4090", "h100-pcie"]
    assert chip_named("H100")[1] == chip_named("h100")[1] == CHIPS["H100"]
    with pytest.raises(ValueError, match=r"^unknown device 'h10'; allowed: cpu, .*; nearest: h100$"):
        chip_named("h10")


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    script = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import torch
from fromnoise.core.device import keep_freed_memory

def pages():
    torch.set_num_threads(1)  # pages are counted of this thread
    for _ in range(16):  # small things between them may keep the first few apart
        torch.zeros(10 * 2**20)  # 40 MiB: 10,240 pages
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(8):
        torch.zeros(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

if "keep" in sys.argv:
    keep_freed_memory()
with ThreadPoolExecutor(1) as thread:
    print(thread.submit(pages).result())
"""
    counts = [
        int(subprocess.run([sys.executable, "-c", script, *args], check=True, capture_output=True, text=True).stdout)
        for args in (["keep"], [])
    ]
    assert counts[0] < 2 * 10_240 < 6 * 10_240 < counts[1]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
def test_larger_memory_than_is_to_be_kept_is_given_back() -> None:
    script = """
import torch
from fromnoise.core.device import keep_freed_memory
from fromnoise.core.needs import memory_of

def left(mib):
    before = memory_of("VmRSS")
    tensors = [torch.ones(mib * 2**18) for _ in range(8)]
    last = torch.ones(8)  # above them in the heap, so that its top cannot be cut off
    del tensors
    return (memory_of("VmRSS") - before) / 2**20

keep_freed_memory()  # as drawing does
keep_freed_memory(2**24)
print(left(20), left(10))
"""
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    large, small = map(float, told)
    assert large < 20 < 60 < small, (large, small)


def test_autocast_keeps_no_cast_weights() -> None:
    """Where activations are computed again, or weights are shared out, that would be all of them once more."""
    model, x = torch.nn.Linear(8, 8), torch.ones(2, 8)
    with Living(model) as living, autocast(torch.device("cpu"), torch.bfloat16):
        made = model(x).detach()
        assert made.dtype == torch.bfloat16
        assert living.now == made.nbytes
