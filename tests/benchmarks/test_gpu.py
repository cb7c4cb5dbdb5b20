"""The whole of it at toy size on a CPU: every part runs, finds what it should, and its record holds together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.given import Given, by_chance, our_pictures, pipeline_of
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import correctness, drawing, part, training
from benchmarks.gpu.drawing import pictures_by
from benchmarks.gpu.graphs import Graphed
from benchmarks.gpu.notes import Notes, read
from benchmarks.gpu.settings import PARTS, Settings
from benchmarks.gpu.table import faults, table
from benchmarks.gpu.training import by_hand
from fromnoise.core.types import Cond
from fromnoise.diffusion.predict import guided
from fromnoise.diffusion.target import TARGETS
from fromnoise.evaluation.cost import training_flops
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.pipeline import Precision

DATA = os.environ.get("FROMNOISE_DATA", "nowhere")
AGES = 10_000.0  # seconds: a busy machine leaves nothing out
TOY: dict[str, Any] = {
    "device": "cpu",
    "seconds": AGES,
    "compile": False,
    "network": {"width": 64, "depth": 2, "head_width": 16, "patch": 2},
    "side": 8,
    "text": 9,
    "text_width": 24,
    "correctness": {"steps": 3, "prompts": 6, "drawn_steps": 2},
    "training": {"batches": [3, 2], "steps": 2, "rounds": 3, "products": [128, 256]},
    "drawing": {"pictures": [1, 2], "steps": 2, "rounds": 3},
    "stable": {
        "seconds": AGES,
        "unet": {"width": 16, "multipliers": [1, 2], "layers": 1, "attention": [1], "heads": 2, "groups": 4},
        "text_width": 24,
        "side": 8,
        "batch": 2,
        "pictures": 1,
        "steps": 2,
        "vae": {"width": 8, "multipliers": [1, 2], "layers": 1, "groups": 4},
        "encoded": [16],
        "pixels": 512,
        "rounds": 3,
    },
    "recipes": {
        "shapes": 0.01,
        "mnist": 0.01,
        "pilot": 4,
        "prompts": 6,
        "digits": 10,
        "shapes_flags": "--model.backbone.width 32 --model.backbone.depth 1 --model.conditioner.width 16 "
        "--model.conditioner.depth 1 --training.batch 4 --model.sampling.steps 2",
        "mnist_flags": "--model.backbone.type dit --model.backbone.patch 7 --model.backbone.width 16 "
        "--model.backbone.depth 1 --model.backbone.head_width 8 --training.batch 4 --model.sampling.steps 2",
    },
}


def toy(out: Path, **changes: Any) -> Settings:
    return Settings.model_validate(TOY | {"out": out} | changes)


def width_of(picture: Path) -> int:
    with Image.open(picture) as image:
        return image.width


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of all parts, one of them run in a process of its own, as the command runs them all."""
    settings = toy(tmp_path_factory.mktemp("gpu"))
    gpu.begin(settings, ["--toy"])
    for name in PARTS:
        if name == "stable":
            gpu.measure(settings.model_copy(update={"parts": (name,)}))
        else:
            part.run(name, settings, AGES)
    return read(settings.out) | {"out": settings.out}


def test_every_part_ends_and_nothing_is_wrong(record: dict[str, Any]) -> None:
    assert list(record["parts"]) == list(PARTS) and not faults(record)
    assert record["command"] == "python -m benchmarks.gpu --toy" and record["machine"]["torch"] == torch.__version__
    assert table(record).row_count > 25


def test_the_device_is_compared_with_the_cpu_in_all_kinds(record: dict[str, Any]) -> None:
    found = {one["what"]: one for one in record["parts"]["correctness"]["checks"]}
    assert all(one["value"] <= one["allowed"] for one in found.values())
    for kind in ("mmdit", "dit", "crossdit", "unet", "cnn", "VAE"):
        assert found[f"{kind}: gradients in float32"]["value"] == 0  # here the CPU is compared with itself
        assert found[f"{kind}: gradients in bfloat16"]["value"] > 1e-4  # and bfloat16 rounds
    assert {"sampler ddpm, 3 steps", "adamw: two updates", "muon: two updates"} < set(found)
    shown = record["parts"]["correctness"]["shipped"]
    assert shown["float32"]["most_levels"] == 0 and shown["pictures"] == 7


