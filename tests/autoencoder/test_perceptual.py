"""LPIPS against the formula of its paper on a VGG16 put together from torch's layers; weights are chance."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fromnoise.autoencoder.perceptual import STAGES, Perceptual

COMPARED = (3, 8, 15, 22, 29)  # torchvision's places of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
HEADS = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "weights" / "lpips_lin_v0.1" / "vgg.pth"


def vgg16() -> nn.Sequential:
    """As torchvision lays it out."""
    layers: list[nn.Module] = []
    source = 3
    for widths in STAGES:
        for width in widths:
            layers += [nn.Conv2d(source, width, 3, padding=1), nn.ReLU()]
            source = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Files:
    """VGG16 and heads, in memory and on the disk."""

    def __init__(self, place: Path):
        torch.manual_seed(0)
        self.trunk = vgg16()
        for layer in self.trunk:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=0.1)  # type: ignore[arg-type]
        self.vgg, self.heads = place / "vgg.safetensors", place / "heads.safetensors"
        save_file({f"features.{key}": value for key, value in self.trunk.state_dict().items()}, self.vgg)
        if HEADS.is_file():
            self.lines = torch.load(HEADS, map_location="cpu", weights_only=True)
        else:
            self.lines = {f"lin{i}.model.1.weight": torch.rand(1, w[-1], 1, 1) for i, w in enumerate(STAGES)}
        save_file(self.lines, self.heads)

    def plain(self, a: Tensor, b: Tensor) -> Tensor:
        """Equation 1 of Zhang et al. 2018, layer by layer, on pictures shifted and scaled as their code does."""
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        a, b = ((x - shift[:, None, None]) / scale[:, None, None] for x in (a, b))
        total = torch.zeros(len(a))
        for place, layer in enumerate(self.trunk):
            a, b = layer(a), layer(b)
            if place in COMPARED:
                unit_a, unit_b = (x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
                head = self.lines[f"lin{COMPARED.index(place)}.model.1.weight"]
                total = total + nn.functional.conv2d((unit_a - unit_b) ** 2, head).mean((1, 2, 3))
        return total


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("lpips"))


def pictures(channels: int, seed: int) -> Tensor:
    return torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def test_it_is_the_formula(files: Files) -> None:
    perceptual = Perceptual(files.vgg, files.heads)
    a, b = pictures(3, 0), pictures(3, 1)
    expected = files.plain(a, b)
    assert bool((expected > 0).all())
    torch.testing.assert_close(perceptual(a, b), expected, rtol=1e-4, atol=1e-6)
    assert perceptual(a, a).tolist() == [0, 0]
    grey, other = pictures(1, 0), pictures(1, 1)
    torch.testing.assert_close(perceptual(grey, other), perceptual(*(x.expand(-1, 3, -1, -1) for x in (grey, other))))


def test_it_learns_nothing_is_saved_nowhere_and_has_a_gradient_everywhere(files: Files) -> None:
    perceptual = Perceptual(files.vgg, files.heads)
    assert not list(perceptual.parameters()) and not perceptual.state_dict()
    dead = torch.full((1, 3, 16, 16), -1.0, requires_grad=True)
    for name, buffer in perceptual.named_buffers():
        if name.startswith("bias"):
            buffer.fill_(-100.0)  # every feature is zero
    perceptual(dead, torch.ones(1, 3, 16, 16)).sum().backward()
    assert dead.grad is not None and bool(dead.grad.isfinite().all())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.pop("features.7.weight"), r"has no such tensor: features\.7\.weight is to be \(128"),
        (
            lambda weights: weights.update({"features.0.bias": torch.zeros(3)}),
            r"has it as \(3,\): features\.0\.bias is to be \(64,\)",
        ),
    ],
)
def test_another_network_s_weights_are_refused(
    files: Files, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], told: str
) -> None:
    weights = load_file(files.vgg)
    change(weights)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=told):
        Perceptual(tmp_path / "other.safetensors", files.heads)
    with pytest.raises(ValueError, match=r"cannot read .*nowhere"):
        Perceptual(tmp_path / "nowhere", files.heads)
