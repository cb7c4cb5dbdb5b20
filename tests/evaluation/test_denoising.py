"""The error that all models share: closed forms for networks that answer 0."""

from collections.abc import Callable

import pytest
import torch

from fromnoise.diffusion.path import VP, Cosine, Linear
from fromnoise.evaluation.denoising import NOISE, PICTURES, denoising, log_snr, times_of
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run

STABLE = VP(beta_start=0.00085, beta_end=0.012, power=2)


@pytest.mark.parametrize("path", [Linear(), Cosine(), VP(), STABLE], ids=["linear", "cosine", "vp", "stable"])
def test_times_have_the_noise_asked_for(path):
    coefs, noise = path(times_of(path, NOISE)), torch.tensor(NOISE, dtype=torch.float64)
    torch.testing.assert_close(coefs.sigma / (coefs.alpha + coefs.sigma), noise, rtol=1e-6, atol=0)
    torch.testing.assert_close((coefs.alpha**2 / coefs.sigma**2).log(), log_snr(noise), rtol=1e-5, atol=1e-5)


def silent(run: Run) -> Pipeline:
    """A model whose answer is 0 for all that it is asked."""
    pipeline = Pipeline.build(run.model.model_copy(update={"channels": 1, "size": 28}), [], 0)
    with torch.no_grad():
        for p in pipeline.backbone.parameters():
            p.zero_()
    return pipeline


def test_a_velocity_of_0_is_wrong_by_the_noise_less_the_picture(tiny: Callable[..., Run]):
    data = tiny("flow").data.build(0)
    found, images = denoising(silent(tiny("flow")), data), data.validation(PICTURES).images
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert found["velocity"] == pytest.approx((eps - images).square().mean().item(), rel=1e-4)
    for error, u in zip(found["by_noise"], found["noise"], strict=True):
        assert error == pytest.approx(found["velocity"] * u**2, rel=1e-3)
    assert len(found["by_time"]) == 10 and found["by_time"] == sorted(found["by_time"])


def test_noise_of_0_is_wrong_by_the_noise_alone_at_the_same_ratios_on_another_path(tiny: Callable[..., Run]):
    data = tiny("noise").data.build(0)
    found, shape = denoising(silent(tiny("noise")), data), data.validation(PICTURES).images.shape
    eps = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for error, u in zip(found["by_noise"], found["noise"], strict=True):
        assert error == pytest.approx((u / (1 - u)) ** 2 * eps.square().mean().item(), rel=1e-3)