def test_training_tells_speed_and_share_of_the_peak(record: dict[str, Any]) -> None:
    found = record["parts"]["training"]
    assert found["operations"]["counted"] == found["operations"]["by_hand"]
    assert found["peak"]["tflops"] == max(found["peak"]["by_side"].values()) > 0
    assert found["attention_ms"]["masked"]["math"] > 0
    assert list(found["batches"]) == ["3", "2"]
    for batch, told in found["batches"].items():
        assert set(told["seconds"]) == {"fromnoise, eager", "plain loop", "diffusers"}
        assert all(len(spent) == 3 for spent in told["seconds"].values())
        assert all(0 < share < 1 for share in told["flop_utilisation"].values())
        rate = told["images_per_second"]["fromnoise, eager"]
        assert rate == pytest.approx(2 * int(batch) / sorted(told["seconds"]["fromnoise, eager"])[1])
    assert found["batches"]["3"]["busiest_kernels_ms"]
    gaps = [one for one in found["checks"] if "diffusers" in one["what"]]
    assert len(gaps) == 2 and all(one["value"] < 1e-4 for one in gaps)


def test_drawing_and_stable_diffusion_tell_speed(record: dict[str, Any]) -> None:
    drawn, stable = record["parts"]["drawing"], record["parts"]["stable"]
    assert [one["what"] for one in drawn["left_out"]] == ["CUDA graphs"]
    for told in drawn["pictures"].values():
        assert set(told["images_per_second"]) == {"fromnoise, eager", "diffusers"}
    orders = {"channels first", "channels last"}
    assert set(stable["unet"]["training"]["seconds"]) == set(stable["unet"]["drawing"]["seconds"]) == orders
    assert len(stable["vae"]["16"]["images_per_second"]) == 4


def test_recipes_train_draw_and_are_judged(record: dict[str, Any]) -> None:
    found = record["parts"]["recipes"]
    assert found["shapes"]["steps"] >= 4 and 0 <= found["shapes"]["adherence"]["overall"] <= 1
    assert width_of(record["out"] / "shapes.png") > 1000
    if not (Path(DATA) / "mnist").is_dir():
        assert [one["what"] for one in found["left_out"]] == ["mnist"]
        return
    assert found["mnist"]["digits"] == 10 and 0 <= found["mnist"]["accuracy"] <= 1
    assert width_of(record["out"] / "mnist.png") > 1000


@pytest.mark.parametrize("changes", [{}, {"depth": 5}, {"width": 96, "head_width": 32}, {"patch": 4}])
def test_operations_counted_by_hand_are_those_done(changes: dict[str, int]) -> None:
    config = MMDiTConfig.model_validate(TOY["network"] | changes)
    pipeline = pipeline_of(config, 4, 8, Given(1, 9, 24))
    assert training_flops(pipeline) == by_hand(config, 4, 8, 9, 24)


def test_what_raises_is_noted_and_ends_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = toy(tmp_path, correctness={"steps": 2, "prompts": 6, "drawn_steps": 1})

    def broken(*args: Any) -> None:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(correctness, "compare_vae", broken)
    monkeypatch.setattr(correctness, "kinds", dict)
    gpu.begin(settings, [])
    part.run("correctness", settings, AGES)
    record = read(tmp_path)
    assert faults(record) == ["correctness: VAE: RuntimeError"]
    assert "illegal memory access" in record["parts"]["correctness"]["failures"][0]["told"]
    assert any(one["what"].startswith("sampler") for one in record["parts"]["correctness"]["checks"])


