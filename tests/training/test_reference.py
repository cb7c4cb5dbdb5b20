"""What a reference says of a loss, when it warns, and with which runs it is compared."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from fromnoise.recipes import RECIPES, VAE_RECIPES
from fromnoise.training import reference
from fromnoise.training.reference import (
    Averaged,
    Curve,
    Reference,
    Trained,
    Validated,
    expected,
    find,
    fingerprint,
    gain,
    measured,
)
from fromnoise.training.run import AdamW, Run, VAERun

SHIPPED = sorted(path.name.removesuffix(".json") for path in (files("fromnoise") / "assets" / "curves").iterdir())
TRAINED = Trained(
    steps=(10.5, 30.5, 90.5), mean=(4.0, 1.0, 0.25), noise=(0.02, 0.02, 0.04), spread=(0.03, 0.03, 0.0), window=20
)
VALIDATED = Validated(steps=(0, 50), mean=(4.0, 0.5), spread=(0.1, 0.02))
NONE = Validated(steps=(), mean=(), spread=())
GAINED = Averaged(
    steps=(50, 100, 150, 200), mean=(-0.04, -0.06, -0.05, 0.0), noise=0.015, spread=(0.008, 0.012, 0.01, 0.0)
)


def curve_of(run: Run, **changes: Any) -> Curve:
    usual: dict[str, Any] = {
        "recipe": run.recipe,
        "sha256": fingerprint(run),
        "settings": run.model_dump(mode="json"),
        "seeds": (0,),
        "command": "fromnoise train x0",
        "machine": {},
        "made": ("By hand.",),
        "training": TRAINED,
        "validation_raw": VALIDATED,
        "validation_ema": NONE,
        "averaged": GAINED,
    }
    return Curve(**(usual | changes))


def test_the_band_is_noise_of_so_many_losses_and_spread_of_seeds() -> None:
    band = expected(TRAINED, 20, 20)
    assert band and band.mean == 4
    assert math.log(band.high / 4) == pytest.approx(3 * math.hypot(0.02, 0.03))
    assert math.log(4 / band.low) == pytest.approx(3 * math.hypot(0.02, 0.03))
    five = expected(TRAINED, 12, 4)  # around the same step
    assert five and five.mean == 4 and math.log(five.high / 4) == pytest.approx(3 * math.hypot(0.02 * 5**0.5, 0.03))
    between = expected(TRAINED, round(math.sqrt(30.5 * 90.5)), 1)  # halfway between the logarithms
    assert between and between.mean == pytest.approx(0.5, rel=0.02)
    assert expected(TRAINED, 100, 20) and expected(TRAINED, 120, 20) is None
    late = measured(VALIDATED, 50)
    assert late and (late.mean, math.log(late.high / 0.5)) == (0.5, pytest.approx(0.06))
    assert measured(VALIDATED, 60) is None


def test_it_warns_once_of_what_is_no_chance() -> None:
    said: list[str] = []
    told = Reference(curve_of(RECIPES["x0"]()), Path("runs/x0"), said.append)
    for loss in (1.3, 0.7, 1.3, 1.3, 1.0, 1.3, 1.3):  # of a band from .89 to 1.12, never three times on one side
        told.loss(40, 20, loss)
    told.validated(0, {"validation_raw": 4.1, "validation_ema": 4.1})
    assert said == []
    told.loss(40, 20, 1.3)
    (line,) = said
    assert "Loss at step 40 is 1.3000, the reference was 1.0000 ± 0.1084; above the band 3 times in a row" in line
    assert line.startswith("WARNING: this run goes unlike the reference of the recipe x0. ")
    assert line.endswith("What to look at: fromnoise doctor runs/x0")
    for _ in range(9):
        told.loss(40, 20, 0.1)
    told.validated(50, {"validation_raw": 9.0, "validation_ema": 9.0})
    assert said[1:] == [
        "loss at step 40 is 0.1000, the reference was 1.0000 ± 0.1084; "
        "validation loss (raw) 9.0000, the reference was 0.5000 ± 0.0300"
    ]


def test_one_validation_outside_the_band_is_no_chance() -> None:
    said: list[str] = []
    Reference(curve_of(RECIPES["x0"]()), Path(), said.append).validated(
        50, {"validation_raw": 0.4, "validation_ema": 1}
    )
    assert "At step 50: validation loss (raw) 0.4000, the reference was 0.5000 ± 0.0300; below the band" in said[0]


def test_what_the_average_gains_is_told_apart_by_more_and_more_validations() -> None:
    first, both = gain(GAINED, [0]), gain(GAINED, [0, 1])
    assert math.log(first.mean) == pytest.approx(-0.04) and first.low < 1 < first.high
    assert math.log(both.high) == pytest.approx(-0.05 + 3 * math.hypot(0.015 / 2**0.5, 0.01)) and both.high < 1

    for losses, warned in (
        ((0.96, 0.945, 0.95, 1.001), None),  # as the reference
        ((0.93, 0.96, 0.94, 0.999), None),  # within chance
        ((0.999, 1.001, 0.999, 1.0), 100),  # an average of hardly anything
        ((0.96, 0.7, 0.95, 1.0), 100),  # of too much, or of other weights
        ((1.0, 0.945, 0.95, 1.0), 50),  # the same weights twice
    ):
        said: list[str] = []
        told = Reference(curve_of(RECIPES["x0"](), validation_raw=NONE), Path(), said.append)
        for step, ratio in zip(GAINED.steps, losses, strict=True):
            told.validated(step, {"validation_raw": 0.5, "validation_ema": 0.5 * ratio})
        assert bool(said) == (warned is not None)
        assert not said or f"At step {warned}: averaged weights have" in said[0]
    assert (
        "1.0000 of the validation loss of those as they are, the reference had 0.9608 ± 0.0490; here it is the"
        in said[0]
    )


def changed(run: Run, **training: Any) -> Run:
    return run.model_copy(update={"training": run.training.model_copy(update=training)})


def test_only_what_decides_losses_must_be_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RECIPES["x0"]()
    monkeypatch.setattr(reference, "shipped", {"x0": curve_of(run)}.get)
    said: list[str] = []
    data = run.data.model_copy(update={"path": Path("elsewhere")})
    sampling = run.model.sampling.model_copy(update={"guidance": 1.0, "steps": 3})
    same = changed(run, seed=5, device="cuda", precision="float32", compile="off", log_every=7, previews=("1",))
    model = run.model.model_copy(update={"sampling": sampling})
    assert find(same.model_copy(update={"data": data, "model": model}), Path(), said.append)
    assert said.pop() == "losses are compared with those of the recipe x0 (seed 0) up to step 90"
    assert fingerprint(same) == fingerprint(run)

    for other, told in (
        (changed(run, batch=32), "training.batch is 32 here, 64 in that of the recipe x0"),
        (changed(run, optimizer=AdamW()), "training.optimizer.type is 'adamw' here, 'muon' in that of the recipe x0"),
        (run.model_copy(update={"data": data.model_copy(update={"size": 32})}), "data.size is 32"),
        (run.model_copy(update={"recipe": "qwen-258m"}), "none comes with the recipe qwen-258m"),
    ):
        assert find(other, Path(), said.append) is None
        line = said.pop()
        assert not said and told in line and line.startswith("no reference to compare losses with: ")
    assert fingerprint(changed(run, batch=32)) != fingerprint(run)


@pytest.mark.parametrize("recipe", ["folder", "vae"])
def test_losses_of_pictures_of_ones_own_are_compared_with_nothing(recipe: str) -> None:
    said: list[str] = []
    assert find({**RECIPES, **VAE_RECIPES}[recipe](), Path(), said.append) is None
    (line,) = said
    assert f"none comes with the recipe {recipe}, whose losses depend on your own pictures" in line
    assert "fromnoise doctor" in line and "fromnoise diff" in line


def test_the_docs_tell_which_recipes_have_a_curve() -> None:
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \| (.*) \|$", page, re.M)
    told = {name: said for names, said in rows for name in re.findall(r"`([^`]+)`", names)}
    every = {**RECIPES, **VAE_RECIPES}
    assert sorted(told) == sorted(every)
    assert sorted(name for name in every if told[name] == "comes with fromnoise") == SHIPPED
    for name in every:
        own = dict(every[name]().data).get("path") in (Path("your-pictures"), Path("prepared/pictures"))
        assert ("your own pictures" in told[name]) == own, name


def test_a_curve_of_an_older_version_has_what_came_since_by_default() -> None:
    settings = curve_of(RECIPES["x0"]()).settings
    del settings["training"]["accumulate"]
    assert curve_of(RECIPES["x0"](), settings=settings).run == RECIPES["x0"]()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_curve_that_ships_is_that_of_the_recipe_of_today(name: str) -> None:
    curve = reference.shipped(name)
    assert curve and curve.recipe == name and curve.sha256 == fingerprint(curve.run)
    today: Run | VAERun = {**RECIPES, **VAE_RECIPES}[name]()
    derived = ("model.channels", "model.size", "model.vae.channels")
    unlike = [found for found in reference.deciding(today, curve.run) if found[1] is not None]
    assert [key for key, *_ in unlike if key not in derived] == []
    losses = curve.training
    assert len(losses.steps) == len(losses.mean) == len(losses.noise) == len(losses.spread) > 20
    for validated in (curve.validation_raw, curve.validation_ema):
        assert len(validated.steps) == len(validated.mean) == len(validated.spread)
    gained = curve.averaged
    assert len(gained.steps) == len(gained.mean) == len(gained.spread) == max(0, len(curve.validation_ema.steps) - 1)
    at = expected(losses, 200, 20)
    assert at and 0 < at.low < at.mean < at.high < 1.6 * at.mean


def test_recipes_that_train_on_two_cores_have_a_curve() -> None:
    assert {"shapes", "mnist", "x0", "dit", "phase1", "phase2", "phase3", "vae-small"} <= set(SHIPPED)
