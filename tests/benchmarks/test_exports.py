"""The comparison of exported runs at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import exports
from fromnoise.conditioning.config import LabelConfig, TextConfig
from fromnoise.models.config import DiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, numpy 2


def test_runs_are_compared_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.utils import dynamic_modules_utils

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    runs = []
    for conditioner in (LabelConfig(classes=3, width=8), TextConfig(vocabulary=260, length=4, width=8, heads=2)):
        config = ModelConfig(
            backbone=DiTConfig(patch=4, width=16, depth=1, head_width=8),
            conditioner=conditioner,
            sampling=Sampling(steps=2, guidance=2.0),
            size=8,
        )
        runs.append(tmp_path / f"{conditioner.type}.safetensors")
        Pipeline.build(config, ["one", "two"], 0).save(runs[-1], {})
    out = ["--pictures", "2", "--sheets", str(tmp_path / "sheets"), "--out", str(tmp_path / "record.json")]
    exports.main([*map(str, runs), *out])
    record = json.loads((tmp_path / "record.json").read_text())
    assert [row["pictures"] for row in record["runs"]] == [2, 2]
    assert all(row["largest_difference"] < 1e-3 and row["bytes"] > 0 for row in record["runs"])
    assert record["runs"][0]["parts"]["transformer"] == "DiTTransformer2DModel"
    assert len(list((tmp_path / "sheets").glob("*.png"))) == 2


def test_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no run is given; usage: python -m benchmarks"):
        exports.main([])
