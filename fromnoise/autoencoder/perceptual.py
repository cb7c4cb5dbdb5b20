"""LPIPS, version 0.1 (Zhang et al. 2018): how far two pictures are apart for a network that has seen many.

Legend: B batch, H and W rows and columns of a picture, D channels of a layer, r and c its rows and columns.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.files import read_tensors

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions (Simonyan and Zisserman 2015) between its halvings; a stage's last one is compared,
behind its ReLU."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1], as the heads were trained with
EPS = 1e-10  # beside the norm of a place's features
SMALLEST = 16  # pixels of a side, of which the last stage sees one


class Perceptual(nn.Module):
    """LPIPS on VGG16. Weights are buffers that no checkpoint holds: nothing here is trained.

    vgg: file of VGG16's weights under torchvision's names; those of its classifier are not looked at.
    heads: file of the five 1 x 1 convolutions that weigh squared differences of features, under LPIPS's names.

    Raises:
        ValueError: one line, when a file cannot be read, or lacks weights, or has them in another shape.
    """

    def __init__(self, vgg: Path, heads: Path):
        super().__init__()
        trunk, lines = read_tensors(vgg), read_tensors(heads)
        place, source = 0, 3  # layers of torchvision's list: a convolution, its ReLU, and what halves
        for stage, widths in enumerate(STAGES):
            for layer, width in enumerate(widths):
                self._take(f"weight{stage}{layer}", trunk, f"features.{place}.weight", (width, source, 3, 3), vgg)
                self._take(f"bias{stage}{layer}", trunk, f"features.{place}.bias", (width,), vgg)
                place, source = place + 2, width
            place += 1
            self._take(f"head{stage}", lines, f"lin{stage}.model.1.weight", (1, source, 1, 1), heads)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(3, 1, 1), persistent=False)

    def _take(self, name: str, tensors: dict[str, Tensor], key: str, shape: tuple[int, ...], path: Path) -> None:
        if key not in tensors or tuple(tensors[key].shape) != shape:
            found = f"has it as {tuple(tensors[key].shape)}" if key in tensors else "has no such tensor"
            raise ValueError(f"{path} {found}: {key} is to be {shape}, of VGG16 or of LPIPS 0.1's heads for it")
        self.register_buffer(name, tensors[key].float(), persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each pair of pictures in [-1, 1], grey (B, 1, H, W) or coloured (B, 3, H, W): (B,)."""
        x = torch.cat((a, b)).expand(-1, 3, -1, -1)  # (2 B, 3, H, W)
        x = (x - self.get_buffer("shift")) / self.get_buffer("scale")  # (2 B, 3, H, W)
        distance = torch.zeros(len(a), device=a.device)  # (B,)
        for stage, widths in enumerate(STAGES):
            if stage:
                x = F.max_pool2d(x, 2)  # (2 B, D, r, c)
            for layer in range(len(widths)):
                weight, bias = (self.get_buffer(f"{kind}{stage}{layer}") for kind in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))  # (2 B, D, r, c)
            ours, theirs = unit(x.float()).chunk(2)  # (B, D, r, c) each
            weighed = (ours - theirs).square() * self.get_buffer(f"head{stage}")[0]  # (B, D, r, c)
            distance = distance + weighed.sum(1).mean((1, 2))  # (B,)
        return distance


def unit(x: Tensor) -> Tensor:
    """Features (B, D, r, c) with the D of each place scaled to length 1; those that are all zero stay so."""
    squares = x.square().sum(1, keepdim=True)  # (B, 1, r, c)
    # Without the clamp a square root's slope at zero, which is infinite, would make every gradient no number.
    return x / (squares.clamp(min=EPS**2).sqrt() + EPS)  # (B, D, r, c)
