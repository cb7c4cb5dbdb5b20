"""CrossDiT: a diffusion transformer that reads text by cross-attention (PixArt-alpha: Chen et al. 2023).

Each block: self-attention over the picture, cross-attention to the text, feed-forward. The time modulates the first
and the last through adaLN-single: one layer for all blocks, and a table of offsets in each. Padding of the text is
masked. Modules carry the names of diffusers' `PixArtTransformer2DModel` (`import_state`, `export_state`); only patches
leave channel first here.

Legend: B batch, C channels, p patch side, h and w patches down and across, N = h w patches, D width, L text tokens,
E width of the text's tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.models.config import CrossDiTConfig
from fromnoise.nn.attention import Attention, bias_of
from fromnoise.nn.embed import TimestepEmbedding, grid_features, time_features
from fromnoise.nn.feed import FeedForward
from fromnoise.nn.gelu import gelu
from fromnoise.nn.norm import modulate
from fromnoise.nn.patch import PatchEmbed, channel_first, channel_last, grid_of, unpack
from fromnoise.nn.state import load_strictly

TIME_FEATURES = 256


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward."""

    def __init__(self, width: int, head_width: int):
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.empty(6, width))
        self.attn1 = Attention(width, width, head_width)
        self.attn2 = Attention(width, width, head_width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, text: Tensor, time: Tensor, bias: Tensor) -> Tensor:
        """x (B, N, D), text (B, L, D), time (B, 6, D), bias (B, 1, 1, L) -> (B, N, D)."""
        modulation = (self.scale_shift_table + time).chunk(6, 1)
        shift, scale, gate, shift2, scale2, gate2 = modulation  # (B, 1, D) each
        seen = modulate(x, shift, scale)  # (B, N, D)
        x = x + gate * self.attn1(seen, seen)  # (B, N, D)
        x = x + self.attn2(x, text, bias)  # (B, N, D)
        return x + gate2 * self.ff(modulate(x, shift2, scale2))  # (B, N, D)


class TimeEmbed(nn.Module):
    """adaLN-single: time to a vector, and to what modulates every block; the nesting is diffusers'."""

    def __init__(self, width: int):
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": TimestepEmbedding(TIME_FEATURES, width)})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) -> (B, 6, D), (B, D)."""
        time = self.emb["timestep_embedder"](time_features(t, TIME_FEATURES))  # (B, D)
        return self.linear(F.silu(time)).unflatten(-1, (6, -1)), time


class TextProjection(nn.Module):
    """The text's tokens to the picture's width, with diffusers' names."""

    def __init__(self, cond_width: int, width: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(cond_width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, E) -> (B, L, D)."""
        return self.linear_2(gelu(self.linear_1(tokens)))  # (B, L, D)


class CrossDiT(nn.Module):
    """The backbone: (x_t, t, condition) -> what the target asks for.

    channels: of the picture; cond_width: width of the condition's tokens, all of it that is read.
    """

    def __init__(self, config: CrossDiTConfig, channels: int, cond_width: int):
        super().__init__()
        self.config = config
        width = config.width
        self.pos_embed = PatchEmbed(channels, config.patch, width)
        self.adaln_single = TimeEmbed(width)
        self.caption_projection = TextProjection(cond_width, width)
        self.transformer_blocks = nn.ModuleList(Block(width, config.head_width) for _ in range(config.depth))
        self.scale_shift_table = nn.Parameter(torch.empty(2, width))
        self.proj_out = nn.Linear(width, channels * config.patch**2)
        self.init_weights()

    def init_weights(self) -> None:
        """
        | weights                             | start                                            |
        |-------------------------------------|--------------------------------------------------|
        | linear, patches                     | Xavier uniform, bias 0                           |
        | time MLP, adaln_single.linear       | normal, std .02                                  |
        | scale_shift_tables                  | normal, std 1 / sqrt(D)                          |
        | attn2.to_out, proj_out              | 0: a block starts deaf to the text, output is 0  |
        """
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                assert module.bias is not None
                nn.init.zeros_(module.bias)
                if name.startswith("adaln_single"):
                    nn.init.normal_(module.weight, std=0.02)
                if name.endswith(("attn2.to_out.0", "proj_out")):
                    nn.init.zeros_(module.weight)
        for name, parameter in self.named_parameters():
            if name.endswith("scale_shift_table"):
                nn.init.normal_(parameter, std=self.config.width**-0.5)

    def blocks(self) -> list[nn.Module]:
        """What is compiled, one by one: equal blocks share one compilation."""
        return list(self.transformer_blocks)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x (B, C, h p, w p), t (B,) in [0, 1], cond with tokens (B, L, E) -> (B, C, h p, w p)."""
        p = self.config.patch
        h, w = grid_of(x, p)
        rows, columns = (torch.arange(n, device=x.device) for n in (h, w))  # (h,), (w,)
        places = grid_features(rows, columns, self.config.width)  # (N, D)
        modulation, time = self.adaln_single(t)  # (B, 6, D), (B, D)
        text = self.caption_projection(cond.tokens)  # (B, L, D)
        bias = bias_of(cond.mask)  # (B, 1, 1, L)
        tokens = self.pos_embed(x) + places  # (B, N, D)
        for block in self.transformer_blocks:
            tokens = block(tokens, text, modulation, bias)  # (B, N, D)
        shift, scale = (self.scale_shift_table + time[:, None]).chunk(2, 1)  # (B, 1, D) each
        return unpack(self.proj_out(modulate(tokens, shift, scale)), h, w, p)  # (B, C, h p, w p)

    def import_state(self, stock: dict[str, Tensor]) -> None:
        """Take the weights of diffusers' `PixArtTransformer2DModel`.

        Raises ValueError where a key is missing, unknown or of another shape.
        """
        load_strictly(self, {key: self._reorder(key, value, channel_first) for key, value in stock.items()})

    def export_state(self) -> dict[str, Tensor]:
        """The weights under diffusers' names."""
        return {key: self._reorder(key, value.clone(), channel_last) for key, value in self.state_dict().items()}

    def _reorder(self, key: str, value: Tensor, order: Callable[[Tensor, int], Tensor]) -> Tensor:
        return order(value, self.config.patch) if key.startswith("proj_out.") else value
