"""A whole comparison at toy size: trained, measured, reported, stopped and gone on with."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.data.config import ShapesConfig
from fromnoise.evaluation.comparison.asked import Asked
from fromnoise.evaluation.comparison.compare import compare
from fromnoise.evaluation.comparison.match import Entry
from fromnoise.evaluation.comparison.report import DIFFERENCES, differences_table, report
from fromnoise.evaluation.comparison.summary import differences
from fromnoise.evaluation.intervals import share_difference
from fromnoise.evaluation.judges.judge import NoJudge, ShapesJudge, judge_of
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.load import load
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run

from .conftest import Watched

ASKED = Asked(seeds=2, samples=20, sweep=10, speeds=(1, 2), guidances=(1.0, 3.0), device="cpu")
PARTS = ["pictures", "denoising", "quality", "guidance 1", "guidance 3", "steps 1", "steps 2"]
RUNS = ["flow-seed0", "noise-seed0", "flow-seed1", "noise-seed1"]


@pytest.fixture(scope="module")
def entries(tiny: Callable[..., Run]) -> list[Entry]:
    return [Entry(name, tiny(name), None) for name in ("flow", "noise")]


@pytest.fixture(scope="module")
def done(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """The directory of a comparison; what was measured until it was stopped, and after that."""
    out = tmp_path_factory.mktemp("compare")
    first, then = Watched(stop=9), Watched()
    with pytest.raises(KeyboardInterrupt):
        compare(entries, out, ASKED, print, first)
    assert not (out / "report.html").exists()
    assert compare(entries, out, ASKED, print, then) == out / "report.html"
    return out, first.seen, then.seen


@pytest.fixture(scope="module")
def results(done: tuple[Path, list[str], list[str]]) -> dict[str, Any]:
    return json.loads((done[0] / "report.json").read_text())


def numbers(tree: Any) -> Iterator[float]:
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from numbers(value)
    elif isinstance(tree, int | float):
        yield float(tree)


def stamps(out: Path) -> dict[Path, int]:
    kept = [*out.glob("measured/*/*.json"), *out.glob("runs/*/checkpoints/*/*")]
    return {path: path.stat().st_mtime_ns for path in kept}


def test_what_was_stopped_goes_on_and_nothing_is_done_twice(done, entries):
    out, first, then = done
    assert [*first, *then] == [f"{run}: {part}" for part in PARTS for run in RUNS] and len(first) == 9
    before, page, record = stamps(out), (out / "report.html").read_text(), (out / "report.json").read_text()
    assert len(before) == len(PARTS) * len(RUNS) + 3 * len(RUNS)
    again = Watched()
    compare(entries, out, ASKED, print, again)
    assert again.seen == [] and stamps(out) == before
    assert ((out / "report.html").read_text(), (out / "report.json").read_text()) == (page, record)


def test_the_page_fetches_nothing(done, read_page):
    text = (done[0] / "report.html").read_text()
    page = read_page(text)
    assert page.addresses and page.fetches_nothing()
    # What is left are names, which no browser asks for.
    assert set(re.findall(r"https?://[^\"' <]*", text)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_numbers_on_the_page_are_those_of_the_json(done, results, read_page):
    page, known = read_page((done[0] / "report.html").read_text()), set(numbers(results))
    assert len(page.values) > 100 and set(page.values) <= known
    for recipe in results["recipes"]:
        summary = recipe["summary"]
        wanted = [summary[key] for key in ("accuracy", "frechet", "diversity", "images_per_second", "velocity_error")]
        points = [*summary["by_steps"], *summary["by_guidance"]]
        wanted += [point[key] for point in points for key in ("accuracy", "frechet", "frechet_floor")]
        for one in wanted:
            assert one["mean"] in page.values
        assert {recipe["parameters"], recipe["flops"], recipe["training_steps"]} <= set(page.values)
    for chart in ("training loss", "validation loss", "guidance scale", "images/s", "error of the expected picture"):
        assert chart in page.words  # as text within the SVG
    assert page.tags.count("svg") == 11 and len(
        set(re.findall(r' id="([^"]*)"', (done[0] / "report.html").read_text()))
    )


def test_the_json_tells_of_every_run(results):
    assert [recipe["name"] for recipe in results["recipes"]] == ["flow", "noise"]
    for recipe in results["recipes"]:
        assert [run["seed"] for run in recipe["runs"]] == [0, 1]
        for run in recipe["runs"]:
            assert run["training"]["step"] == [1, 2, 3] and len(run["training"]["loss"]) == 3
            assert run["validation"]["step"] == [0, 3] and len(run["validation"]["ema_by_time"]) == 10
            assert len(run["denoising"]["by_time"]) == 10
            assert run["quality"]["samples"] == 20 and 0 <= run["quality"]["accuracy"] <= 1
            assert [point["steps"] for point in run["by_steps"]] == [1, 2]
            assert [point["guidance"] for point in run["by_guidance"]] == [1, 3]
            assert all(point["images_per_second"] > 0 for point in run["by_steps"])
            assert "png" not in json.dumps(run)
        values = [run["quality"]["frechet"] for run in recipe["runs"]]
        found = recipe["summary"]["frechet"]
        assert (
            found["mean"] == pytest.approx(sum(values) / 2) and found["low"] < min(values) < max(values) < found["high"]
        )
        assert values[0] != values[1]
    (apart,) = results["differences"]
    pairs = zip(*([run["quality"]["frechet"] for run in r["runs"]] for r in results["recipes"]), strict=True)
    assert apart["seeds"] == [0, 1]
    assert apart["frechet"]["mean"] == pytest.approx(sum(b - a for a, b in pairs) / 2)


def test_seeds_and_the_order_of_data_are_paired_and_noise_is_the_same(done):
    out = done[0]
    for seed in (0, 1):
        records = [(out / "runs" / f"{name}-seed{seed}" / "run.yaml").read_text() for name in ("flow", "noise")]
        assert all(f"\n  seed: {seed}\n" in record for record in records)
    model = load(out / "runs" / "flow-seed0", device="cpu")
    first = json.loads((out / "measured" / "flow-seed0" / "pictures.json").read_text())["found"]["png"]
    sheet = Image.open(io.BytesIO(base64.b64decode(first)))
    assert sheet.size == (10 * 29 - 1, 4 * 29 - 1)
    alone = model("", labels=[3], seed=13)[0].convert("RGB")  # column 3 of the second row
    cut = sheet.crop((3 * 29, 29, 3 * 29 + 28, 29 + 28))
    apart = torch.tensor(list(alone.tobytes())).sub(torch.tensor(list(cut.tobytes()))).abs().max()
    assert apart <= 1  # rounding


def test_finished_runs_are_taken_as_they_are(done, tiny, tmp_path):
    taken = []
    for name in ("flow-seed1", "noise-seed1"):
        place = done[0] / "runs" / name
        taken.append(Entry(name, tiny(name.split("-")[0], seed=1), place))
    before, watched = stamps(done[0]), Watched()
    asked = ASKED.model_copy(update={"speeds": (1,), "guidances": ()})
    compare(taken, tmp_path, asked, print, watched)
    assert not (tmp_path / "runs").exists() and stamps(done[0]) == before
    results = json.loads((tmp_path / "report.json").read_text())
    assert [[run["seed"] for run in recipe["runs"]] for recipe in results["recipes"]] == [[1], [1]]
    quality, told = results["recipes"][0]["runs"][0]["quality"], results["recipes"][0]["summary"]["accuracy"]
    assert [told["low"], told["high"]] == quality["accuracy_interval"]
    assert "One seed each" in " ".join(results["notes"])
    assert "None of these models is told what to draw" in (tmp_path / "report.html").read_text()


def recipe(name: str, right: Iterable[int], samples: int, frechet: Iterable[float]) -> dict[str, Any]:
    """What `differences` reads of a recipe, seeds 0, 1, ..."""
    qualities = [{"accuracy": k / samples, "samples": samples, "frechet": far}
                 for k, far in zip(right, frechet, strict=True)]  # fmt: skip
    return {"name": name, "runs": [{"seed": seed, "quality": one} for seed, one in enumerate(qualities)]}


def chance_alike(generator: np.random.Generator, share: float, samples: int, seeds: int) -> dict[str, Any]:
    right, frechet = generator.binomial(samples, share, seeds), generator.normal(1, 0.1, seeds)
    return recipe("a", right.tolist(), samples, frechet.tolist())


@pytest.mark.parametrize(
    ("recipes", "seeds", "keys"),
    [(2, 2, ["accuracy"]), (4, 3, ["accuracy", "frechet"]), (9, 3, ["accuracy", "frechet"])],
)
def test_where_nothing_differs_one_comparison_in_twenty_says_so_at_most(recipes, seeds, keys):
    """Interval by interval it would be 10, 24 and 44 %."""
    generator, claimed = np.random.default_rng(0), 0
    for _ in range(300):
        found = differences([chance_alike(generator, 0.97, 60, seeds) for _ in range(recipes)], keys)
        claimed += any(one[key]["counts"] for one in found for key in keys)
    assert claimed <= 15


def test_seeds_that_differ_alike_by_chance_have_the_interval_of_their_pictures():
    (found,) = differences([recipe("a", [58, 57], 60, [1.0, 1.1]), recipe("b", [59, 58], 60, [2.0, 2.1])], ["accuracy"])
    told = found["accuracy"]
    low, high = share_difference((117, 120), (115, 120))
    assert (told["low"], told["high"]) == pytest.approx((low, high), abs=1e-5) and low < 0
    assert told["mean"] == pytest.approx(1 / 60) and told["counts"] is False


def test_what_is_beyond_chance_counts_and_is_in_bold(read_page):
    """Three seeds that are 1, 1.01 and .99 apart have a 95 % interval of 1 +- .025, and of two differences each is
    tested at 97.5 %; of one seed nothing counts."""
    first, other = recipe("a", [30, 31, 29], 60, [1, 2, 3]), recipe("b", [31, 29, 30], 60, [2.0, 3.01, 3.99])
    found = differences([first, other], ["accuracy", "frechet"])
    assert [found[0][key]["counts"] for key in ("accuracy", "frechet")] == [False, True]
    keys = {key: DIFFERENCES[key] for key in ("accuracy", "frechet")}
    page = differences_table(found, keys)
    assert page.count("<b><data") == 1 and "Here 1 of 2 counts" in page and "at 97.5 % is without 0" in page
    for one in (first, other):
        del one["runs"][1:]
    found = differences([first, other], ["accuracy", "frechet"])
    assert found[0]["accuracy"]["low"] is None and differences_table(found, keys) == ""


def test_names_are_escaped(done, results, read_page):
    record = json.loads(json.dumps(results))
    nasty = '<script>alert("$x$")</script>'
    for recipe in record["recipes"]:
        recipe["name"] = nasty
        for run in recipe["runs"]:
            run["pictures"] = {"png": ""}
            for point in run["by_guidance"]:
                point["png"] = ""
    page = read_page(report(record))
    assert "script" not in page.tags and nasty in page.words


def test_other_data_have_other_judges():
    data = ShapesConfig().build(0)
    assert isinstance(judge_of("shapes", data), ShapesJudge) and isinstance(judge_of("folder", data), NoJudge)
    backbone = MMDiTConfig(patch=8, width=16, depth=1, head_width=8)
    pipeline = Pipeline.build(ModelConfig(backbone=backbone, sampling=Sampling(steps=1)), ["a red circle"], 0).eval()
    strict = ShapesJudge().measure(pipeline, 12, 0, 1, 1.0, lambda done, total: None)
    assert strict["accuracy"] == strict["by_task"]["overall"] and strict["samples"] == 12 and strict["frechet"] is None
    blind = NoJudge(data).measure(pipeline, 12, 0, 1, 1.0, lambda done, total: None)
    assert blind["accuracy"] is None and blind["images_per_second"] > 0


def test_other_settings_measure_only_what_hangs_on_them(done, entries, tmp_path):
    out = done[0]
    before, again = stamps(out), Watched()
    compare(entries, out, ASKED.model_copy(update={"speeds": (1, 2, 3)}), print, again)
    assert again.seen == [f"{run}: steps 3" for run in RUNS]
    assert {path: stamp for path, stamp in stamps(out).items() if path in before} == before
