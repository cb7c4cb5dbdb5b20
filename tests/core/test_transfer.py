"""Tensors on their way to where a model runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fromnoise
from fromnoise.core import transfer
from fromnoise.core.transfer import sent

PACKAGE = Path(fromnoise.__file__).parent


@pytest.mark.parametrize(("name", "goes_on"), [("cuda:1", True), ("cpu", True), ("mps", False)])
def test_only_an_apple_gpu_is_waited_for(name: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "to", lambda x, device, **how: asked.append((device, how)) or x)
    x = torch.zeros(3)
    assert sent(x, torch.device(name)) is x
    assert asked == [(torch.device(name), {"non_blocking": goes_on})]


def test_what_is_here_stays() -> None:
    x = torch.arange(3)
    assert sent(x, x.device) is x


def test_nothing_else_is_sent_without_waiting() -> None:
    saying = [file for file in PACKAGE.rglob("*.py") if "non_blocking" in file.read_text(encoding="utf-8")]
    assert saying == [Path(transfer.__file__)]
