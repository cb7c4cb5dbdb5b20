"""Optimizers and modulations side by side at toy size: what is trained once, the record, the plot, the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import optimizers
from benchmarks.optimizers import FIRST, NETWORKS, Asked, Ledger, Settings, best, build, one_step, search, spread
from benchmarks.optimizers_page import shared_table, table
from fromnoise.models.config import MMDiTConfig

TOY = "--only shapes modulation --steps 3 --search_steps 2 --batch 2".split()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What was trained, in order; small and short."""
    monkeypatch.setattr(optimizers, "CAPTIONS", 300)
    monkeypatch.setattr("fromnoise.training.validation.PER_BIN", 1)
    monkeypatch.setattr("fromnoise.training.validation.COUNT", 10)
    monkeypatch.setattr(optimizers, "LAST", 0)
    monkeypatch.setattr(optimizers, "TURNS", 1)
    small = MMDiTConfig(patch=8, width=16, depth=2, head_width=4)
    monkeypatch.setitem(NETWORKS, "shapes", small)
    asked, inside = list[Asked](), Ledger.trainee

    def trainee(ledger: Ledger, one: Asked) -> Any:
        asked.append(one)
        return inside(ledger, one)

    monkeypatch.setattr(Ledger, "trainee", trainee)
    return asked


def test_what_was_stopped_goes_on_and_all_is_told(
    tmp_path: Path, trained: list[Asked], capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*TOY, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    optimizers.main([*args, "--seeds", "1"])
    file = tmp_path / "runs/trainings.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + lines[-1][:20])  # as a kill leaves it
    before = len(trained)
    capsys.readouterr()
    optimizers.main([*args, "--seeds", "2"])
    again = file.read_text().splitlines(keepends=True)
    assert (
        again[: len(lines) - 1] == lines[:-1] and json.loads(again[len(lines) - 1])["of"] == json.loads(lines[-1])["of"]
    )
    record = json.loads((tmp_path / "out/benchmarks/results/optimizers.json").read_text())
    told, shared = record["tasks"]["shapes"], record["modulation"]
    kinds = 4 + (told["steps"]["adamw, as many seconds"] != 3)  # else it is AdamW's own training, which is known
    assert len(trained) - before == len(again) - len(lines) + 1 == 1 + kinds

    assert {name: len(tried) for name, tried in told["search"].items()} == {"adamw": 3, "muon": 3}
    assert told["steps"]["adamw, as many seconds"] == round(3 * told["muon_seconds_over_adamw"]["median"])
    for kind in ("ema", "raw"):
        ours, theirs = (told["losses"][name][kind]["each"] for name in ("muon", "adamw"))
        assert told["muon_over_adamw"][kind]["each"] == [a / b for a, b in zip(ours, theirs, strict=True)]
        assert len(set(ours)) == len(set(theirs)) == 2 and not set(ours) & set(theirs)
        assert shared["own"]["losses"][kind]["each"] == ours and shared["own"]["over_own"][kind]["mean"] == 1
    assert shared["shared"]["parameters"] < shared["own"]["parameters"] <= shared["shared, wider"]["parameters"]
    page, printed = (tmp_path / "out/docs/optimizers.md").read_text(), capsys.readouterr().out
    for written in (table(record), shared_table(record)):
        assert written in page and written in printed
    with Image.open(tmp_path / "out/docs/images/optimizers.png") as picture:
        assert picture.width > 300 and len(picture.convert("RGB").getcolors(10**6) or []) > 50


def test_trainings_of_a_seed_begin_alike_and_see_the_same(tmp_path: Path, trained: list[Asked]) -> None:
    ledger = Ledger(Settings(runs=tmp_path, batch=2))
    pairs = [ledger.trainee(ledger.asked("shapes", name, 1e-3, 3)) for name in FIRST]
    models = [build(one) for one in pairs]
    assert all(a.equal(b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    samples = [one.draw(model, 4, 2) for one, model in zip(pairs, models, strict=True)]
    assert samples[0].z.equal(samples[1].z) and samples[0].eps.equal(samples[1].eps)
    other = ledger.trainee(ledger.asked("shapes", "muon", 1e-3, 4))
    assert not other.draw(models[0], 4, 2).eps.equal(samples[0].eps)
    before = [p.detach().clone() for p in models[0].parameters()]
    one_step(pairs[0])()  # of a model of its own
    assert all(a.equal(b) for a, b in zip(before, models[0].parameters(), strict=True))


def test_a_search_goes_on_while_the_best_is_at_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(Settings(runs=tmp_path))
    first = FIRST["muon"]
    for lowest in (first / 8, first, 4 * first):
        monkeypatch.setattr(ledger, "losses", lambda one, at=lowest: {"ema": abs(one.rate / at - 1)})
        tried = search(ledger, "shapes", "muon")
        assert best(tried) == lowest and min(tried) < lowest < max(tried) and list(tried) == sorted(tried)
    assert best({1.0: float("nan"), 2.0: 3.0}) == 2.0


def test_an_interval_is_students() -> None:
    told = spread([1.0, 2.0, 3.0])
    assert told["mean"] == 2 and told["high"] - 2 == pytest.approx(4.303 / 3**0.5) == 2 - told["low"]
    assert "low" not in spread([1.0])
