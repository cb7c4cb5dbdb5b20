"""Curves made from real runs at toy size: a sound run of another seed stays in the band, broken ones leave it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import curves
from benchmarks.curves import averaged, curve_of, main, noise, told, trend
from fromnoise.conditioning.config import TextConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.target import TARGETS
from fromnoise.diffusion.times import Uniform
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.recipes import RECIPES
from fromnoise.training import loop, reference
from fromnoise.training.ema import Ema
from fromnoise.training.optim import schedule
from fromnoise.training.run import AdamW, Run, Training

SEEDS = (0, 1, 2)


def make(**training: Any) -> Run:
    """The recipe toy."""
    model = ModelConfig(
        backbone=MMDiTConfig(width=16, depth=1, head_width=8, patch=8),
        conditioner=TextConfig(width=16, depth=0, heads=2, vocabulary=300),
        objective=Objective(target="flow", measure="flow", times=Uniform()),
        sampling=Sampling(steps=1, guidance=1.0),
    )
    usual: dict[str, Any] = {"steps": 80, "batch": 16, "log_every": 4, "warmup": 10, "ema": 0.1}
    usual |= {"optimizer": AdamW(lr=5e-3), "device": "cpu", "precision": "float32", "compile": "off"}
    usual |= {"save_every": 80, "validate_every": 40, "preview_every": 80, "previews": ("a red circle",)}
    return Run(recipe="toy", model=model, training=Training(**(usual | training)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Runs of the recipe toy from some seeds."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "toy", make)
        patch.setattr("fromnoise.training.drawing.CAPTIONS", 200)  # a vocabulary of many takes longer than the training
        for seed in SEEDS:
            loop.train(make(seed=seed), root / str(seed))
        yield [root / str(seed) for seed in SEEDS]


@pytest.fixture
def compared(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Trains a run of a seed that the curve does not know, with the curve shipped; what was said meanwhile."""
    main([*map(str, runs), "--out", str(tmp_path)])
    curve = reference.Curve.model_validate_json((tmp_path / "toy.json").read_text())
    assert curve.seeds == SEEDS and "measured between these seeds" in " ".join(curve.made)
    monkeypatch.setattr(reference, "shipped", {"toy": curve}.get)

    def train(capsys: pytest.CaptureFixture[str], **training: Any) -> str:
        capsys.readouterr()
        loop.train(make(seed=7, **training), tmp_path / "run")
        return capsys.readouterr().err

    return train


def test_a_sound_run_of_another_seed_stays_in_the_band(
    compared: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = compared(capsys)
    assert "WARNING" not in said and "losses are compared with those of the recipe toy (seed 0, 1, 2)" in said
    lines = [line for line in said.splitlines() if line.startswith("loss at step ")]
    assert [line.split()[3] for line in lines] == ["40", "80"] and all("reference was" in line for line in lines)


def ten_times(step: int, steps: int, warmup: int, decay: float) -> float:
    return 10 * schedule(step, steps, warmup, decay)


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (loop, "schedule", ten_times),
        (TARGETS, "flow", lambda c: (c.d_alpha, -c.d_sigma)),
        (Ema, "update", lambda self, step: None),
        (Ema, "applied", nullcontext),
    ],
    ids=["learning rate", "sign of the target", "average", "weights as they are in its place"],
)
def test_a_broken_run_leaves_it(
    owner: Any,
    name: str,
    fault: Any,
    compared: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
    patch(owner, name, fault)
    said = compared(capsys)
    assert said.count("WARNING: this run goes unlike the reference of the recipe toy") == 1
    assert ("the band" in said) != ("nothing is averaged" in said) and "fromnoise doctor" in said


def test_one_run_says_that_its_band_is_assumed(runs: list[Path]) -> None:
    one = told(make(), runs[0])
    curve = curve_of("toy", [one])
    assert "assumed, for it is not known of one run" in " ".join(curve.made) and curve.seeds == (0,)
    assert min(curve.training.spread) >= curves.LEVEL
    assert all(a >= b for a, b in zip(curve.validation_raw.spread, curve.training.spread[::10], strict=False))


def test_what_the_average_gains_is_measured_between_seeds_or_assumed() -> None:
    one, other = {40: -0.04, 80: -0.02, 120: -0.04}, {40: -0.06, 80: -0.04}
    alone = averaged([one])
    assert alone.mean == (-0.04, -0.02, -0.04) and alone.spread == (0.008, 0.004, 0.008)
    assert alone.noise == pytest.approx(
        0.02 / 1.5**0.5, rel=1e-3
    )  # its middle lies .02 from the mean of its neighbours
    assert averaged([{40: -0.04, 80: -0.02}]).noise == 0.25 * 0.03
    both = averaged([one, other])
    assert both.mean == (-0.05, -0.03, -0.04) and both.noise == 0
    assert both.spread == (pytest.approx(0.02 / 2**0.5 * 1.5**0.5, rel=1e-3),) * 3
    assert averaged([{}]).steps == ()


def test_a_run_planned_longer_counts_while_its_learning_rate_is_the_recipes(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "toy", lambda: make(steps=160, decay=0.5))
    shorter = told(make(decay=0.5), runs[0])
    assert shorter.steps[-1] == 40 and set(shorter.raw) == {0, 40} and shorter.ema == {}
    assert shorter.run.training.steps == 160
    curve = curve_of("toy", [shorter])
    assert curve.sha256 == reference.fingerprint(make(steps=160, decay=0.5)) and curve.validation_ema.steps == ()


def test_a_run_unlike_its_recipe_makes_no_curve(runs: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"is not the recipe toy of today: training.batch is 8 there, now 16"):
        told(make(batch=8), runs[0])
    with pytest.raises(ValueError, match=r"of the recipe 'none', which there is none of today"):
        told(make().model_copy(update={"recipe": "none"}), runs[0])
    with pytest.raises(ValueError, match=r"no run is given"):
        main([])


def test_a_slope_is_no_noise_and_moves_no_trend() -> None:
    slope = [3.0 - 0.1 * k for k in range(60)]
    assert trend(slope) == pytest.approx(slope) and noise(slope) == pytest.approx([0.0] * 60, abs=1e-12)
    shaken = [value + 0.01 * (-1) ** k for k, value in enumerate(slope)]
    assert trend(shaken)[30] == pytest.approx(slope[30], abs=0.001)
    assert noise(shaken)[30] == pytest.approx(0.02 / 1.5**0.5)  # each lies .02 from the mean of its neighbours


def test_the_machine_is_that_which_the_run_recorded(runs: list[Path]) -> None:
    recorded = json.loads((runs[0] / "environment.jsonl").read_text().splitlines()[0])["machine"]
    assert curve_of("toy", [told(make(), runs[0])]).machine == recorded