def test_diffusers_is_left_out_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"training": TOY["training"] | {"batches": [1]}, "drawing": TOY["drawing"] | {"pictures": [1]}}
    settings = toy(tmp_path, **few)
    for module in ("diffusers", "benchmarks.stock.rival", "benchmarks.stock.mmdit"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    for module in (training, drawing):
        monkeypatch.setattr(module, "installed", lambda package: None)
    gpu.begin(settings, [])
    for name in few:
        part.run(name, settings, AGES)
        found = read(tmp_path)["parts"][name]
        assert {"what": "diffusers' class", "why": "diffusers is not installed"} in found["left_out"]
    assert not faults(read(tmp_path))
    assert set(read(tmp_path)["parts"]["training"]["batches"]["1"]["seconds"]) == {"fromnoise, eager", "plain loop"}


def test_a_difference_too_large_or_no_number_is_a_fault(tmp_path: Path) -> None:
    gpu.begin(toy(tmp_path), [])
    notes = Notes(tmp_path, "training", 0.0)
    notes.check("small", 0.5, 1.0)
    notes.check("large", 2.0, 1.0)
    notes.check("none", float("nan"), 1.0)
    assert not notes.time_for("all the rest", 1.0)
    assert faults(read(tmp_path)) == ["training: cut off", "training: large is 2.0", "training: none is nan"]
    json.loads((tmp_path / "gpu.json").read_text(), parse_constant=lambda word: pytest.fail(word))


def test_a_network_by_itself_draws_what_the_pipeline_draws() -> None:
    pipeline = pipeline_of(MMDiTConfig.model_validate(TOY["network"]), 4, 8, Given(2, 9, 24))
    by_chance(pipeline.backbone)
    ways: list[tuple[torch.dtype | None, Precision]] = [(None, "float32"), (torch.bfloat16, "bfloat16")]
    for dtype, precision in ways:
        drawn = pictures_by(pipeline.network(dtype), pipeline, 2, 3, 3.0)
        assert torch.equal(drawn, our_pictures(pipeline, 2, 3, 3.0, precision))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_graph_draws_what_its_network_draws() -> None:
    pipeline = pipeline_of(MMDiTConfig.model_validate(TOY["network"]), 4, 8, Given(2, 9, 24))
    by_chance(pipeline.backbone)
    pipeline.to("cuda")
    graph = Graphed(pipeline.network(torch.bfloat16))
    wanted = our_pictures(pipeline, 2, 3, 3.0, "bfloat16")
    for _ in range(2):
        torch.testing.assert_close(pictures_by(graph, pipeline, 2, 3, 3.0), wanted)


def test_guidance_everywhere_asks_the_device_nothing_and_is_the_same() -> None:
    """Whether all of the interval lies outside need not be known: a GPU would have to be waited for."""
    pipeline = pipeline_of(MMDiTConfig.model_validate(TOY["network"]), 4, 8, Given(2, 9, 24))
    cond = Cond(torch.randn(2, 9, 24), torch.ones(2, 9, dtype=torch.bool), torch.randn(2, 24))
    how = {"path": pipeline.config.path, "target": TARGETS["flow"]}
    on_no_device = guided(lambda x, t, cond: x, cond, cond, 3.0, (0.0, 1.0), **how)
    x = torch.empty(2, 4, 8, 8, device="meta")
    assert on_no_device(x, torch.empty(2, device="meta")).x0.shape == x.shape


def test_a_part_that_hangs_is_ended_and_what_it_measured_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "GRACE", 0.0)
    monkeypatch.setattr(gpu, "LEAST", 0.0)
    settings = toy(tmp_path, parts=["stable"])
    gpu.begin(settings, [])
    gpu.measure(settings.model_copy(update={"stable": settings.stable.model_copy(update={"seconds": 0.2})}))
    assert faults(read(tmp_path)) == ["stable: cut off"]


def test_without_a_gpu_it_says_so_and_is_content(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "benchmarks.gpu", "--out", str(tmp_path / "out")]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(gpu.__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=hidden, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "no CUDA device is here, so nothing is measured\n" and not (tmp_path / "out").exists()


def test_bad_words_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fast' is not expected here"):
        gpu.main(["fast"])
    with pytest.raises(ValueError, match=r"nearest: --training\.batches"):
        gpu.main(["--training.batch", "3"])
    with pytest.raises(ValueError, match="nearest: training"):
        gpu.main(["--parts", "trainings"])
    with pytest.raises(ValueError, match="device 'gpu' is not here"):
        gpu.main(["--device", "gpu", "--out", str(tmp_path)])
