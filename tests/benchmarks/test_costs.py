"""Time by tokens and memory by batch at toy size: both do the work, and record, picture and table hold together."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks import costs
from benchmarks.stock.dit import DiT
from fromnoise.models.config import DiTConfig

SMALL = DiT(backbone=DiTConfig(width=32, depth=2, head_width=16, patch=2), side=8)


def test_record_picture_and_table_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs.speed, "Settings", lambda: SimpleNamespace(dit=SMALL))
    costs.main([*"--networks dit --times 1 2 --pictures 2 --rounds 1 --batches 2 8 --out".split(), str(tmp_path)])
    record = json.loads((tmp_path / "benchmarks/results/costs.json").read_text())
    told = record["networks"]["dit"]
    assert [(one["side"], one["tokens"]) for one in told["by_side"]] == [(8, 16), (16, 64)]
    assert all(seconds > 0 for one in told["by_side"] for seconds in one["seconds"].values())
    small, large = (one["mib"] for one in told["by_batch"])
    assert all(2 < large[who] / small[who] < 4.2 for who in (costs.OURS, costs.STOCK))
    page = (tmp_path / "docs/plan.md").read_text()
    assert costs.table(record) in page and "| dit | 16 to 64 |" in page
    with Image.open(tmp_path / "docs/images/costs.png") as picture:
        assert picture.width > 300


def test_what_it_cannot_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="given 'dti'; allowed: mmdit, dit, unet, sd3"):
        costs.main(["--networks", "dti"])
