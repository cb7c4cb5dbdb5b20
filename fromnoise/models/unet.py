"""The text-conditioned U-Net of latent diffusion, SD1's backbone (Rombach et al. 2022).

A U-Net (Ronneberger et al. 2015) of ResNet blocks that are told the time (DDPM: Ho et al. 2020): the picture is halved
level by level, and doubled again beside what each level had on the way down. Chosen levels have transformer blocks
between, in which every place attends to all places, then to the text. Padding of the text is masked. As in SD1, the
condition's pooled vector is not read. Modules carry the names of diffusers' `UNet2DConditionModel`, whose weights pass
both ways as they are (`import_state`, `export_state`).

Legend: B batch, C channels of the picture, S channels at the input of a module, W at its output, h and w rows and
columns of a level, N = h w its places, D width of time's embedding, L text tokens, E width of the text's tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.compiler import is_compiled
from fromnoise.core.types import Cond
from fromnoise.models.config import UNetConfig
from fromnoise.nn.attention import Attention, bias_of
from fromnoise.nn.double import doubled
from fromnoise.nn.embed import TimestepEmbedding, time_features
from fromnoise.nn.linear import Linear, linear
from fromnoise.nn.norm import GroupNorm
from fromnoise.nn.state import load_strictly


class ResnetBlock(nn.Module):
    """Two convolutions beside a shortcut; the time is added between them."""

    def __init__(self, source: int, width: int, time_width: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(groups, source), GroupNorm(groups, width)
        self.conv1, self.conv2 = nn.Conv2d(source, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, width)
        self.conv_shortcut = nn.Identity() if source == width else nn.Conv2d(source, width, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, S, h, w), time (B, D) -> (B, W, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(x)))  # (B, W, h, w)
        hidden = hidden + self.time_emb_proj(time)[..., None, None]  # (B, W, h, w)
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))  # (B, W, h, w)


class GEGLU(nn.Module):
    """A linear layer gated by the GELU of another (Shazeer 2020), both in one product."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)  # (B, N, 4 W) each
        return value * F.gelu(gate)  # (B, N, 4 W)


