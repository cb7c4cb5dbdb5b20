"""`fromnoise doctor` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fromnoise.cli.main import main
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig, LabelConfig
from fromnoise.core.config import write_yaml
from fromnoise.core.line import quiet
from fromnoise.data.config import PreparedConfig
from fromnoise.doctor import blocks, checks, data, latents, optimisation, sampling, time
from fromnoise.doctor.checks import OF_DATA, OF_STEPS, examine, tried, wrong
from fromnoise.doctor.finding import Finding
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import prepare
from fromnoise.recipes import RECIPES, VAE_RECIPES
from fromnoise.training import checkpoint, loop
from fromnoise.training.ema import Ema
from fromnoise.training.run import VAERun

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of its own code when its compiler is imported
RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "doctor.json"


def test_a_sound_run_is_silent(tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_yaml(tiny(), tmp_path / "run.yaml")
    assert main(["doctor", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("0 wrong, ")
    assert "WRONG" not in said
    assert "effective rank 59.27 of 256 features" in said
    assert list(tmp_path.iterdir()) == [tmp_path / "run.yaml"]


def test_a_fault_is_told_with_its_number_and_a_remedy(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_yaml(tiny(), tmp_path / "run.yaml")
    monkeypatch.setattr(checks, "OF_RUN", (time.rank, optimisation.average))
    monkeypatch.setattr(Ema, "decay", lambda self, step: 0.9999)
    command = ["doctor", str(tmp_path / "run.yaml"), "--training.steps", "18750"]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "WRONG weight average          15.33% of the first weights is left" in said
    assert "why: pictures are drawn by the average" in said and "do:  set training.ema" in said
    assert main([*command, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["faults"] == 1
    (found,) = (one for one in told["findings"] if one["level"] == "wrong")
    assert found["name"] == "weight average" and found["number"].startswith("15.33%")


def test_a_run_that_has_begun(examined: Any, tiny: Callable[..., Any], tmp_path: Path) -> None:
    run = tiny()
    write_yaml(run, tmp_path / "run.yaml")
    subject = examined(run)
    assert subject.trained is None
    state = loop.start(subject.trainee, tmp_path / "checkpoints", quiet)
    checkpoint.save(tmp_path / "checkpoints", state, keep=1)
    line = {"step": 20, "learning_rate": 1e-3, "waiting_for_data": 0.01}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    found = examine(examined(run, tmp_path))
    assert wrong(found) == []
    by_name = {finding.name: finding for finding in found}
    assert "of trained weights" in by_name["attention logits"].number
    assert by_name["checkpoints there"].number == "0 of 3 files lack their config"
    assert by_name["data wait so far"].number == "1.0% of the time"


def test_a_run_with_frozen_encoders_is_silent(examined: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    for i, said in enumerate(("one cat", "a red circle", "a blue square", "two green", "photo of a cat", "above")):
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(said)
    text = EncoderConfig(path=str(folders["bert"]), length=8)
    prepare(str(tmp_path), tmp_path / "prepared", Preparation(size=16, text=(text,)), "cpu")
    conditioner = FrozenTextConfig(width=16, encoders=(text,))
    data = PreparedConfig(path=tmp_path / "prepared")
    assert wrong(examine(examined(data=data, conditioner=conditioner))) == []
    shorter = conditioner.model_copy(update={"encoders": (text.model_copy(update={"length": 6}),)})
    with pytest.raises(ValueError, match=r"other text encoders than .* has: encoders\.text\.1\.length 8, not 6; prep"):
        subject = examined(data=data, conditioner=shorter)
        subject.trainee.rehearse(subject.model)


def test_a_vae_run_is_silent(examined: Any, vae_run: VAERun) -> None:
    found = examine(examined(vae_run))
    assert wrong(found) == []
    assert {"KL weight", "weight average", "one batch"} <= {finding.name for finding in found}


def test_data_by_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, said in enumerate(("one cat left of a dog", "two", "three", "four", "five", "six")):
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(said)
    assert main(["doctor", str(tmp_path), "--size", "16", "--flip"]) == 0
    assert "0 of 5 that may be mirrored name a side" in capsys.readouterr().out
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text("image")
    assert main(["doctor", str(tmp_path), "--size", "16"]) == 1
    assert "the commonest is said of 100.0% ('image')" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", ["a recipe, a run or data must come first"]),
        ("shaps", ["unknown recipe 'shaps', and no folder here is called so", "nearest: shapes"]),
        ("none.yaml", ["cannot read none.yaml"]),
        ("shapes extra", ["'extra' is not expected here"]),
        ("shapes --training.stps 3", ["nearest: --training.steps"]),
        ("sd1 --model.path.type vp --model.path.steps 200", ["of the signal is left", "VP.rescaled(200)"]),
        ("shapes --model.backbone.width 130", ["width 130 is not a multiple of head_width 32"]),
    ],
)
def test_faults_of_the_user(
    args: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *args.split()]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1, said.err
    assert all(word in said.err for word in words), said.err


def test_data_that_are_not_here_are_said(examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RECIPES["scratch-128"]()
    backbone = run.model.backbone.model_copy(update={"width": 12, "groups": 4, "heads": 4})
    subject = examined(run.model_copy(update={"model": run.model.model_copy(update={"backbone": backbone})}))
    assert subject.absent == "no data at prepared/pictures"
    few = (time.rank, sampling.guided_mean, latents.latents, blocks.fresh_blocks, *OF_DATA)
    monkeypatch.setattr(checks, "OF_RUN", few)  # all of them take seconds
    found = examine(subject)
    assert wrong(found) == []
    assert Finding("latents", "left out", "", subject.absent, "") in found


def test_what_training_would_refuse_is_told(examined: Any, tiny: Callable[..., Any], is_wrong: Any) -> None:
    asked = tiny().training.model_copy(update={"previews": ("a zebra",)})
    run = tiny().model_copy(update={"training": asked})
    assert data.rehearsal(examined(run)).level == "fine"
    model = run.model.model_copy(update={"conditioner": LabelConfig(width=16, classes=10)})
    told = examined(run.model_copy(update={"model": model}))
    is_wrong(data.rehearsal(told), "prompt 'a zebra' is no class of this model; allowed: a number, 0 to 9")


def test_what_breaks_under_a_check_is_a_finding(examined: Any, is_wrong: Any) -> None:
    subject = examined()
    subject.model.backbone.to(torch.bfloat16)
    is_wrong(tried(blocks.logits, subject), "RuntimeError: ")


def test_every_recipe_was_examined_in_under_a_minute() -> None:
    """`python -m benchmarks.doctor` wrote what is looked at."""
    every = json.loads(RECORD.read_text(encoding="utf-8"))["examined"]
    told = {name: every[name] for name in (*RECIPES, *VAE_RECIPES)}
    assert {name: one["findings"] for name, one in told.items() if one["findings"]} == {}
    assert max(one["processor_seconds"] for one in told.values()) < 60  # other work does not lengthen it
    assert min(one["checks"] for one in told.values()) > len(OF_STEPS)
