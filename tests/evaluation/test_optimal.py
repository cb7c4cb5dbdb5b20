"""The best denoiser for a set: closed forms, and a model that is one, which learns nothing and copies everything."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fromnoise.cli.main import main
from fromnoise.conditioning.config import LabelConfig, NoConditionConfig
from fromnoise.core.types import Cond
from fromnoise.data.config import PreparedConfig, ShapesConfig
from fromnoise.data.labelled import Labelled, LabelledData, scaled
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Linear
from fromnoise.diffusion.path import Path as DiffusionPath
from fromnoise.evaluation import optimal
from fromnoise.evaluation.features.real import NotMeasured, halves
from fromnoise.evaluation.optimal import Known, by_time, posterior_mean, read
from fromnoise.evaluation.subject import Subject
from fromnoise.evaluation.wanted import Wanted
from fromnoise.evaluation.whole import measured
from fromnoise.models.config import CNNConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig

SIDE = 4


def points(*rows: list[float]) -> Known:
    mean = torch.tensor(rows).double()
    return Known(mean, torch.zeros(len(mean), 1).double())


class TestPosteriorMean:
    def test_of_one_picture_it_is_that_picture(self) -> None:
        x_t = torch.randn(3, 2, dtype=torch.float64)
        found = posterior_mean(x_t, 0.3, 0.7, points([1.0, -2.0]))
        torch.testing.assert_close(found, torch.tensor([[1.0, -2.0]]).double().expand(3, -1))

    @pytest.mark.parametrize(("alpha", "sigma"), [(0.5, 0.5), (0.01, 0.99), (0.99, 0.01)])
    def test_between_two_points_it_is_a_tanh(self, alpha: float, sigma: float) -> None:
        x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        expected = 0.8 * torch.tanh(alpha * 0.8 * x_t / sigma**2)
        torch.testing.assert_close(posterior_mean(x_t, alpha, sigma, points([0.8], [-0.8])), expected)

    def test_of_a_normal_distribution_it_is_wieners(self) -> None:
        known = Known(torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[4.0, 0.25]]).double())
        x_t = torch.randn(5, 2, dtype=torch.float64)
        gain = 0.6 * known.variance / (0.36 * known.variance + 0.64)
        torch.testing.assert_close(posterior_mean(x_t, 0.6, 0.8, known), known.mean + gain * (x_t - 0.6 * known.mean))

    def test_of_a_mixture_it_is_what_integration_says(self) -> None:
        known = Known(torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[0.04], [0.5]]).double())
        alpha, sigma, x_t = 0.7, 0.5, 0.9
        x = torch.linspace(-8, 12, 200_001, dtype=torch.float64)
        prior = sum(
            (-((x - m) ** 2) / (2 * v)).exp() / math.sqrt(v)
            for (m,), (v,) in zip(*map(Tensor.tolist, known), strict=True)
        )
        weight = prior * (-((x_t - alpha * x) ** 2) / (2 * sigma**2)).exp()
        found = posterior_mean(torch.tensor([[x_t]]).double(), alpha, sigma, known)
        assert float(found) == pytest.approx(float((weight * x).sum() / weight.sum()), rel=1e-6)

    def test_the_same_in_parts_and_with_equal_variances(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mean = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double()
        x_t = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()
        alone = posterior_mean(x_t, 0.6, 0.4, Known(mean, torch.full((50, 1), 0.1).double()))
        monkeypatch.setattr(optimal, "ROWS", 7)
        torch.testing.assert_close(posterior_mean(x_t, 0.6, 0.4, Known(mean, torch.full((50, 6), 0.1).double())), alone)


class ByHeart(nn.Module):
    """A model that answers with the best x0 for its training pictures."""

    def __init__(self, known: Known, path: DiffusionPath):
        super().__init__()
        self.known, self.path = known, path
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        coefs = self.path(t[:1])
        x_t = x.flatten(1).double()
        return posterior_mean(x_t, float(coefs.alpha), float(coefs.sigma), self.known).to(x).view_as(x)  # (B, C, H, W)


def pictures(count: int, seed: int) -> Labelled:
    """Of structure: a bright column whose place and brightness chance decides, over some noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 1, SIDE, SIDE))
    images[np.arange(count), 0, :, rng.integers(0, SIDE, count)] = rng.integers(120, 255, (count, SIDE))
    return Labelled(images.astype(np.uint8), np.zeros(count, np.uint8))


def small(flip: bool = False) -> LabelledData:
    held_out = pictures(300, 1)
    return LabelledData(pictures(40, 0), held_out, lambda: held_out, [["a column"]], 0, flip)


def model(**changes: Any) -> Pipeline:
    usual: dict[str, Any] = {
        "backbone": CNNConfig(width=16),
        "conditioner": NoConditionConfig(width=8),
        "objective": Objective(target="x0", measure="x0"),
        "sampling": Sampling(steps=30, guidance=1.0, sampler="ddim"),
        "channels": 1,
        "size": SIDE,
    }
    return Pipeline.build(ModelConfig(**(usual | changes)), [], 0)


@pytest.fixture(params=[Linear(), VP()], ids=["linear", "vp"])
def by_heart(request: pytest.FixtureRequest) -> Pipeline:
    pipeline = model(path=request.param)
    pipeline.backbone = ByHeart(read(pipeline, small()), request.param)
    return pipeline


