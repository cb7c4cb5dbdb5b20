"""Training as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fromnoise.conditioning.config import NoConditionConfig, TextConfig
from fromnoise.core.config import read_yaml
from fromnoise.pipeline.load import load
from fromnoise.training import drawing, loop
from fromnoise.training.loop import train
from fromnoise.training.run import AdamW, Run
from tests.training.conftest import spoilt

Making = Callable[..., Run]


@pytest.fixture(autouse=True)
def few_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "CAPTIONS", 500)  # each training here learns its vocabulary


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_it_should(tmp_path: Path, tiny_run: Making, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = train(tiny_run(ema=0.5), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]
    assert read_yaml(Run, tmp_path / "run.yaml") == tiny_run(ema=0.5)
    told = lines(tmp_path)
    assert [line["step"] for line in told if "loss" in line] == [2, 4, 6]
    assert [line["step"] for line in told if "validation_raw" in line] == [0, 3, 6]
    assert all(len(line["validation_ema_by_time"]) == 10 for line in told if "validation_ema" in line)
    with Image.open(tmp_path / "previews" / "step-00000006.png") as preview:
        assert preview.height > preview.width  # raw above the average
    assert not any(p.requires_grad and p.grad is not None for p in pipeline.parameters())
    loaded, raw = load(tmp_path), load(tmp_path, raw=True)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), pipeline.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(loaded.parameters(), raw.parameters(), strict=True))
    said = capsys.readouterr().err
    assert "M parameters on cpu; weights averaged over" in said and "step 6/6  loss " in said

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = train(tiny_run(ema=0.5), tmp_path)  # nothing is left to do, and nothing is done
    assert f"{tmp_path} is trained: 6 steps in 0:0" in capsys.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), pipeline.parameters(), strict=True))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}


def test_that_no_prompts_are_read_is_said_once(
    tmp_path: Path, tiny_run: Making, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(steps=1)
    model = run.model.model_copy(update={"conditioner": NoConditionConfig(width=32)})
    train(run.model_copy(update={"model": model}), tmp_path)
    assert capsys.readouterr().err.count("reads no prompts") == 1


def test_a_run_that_cannot_be_built_claims_no_directory(tmp_path: Path, tiny_run: Making) -> None:
    run = tiny_run()
    wrong = run.model.model_copy(update={"conditioner": TextConfig(width=16, depth=1, heads=3)})
    with pytest.raises(ValueError, match="heads 3 does not divide"):
        train(run.model_copy(update={"model": wrong}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_learns(tmp_path: Path, tiny_run: Making) -> None:
    run = tiny_run(steps=60, batch=16, warmup=5, validate_every=60, save_every=60, optimizer=AdamW(lr=5e-3))
    train(run, tmp_path)
    validation = [line for line in lines(tmp_path) if "validation_raw" in line]
    assert validation[-1]["validation_raw"] < 0.3 * validation[0]["validation_raw"]
    assert validation[-1]["validation_ema"] < 0.3 * validation[0]["validation_ema"]


def test_one_seed_one_result_whatever_is_saved_or_shown_between(tmp_path: Path, tiny_run: Making) -> None:
    a = train(tiny_run(), tmp_path / "a")
    b = train(tiny_run(save_every=5, validate_every=1, preview_every=2, log_every=1), tmp_path / "b")
    c = train(tiny_run(seed=1), tmp_path / "c")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_a_loss_that_is_no_number_stops_at_the_last_checkpoint(
    tmp_path: Path, tiny_run: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "draw", spoilt(0, 4, 2))
    with pytest.raises(ValueError) as error:
        train(tiny_run(), tmp_path)
    told = str(error.value)
    assert told.startswith("the loss is not finite at step 4: first in sample 2 of 4 (t=") and "\n" not in told
    assert f"the noise of sample 2; last good checkpoint {tmp_path / 'checkpoints' / 'step-00000004'};" in told
    assert all(bool(p.isfinite().all()) for p in load(tmp_path).parameters())
    monkeypatch.undo()
    train(tiny_run(), tmp_path)
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == [2, 4, 6]


def test_a_full_disk_stops_with_the_last_checkpoint_intact(
    tmp_path: Path, tiny_run: Making, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    expected = train(tiny_run(), tmp_path / "spacious")
    saved = loop.checkpoint.save
    directory = tmp_path / "full"

    def fail_at_four(root: Path, state: loop.State, keep: int) -> Path:
        with full_disk(20_000 if state.progress.step == 4 else 2**40):
            return saved(root, state, keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.checkpoint, "save", fail_at_four)
        with pytest.raises(ValueError, match=r"checkpoint of step 4: cannot write .*step-00000002 is intact; the same"):
            train(tiny_run(), directory)
    assert [path.name for path in (directory / "checkpoints").iterdir()] == ["step-00000002"]
    pipeline = train(tiny_run(), directory)
    assert all(torch.equal(x, y) for x, y in zip(pipeline.parameters(), expected.parameters(), strict=True))


def test_a_damaged_newest_checkpoint_is_refused_and_the_one_before_goes_on(tmp_path: Path, tiny_run: Making) -> None:
    expected = train(tiny_run(), tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000006"
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"damaged checkpoint .*; to go on from step-00000004, remove that directory"):
        train(tiny_run(), tmp_path)
    newest.rename(tmp_path / "damaged")
    again = train(tiny_run(), tmp_path)
    assert all(torch.equal(x, y) for x, y in zip(again.parameters(), expected.parameters(), strict=True))
