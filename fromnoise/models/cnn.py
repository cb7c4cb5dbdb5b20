"""CNN: the network of a first course on flow matching, with 1.8 million weights for MNIST's 28x28.

A U-Net (Ronneberger et al. 2015) that halves the picture twice and doubles it twice. Time and condition are added in
every block, as DDPM adds the time (Ho et al. 2020). There is no attention: the text's tokens are not read, only the
condition's vector. No class of another library has these weights.

Legend: B batch, C channels of the picture, H and W its sides, S channels at the input of a block, R at its output, h
and w rows and columns there, n width of the network, D = 4 n width of what is said.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.models.config import CNNConfig
from fromnoise.nn.double import doubled
from fromnoise.nn.embed import TimestepEmbedding, time_features

TIME_FEATURES = 256
GROUPS = 8


class Block(nn.Module):
    """Two convolutions beside a shortcut; time and condition are added between them."""

    def __init__(self, source: int, width: int, said_width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, source), nn.GroupNorm(GROUPS, width)
        self.conv1, self.conv2 = nn.Conv2d(source, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.said = nn.Linear(said_width, width)
        self.shortcut = nn.Identity() if source == width else nn.Conv2d(source, width, 1)

    def forward(self, x: Tensor, said: Tensor) -> Tensor:
        """x (B, S, h, w), said (B, D) -> (B, R, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(x)))  # (B, R, h, w)
        hidden = hidden + self.said(said)[..., None, None]  # (B, R, h, w)
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))  # (B, R, h, w)


class CNN(nn.Module):
    """The backbone: (x_t, t, condition) -> what the target asks for.

    channels: of the picture; cond_width: width of the condition's vector.
    """

    def __init__(self, config: CNNConfig, channels: int, cond_width: int):
        super().__init__()
        self.config = config
        n = config.width
        self.time = TimestepEmbedding(TIME_FEATURES, 4 * n)
        self.condition = nn.Linear(cond_width, 4 * n)

        self.conv_in = nn.Conv2d(channels, n, 3, padding=1)
        self.down1 = Block(n, n, 4 * n)
        self.halve1 = nn.Conv2d(n, 2 * n, 3, stride=2, padding=1)
        self.down2 = Block(2 * n, 2 * n, 4 * n)
        self.halve2 = nn.Conv2d(2 * n, 4 * n, 3, stride=2, padding=1)
        self.middle = Block(4 * n, 4 * n, 4 * n)
        self.double2 = nn.Conv2d(4 * n, 2 * n, 3, padding=1)
        self.up2 = Block(4 * n, 2 * n, 4 * n)
        self.double1 = nn.Conv2d(2 * n, n, 3, padding=1)
        self.up1 = Block(2 * n, n, 4 * n)
        self.norm_out = nn.GroupNorm(GROUPS, n)
        self.conv_out = nn.Conv2d(n, channels, 3, padding=1)
        self.init_weights()

    def init_weights(self) -> None:
        """
        | weights                | start                               |
        |------------------------|-------------------------------------|
        | convolutions, linear   | Xavier uniform, bias 0              |
        | conv_out               | 0: the output starts at 0           |
        | norms                  | 1, bias 0                           |
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.conv_out.weight)

    def blocks(self) -> list[nn.Module]:
        """What is compiled, one by one."""
        return [self.down1, self.down2, self.middle, self.up2, self.up1]

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x (B, C, H, W), t (B,) in [0, 1], cond with vector (B, cond_width) -> (B, C, H, W)."""
        height, width = x.shape[-2:]
        if height % self.config.multiple or width % self.config.multiple:
            raise ValueError(f"size {height}x{width} is not a multiple of {self.config.multiple}")
        said = F.silu(self.time(time_features(t, TIME_FEATURES)) + self.condition(cond.vector))  # (B, D)

        full = self.down1(self.conv_in(x), said)  # (B, n, H, W)
        half = self.down2(self.halve1(full), said)  # (B, 2 n, H / 2, W / 2)
        low = self.middle(self.halve2(half), said)  # (B, 4 n, H / 4, W / 4)

        up = self.double2(doubled(low))  # (B, 2 n, H / 2, W / 2)
        up = self.up2(torch.cat((up, half), 1), said)  # (B, 2 n, H / 2, W / 2)
        up = self.double1(doubled(up))  # (B, n, H, W)
        up = self.up1(torch.cat((up, full), 1), said)  # (B, n, H, W)
        return self.conv_out(F.silu(self.norm_out(up)))  # (B, C, H, W)
