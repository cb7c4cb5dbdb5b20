"""The pipeline: what it draws, from what, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fromnoise.conditioning.config import ConditionerConfig, LabelConfig, NoConditionConfig, TextConfig
from fromnoise.core.files import save_tensors
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Cosine, Linear
from fromnoise.models.config import BackboneConfig, CNNConfig, CrossDiTConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import CHUNK, Pipeline
from tests.conftest import stirred

CAPTIONS = ["a red circle", "a small blue square above a large green star", "two yellow rings", ""]
LONG = "a red circle left of a blue square " * 9


def build(conditioner: ConditionerConfig | None = None, **fields: Any) -> Pipeline:
    """A tiny pipeline whose weights are far from zero: what it draws depends on all it is given."""
    config = ModelConfig(
        backbone=fields.pop("backbone", MMDiTConfig(width=32, depth=2, head_width=16)),
        conditioner=conditioner or TextConfig(width=32, depth=1, heads=2, vocabulary=300),
        size=16,
        **fields,
    )
    return stirred(Pipeline.build(config, CAPTIONS, 0).eval(), 0.2)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build()


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("sampler", ["euler", "ddpm"])
def test_a_seed_draws_the_same_picture_whatever_the_batch(
    pipeline: Pipeline, sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = [*CAPTIONS, f"{sampler}: {LONG}"]  # the last one makes the whole batch longer
    together = pipeline(prompts, steps=6, seed=11, sampler=sampler, precision="float32")
    for i, prompt in enumerate(prompts):
        alone = pipeline(prompt, steps=6, seed=11 + i, sampler=sampler, precision="float32")[0]
        assert abs(pixels(alone) - pixels(together[i])).max() <= 1
    assert abs(pixels(together[0]) - pixels(together[1])).max() > 20
    assert "longer than the 32 tokens that the model reads" in capsys.readouterr().err


def test_the_network_is_shown_no_padding_unless_it_is_compiled(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    hook = pipeline.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[2].mask))
    short = pipeline("a red circle", steps=2, seed=3, precision="float32")[0]
    assert all(mask.any(0).all() for mask in seen)
    monkeypatch.setattr("fromnoise.pipeline.pipeline.is_compiled", lambda backbone: True)
    long = pipeline("a red circle", steps=2, seed=3, precision="float32")[0]
    hook.remove()
    assert seen[-1].shape[1] == pipeline.conditioner.length > seen[0].shape[1]
    assert abs(pixels(long) - pixels(short)).max() <= 1


def test_more_prompts_than_are_drawn_together(pipeline: Pipeline) -> None:
    prompts = [CAPTIONS[i % 3] for i in range(CHUNK + 3)]
    many = pipeline(prompts, steps=1, seed=5, precision="float32")
    assert len(many) == CHUNK + 3
    last = pipeline(prompts[-1], steps=1, seed=5 + CHUNK + 2, precision="float32")[0]
    assert abs(pixels(many[-1]) - pixels(last)).max() <= 1


def test_the_stream_ends_in_the_picture_and_shows_where_it_goes(pipeline: Pipeline) -> None:
    steps = list(pipeline.stream("a red circle", steps=7, seed=3, precision="float32"))
    assert len(steps) == 7
    assert all(step.x.shape == step.x0.shape == (1, 3, 16, 16) for step in steps)
    assert torch.equal(steps[-1].x, steps[-1].x0)  # the last step of Euler's method is to x0
    drawn = pipeline("a red circle", steps=7, seed=3, precision="float32")[0]
    assert np.array_equal(pixels(pipeline.pictures(steps[-1].x)[0]), pixels(drawn))


def test_threads_draw_at_once_as_if_each_were_alone() -> None:
    pipeline = build()
    before = {name: p.clone() for name, p in pipeline.backbone.named_parameters()}
    asked: list[dict[str, Any]] = [
        {"prompts": "a red circle", "seed": 1, "precision": "bfloat16"},
        {"prompts": "two yellow rings", "seed": 2, "precision": "bfloat16"},
        {"prompts": "two yellow rings", "seed": 2, "precision": "float32"},
    ]
    alone = [pipeline(steps=3, **one)[0].tobytes() for one in asked]
    inside = threading.Barrier(2)  # whoever is asked waits there a while for another one

    def wait(*_: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            inside.wait(0.1)

    with pipeline.backbone.register_forward_pre_hook(wait), ThreadPoolExecutor(3) as threads:
        together = [one[0].tobytes() for one in threads.map(lambda one: pipeline(steps=3, **one), asked)]
    assert together == alone
    after = dict(pipeline.backbone.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(after[name], p) for name, p in before.items())


def test_between_its_steps_a_stream_leaves_the_caller_alone(pipeline: Pipeline) -> None:
    for _ in pipeline.stream("a", steps=2, precision="bfloat16"):
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_guidance_zero_is_unconditional_and_one_conditional(pipeline: Pipeline) -> None:
    def draw(prompt: str, guidance: float) -> np.ndarray:
        return pixels(pipeline(prompt, steps=3, guidance=guidance, precision="float32")[0])

    assert np.array_equal(draw("a red circle", 0.0), draw("two yellow rings", 0.0))
    assert not np.array_equal(draw("a red circle", 1.0), draw("two yellow rings", 1.0))
    assert not np.array_equal(draw("a red circle", 1.0), draw("a red circle", 3.0))


def test_sizes_and_shapes(pipeline: Pipeline) -> None:
    assert pipeline("a", steps=1)[0].size == (16, 16)
    assert pipeline("a", steps=1, size=24)[0].size == (24, 24)
    assert pipeline("a", steps=1, size=(8, 20))[0].size == (20, 8)  # PIL's order is width, height


TINY_MMDIT = {"width": 16, "depth": 2, "head_width": 8, "grid": 4, "largest": 12}
ANY_SIZE: dict[str, BackboneConfig] = {
    **{
        f"{code}": MMDiTConfig.model_validate({**TINY_MMDIT, "rotation": "none", "absolute": "none", **code})
        for code in (
            {},
            {"absolute": "sincos"},
            {"absolute": "learned"},
            {"absolute": "cropped"},
            {"rotation": "rope"},
            {"rotation": "scaling"},
            {"rotation": "msrope", "absolute": "sincos"},
        )
    },
    "dit": DiTConfig(width=16, depth=2, head_width=8),
    "crossdit": CrossDiTConfig(width=16, depth=2, head_width=8),
    "unet": UNetConfig(width=8, multipliers=(1, 2, 2), attention=(1,), groups=4, heads=2, layers=1),
    "cnn": CNNConfig(width=16),
}


@pytest.mark.parametrize("name", ANY_SIZE)
def test_every_backbone_draws_any_size_and_aspect(name: str) -> None:
    pipeline = build(backbone=ANY_SIZE[name])
    assert pipeline.multiple == 4
    for height, width in ((4, 4), (4, 48), (48, 32), (20, 24)):
        assert pipeline("a", steps=1, size=(height, width))[0].size == (width, height)
    with pytest.raises(ValueError, match=r"size is 20x22 \(height x width\); allowed: multiples of 4 from 4 to 4096"):
        pipeline("a", steps=1, size=(20, 22))


def test_a_picture_beyond_the_largest_cropped_grid_is_refused() -> None:
    pipeline = build(backbone=MMDiTConfig.model_validate({**TINY_MMDIT, "absolute": "cropped"}))
    with pytest.raises(ValueError, match=r"13x4 patches are more than backbone.largest, 12, along a side"):
        pipeline("a", steps=1, size=(52, 16))


@pytest.mark.parametrize("target", ["x0", "eps", "v", "flow"])
@pytest.mark.parametrize("path", [Linear(), Cosine(), VP()])
def test_every_target_draws_on_every_path(path: Any, target: Any) -> None:
    pipeline = build(path=path, objective=Objective(target=target, measure=target))
    for sampler in ("euler", "dpmpp_2m"):
        for steps in (1, 4):
            x = list(pipeline.stream("a red circle", steps=steps, guidance=1.0, sampler=sampler))[-1].x
            assert bool(x.isfinite().all())


def test_the_models_own_way_of_sampling_is_used_where_nothing_else_is_said() -> None:
    usual = build(sampling=Sampling(sampler="ddim", steps=3, guidance=2.0, eta=0.5, shift=2.0, interval=(0.2, 0.8)))
    plain = build()
    said = plain("a red circle", 3, 2.0, sampler="ddim", eta=0.5, shift=2.0, interval=(0.2, 0.8))[0]
    assert np.array_equal(pixels(usual("a red circle")[0]), pixels(said))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"steps": 0}, "steps: given 0; input should be greater than or equal to 1"),
        ({"steps": 1001}, "steps: given 1001; input should be less than or equal to 1000"),
        ({"guidance": -0.5}, "guidance: given -0.5; input should be greater than or equal to 0"),
        ({"guidance": float("nan")}, "guidance: given nan; input should be"),
        ({"eta": 0.5}, "eta is 0.5 with sampler euler; only ddim reads eta, allowed 0"),
        ({"eta": 2.0, "sampler": "ddim"}, "eta: given 2.0; input should be less than or equal to 1"),
        (
            {"sampler": "eulr"},
            "sampler: given 'eulr'; allowed: ddpm, ddim, euler, heun, rk4, dpmpp_2m, sde; nearest: euler",
        ),
        ({"interval": (0.7, 0.2)}, "guidance interval is 0.7 to 0.2; allowed 0 <= low <= high <= 1"),
        ({"size": 18}, "size is 18x18 (height x width); allowed: multiples of 4 from 4 to 4096 pixels"),
        ({"size": (16, 0)}, "size is 16x0 (height x width); allowed: multiples of 4 from 4 to 4096 pixels"),
        ({"size": 100_000}, "size is 100000x100000 (height x width); allowed: multiples of 4 from 4 to 4096 pixels"),
        ({"size": (16,)}, "size is 16 (height x width); allowed: multiples of 4"),
        ({"size": (16, 16, 16)}, "size is 16x16x16 (height x width); allowed: multiples of 4"),
        ({"size": 16.0}, "size is 16.0x16.0 (height x width); allowed: multiples of 4"),
        ({"seed": -1}, "seed is -1; allowed: 0 to 2^63 - 1"),
        ({"seed": 1.5}, "seed is 1.5; allowed: 0 to 2^63 - 1"),
        ({"labels": [1, 2]}, "2 labels are given for 1 prompts; allowed: one each"),
        ({"precision": "float16"}, "precision is 'float16'; allowed: auto, float32, bfloat16"),
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_drawn(
    pipeline: Pipeline, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError) as error:
        pipeline.stream("a red circle", **arguments)
    assert str(error.value).startswith(told) and "\n" not in str(error.value)
    with pytest.raises(ValueError):
        pipeline("a red circle", **arguments)


def test_prompts_must_be_text_and_there_must_be_one(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="no prompt is given; allowed: one or more"):
        pipeline([])
    with pytest.raises(ValueError, match="a prompt is 3; allowed: text"):
        pipeline(["a", 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"a prompt is 'a \\udcff'; allowed: text in UTF-8"):
        pipeline("a \udcff")


def test_the_seed_of_the_last_picture_is_one_that_can_be_asked_for(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="seed is 9223372036854775808; allowed: 0 to"):
        pipeline(["a", "b"], seed=2**63 - 1)


def test_numbers_of_numpy_are_numbers(pipeline: Pipeline) -> None:
    asked = pipeline("a", steps=1, size=np.int64(16), seed=np.int64(3))  # type: ignore[arg-type]
    assert np.array_equal(pixels(asked[0]), pixels(pipeline("a", steps=1, size=16, seed=3)[0]))


def test_what_is_saved_comes_back(tmp_path: Path, pipeline: Pipeline) -> None:
    file = tmp_path / "model.safetensors"
    pipeline.save(file, {"step": "3"})
    loaded = Pipeline.load(file)
    assert loaded.config == pipeline.config and not loaded.training
    prompts = ["a small blue square", "unseen wörds"]
    a, b = pipeline(prompts, steps=2), loaded(prompts, steps=2)
    assert all(np.array_equal(pixels(x), pixels(y)) for x, y in zip(a, b, strict=True))


def test_files_that_hold_no_such_model_are_refused_in_one_line(tmp_path: Path, pipeline: Pipeline) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="no file at"):
        Pipeline.load(file)
    save_tensors(file, {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no pipeline: its metadata has no config"):
        Pipeline.load(file)
    pipeline.save(file, {})
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="was altered after it was written"):
        Pipeline.load(file)
    state = dict(pipeline.state_dict())
    del state["backbone.proj_out.bias"]
    config = {"config": pipeline.config.model_dump_json(), "state": json.dumps(pipeline.conditioner.state)}
    for metadata in (config, {**config, "config": '{"backbone": {"widht": 3}}'}):
        save_tensors(file, state, metadata)
        with pytest.raises(ValueError) as error:
            Pipeline.load(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_one_seed_one_model_and_the_callers_chances_stay_his_own() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    a, b = build(), build()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    other = Pipeline.build(a.config, CAPTIONS, 1)
    assert not torch.equal(other.backbone.img_in.weight, Pipeline.build(a.config, CAPTIONS, 0).backbone.img_in.weight)


@pytest.mark.parametrize("conditioner", [NoConditionConfig(width=32), LabelConfig(width=32, classes=5)])
def test_models_without_text_draw_too(conditioner: ConditionerConfig) -> None:
    pipeline = build(conditioner)
    one, other = (pixels(pipeline("", steps=2, labels=[label])[0]) for label in (1, 4))
    assert np.array_equal(one, other) == isinstance(conditioner, NoConditionConfig)
    features = pipeline.conditioner.encode(["", ""], torch.tensor([1, 3]))
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = pipeline.loss(noise, features, torch.tensor([0.3, 0.6]), noise, torch.tensor([True, False]))
    loss.sum().backward()
    assert [name for name, p in pipeline.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_grey_pictures() -> None:
    assert build(channels=1)("a", steps=1)[0].mode == "L"
