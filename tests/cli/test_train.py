"""`fromnoise train`: a recipe with changed fields is trained, recorded, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fromnoise.cli.main import main
from fromnoise.core.config import read_yaml
from fromnoise.training.run import AdamW, Run

SMALL = (
    "--data.size 16 --model.backbone.patch 8 --model.backbone.width 16 --model.backbone.head_width 8"
    " --model.backbone.depth 1 --model.conditioner.vocabulary 280 --model.conditioner.width 16"
    " --model.conditioner.depth 0 --model.conditioner.heads 1 --model.sampling.steps 2"
    " --training.steps 2 --training.batch 4 --training.device cpu --training.precision float32 --training.compile off"
    " --training.optimizer.type adamw --training.optimizer.lr 1e-4"
).split()


def test_a_run_is_trained_recorded_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "folder", "--data.path", str(folder), "--directory", "run", *SMALL]
    assert main(command) == 0
    assert 'fromnoise sample run "a prompt"' in capsys.readouterr().out
    recorded = read_yaml(Run, "run/run.yaml")
    assert recorded.training.optimizer == AdamW(lr=1e-4)
    assert recorded.model.size == 16
    weights = Path("run/checkpoints/step-00000002/model.safetensors")
    before = weights.read_bytes()

    assert main(command) == 0  # the same command again finds it done
    assert main(["train", "run/run.yaml"]) == 0  # so does the record of the run, and its directory
    assert main(["train", "run"]) == 0
    assert "is trained" in capsys.readouterr().err

    assert main(["train", "run", "--training.seed", "1"]) == 2
    assert "training.seed is 0 there, 1 here" in capsys.readouterr().err
    assert weights.read_bytes() == before

    assert main(["train", "run/run.yaml", "--directory", "again"]) == 0  # elsewhere it is the same run anew
    assert Path("again/checkpoints/step-00000002/model.safetensors").read_bytes() == before


def test_a_yaml_elsewhere_is_kept_under_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(f"data: {{type: folder, path: {folder}}}\n")
    assert main(["train", "mine.yaml", *SMALL]) == 0
    assert Path("runs/mine/run.yaml").is_file()


def test_a_directory_with_other_files_is_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert main(["train", "folder", "--data.path", str(folder), "--directory", str(folder), *SMALL]) == 2
    assert "holds files but no run.yaml" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before