class FeedForward(nn.Module):
    """W -> 4 W -> W; the nesting is diffusers'."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))  # (B, N, W)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward, each after a layer norm."""

    def __init__(self, width: int, cond_width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, width, width // heads, bias=False)
        self.attn2 = Attention(width, cond_width, width // heads, bias=False)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        """x (B, N, W), text (B, L, E), bias (B, 1, 1, L) -> (B, N, W)."""
        normed = self.norm1(x)  # (B, N, W)
        x = x + self.attn1(normed, normed)  # (B, N, W)
        x = x + self.attn2(self.norm2(x), text, bias)  # (B, N, W)
        return x + self.ff(self.norm3(x))  # (B, N, W)


class Pointwise(nn.Conv2d):
    """SD1's convolution that sees one place at a time, taken as a product.

    So the numbers of a place stay side by side, as all that lies between two of these wants: an eager training step of
    the U-Net takes 7/8 of the time.
    """

    def __init__(self, width: int):
        super().__init__(width, width, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        assert self.bias is not None
        return linear(input, self.weight.flatten(1), self.bias)


class Transformer(nn.Module):
    """A transformer block over the places of a level, as a residual."""

    def __init__(self, width: int, cond_width: int, heads: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, width, eps=1e-6)  # a tenth of the ResNet blocks' eps, as in SD1
        self.proj_in, self.proj_out = Pointwise(width), Pointwise(width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, cond_width, heads)])

    def forward(self, x: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        """x (B, W, h, w), text (B, L, E), bias (B, 1, 1, L) -> (B, W, h, w)."""
        places = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # (B, N, W)
        places = self.transformer_blocks[0](places, text, bias)  # (B, N, W)
        return x + self.proj_out(places).transpose(1, 2).unflatten(-1, x.shape[-2:])  # (B, W, h, w)


class NoTransformer(nn.Module):
    """Stands in a level, of any width, that does not attend."""

    def __init__(self, width: int):
        super().__init__()

    def forward(self, x: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        return x  # (B, W, h, w)


class Downsample(nn.Module):
    """Half the side, by a convolution that learns how."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # (B, W, h / 2, w / 2)


class Upsample(nn.Module):
    """Twice the side: each place four times, then a convolution, which leaves no checkerboard (Odena et al. 2016)."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(doubled(x))  # (B, W, 2 h, 2 w)


MakeResnet = Callable[[int, int], ResnetBlock]  # (S, W)
MakeTransformer = Callable[[int], Transformer | NoTransformer]  # (W)


class DownBlock(nn.Module):
    """A level on the way down."""

    def __init__(self, source: int, width: int, layers: int, last: bool, resnet: MakeResnet, mixer: MakeTransformer):
        super().__init__()
        self.resnets = nn.ModuleList(resnet(source if i == 0 else width, width) for i in range(layers))
        self.attentions = nn.ModuleList(mixer(width) for _ in range(layers))
        self.downsamplers = nn.ModuleList([] if last else [Downsample(width)])

    def forward(self, x: Tensor, time: Tensor, text: Tensor, bias: Tensor) -> list[Tensor]:
        """x (B, S, h, w) -> what is kept for the way up, in order; the last is the next level's input."""
        skips = []
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(x, time), text, bias)  # (B, W, h, w)
            skips.append(x)
        for downsample in self.downsamplers:
            skips.append(downsample(x))  # (B, W, h / 2, w / 2)
        return skips


class MidBlock(nn.Module):
    """The lowest point, between the way down and the way up."""

    def __init__(self, width: int, resnet: MakeResnet, mixer: MakeTransformer):
        super().__init__()
        self.resnets = nn.ModuleList([resnet(width, width), resnet(width, width)])
        self.attentions = nn.ModuleList([mixer(width)])

    def forward(self, x: Tensor, time: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, time), text, bias)  # (B, W, h, w)
        return self.resnets[1](x, time)  # (B, W, h, w)


class UpBlock(nn.Module):
    """A level on the way up; beside each ResNet block's input stands one tensor from the way down, `skips` wide."""

    def __init__(
        self, source: int, skips: list[int], width: int, last: bool, resnet: MakeResnet, mixer: MakeTransformer
    ):
        super().__init__()
        self.resnets = nn.ModuleList(
            resnet((source if i == 0 else width) + skip, width) for i, skip in enumerate(skips)
        )
        self.attentions = nn.ModuleList(mixer(width) for _ in skips)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(width)])

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        """x (B, S, h, w), skips of the same h and w -> (B, W, 2 h, 2 w), or as many places at the last level."""
        for resnet, attention, skip in zip(self.resnets, self.attentions, skips, strict=True):
            x = attention(resnet(torch.cat((x, skip), 1), time), text, bias)  # (B, W, h, w)
        for upsample in self.upsamplers:
            x = upsample(x)  # (B, W, 2 h, 2 w)
        return x


