"""The benchmark at toy size: it runs, its contestants do the same work, and its record holds together."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import median

import pytest
import torch

from benchmarks import speed, starts
from benchmarks.contests import check
from benchmarks.given import noise_and_conditions, our_pictures
from benchmarks.harness import ratio, take_turns, write_record
from benchmarks.stock.dit import DiT
from benchmarks.stock.mmdit import QwenImage
from benchmarks.stock.rival import Rival, Way
from benchmarks.stock.sd3 import SD3
from benchmarks.stock.unet import UNet
from fromnoise.models.config import DiTConfig, MMDiTConfig, UNetConfig

SMALL = "--mmdit.backbone.width 16 --mmdit.backbone.depth 2 --mmdit.backbone.head_width 8".split()
TOY = [*SMALL, *"--networks mmdit --mmdit.side 8 --batch 3 --pictures 2 --steps 2 --compile false --starts 0".split()]
SIZES = {"side": 8, "text": 6, "text_width": 20}
TOYS: dict[str, Rival] = {
    "mmdit": QwenImage(backbone=MMDiTConfig(width=32, depth=2, head_width=16), **SIZES),
    "dit": DiT(backbone=DiTConfig(width=32, depth=2, head_width=16), side=8),
    "unet": UNet(backbone=UNetConfig(width=8, multipliers=(1, 2), attention=(1,), heads=2, groups=4), **SIZES),
    "sd3": SD3(
        backbone=MMDiTConfig(
            width=32,
            depth=2,
            head_width=16,
            pooled=True,
            rotation="none",
            absolute="cropped",
            grid=2,
            largest=4,
            text_norm=False,
        ),
        **SIZES,
    ),
}
SETTINGS = speed.Settings.model_validate({"pictures": 5, "batch": 2, **TOYS})
CPU = torch.device("cpu")


def test_the_record_holds_every_repetition_and_what_follows_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "speed.json"
    speed.main([*TOY, "--training_rounds", "3", "--sampling_rounds", "2", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["machine"]["torch"] == torch.__version__ and record["machine"]["cpu"]
    assert record["settings"]["mmdit"]["backbone"]["width"] == 16
    assert record["command"].startswith("python -m benchmarks.speed --mmdit.backbone.width 16")
    works = {(result["network"], result["work"]): result for result in record["results"]}
    for work, rounds, images in (("training", 3, 3), ("sampling", 2, 2)):
        result = works["mmdit", work]
        ours, theirs = result["seconds"]["fromnoise"], result["seconds"]["diffusers"]
        assert len(ours) == len(theirs) == rounds
        assert result["images_per_second"]["diffusers"] == pytest.approx(images / median(theirs))
        pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
        found = result["times_as_fast_as"]["diffusers"]
        assert (found["median"], found["low"], found["high"]) == (median(pairs), min(pairs), max(pairs))
        for name, trials in result["trials"].items():
            assert result["how"][name] == min(trials, key=trials.get)
        assert result["reached"] == (found["median"] >= result["target"])
    assert set(works["mmdit", "training"]["seconds"]) == {"fromnoise", "diffusers", "bare loop"}
    printed = capsys.readouterr().out
    assert "training" in printed and "sampling" in printed and "diffusers" in printed


@pytest.mark.parametrize("doubled", [True, False])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TOYS)
def test_every_way_of_a_stock_class_draws_our_pictures(name: str, doubled: bool, weights: torch.dtype) -> None:
    rival = TOYS[name]
    pipeline, stock = rival.build(SETTINGS.pictures, CPU)
    way = Way(None, weights, doubled, rival.layouts[-1])
    steps = 2  # at t = 1 and 1/2, which bfloat16 holds exactly: the stock class rounds its time to the weights' type
    ours = our_pictures(pipeline, SETTINGS.pictures, steps, SETTINGS.guidance, "float32")
    given = noise_and_conditions(pipeline, SETTINGS.pictures)
    theirs = rival.pictures(rival.held(stock, way, False), *given, steps, SETTINGS.guidance, way)
    apart = (ours - theirs).square().mean().sqrt() / ours.std()
    assert apart < (1e-5 if weights == torch.float32 else 0.1)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("mmdit", "transformer_blocks.0.attn.to_v.weight"),
        ("dit", "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight"),
        ("unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"),
        ("sd3", "time_text_embed.text_embedder.linear_1.weight"),
    ],
)
def test_other_work_is_refused(name: str, weight: str) -> None:
    pipeline, stock = TOYS[name].build(SETTINGS.pictures, CPU)
    assert max(check(TOYS[name], pipeline, stock, SETTINGS.work).values()) < 1e-4
    with torch.no_grad():
        stock.get_parameter(weight).mul_(1.1)
    with pytest.raises(AssertionError, match="not the same work"):
        check(TOYS[name], pipeline, stock, SETTINGS.work)


def test_fromnoise_is_timed_until_it_is_there() -> None:
    assert 0.01 < starts.finished([*starts.COMMAND, "--help"]) < 60
    small = "--model.backbone.width 32 --model.backbone.depth 1 --training.batch 2 --training.compile off".split()
    assert 0.5 < starts.first_step(small) < 120
    with pytest.raises(RuntimeError, match="ended before its first step"):
        starts.first_step(["--training.batc", "2"])


def test_contestants_take_turns_after_a_call_that_does_not_count() -> None:
    calls: list[str] = []
    told: list[tuple[int, int]] = []
    contestants = {name: partial(calls.append, name) for name in ("a", "b")}
    seconds = take_turns(contestants, 2, CPU, lambda done, total: told.append((done, total)))
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
