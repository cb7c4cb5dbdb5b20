"""The network of FID: Inception v3 as TensorFlow published it in 2015, by the names of its port to PyTorch
(pt_inception-2015-12-05). Legend: B batch, C channels, H height, W width.

Three things set it apart from torchvision's: averages leave out the padding, the last block takes a maximum in place of
an average, and pictures are resized as TensorFlow 1 did it, from the corners of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.files import read_tensors

SIDE, WIDTH = 299, 2048
CLASSES = 1008  # of a head that FID does not ask, and that the published file holds
Kernel = int | tuple[int, int]

average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
halved = partial(F.max_pool2d, kernel_size=3, stride=2)


class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return F.relu(self.bn(self.conv(x)))


Layer = tuple[str, int, Kernel, int, Kernel]  # name, channels out, kernel, stride, padding


def same(name: str, outputs: int, kernel: Kernel) -> Layer:
    """A layer that keeps height and width."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    return name, outputs, kernel, 1, (rows // 2, columns // 2)


def half(name: str, outputs: int) -> Layer:
    """A layer of 3 x 3 that halves them."""
    return name, outputs, 3, 2, 0


class Mixed(nn.Module):
    """Branches side by side: chains of convolutions, of which each is named in the state dict; `pool`, if there is one,
    stands before the chain of the last branch."""

    def __init__(self, inputs: int, chains: Sequence[Sequence[Layer]], pool: Callable[[Tensor], Tensor]):
        super().__init__()
        self.chains, self.pool = [[layer[0] for layer in chain] for chain in chains], pool
        for chain in chains:
            width = inputs
            for name, outputs, kernel, stride, padding in chain:
                self.add_module(name, Convolution(width, outputs, kernel, stride, padding))
                width = outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), the channels of all branches."""
        outputs = []
        for i, chain in enumerate(self.chains):
            y = self.pool(x) if i == len(self.chains) - 1 else x
            for name in chain:
                y = self.get_submodule(name)(y)
            outputs.append(y)
        return torch.cat(outputs, 1)


class Forked(Mixed):
    """Branches two of which end in a fork: a flat and a tall convolution of the same input, side by side."""

    def __init__(self, inputs: int, pool: Callable[[Tensor], Tensor]):
        chains = [
            [same("branch1x1", 320, 1)],
            [same("branch3x3_1", 384, 1)],
            [same("branch3x3dbl_1", 448, 1), same("branch3x3dbl_2", 384, 3)],
            [same("branch_pool", 192, 1)],
        ]
        super().__init__(inputs, chains, pool)
        self.forks = {1: ("branch3x3_2a", "branch3x3_2b"), 2: ("branch3x3dbl_3a", "branch3x3dbl_3b")}
        for flat, tall in self.forks.values():
            self.add_module(flat, Convolution(384, 384, (1, 3), 1, (0, 1)))
            self.add_module(tall, Convolution(384, 384, (3, 1), 1, (1, 0)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2048, H, W)."""
        alone, single, double, pooled = super().forward(x).split([320, 384, 384, 192], 1)
        ends = [
            self.get_submodule(name)(y)  # (B, 384, H, W)
            for y, names in zip((single, double), self.forks.values(), strict=True)
            for name in names
        ]
        return torch.cat([alone, *ends, pooled], 1)


def block_a(inputs: int, pooled: int) -> Mixed:
    chains = [
        [same("branch1x1", 64, 1)],
        [same("branch5x5_1", 48, 1), same("branch5x5_2", 64, 5)],
        [same("branch3x3dbl_1", 64, 1), same("branch3x3dbl_2", 96, 3), same("branch3x3dbl_3", 96, 3)],
        [same("branch_pool", pooled, 1)],
    ]
    return Mixed(inputs, chains, average)


def block_b() -> Mixed:
    chains = [
        [half("branch3x3", 384)],
        [same("branch3x3dbl_1", 64, 1), same("branch3x3dbl_2", 96, 3), half("branch3x3dbl_3", 96)],
        [],
    ]
    return Mixed(288, chains, halved)


def block_c(width: int) -> Mixed:
    flat, tall = (1, 7), (7, 1)
    chains = [
        [same("branch1x1", 192, 1)],
        [same("branch7x7_1", width, 1), same("branch7x7_2", width, flat), same("branch7x7_3", 192, tall)],
        [
            same("branch7x7dbl_1", width, 1),
            same("branch7x7dbl_2", width, tall),
            same("branch7x7dbl_3", width, flat),
            same("branch7x7dbl_4", width, tall),
            same("branch7x7dbl_5", 192, flat),
        ],
        [same("branch_pool", 192, 1)],
    ]
    return Mixed(768, chains, average)


def block_d() -> Mixed:
    chains = [
        [same("branch3x3_1", 192, 1), half("branch3x3_2", 320)],
        [
            same("branch7x7x3_1", 192, 1),
            same("branch7x7x3_2", 192, (1, 7)),
            same("branch7x7x3_3", 192, (7, 1)),
            half("branch7x7x3_4", 192),
        ],
        [],
    ]
    return Mixed(768, chains, halved)


class Inception(nn.Module):
    """The layers in order, and the head, by the names of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = block_a(192, 32), block_a(256, 64), block_a(288, 64)
        self.Mixed_6a = block_b()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(block_c, (128, 160, 160, 192))
        self.Mixed_7a = block_d()
        self.Mixed_7b, self.Mixed_7c = Forked(1280, average), Forked(2048, maximum)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 299, 299) in [-1, 1] -> (B, 2048), what FID calls pool3."""
        x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))  # (B, 32, 147, 147)
        x = halved(self.Conv2d_2b_3x3(x))  # (B, 64, 73, 73)
        x = halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))  # (B, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        x = self.Mixed_6a(x)  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return x.mean((2, 3))  # (B, 2048)


def read_inception(file: Path) -> Inception:
    """The network with the weights in a safetensors file; a head may be missing, nobody asks it.

    Raises:
        ValueError: one line, when they cannot be read or are another network's.
    """
    tensors = read_tensors(file)
    with torch.device("meta"):  # no weights are drawn, from anybody's generator
        network = Inception()
    wanted = network.state_dict()
    body = {name for name in wanted if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    missing, other = sorted(body - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = [name for name in sorted(body & tensors.keys()) if tensors[name].shape != wanted[name].shape]
    if missing or other or wrong:
        first = (missing + other + wrong)[0]
        raise ValueError(f"{file} holds no FID Inception (pt_inception-2015-12-05): {first} is missing or another's")
    del network.fc
    network.load_state_dict({name: tensors[name].float() for name in body}, strict=False, assign=True)
    for name, counter in network.named_buffers():
        if counter.is_meta:  # how many batches were seen in training
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, torch.tensor(0))
    return network.eval().requires_grad_(False)


def resized(images: Tensor, side: int = SIDE) -> Tensor:
    """Pictures (B, C, H, W) bilinearly to (B, C, side, side) as TensorFlow 1 does it: pixel i of the answer is read at
    i H / side, neither at middles of pixels nor with any smoothing (Parmar et al. 2022 show what that does to FID)."""
    for axis in (2, 3):
        size = images.shape[axis]
        place = torch.arange(side, device=images.device, dtype=torch.float32) * (size / side)  # (side,)
        low = place.long().clamp(max=size - 1)  # (side,)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(4)])
        first, second = images.index_select(axis, low), images.index_select(axis, (low + 1).clamp(max=size - 1))
        images = first + share * (second - first)
    return images
