"""DiT: the diffusion transformer with adaLN-Zero (Peebles and Xie 2023). The condition is a vector, added to the time.

Modules carry the names of diffusers' `DiTTransformer2DModel`, so weights pass both ways by name (`import_state`,
`export_state`), with three differences: one embedding of the time serves all blocks, as in the paper, where diffusers
keeps a copy in each; classes are the conditioner's, and enter through a linear layer, so that text can stand in their
place; patches leave channel first.

Legend: B batch, C channels, p patch side, h and w patches down and across, N = h w patches, D width, L text tokens.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.models.config import DiTConfig
from fromnoise.nn.attention import Attention
from fromnoise.nn.embed import TimestepEmbedding, grid_features, time_features
from fromnoise.nn.feed import FeedForward
from fromnoise.nn.norm import modulate
from fromnoise.nn.patch import PatchEmbed, channel_first, channel_last, grid_of, unpack
from fromnoise.nn.state import load_strictly

TIME_FEATURES = 256


class Modulation(nn.Module):
    """The linear layer that makes shifts, scales and gates of the time; the nesting is diffusers'."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """(B, D) -> 6 of (B, 1, D)."""
        return self.linear(F.silu(time))[:, None].chunk(6, -1)  # (B, 1, D) each


class Block(nn.Module):
    """Attention, then a feed-forward layer, gated by the time."""

    def __init__(self, width: int, head_width: int):
        super().__init__()
        self.norm1 = Modulation(width)
        self.attn1 = Attention(width, width, head_width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, N, D), time (B, D) -> (B, N, D)."""
        shift, scale, gate, shift2, scale2, gate2 = self.norm1(time)  # (B, 1, D) each
        seen = modulate(x, shift, scale)  # (B, N, D)
        x = x + gate * self.attn1(seen, seen)  # (B, N, D)
        return x + gate2 * self.ff(modulate(x, shift2, scale2))  # (B, N, D)


class DiT(nn.Module):
    """The backbone: (x_t, t, condition) -> what the target asks for.

    channels: of the picture; cond_width: width of the condition's vector, all of it that is read.
    """

    def __init__(self, config: DiTConfig, channels: int, cond_width: int):
        super().__init__()
        self.config = config
        width = config.width
        self.pos_embed = PatchEmbed(channels, config.patch, width)
        self.timestep_embedder = TimestepEmbedding(TIME_FEATURES, width)
        self.condition = nn.Linear(cond_width, width)
        self.transformer_blocks = nn.ModuleList(Block(width, config.head_width) for _ in range(config.depth))
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, channels * config.patch**2)
        self.init_weights()

    def init_weights(self) -> None:
        """
        | weights                                     | start                  |
        |---------------------------------------------|------------------------|
        | linear, patches                             | Xavier uniform, bias 0 |
        | time MLP                                    | normal, std .02        |
        | norm1.linear, proj_out_1, proj_out_2        | 0 (adaLN-Zero)         |
        """
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                assert module.bias is not None
                nn.init.zeros_(module.bias)
                if name.startswith("timestep_embedder"):
                    nn.init.normal_(module.weight, std=0.02)
                if name.endswith(("norm1.linear", "proj_out_1", "proj_out_2")):
                    nn.init.zeros_(module.weight)

    def blocks(self) -> list[nn.Module]:
        """What is compiled, one by one: equal blocks share one compilation."""
        return list(self.transformer_blocks)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x (B, C, h p, w p), t (B,) in [0, 1], cond with vector (B, cond_width) -> (B, C, h p, w p)."""
        p = self.config.patch
        h, w = grid_of(x, p)
        rows, columns = (torch.arange(n, device=x.device) for n in (h, w))  # (h,), (w,)
        places = grid_features(rows, columns, self.config.width)  # (N, D)
        # The frequencies are diffusers'; the paper's code divides by half the width, without the 1.
        time = self.timestep_embedder(time_features(t, TIME_FEATURES, slowest=1))  # (B, D)
        time = time + self.condition(cond.vector)  # (B, D)
        tokens = self.pos_embed(x) + places  # (B, N, D)
        for block in self.transformer_blocks:
            tokens = block(tokens, time)  # (B, N, D)
        shift, scale = self.proj_out_1(F.silu(time))[:, None].chunk(2, -1)  # (B, 1, D) each
        return unpack(self.proj_out_2(modulate(tokens, shift, scale)), h, w, p)  # (B, C, h p, w p)

    def import_state(self, stock: dict[str, Tensor]) -> Tensor:
        """Take the weights of diffusers' `DiTTransformer2DModel`; returns its table of classes (K + 1, D), which is for
        the conditioner; `condition` then passes the vector on as it is.

        Raises ValueError where a key is missing, unknown or of another shape, or where blocks embed time or class
        differently (those that were trained do not).
        """
        live, embedders = dict[str, Tensor](), dict[str, Tensor]()
        for key, value in stock.items():
            embedder = re.fullmatch(r"transformer_blocks\.\d+\.norm1\.emb\.(.*)", key)
            if not embedder:
                live[key] = value
            elif not torch.equal(embedders.setdefault(embedder[1], value), value):
                raise ValueError(f"not a trained DiT's weights: its blocks differ in norm1.emb.{embedder[1]}")
        table = embedders.pop("class_embedder.embedding_table.weight", None)
        if table is None:
            raise ValueError("not a DiT's weights: there is no class_embedder.embedding_table.weight")
        for key in ("proj_out_2.weight", "proj_out_2.bias"):
            if key in live:
                live[key] = channel_first(live[key], self.config.patch)
        passing = {
            "condition.weight": torch.eye(*self.condition.weight.shape),
            "condition.bias": self.condition.bias * 0,
        }
        load_strictly(self, live | embedders | passing)
        return table

    def export_state(self, table: Tensor) -> dict[str, Tensor]:
        """The weights under diffusers' names, for a conditioner whose `table` (K + 1, cond_width) has a row for each
        class, and one for none."""
        state = {key: value.detach().clone() for key, value in self.state_dict().items()}
        state = {key: value for key, value in state.items() if not key.startswith(("condition.", "timestep_embedder."))}
        for key in ("proj_out_2.weight", "proj_out_2.bias"):
            state[key] = channel_last(state[key], self.config.patch)
        with torch.no_grad():
            classes = self.condition(table)  # (K + 1, D)
        for i in range(self.config.depth):
            prefix = f"transformer_blocks.{i}.norm1.emb."
            state[prefix + "class_embedder.embedding_table.weight"] = classes
            for key, value in self.timestep_embedder.state_dict().items():
                state[f"{prefix}timestep_embedder.{key}"] = value.clone()
        return state
