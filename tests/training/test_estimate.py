"""What a training says it will need."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fromnoise.training.loop import train
from fromnoise.training.run import AdamW, Run

Making = Callable[..., Run]
NEEDS = (
    r"4 steps of 4 need about 0:\d\d, 3 validations and 1 previews among it, [\d.]+ [MG]iB of memory and "
    r"([\d.]+) MiB on disk"
)


def test_disk_is_told_before_the_first_step_and_is_what_checkpoints_take(
    tmp_path: Path, tiny_run: Making, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_run(keep=2, save_every=2, steps=4, optimizer=AdamW()), tmp_path / "run")
    said = capsys.readouterr().err
    found = re.search(NEEDS, said)
    assert found and said.index("on disk") < said.index("step 4/4")
    taken = sum(file.stat().st_size for file in (tmp_path / "run" / "checkpoints").rglob("*.safetensors"))
    assert float(found[1]) * 2**20 == pytest.approx(1.5 * taken, rel=0.2)  # two are kept while a third is written

    train(tiny_run(keep=2, save_every=2, steps=4, optimizer=AdamW()), tmp_path / "run")
    assert "on disk" not in capsys.readouterr().err  # there is nothing left to do


def test_a_disk_without_room_is_refused_before_the_first_step(
    tmp_path: Path, tiny_run: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("fromnoise.core.needs.shutil.disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"^.*/run needs about [\d.]+ MiB, and its disk has 1,?000 bytes free; choose"):
        train(tiny_run(), tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))
