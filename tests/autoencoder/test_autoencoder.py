"""The loss in its stated convention, against the same thing written with sums."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fromnoise.autoencoder import adversarial
from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.config import AutoencoderConfig, Loss
from fromnoise.core.files import save_tensors
from fromnoise.models.config import VAEConfig

TINY = VAEConfig(width=8, multipliers=(1, 2, 2), layers=1, groups=4)
LOSS = Loss(kl=0.02, adversarial=0.5, adversarial_start=3, discriminator_width=8, discriminator_layers=1)


def model_of(loss: Loss, perceptual: torch.nn.Module | None = None) -> Autoencoder:
    return Autoencoder.build(AutoencoderConfig(vae=TINY, loss=loss), 0, perceptual)  # type: ignore[arg-type]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def eps() -> torch.Tensor:
    return torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_loss_is_a_beta_vae_s_but_for_a_factor(images: torch.Tensor, eps: torch.Tensor) -> None:
    model = model_of(Loss(kl=0.02))
    mean, std = model.vae.encode(images)
    made = model.vae.decode(mean + std * eps)
    pixels, values, factor = 3 * 16 * 24, 4 * 4 * 6, model.config.vae.factor
    beta = 0.02 * 3 * factor**2 / 4
    assert beta == pytest.approx(0.02 * pixels / values)
    sums = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum((1, 2, 3))
    expected = (made - images).square().sum((1, 2, 3)) + beta * sums
    torch.testing.assert_close(model.loss(images, eps, 0) * pixels, expected)


def test_a_perceptual_distance_is_added_by_its_weight(images: torch.Tensor, eps: torch.Tensor) -> None:
    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).abs().amax((1, 2, 3))

    plain, model = model_of(Loss(kl=0.02)), model_of(Loss(kl=0.02), Distance())
    model.config = AutoencoderConfig(vae=TINY, loss=Loss(kl=0.02, perceptual=0.25, vgg=Path("v"), heads=Path("h")))
    made = plain.judged(images, eps).made
    expected = plain.loss(images, eps, 0) + 0.25 * (made - images).abs().amax((1, 2, 3))
    torch.testing.assert_close(model.loss(images, eps, 0), expected)


def test_before_its_step_the_discriminator_is_not_there(images: torch.Tensor, eps: torch.Tensor) -> None:
    plain, model = model_of(Loss(kl=0.02)), model_of(LOSS)
    assert torch.equal(plain.loss(images, eps, 0), model.loss(images, eps, 2))
    assert not torch.allclose(plain.loss(images, eps, 0), model.loss(images, eps, 3))
    model.loss(images, eps, 2).mean().backward()
    assert model.discriminator and all(p.grad is None for p in model.discriminator.parameters())


def test_each_side_gets_the_gradient_of_its_own_loss(images: torch.Tensor, eps: torch.Tensor) -> None:
    model = model_of(LOSS)
    judge = model.discriminator
    assert judge
    own, others = list(judge.parameters()), list(model.vae.parameters())
    made, error, kl = model.judged(images, eps)
    hinge = (torch.relu(1 - judge(images)) + torch.relu(1 + judge(made.detach()))).mean() / 2
    expected_own = torch.autograd.grad(hinge, own)

    gradient = functools.partial(torch.autograd.grad, retain_graph=True)
    against, last = -judge(made).mean(), model.vae.decoder.conv_out.weight
    ratio = gradient(error.mean(), last)[0].norm() / gradient(against, last)[0].norm()
    expected_others = gradient((error + kl).mean() + 0.5 * ratio * against, others)

    loss = model.loss(images, eps, 3)
    loss.mean().backward()
    torch.testing.assert_close(loss.mean(), (error + kl).mean() + 0.5 * ratio * against + hinge, rtol=1e-3, atol=0)
    for p, expected in zip([*own, *others], [*expected_own, *expected_others], strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, expected, rtol=1e-3, atol=1e-5)


def test_the_adaptive_weight_is_a_ratio_of_norms_and_has_an_end() -> None:
    last = torch.ones(4, requires_grad=True)
    assert adversarial.adaptive_weight(6 * last.sum(), 2 * last.sum(), last).item() == pytest.approx(3)
    assert adversarial.adaptive_weight(1e9 * last.sum(), last.sum(), last).item() == adversarial.MOST


def test_three_layers_judge_patches_of_70_pixels() -> None:
    judge = adversarial.Discriminator(1, 8, 3)
    for i in range(3):
        judge.norms[i] = torch.nn.Identity()  # what it gathers of the whole picture is left aside
    x = torch.zeros(1, 1, 128, 128, requires_grad=True)
    out = judge(x)
    assert out.shape == (1, 14, 14)
    (seen,) = torch.autograd.grad(out[0, 7, 7], x)
    rows, columns = seen[0, 0].nonzero().unbind(1)
    assert int(rows.max() - rows.min()) + 1 == int(columns.max() - columns.min()) + 1 == 70


def test_a_file_of_something_else_is_no_autoencoder(tmp_path: Path) -> None:
    model = model_of(LOSS)
    model.save(tmp_path / "a.safetensors", {})
    again = Autoencoder.load(tmp_path / "a.safetensors")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    save_tensors(tmp_path / "b.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match=r"b\.safetensors holds no autoencoder"):
        Autoencoder.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"perceptual": 1.0}, "perceptual is 1, which needs a file of weights at vgg"),
        ({"perceptual": 1.0, "vgg": "a"}, "perceptual is 1, which needs a file of weights at heads"),
        ({"discriminator_width": 12}, "discriminator_width is 12; allowed: multiples of 8"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Loss.model_validate(given)