class UNet(nn.Module):
    """The backbone: (x_t, t, condition) -> what the target asks for.

    channels: of the picture; cond_width: width of the condition's tokens.
    """

    def __init__(self, config: UNetConfig, channels: int, cond_width: int):
        super().__init__()
        check(config)
        self.config = config
        widths = [config.width * multiplier for multiplier in config.multipliers]
        deepest, time_width = len(widths) - 1, 4 * widths[0]

        def resnet(source: int, width: int) -> ResnetBlock:
            return ResnetBlock(source, width, time_width, config.groups)

        def transformer(width: int) -> Transformer:
            return Transformer(width, cond_width, config.heads, config.groups)

        mixers = [transformer if level in config.attention else NoTransformer for level in range(len(widths))]
        self.time_embedding = TimestepEmbedding(widths[0], time_width)
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips = [widths[0]]  # widths of what `forward` keeps in its list of this name
        for level, width in enumerate(widths):
            last = level == deepest
            self.down_blocks.append(DownBlock(skips[-1], width, config.layers, last, resnet, mixers[level]))
            skips += [width] * (config.layers if last else config.layers + 1)
        self.mid_block = MidBlock(widths[-1], resnet, transformer)
        source = widths[-1]
        for level in reversed(range(len(widths))):
            beside = [skips.pop() for _ in range(config.layers + 1)]
            self.up_blocks.append(UpBlock(source, beside, widths[level], level == 0, resnet, mixers[level]))
            source = widths[level]
        self.conv_norm_out = GroupNorm(config.groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], channels, 3, padding=1)
        self.init_weights()

    def init_weights(self) -> None:
        """
        | weights                   | start                                              |
        |---------------------------|----------------------------------------------------|
        | convolutions, linear      | Xavier uniform (Ho et al. 2020), bias 0            |
        | conv2, proj_out           | 0: every block starts as its shortcut, as in SD1   |
        | conv_out                  | 0: the output starts at 0                          |
        | norms                     | 1, bias 0                                          |
        """
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight)
                if name.endswith(("conv2", "proj_out", "conv_out")):
                    nn.init.zeros_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def blocks(self) -> list[nn.Module]:
        """What is compiled, one by one: down, through the middle, and up."""
        return [*self.down_blocks, self.mid_block, *self.up_blocks]

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x (B, C, H, W), t (B,) in [0, 1], cond with tokens (B, L, E) -> (B, C, H, W)."""
        height, width = x.shape[-2:]
        if height % self.config.multiple or width % self.config.multiple:
            levels = len(self.config.multipliers)
            raise ValueError(f"size {height}x{width} is not a multiple of {self.config.multiple}, for {levels} levels")
        time = F.silu(self.time_embedding(time_features(t, self.conv_in.out_channels)))  # (B, D)
        said = time, cond.tokens, bias_of(cond.mask)  # (B, D), (B, L, E), (B, 1, 1, L)
        x = self.conv_in(x)  # (B, W, H, W)
        if is_compiled(self.mid_block):  # as compiled convolutions leave it; else every level turns it, and back
            x = x.contiguous(memory_format=torch.channels_last)
        skips = [x]  # (B, W, H, W)
        for down in self.down_blocks:
            skips += down(skips[-1], *said)  # (B, W, h, w) each
        x = self.mid_block(skips[-1], *said)  # (B, W, h, w)
        for up in self.up_blocks:
            x = up(x, [skips.pop() for _ in range(self.config.layers + 1)], *said)  # (B, W, 2 h, 2 w)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, C, H, W)

    def import_state(self, stock: dict[str, Tensor]) -> None:
        """Take the weights of diffusers' `UNet2DConditionModel`.

        Raises ValueError where a key is missing, unknown or of another shape.
        """
        load_strictly(self, stock)

    def export_state(self) -> dict[str, Tensor]:
        """The weights under diffusers' names. What its config calls `attention_head_dim` is our number of `heads`."""
        return {key: value.clone() for key, value in self.state_dict().items()}


def check(config: UNetConfig) -> None:
    """ValueError, one line, for a U-Net that cannot be."""
    for level, multiplier in enumerate(config.multipliers):
        width = config.width * multiplier
        # A group of one channel would subtract the time, which is added to whole channels.
        if width % config.groups or width == config.groups:
            raise ValueError(
                f"backbone width {width}, at level {level}, must be 2, 3, ... times groups {config.groups}"
            )
        if width % config.heads:
            raise ValueError(f"backbone width {width}, at level {level}, is not a multiple of heads {config.heads}")
    for level in config.attention:
        if level >= len(config.multipliers):
            raise ValueError(f"backbone.attention names level {level}; the last is {len(config.multipliers) - 1}")
