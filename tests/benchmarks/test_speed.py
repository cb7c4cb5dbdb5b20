"""The benchmark at toy size: it runs, its contestants do the same work, and its record holds together."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import median

import pytest
import torch

from benchmarks import speed
from benchmarks.harness import ratio, take_turns, write_record
from benchmarks.stock import Way, held, stock_pictures

TOY = "--width 16 --depth 2 --head_width 8 --side 8 --text 6 --batch 3 --pictures 2 --steps 2 --compile false".split()


def test_the_record_holds_every_repetition_and_what_follows_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "speed.json"
    speed.main([*TOY, "--training_rounds", "3", "--sampling_rounds", "2", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["machine"]["torch"] == torch.__version__ and record["machine"]["cpu"]
    assert record["settings"]["width"] == 16 and record["command"].startswith("python -m benchmarks.speed --width 16")
    works = {(result["device"], result["work"]): result for result in record["results"]}
    for work, rounds, images in (("training", 3, 3), ("sampling", 2, 2)):
        result = works["cpu", work]
        ours, theirs = result["seconds"]["fromnoise"], result["seconds"]["diffusers"]
        assert len(ours) == len(theirs) == rounds
        assert result["images_per_second"]["diffusers"] == pytest.approx(images / median(theirs))
        pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
        found = result["times_as_fast_as"]["diffusers"]
        assert (found["median"], found["low"], found["high"]) == (median(pairs), min(pairs), max(pairs))
        assert result["how"]["diffusers"] == min(result["trials"], key=result["trials"].get)
        assert result["reached"] == (found["median"] >= result["target"])
    printed = capsys.readouterr().out
    assert "training" in printed and "sampling" in printed and "diffusers" in printed


@pytest.mark.parametrize("doubled", [True, False])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_every_way_of_the_stock_class_draws_our_pictures(doubled: bool, weights: torch.dtype) -> None:
    settings = speed.Settings(width=32, depth=2, head_width=16, side=8, text=6, pictures=5, batch=2)
    pipeline, stock = speed.build(settings, torch.device("cpu"))
    way = Way(None, weights, doubled)
    steps = 2  # at t = 1 and 1/2, which bfloat16 holds exactly: the stock class rounds its time to the weights' type
    ours = speed.our_pictures(pipeline, settings, steps, "float32")
    given = speed.noise_and_conditions(pipeline, settings)
    theirs = stock_pictures(held(stock, way, False), *given, steps, settings.guidance, way)
    apart = (ours - theirs).square().mean().sqrt() / ours.std()
    assert apart < (1e-5 if weights == torch.float32 else 0.1)


def test_other_work_is_refused() -> None:
    settings = speed.Settings(width=16, depth=2, head_width=8, side=8, text=6, pictures=2, batch=2)
    pipeline, stock = speed.build(settings, torch.device("cpu"))
    assert max(speed.check(pipeline, stock, settings).values()) < 1e-4
    with torch.no_grad():
        stock.get_parameter("transformer_blocks.0.attn.to_v.weight").mul_(1.01)
    with pytest.raises(AssertionError, match="not the same work"):
        speed.check(pipeline, stock, settings)


def test_contestants_take_turns_after_a_call_that_does_not_count() -> None:
    calls: list[str] = []
    told: list[tuple[int, int]] = []
    contestants = {name: partial(calls.append, name) for name in ("a", "b")}
    seconds = take_turns(contestants, 2, torch.device("cpu"), lambda done, total: told.append((done, total)))
    assert calls == ["a", "b"] * 3 and told == [(1, 2), (2, 2)]
    assert all(len(spent) == 2 and min(spent) >= 0 for spent in seconds.values())


def test_ratios_are_taken_pair_by_pair(tmp_path: Path) -> None:
    assert ratio([1.0, 2.0, 4.0], [2.0, 6.0, 4.0]) == (2.0, 1.0, 3.0)
    write_record(tmp_path / "record.json", {"what": "é"})
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert list(record) == ["date", "what"] and record["what"] == "é"


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest: --pictures"):
        speed.main(["--picture", "3"])
    with pytest.raises(ValueError, match="'fast' is not expected here"):
        speed.main(["fast"])
