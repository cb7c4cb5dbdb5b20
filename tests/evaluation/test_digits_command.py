"""`fromnoise evaluate` on a model of digits. Apart from test_digits.py: `printed` stands in for the published files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fromnoise.cli.main import main
from fromnoise.conditioning.config import LabelConfig
from fromnoise.models.config import DiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline

MODEL = ModelConfig(
    backbone=DiTConfig(patch=7, width=24, depth=1, head_width=12),
    conditioner=LabelConfig(classes=10, width=8),
    sampling=Sampling(steps=2, guidance=1.0),
    channels=1,
    size=28,
)


def test_the_command_judges_a_model_of_one_channel_by_the_protocol(
    printed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mnist").symlink_to(printed)
    monkeypatch.setenv("FROMNOISE_DATA", str(tmp_path))
    file = tmp_path / "model.safetensors"
    Pipeline.build(MODEL, [], seed=0).save(file, {})
    assert main(["evaluate", str(file), "--samples", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 20 and len(found["by_class"]) == 10 and 0 <= found["accuracy"] <= 1
    assert main(["evaluate", str(file), "--samples", "20"]) == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert "drawn by sampler euler, steps 2, guidance 1, interval 0 to 1, shift 1, eta 0" in rest
    assert first.split() == ["samples", "20"]
    assert float(second.split()[1]) == pytest.approx(100 * found["accuracy"])
    usual = MODEL.sampling.model_dump(mode="json")
    assert found["drawing"] == usual
    assert main(["evaluate", str(file), "--samples", "20", "--steps", "1", "--guidance", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drawing"] == usual | {"steps": 1, "guidance": 3.0}
    assert main(["evaluate", str(file), "--judge", "shapes"]) == 2
    assert "adherence judges RGB pictures" in capsys.readouterr().err
