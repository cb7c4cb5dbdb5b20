"""Sweeps at toy size: over ways to draw with a finished run, and over fields of a recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fromnoise.core.config import read_yaml, write_yaml
from fromnoise.data.config import MNISTConfig, ShapesConfig
from fromnoise.evaluation.comparison.asked import FieldsAsked, SweepAsked
from fromnoise.evaluation.comparison.fields import Variant, sweep_fields
from fromnoise.evaluation.comparison.sweep import beyond_chance, by_of, chosen, grid, sweep
from fromnoise.evaluation.judges.judge import judge_of
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.load import load
from fromnoise.training.loop import train
from fromnoise.training.run import Run, VAERun

from .conftest import Watched

ASKED = SweepAsked(guidances=(1.0, 3.0), steps=(1, 2), samplers=("euler",), intervals=("0-1", "0.2-0.8"), samples=20)
FIELDS = FieldsAsked(seeds=2, samples=20, device="cpu")


@pytest.fixture(scope="module")
def finished(tiny: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run") / "flow"
    train(tiny("flow"), place)
    return place


@pytest.fixture(scope="module")
def done(finished: Path) -> tuple[Path, list[str], list[str], list[str]]:
    """The run that was swept; what was done until it was stopped, after that, and what was said."""
    said: list[str] = []
    first, then = Watched(stop=3), Watched()
    with pytest.raises(KeyboardInterrupt):
        sweep(finished, ASKED, said.append, first)
    assert not (finished / "sampling.yaml").exists()
    with pytest.MonkeyPatch.context() as patch:
        learned = "fromnoise.evaluation.comparison.sweep.beyond_chance"  # it has learned too little to choose by
        patch.setattr(learned, lambda points, chance: True)
        assert sweep(finished, ASKED, said.append, then) == finished / "sweep.html"
    return finished, first.seen, then.seen, said


@pytest.fixture(scope="module")
def results(done: tuple[Path, list[str], list[str], list[str]]) -> dict[str, Any]:
    return json.loads((done[0] / "sweep.json").read_text())


def test_settings_that_could_not_differ_are_one() -> None:
    usual = Sampling(sampler="ddim", steps=24, guidance=3.0, interval=(0.0, 0.8), shift=3.0, eta=1.0)
    asked = SweepAsked(guidances=(0.0, 1.0, 3.0), steps=(8, 24), samplers=("ddim", "euler"), intervals=("0-0.8", "0-1"))
    found = grid(asked, usual, prompted=True)
    assert found[0] == usual and len(found) == len(set(map(repr, found))) == 2 * 2 * (1 + 1 + 2)
    assert {(one.sampler, one.eta) for one in found} == {("ddim", 1.0), ("euler", 0.0)}
    assert all(one.shift == 3.0 for one in found)
    alone = grid(asked.model_copy(update={"samplers": ()}), usual, prompted=False)
    assert {one.sampler for one in alone} == {"ddim", "dpmpp_2m"} and {one.guidance for one in alone} == {3.0}


def test_what_was_stopped_goes_on_and_the_page_holds_all(done, results) -> None:
    place, first, then, said = done
    # 2 steps x (guidance 1, and guidance 3 in two intervals), and the usual one
    assert len(first) == 3 and len(first + then) == 7 and said[0] == "7 settings, 20 pictures each"
    assert then[0].startswith("4 of 7: euler, ")
    assert len(results["points"]) == 7 and results["by"] == "frechet"
    kept = (place / "sampling.yaml").read_text()
    again, said = Watched(), list[str]()
    sweep(place, ASKED, said.append, again)
    assert again.seen == [] and (place / "sampling.yaml").read_text() == kept
    assert said[-1] == "no setting is right more often than by chance (10%): none is chosen, the run draws as before"
    assert "so the usual one stays" in (place / "sweep.html").read_text()
    page = (place / "sweep.html").read_text()
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page) and "<script" not in page and "url(http" not in page
    values = set(map(float, re.findall(r'<data value="([^"]*)"', page)))
    for point in results["points"]:
        assert {point["accuracy"], point["frechet"], point["seconds"], point["forwards"]} <= values
    assert "png" not in (place / "sweep.json").read_text()


def test_forwards_are_those_of_the_network(results) -> None:
    known = {(p["steps"], p["guidance"], tuple(p["interval"])): p["forwards"] for p in results["points"]}
    assert known[2, 1.0, (0.0, 1.0)] == 2 and known[2, 3.0, (0.0, 1.0)] == 4 and known[1, 3.0, (0.0, 1.0)] == 2
    assert known[2, 3.0, (0.2, 0.8)] == 3  # of times 1 and 0.5, the second alone is guided


def test_what_the_judge_cannot_tell_is_refused_at_once(done) -> None:
    assert by_of(ASKED, {"frechet": None, "accuracy": 0.5}) == "accuracy"
    with pytest.raises(ValueError, match="--by frechet: the judge of this run cannot tell it; allowed: accuracy"):
        by_of(ASKED.model_copy(update={"by": "frechet"}), {"frechet": None, "accuracy": 0.5})


def test_the_choice_is_written_and_drawn_by(done, results, capsys: pytest.CaptureFixture[str]) -> None:
    place, *_, said = done
    taken = results["points"][results["chosen"]]
    best = read_yaml(Sampling, place / "sampling.yaml")
    assert (best.steps, best.guidance, list(best.interval)) == (taken["steps"], taken["guidance"], taken["interval"])
    assert said[-1].startswith(f"{place / 'sampling.yaml'} now says how this run draws: euler, ")
    write_yaml(Sampling(sampler="heun", steps=3, guidance=1.5, interval=(0.1, 0.9)), place / "sampling.yaml")
    pipeline = load(place, device="cpu")
    told = "sampling.yaml has it, chosen by a sweep: heun, 3 steps, guidance 1.5 from 0.1 to 0.9\n"
    assert capsys.readouterr().err.endswith(told)
    assert pipeline.config.sampling.sampler == "heun"
    assert len(list(pipeline.stream("3", labels=[3]))) == 3
    assert len(list(pipeline.stream("3", 2, labels=[3]))) == 2  # what is asked for goes first
    assert load(next((place / "checkpoints").iterdir()), device="cpu").config.sampling.sampler == "euler"
    write_yaml(best, place / "sampling.yaml")


def point(accuracy: float, forwards: float, interval: tuple[float, float] = (0.2, 1.0)) -> dict[str, Any]:
    return {
        "samples": 200,
        "accuracy": accuracy,
        "accuracy_interval": interval,
        "forwards": forwards,
        "images_per_second": 10 / forwards,
    }


def test_the_fastest_that_is_as_good_but_for_chance_is_taken() -> None:
    width = 2 * 1.96 * 0.03  # of an interval whose standard error is 3 points
    points = [point(0.90, 20), point(0.95, 40, (0.95 - width / 2, 0.95 + width / 2)), point(0.93, 10), point(0.80, 5),
              point(0.70, 8), point(0.95, 50)]  # fmt: skip
    found = chosen(points, "accuracy", Sampling(), 0.1)
    assert (found["best"], found["chosen"]) == (1, 2)
    assert found["front"] == [3, 2, 1]  # neither dominated in time nor in quality; ties go to the faster
    assert found["points"][0]["seconds"] == pytest.approx(2.0)
    by_distance = [one | {"frechet": value} for one, value in zip(points, (9, 1.0, 1.04, 3, 4, 1.2), strict=True)]
    found = chosen(by_distance, "frechet", Sampling(), 0.1)
    assert (found["best"], found["chosen"], found["front"]) == (1, 2, [3, 2, 1])


def test_what_has_learned_nothing_draws_as_before() -> None:
    points = [point(0.12, 20), point(0.09, 2)]
    found = chosen(points, "accuracy", Sampling(), 0.1)
    assert (found["best"], found["chosen"], found["learned"]) == (0, 0, False)
    points = [point(0.16, 20, (0.12, 0.22)), point(0.15, 2, (0.11, 0.21))]
    assert chosen(points, "accuracy", Sampling(), 0.1)["chosen"] == 1
    untold = [one | {"accuracy": None, "accuracy_interval": None, "frechet": 3.0} for one in points]
    assert chosen(untold, "frechet", Sampling(), 0.1)["chosen"] == 1


def test_the_luck_of_many_settings_is_not_learning() -> None:
    """One setting of a model without skill is right beyond its own interval in one of 40 cases; of 24 some often is."""
    lucky = [point(0.15, 20), *[point(0.1, 2)] * 23]
    assert beyond_chance(lucky[:1], 0.1) and not beyond_chance(lucky, 0.1)
    assert beyond_chance([point(0.18, 20), *lucky], 0.1)
    right = np.random.default_rng(0).binomial(200, 0.1, (100, 24)) / 200
    sweeps = [[point(share, 1) for share in shares] for shares in right.tolist()]
    assert sum(beyond_chance(points, 0.1) for points in sweeps) <= 5


def test_chance_is_that_of_the_judge(printed: Path) -> None:
    """Of a tenth of all prompts: too many to be luck where a picture fits a 36th of them, as shapes do."""
    assert judge_of("mnist", MNISTConfig(path=printed).build(0)).chance == 0.1
    chance = judge_of("shapes", ShapesConfig().build(0)).chance
    tenth = [point(0.1, 20, (0.07, 0.15)), point(0.095, 2, (0.06, 0.14))]
    assert chosen(tenth, "accuracy", Sampling(), chance)["chosen"] == 1
    assert chosen(tenth, "accuracy", Sampling(), 0.1)["chosen"] == 0


def test_a_busy_hour_does_not_order_the_settings() -> None:
    points = [point(0.9, n) for n in (2, 4, 8)]
    points[1]["images_per_second"] /= 30  # something else ran
    seconds = [one["seconds"] for one in chosen(points, "accuracy", Sampling(), 0.1)["points"]]
    assert seconds == pytest.approx([0.2, 0.4, 0.8])


def test_what_cannot_be_swept_is_refused(finished: Path, tiny: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run\.yaml: it is no run"):
        sweep(tmp_path, ASKED, print, Watched())
    write_yaml(VAERun(), tmp_path / "run.yaml")
    with pytest.raises(ValueError, match="holds a VAE, which draws nothing"):
        sweep(tmp_path, ASKED, print, Watched())
    write_yaml(tiny("flow"), tmp_path / "run.yaml")
    with pytest.raises(ValueError, match="is not finished: step 0 of 3"):
        sweep(tmp_path, ASKED, print, Watched())


@pytest.fixture(scope="module")
def varied(tiny: Callable[..., Run]) -> list[Variant]:
    def variant(lr: float, steps: int) -> Variant:
        run = tiny("flow", steps=steps)
        training = run.training.model_copy(update={"optimizer": run.training.optimizer.model_copy(update={"lr": lr})})
        return Variant(f"lr={lr}_steps={steps}", {"lr": str(lr), "steps": str(steps)}, run.model_copy(
            update={"training": training}))  # fmt: skip

    return [variant(lr, steps) for lr in (1e-3, 1e-1) for steps in (2, 3)]


def test_fields_are_swept_with_paired_seeds(
    varied: list[Variant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, then = Watched(stop=5), Watched()
    with pytest.raises(KeyboardInterrupt):
        sweep_fields(varied, tmp_path, FIELDS, print, first)
    assert sweep_fields(varied, tmp_path, FIELDS, print, then) == tmp_path / "sweep.html"
    names = [f"{one.name}-seed{seed}" for one in varied for seed in (0, 1)]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(names)
    assert len(first.seen + then.seen) == 3 * len(names)  # pictures, denoising, quality
    results = json.loads((tmp_path / "sweep.json").read_text())
    assert results["fields"] == {"lr": ["0.001", "0.1"], "steps": ["2", "3"]}
    sides = results["sides"]
    losses = [[run["validation"]["ema"][-1] for run in side["runs"]] for side in sides]
    wanted = [(losses[2][0] - losses[0][0]), (losses[2][1] - losses[0][1])]
    (apart,) = [one["validation"] for one in results["differences"] if one["name"] == varied[2].name]
    assert apart["mean"] == pytest.approx(sum(wanted) / 2) and apart["seeds"] == 2
    assert apart["high"] - apart["low"] == pytest.approx(12.7062 * abs(wanted[0] - wanted[1]), rel=1e-4)  # t, 1 degree
    assert len({loss for pair in losses for loss in pair}) == 8
    assert "Two seeds each" in " ".join(results["notes"])
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == 3 and all(one.name in page for one in varied)
    values = set(map(float, re.findall(r'<data value="([^"]*)"', page)))
    assert {side["summary"]["validation"]["mean"] for side in sides} | {apart["mean"]} <= values
    again, built, build = Watched(), [], MNISTConfig.build
    monkeypatch.setattr(MNISTConfig, "build", lambda config, seed: built.append(seed) or build(config, seed))
    sweep_fields(varied, tmp_path, FIELDS, print, again)
    assert again.seen == [] and built == [0]  # of four variants of one data set


def test_the_same_run_twice_is_refused(varied: list[Variant], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a and lr=0\.001_steps=2 are the same run"):
        sweep_fields([varied[0]._replace(name="a"), varied[0]], tmp_path, FIELDS, print, Watched())
