"""A plan: counts by hand, what fits, what is left of a run, what is assumed where something is absent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from fromnoise.cli.main import main
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig, LabelConfig
from fromnoise.core.chips import CHIPS
from fromnoise.core.config import read_yaml, write_yaml
from fromnoise.data.config import FolderConfig, PreparedConfig, ShapesConfig
from fromnoise.evaluation import cost
from fromnoise.models.config import DiTConfig, UNetConfig
from fromnoise.pipeline.asked import rows_of_picture
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.planning.counts import Flops, Pieces, autoencoder, count_look, count_step, counts_of, drawing, pieces_of
from fromnoise.planning.fit import Memory, fitting
from fromnoise.planning.speed import LAUNCH, compiled_share, of_run, on_chip
from fromnoise.recipes import VAE_RECIPES
from fromnoise.space.config import LatentConfig
from fromnoise.training import reconstruction
from fromnoise.training.fast import Choices
from fromnoise.training.hollow import Counted, hollow
from fromnoise.training.loop import train
from fromnoise.training.run import AdamW, Run, Training, VAERun

MODEL = ModelConfig(
    backbone=DiTConfig(patch=8, width=16, depth=1, head_width=8),
    conditioner=LabelConfig(classes=10, width=16),
    sampling=Sampling(sampler="euler", steps=3, guidance=2.0),
)
USUAL: dict[str, Any] = {"batch": 4, "device": "cpu", "precision": "float32", "compile": "off", "previews": ("1",)}
GIB = 2**30


def small(**training: Any) -> Run:
    return Run(recipe="small", model=MODEL, training=Training(**({"steps": 8, **USUAL} | training)))


def plan(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["plan", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], args: Sequence[str]) -> str:
    assert main(["plan", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    write_yaml(small(), path)
    return path


def test_a_plan_here_counts_what_the_model_is_and_times_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = plan(capsys, str(file), "--training.keep", "1", "--price", "2")
    pipeline = Pipeline.build(MODEL, [], 0)
    assert sum(told["parameters"]["trained"].values()) == cost.parameters(pipeline)
    assert told["parameters"]["trained"]["conditioner"] == 11 * 16 and told["parameters"]["frozen"] == {}
    flops = told["flops"]
    assert flops["forward"] == cost.flops(pipeline) and flops["training"] == cost.training_flops(pipeline)
    assert flops["rows"] == rows_of_picture(MODEL) == 6
    assert flops["picture"] == 6 * flops["forward"]
    memory, weights = told["memory"], 4 * cost.parameters(pipeline)
    assert memory["weights"] == memory["average"] == weights
    assert memory["fits"] and memory["program"] > 100 * 2**20 and memory["remedy"] == ""
    assert told["disk"]["checkpoints"] == weights * 2 + memory["moments"]  # the one there is at the end
    assert told["time"] | {"seconds": 0, "hours": 0} == {
        "done_steps": 0, "steps": 8, "validations": 2, "previews": 1, "checkpoints": 1, "seconds": 0, "hours": 0,
    }  # fmt: skip
    assert told["speed"]["step_seconds"] == pytest.approx(4 / told["speed"]["images_per_second"])
    assert told["time"]["seconds"]["steps"] == pytest.approx(8 * told["speed"]["step_seconds"])
    assert told["cost"] == pytest.approx(2 * told["time"]["hours"])
    assert told["seen"] == {"pictures": 32, "left": 32, "epochs": None, "data": None}
    assert told["derived"]["EMA length in steps"] == 1.0 and told["derived"]["latent"] == [3, 32, 32]
    assert told["assumed"] == []


def test_a_plan_is_read_as_a_table(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(file), "--device", "4090"]) == 0
    text = capsys.readouterr().out
    for words in (
        "small on RTX 4090",
        "of 24.0 GiB at most: weights",
        "it fits",
        "assumed, not measured: 35% of 165 TFLOP",
        "8 steps",
        "seen            32 pictures",
        "peak learning rates lr 0.004, adamw_lr 0.002",
    ):
        assert words in text
    assert "cost" not in text


def test_activations_grow_with_the_batch_and_nothing_else_does() -> None:
    run, data = small(), ShapesConfig().build(0)
    pieces = pieces_of(run, data, print)
    with hollow(pieces.conditioner, pieces.space):
        subject = drawing(run, pieces)
        steps = [count_step(run, subject, batch, 1, torch.bfloat16, fused=True) for batch in (64, 128, 192)]
    first, second, third = (step.activations + step.gradients for step in steps)
    assert third - second == pytest.approx(second - first, rel=0.01)
    assert second - first > 64 * 10_000
    assert steps[0].kernels == steps[2].kernels and steps[0].traffic < steps[2].traffic


def deep() -> Run:
    """A small run whose backbone has six blocks."""
    backbone = DiTConfig(patch=4, width=16, depth=6, head_width=8)
    run = small()
    return run.model_copy(update={"model": run.model.model_copy(update={"backbone": backbone})})


def shallow() -> VAERun:
    """The small VAE, narrower."""
    run = VAE_RECIPES["vae-small"]()
    vae = run.model.vae.model_copy(update={"width": 8, "groups": 4})
    return run.model_copy(update={"model": run.model.model_copy(update={"vae": vae})})


@pytest.mark.parametrize("make", [deep, shallow])
def test_what_is_computed_again_takes_less_memory_and_one_more_forward_of_blocks(
    make: Callable[[], Run | VAERun],
) -> None:
    run, data = make(), ShapesConfig().build(0)
    pieces = pieces_of(run, data, print) if isinstance(run, Run) else None
    told = []
    for again in (False, True):
        asked = run.model_copy(update={"training": run.training.model_copy(update={"recompute": again})})
        with hollow(pieces.conditioner, pieces.space) if pieces else hollow():
            subject = autoencoder(asked, data) if isinstance(asked, VAERun) else drawing(asked, cast(Pieces, pieces))
            flops = counts_of(asked, subject, 1).flops
            told.append((flops, count_step(asked, subject, 32, 1, torch.bfloat16, fused=True)))
    (plain, step), (more, less) = told
    assert less.activations + less.gradients < 0.6 * (step.activations + step.gradients)
    assert more.forward == plain.forward
    assert plain.training + 0.6 * plain.forward < more.training <= plain.training + plain.forward
    assert less.kernels > step.kernels and less.traffic > step.traffic


def test_a_look_at_more_pictures_than_a_step_takes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = VAE_RECIPES["vae-small"](), ShapesConfig().build(0)
    with hollow():
        subject = autoencoder(run, data)
        looks = []
        for pixels in (2**16, 2**17, 2**18):
            monkeypatch.setattr(reconstruction, "PIXELS", pixels)
            looks.append(count_look(run, subject, data, None))
        step = count_step(run, subject, run.training.batch, 1, None, fused=False)
    assert looks[1] - looks[0] == pytest.approx((looks[2] - looks[1]) / 2, rel=0.02)
    assert looks[0] < step.activations < looks[2]


@pytest.mark.parametrize(("backbone", "share"), [(MODEL.backbone, 0.9), (UNetConfig(width=8, groups=4), 1.05)])
def test_what_compiling_saves_hangs_on_what_blocks_are_made_of(backbone: DiTConfig | UNetConfig, share: float) -> None:
    pipeline = Pipeline.build(MODEL.model_copy(update={"backbone": backbone}), [], 0)
    assert compiled_share(pipeline) == share


def test_a_chip_is_bound_by_products_memory_or_launches() -> None:
    chip, flops = CHIPS["A100"], Flops(10**9, 3 * 10**9, 10**10, 10)
    bound = {
        "products": (Counted(0, 0, 10, 10**6), 100 * 3e9 / (0.5 * chip.flops)),
        "memory": (Counted(0, 0, 10, 10**13), 1e13 / chip.bandwidth),
        "operation": (Counted(0, 0, 10**6, 10**6), 10**6 * LAUNCH),
    }
    for name, (step, seconds) in bound.items():
        speed = on_chip(chip, flops, step, 100, 0.5)
        assert speed.pace.step == pytest.approx(seconds)
        assert name in speed.how.partition("bound by")[2] and "assumed, not measured: 50%" in speed.how


def test_what_does_not_fit_is_told_what_would() -> None:
    def holding(parts: int, again: bool) -> Memory:
        return Memory(GIB, GIB, GIB, GIB, (16 if again else 64) * GIB // parts, 0, 0, 0)

    def told(room: float, **training: Any) -> str:
        asked = Training(batch=64, **training)
        memory = holding(asked.accumulate, asked.recompute)
        fits, remedy = fitting(memory, holding, asked, int(room * GIB), "X")
        assert fits == (not remedy)
        return remedy

    assert told(80) == told(24, recompute=True) == ""
    short = "68.0 GiB of the 21.6 GiB that X can give"
    assert told(24) == f"{short}; --training.accumulate 4 fits, or --training.batch 16, or --training.recompute true"
    assert told(20).endswith("; --training.accumulate 8 fits, or --training.batch 8")
    assert told(20, recompute=True).endswith("; --training.accumulate 2 fits, or --training.batch 32")
    assert told(5).endswith("; --training.recompute true --training.accumulate 32 fits")
    for wanted in (False, True):
        least = told(4, recompute=wanted)
        assert "not even one picture at a time fits: choose a smaller" in least and "4090" in least


def test_a_run_under_way_is_told_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "run"
    train(small(steps=4, save_every=4, log_every=1, optimizer=AdamW()), directory)
    write_yaml(small(steps=40, save_every=4, log_every=1, optimizer=AdamW()), directory / "run.yaml")
    capsys.readouterr()
    told = plan(capsys, str(directory), "--device", "cpu")
    assert told["run"] == str(directory)
    assert (told["time"]["done_steps"], told["time"]["steps"], told["time"]["checkpoints"]) == (4, 36, 9)
    assert told["seen"]["pictures"] == 160 and told["seen"]["left"] == 144
    assert told["speed"]["how"].startswith("measured by the run itself")
    speed = of_run(directory, read_yaml(Choices, directory / "measured.yaml"))
    assert speed and told["speed"]["step_seconds"] == speed.pace.step
    other = plan(capsys, str(directory), "--device", "h100", "--training.steps", "50")
    assert other["time"]["done_steps"] == 0 and "from the start: training.steps is 40" in other["assumed"][0]

    for checkpoint in (directory / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    line = refused(capsys, [str(directory)])
    assert line.startswith(f"fromnoise: no checkpoint in {directory}") and "run.yaml" in line


def test_what_is_absent_is_assumed_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoders = (EncoderConfig(path="openai/clip-vit-large-patch14"),)
    model = MODEL.model_copy(
        update={
            "space": LatentConfig(path=tmp_path / "vae"),
            "conditioner": FrozenTextConfig(encoders=encoders, width=16),
            "size": 64,
        }
    )
    run = small(previews=()).model_copy(update={"model": model, "data": PreparedConfig(path=tmp_path / "none")})
    path = tmp_path / "run.yaml"
    write_yaml(run, path)
    told = plan(capsys, str(path), "--device", "h100")
    assert told["derived"]["latent"] == [4, 8, 8]
    assert told["parameters"]["trained"]["conditioner"] == 768 * 16
    assert told["parameters"]["frozen"] == {
        "VAE": 83_653_863,
        "text encoder openai/clip-vit-large-patch14": 123_060_480,
    }
    assert told["memory"]["frozen"] == 4 * (83_653_863 + 123_060_480)
    for words in (
        "pictures of 3 x 64 x 64",
        "shift and scale",
        "clip-vit-large-patch14: 123M",
        "Stable Diffusion's shape",
    ):
        assert any(words in line for line in told["assumed"])


def test_a_vae_is_planned_like_all_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fields = "--model.vae.width 8 --model.vae.groups 4 --training.steps 6 --data.type shapes".split()
    told = plan(capsys, "vae-small", "--device", "t4", *fields)
    assert set(told["parameters"]["trained"]) == {"encoder", "decoder", "moments' mixing"}
    assert told["derived"]["latent"] == [8, 8, 8] and told["time"]["seconds"]["end"] > 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["shapes", "--device", "h10"], ["unknown device 'h10'; allowed: cpu, b200", "nearest: h100"]),
        (["shapes", "--device", "cuda:9"], ["device 'cuda:9' is not here"]),
        (["shaps"], ["unknown recipe 'shaps'", "nearest: shapes"]),
        ([], ["a recipe, a run.yaml or a run directory must come first"]),
        (["shapes", "more"], ["'more' is not expected here"]),
        (["shapes", "--training.stepz", "3"], ["unknown flag --training.stepz"]),
        (["shapes", "--price", "-1"], ["price: given '-1'"]),
        (["runs/none/run.yaml"], ["cannot read runs/none/run.yaml"]),
    ],
)
def test_faults_of_the_user(args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, args)
    assert all(word in line for word in words)


def test_absent_folders_are_assumed_as_large_as_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small().model_copy(update={"data": FolderConfig(path=tmp_path / "none", size=48)})
    write_yaml(run, tmp_path / "run.yaml")
    told = plan(capsys, str(tmp_path / "run.yaml"), "--device", "l4")
    assert told["derived"]["picture"] == [3, 48, 48] and "does not exist" in told["assumed"][0]
    assert torch.get_default_dtype() == torch.float32
    assert ShapesConfig().build(0).counts is None