class TestByTime:
    def test_a_model_that_knows_all_by_heart_is_at_the_floor(self, by_heart: Pipeline) -> None:
        found = by_time(by_heart, small())
        np.testing.assert_allclose(found["training"], found["training_best"], atol=1e-5)
        np.testing.assert_allclose(found["validation"], found["validation_best"], atol=1e-5)
        assert found["training_best"][0] < 0.05 * found["validation_best"][0]
        assert found["training_best"] == sorted(found["training_best"]) and found["training_pictures"] == 40

    def test_no_model_is_below_the_floor(self) -> None:
        pipeline = model()
        with torch.no_grad():
            for p in pipeline.backbone.parameters():
                p.zero_()
        found = by_time(pipeline, small())
        assert all(ours > best for ours, best in zip(found["training"], found["training_best"], strict=True))
        mean = scaled(torch.from_numpy(small().learned.images)).mean(0)
        x0 = small().train(0, optimal.PICTURES).images
        last = (x0 - mean).square().mean().item()  # in noise alone nothing is known but the mean
        assert found["training_best"][-1] == pytest.approx(last, rel=0.1)

    def test_latents_of_a_vae_are_drawn_and_the_floor_knows_it(self, vae: Path, tmp_path: Path) -> None:
        """With the shares of variance that the encoder says, a draw is not known even at little noise."""
        folder = tmp_path / "folder"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(60):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text("one")
        assert main(["prepare", str(folder), "--out", str(tmp_path / "set"), "--size", "8", "--vae", str(vae)]) == 0
        data = PreparedConfig(path=tmp_path / "set").build(0)
        space = LatentConfig(path=vae, shift=(0.5,), scale=(2.0,))
        pipeline = model(space=space, channels=3, size=8)
        known = read(pipeline, data)
        assert known.mean.shape == known.variance.shape == (len(data.learned), 4 * 4 * 4)
        batch = data.train(0, 1)
        draws = torch.stack([pipeline.latents(batch, torch.Generator().manual_seed(k)) for k in range(2000)])
        at = (known.mean - draws.mean(0).flatten()).square().sum(1).argmin()
        draws = draws.flatten(1)
        torch.testing.assert_close(
            draws.mean(0), known.mean[at], atol=5 * float(draws.std(0).max()) / 2000**0.5, rtol=0
        )
        torch.testing.assert_close(draws.var(0), known.variance[at], rtol=0.3, atol=1e-6)
        pipeline.backbone = ByHeart(known, Linear())
        found = by_time(pipeline, data)
        np.testing.assert_allclose(found["training"], found["training_best"], rtol=1e-3)

    @pytest.mark.parametrize(
        ("data", "changes", "why"),
        [
            (ShapesConfig().build(0), {}, "pictures without end"),
            (small(flip=True), {}, "mirrors half of the pictures"),
            (
                small(),
                {"conditioner": LabelConfig(classes=1, width=8), "objective": Objective(dropout=0.0)},
                "no prompt is dropped",
            ),
        ],
    )
    def test_where_there_is_none_it_is_refused_with_a_sentence(self, data: Any, changes: Any, why: str) -> None:
        with pytest.raises(NotMeasured, match=why):
            read(model(**changes), data)

    def test_a_large_set_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(optimal, "LARGEST", 639)
        with pytest.raises(NotMeasured, match="40 training pictures of 16 numbers are 640; allowed: 639 at most"):
            read(model(), small())


def test_floor_and_reference_share_no_picture() -> None:
    data = small()
    for drawn, sizes in ((300, (300, 40)), (400, (20, 20))):  # held out there are 300
        floor, reference = halves(model(), data, drawn, 100)
        assert (floor.count, reference.count) == sizes
        both = [
            {tuple(image.flatten().tolist()) for part in some.read() for image in part} for some in (floor, reference)
        ]
        assert tuple(map(len, both)) == sizes and not both[0] & both[1]


@pytest.mark.parametrize("honest", [False, True])
def test_a_model_that_knows_all_by_heart_is_caught(honest: bool, tmp_path: Path) -> None:
    """The same denoiser, for pictures that are trained on, or for as many others, drawn from the same distribution."""
    others = pictures(400, 2)
    data = small()
    pipeline = model()
    pipeline.backbone = ByHeart(read(pipeline, data), Linear())
    if honest:
        other = LabelledData(others, data.held_out, data.test, data.said, 0, False)
        pipeline.backbone = ByHeart(read(pipeline, other), Linear())
    (tmp_path / "run.yaml").touch()
    pipeline.save(tmp_path / "ema.safetensors", {})

    def watch(what: str) -> Any:
        return nullcontext(lambda done, total: None)

    subject = Subject(tmp_path, Wanted(samples=200, measure=("neighbours",), device="cpu"), watch)
    subject.run, subject.kind, subject.data, subject.pipeline = None, "columns", data, pipeline
    found = measured(subject)["neighbours"]
    assert found["held_out"] == 200 and found["training_pictures"] == 40 and (tmp_path / found["sheet"]).is_file()
    if honest:
        assert found["near"] < 0.15 and found["copies"] < 0.05
    else:
        assert found["near"] == 1 and found["copies"] > 0.9 > 0.1 > found["copies_held_out"]
        assert found["distance"] < 0.1 * found["distance_held_out"]
