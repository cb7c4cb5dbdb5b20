"""MMDiT: the dual-stream diffusion transformer of SD3 (Esser et al. 2024) and Qwen-Image (Wu et al. 2025).

Text and picture each have weights of their own and meet in joint attention. Modules carry diffusers' Qwen-Image names,
so weights pass both ways by name (`import_state`, `export_state`); only the numbers within a head of queries and keys
stand in another order (see `rotate`).

Legend: B batch, C channels, p patch side, h and w patches down and across, N = h w picture tokens, L text tokens,
D width, H heads, d = D / H head width.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.nn.attention import attention, bias_of, halves, neighbours, rotate
from fromnoise.nn.embed import TimestepEmbedding, time_features
from fromnoise.nn.feed import FeedForward
from fromnoise.nn.linear import Linear, linear
from fromnoise.nn.norm import RMSNorm, modulate
from fromnoise.nn.patch import grid_of, pack, unpack
from fromnoise.nn.position import Cropped, Learned, Nowhere, SinCos, Turns, turns_of
from fromnoise.nn.state import load_strictly

TIME_FEATURES = 256


class Attention(nn.Module):
    """Joint attention over [text, picture], with RMSNorm per head on queries and keys, then rotation."""

    def __init__(self, width: int, head_width: int, last: bool):
        super().__init__()
        self.head_width = head_width
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = RMSNorm(head_width), RMSNorm(head_width)
        self.to_out = nn.ModuleList([Linear(width, width)])
        self.add_k_proj, self.add_v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_added_k = RMSNorm(head_width)
        if not last:  # nothing reads the text after the last block
            self.add_q_proj, self.to_add_out = nn.Linear(width, width), Linear(width, width)
            self.norm_added_q = RMSNorm(head_width)

    def heads(self, x: Tensor, *projections: nn.Linear) -> tuple[Tensor, ...]:
        """x (B, M, D) through each projection, as heads (B, H, M, d): one product for all is faster than one each."""
        weight = torch.cat([p.weight for p in projections])  # (n D, D)
        bias = torch.cat([p.bias for p in projections])  # (n D,)
        projected = linear(x, weight, bias).unflatten(-1, (len(projections), -1, self.head_width))  # (B, M, n, H, d)
        return projected.permute(2, 0, 3, 1, 4).unbind()  # n of (B, H, M, d)

    def forward(self, image: Tensor, text: Tensor, bias: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
        """image (B, N, D), text (B, L, D), bias (B, 1, 1, L + N) -> the same two shapes."""
        q_text, k_text, v_text = self.heads(text, self.add_q_proj, self.add_k_proj, self.add_v_proj)  # (B, H, L, d)
        q_image, k_image, v_image = self.heads(image, self.to_q, self.to_k, self.to_v)  # (B, H, N, d)
        q_text, k_text = (rotate(x, turns.text) for x in (self.norm_added_q(q_text), self.norm_added_k(k_text)))
        q_image, k_image = (rotate(x, turns.image) for x in (self.norm_q(q_image), self.norm_k(k_image)))
        q, k = torch.cat((q_text, q_image), 2), torch.cat((k_text, k_image), 2)  # (B, H, L + N, d) each
        v = torch.cat((v_text, v_image), 2)  # (B, H, L + N, d)
        mixed = attention(q, k, v, bias).split([text.shape[1], image.shape[1]], 2)  # (B, H, L, d), (B, H, N, d)
        from_text, from_image = (y.transpose(1, 2).flatten(2) for y in mixed)  # (B, L, D), (B, N, D)
        return self.to_out[0](from_image), self.to_add_out(from_text)

    def image_only(self, image: Tensor, text: Tensor, bias: Tensor, turns: Turns) -> Tensor:
        """The last block's attention: only the picture asks. Shapes as in `forward`."""
        k_text, v_text = self.heads(text, self.add_k_proj, self.add_v_proj)  # (B, H, L, d)
        q_image, k_image, v_image = self.heads(image, self.to_q, self.to_k, self.to_v)  # (B, H, N, d)
        q, k_image = (rotate(x, turns.image) for x in (self.norm_q(q_image), self.norm_k(k_image)))  # (B, H, N, d)
        k_text = rotate(self.norm_added_k(k_text), turns.text)  # (B, H, L, d)
        k = torch.cat((k_text, k_image), 2)  # (B, H, L + N, d)
        v = torch.cat((v_text, v_image), 2)  # (B, H, L + N, d)
        mixed = attention(q, k, v, bias).transpose(1, 2).flatten(2)  # (B, N, D)
        return self.to_out[0](mixed)  # (B, N, D)


class Modulation(nn.Sequential):
    """The layer that makes `count` shifts, scales and gates of the time; the nesting is diffusers'."""

    def __init__(self, width: int, count: int):
        super().__init__(nn.SiLU(), nn.Linear(width, count * width))


class Share(nn.Module):
    """A block's part of the modulation that all blocks share, and a bias of its own (adaLN-single: Chen et al. 2023,
    section 2.3): `count` times `width` numbers, from `first` times `width` on."""

    def __init__(self, width: int, count: int, first: int):
        super().__init__()
        self.part = slice(first * width, (first + count) * width)
        self.bias = nn.Parameter(torch.zeros(count * width))

    def forward(self, shared: Tensor) -> Tensor:
        """(B, 12 D) -> (B, count D)."""
        return shared[:, self.part] + self.bias.to(shared.dtype)  # (B, count D), of the type a linear layer would give


class Modulations(NamedTuple):
    """What gives blocks their shifts, scales and gates."""

    of_block: Callable[[int, int, int], nn.Module]
    """Of width, count, and where these begin among what is shared."""
    of_all: Callable[[int], nn.Module]
    """Of width: what goes before the blocks' own."""


MODULATIONS = {
    "own": Modulations(lambda width, count, first: Modulation(width, count), lambda width: nn.Identity()),
    "shared": Modulations(Share, lambda width: Modulation(width, 12)),
}


class Block(nn.Module):
    """One dual-stream block: joint attention, then a feed-forward for each stream, gated by the time (adaLN-Zero)."""

    def __init__(self, width: int, head_width: int, modulation: Callable[[int, int, int], nn.Module]):
        super().__init__()
        self.img_mod = modulation(width, 6, 0)
        self.txt_mod = modulation(width, 6, 6)
        self.attn = Attention(width, head_width, last=False)
        self.img_mlp, self.txt_mlp = FeedForward(width), FeedForward(width)

    def forward(self, image: Tensor, text: Tensor, time: Tensor, bias: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
        """image (B, N, D), text (B, L, D), time (B, D) (shared: (B, 12 D)), bias (B, 1, 1, L + N) -> image, text."""
        shift_i, scale_i, gate_i, shift_i2, scale_i2, gate_i2 = self.img_mod(time)[:, None].chunk(6, -1)  # (B, 1, D)
        shift_t, scale_t, gate_t, shift_t2, scale_t2, gate_t2 = self.txt_mod(time)[:, None].chunk(6, -1)  # (B, 1, D)
        from_image, from_text = self.attn(
            modulate(image, shift_i, scale_i), modulate(text, shift_t, scale_t), bias, turns
        )
        image = image + gate_i * from_image  # (B, N, D)
        text = text + gate_t * from_text  # (B, L, D)
        image = image + gate_i2 * self.img_mlp(modulate(image, shift_i2, scale_i2))  # (B, N, D)
        text = text + gate_t2 * self.txt_mlp(modulate(text, shift_t2, scale_t2))  # (B, L, D)
        return image, text


class LastBlock(nn.Module):
    """The last block: the text gives keys and values and is read no further, so it has no other weights."""

    def __init__(self, width: int, head_width: int, modulation: Callable[[int, int, int], nn.Module]):
        super().__init__()
        self.img_mod = modulation(width, 6, 0)
        self.txt_mod = modulation(width, 2, 6)
        self.attn = Attention(width, head_width, last=True)
        self.img_mlp = FeedForward(width)

    def forward(self, image: Tensor, text: Tensor, time: Tensor, bias: Tensor, turns: Turns) -> Tensor:
        """As `Block`, but returns the image alone."""
        shift_i, scale_i, gate_i, shift_i2, scale_i2, gate_i2 = self.img_mod(time)[:, None].chunk(6, -1)  # (B, 1, D)
        shift_t, scale_t = self.txt_mod(time)[:, None].chunk(2, -1)  # (B, 1, D)
        from_image = self.attn.image_only(
            modulate(image, shift_i, scale_i), modulate(text, shift_t, scale_t), bias, turns
        )
        image = image + gate_i * from_image  # (B, N, D)
        return image + gate_i2 * self.img_mlp(modulate(image, shift_i2, scale_i2))  # (B, N, D)


class TimeEmbed(nn.Module):
    """Time to the vector that modulates every block; the nesting is diffusers'."""

    def __init__(self, width: int):
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(TIME_FEATURES, width)

    def forward(self, t: Tensor, vector: Tensor) -> Tensor:
        return self.timestep_embedder(time_features(t, TIME_FEATURES))  # (B,) -> (B, D)


class TimeTextEmbed(nn.Module):
    """Time and the condition's pooled vector to one vector (SD3, section 4), with diffusers' names."""

    def __init__(self, width: int, cond_width: int):
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(TIME_FEATURES, width)
        self.text_embedder = TimestepEmbedding(cond_width, width)

    def forward(self, t: Tensor, vector: Tensor) -> Tensor:
        said = self.text_embedder(vector)  # (B, D)
        return self.timestep_embedder(time_features(t, TIME_FEATURES)) + said  # (B, D)


class NormOut(nn.Module):
    """The final adaLN; here diffusers' order is (scale, shift)."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(time))[:, None].chunk(2, -1)  # (B, 1, D)
        return modulate(x, shift, scale)  # (B, N, D)


def absolute(config: MMDiTConfig) -> nn.Module:
    """What is added to each patch for where it stands: (h, w, device) -> (N, D)."""
    kinds = {
        "none": Nowhere,
        "sincos": lambda: SinCos(config.width),
        "cropped": lambda: Cropped(config.width, config.grid, config.largest),
        "learned": lambda: Learned(config.width, config.grid),
    }
    return kinds[config.absolute]()


class MMDiT(nn.Module):
    """The backbone: (x_t, t, condition) -> what the target asks for.

    channels: of the picture; cond_width: width of the condition's tokens.
    """

    def __init__(self, config: MMDiTConfig, channels: int, cond_width: int):
        super().__init__()
        if config.width % config.head_width:
            raise ValueError(f"backbone width {config.width} is not a multiple of head_width {config.head_width}")
        self.config = config
        width, inside = config.width, channels * config.patch**2
        modulation = MODULATIONS[config.modulation]
        self.time_text_embed = TimeTextEmbed(width, cond_width) if config.pooled else TimeEmbed(width)
        self.txt_norm = RMSNorm(cond_width) if config.text_norm else nn.Identity()
        self.absolute = absolute(config)
        self.img_in = nn.Linear(inside, width)
        self.txt_in = nn.Linear(cond_width, width)
        self.modulation = modulation.of_all(width)
        self.transformer_blocks = nn.ModuleList(
            Block(width, config.head_width, modulation.of_block) for _ in range(config.depth - 1)
        )
        self.transformer_blocks.append(LastBlock(width, config.head_width, modulation.of_block))
        self.norm_out = NormOut(width)
        self.proj_out = nn.Linear(width, inside)
        self.init_weights()

    def init_weights(self) -> None:
        """
        | weights                      | start                  |
        |------------------------------|------------------------|
        | linear                       | Xavier uniform, bias 0 |
        | time and pooled-text MLPs    | normal, std .02        |
        | modulation, norm_out         | 0 (adaLN-Zero)         |
        | proj_out                     | 0                      |
        | norms                        | 1                      |
        | learned places               | normal, std .02        |
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.time_text_embed.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for name, module in self.named_modules():
            if re.search(r"(_mod\.1|modulation\.1|norm_out\.linear|proj_out)$", name) and isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
        for table in self.absolute.parameters():
            nn.init.normal_(table, std=0.02)

    def blocks(self) -> list[nn.Module]:
        """What is compiled, one by one: equal blocks share one compilation."""
        return list(self.transformer_blocks)

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x (B, C, h p, w p), t (B,) in [0, 1], cond with tokens (B, L, cond_width) -> (B, C, h p, w p)."""
        p, length = self.config.patch, cond.tokens.shape[1]
        h, w = grid_of(x, p)
        c = self.config
        turns = turns_of(c.rotation, h, w, length, c.grid, c.head_width, c.rope_theta, x.device)
        bias = bias_of(F.pad(cond.mask, (0, h * w), value=True))  # (B, 1, 1, L + N)
        time = self.time_text_embed(t, cond.vector)  # (B, D)
        image = self.img_in(pack(x, p)) + self.absolute(h, w, x.device)  # (B, N, D)
        text = self.txt_in(self.txt_norm(cond.tokens))  # (B, L, D)
        said = self.modulation(time)  # (B, D), or (B, 12 D) where it is shared
        for block in self.transformer_blocks[:-1]:
            image, text = block(image, text, said, bias, turns)  # (B, N, D), (B, L, D)
        image = self.transformer_blocks[-1](image, text, said, bias, turns)  # (B, N, D)
        return unpack(self.proj_out(self.norm_out(image, time)), h, w, p)  # (B, C, h p, w p)

    def import_state(self, stock: dict[str, Tensor]) -> None:
        """Take the weights of diffusers' `QwenImageTransformer2DModel`; dead keys are dropped, all others must match.

        Raises ValueError where a key is missing, unknown or of another shape.
        """
        modulation = f"transformer_blocks.{self.config.depth - 1}.txt_mod.1."
        live = {key: self._reorder(key, value, halves) for key, value in stock.items() if not self._dead(key)}
        for key in (modulation + "weight", modulation + "bias"):
            if key in live:
                live[key] = live[key][: 2 * self.config.width]
        load_strictly(self, live)

    def export_state(self) -> dict[str, Tensor]:
        """The weights under diffusers' names; what the stock class has and never uses is written as zeros.

        Raises ValueError for a model with what the stock class has no place for, as pooled text or absolute places.
        """
        stock = {"pooled": False, "modulation": "own", "absolute": "none", "rotation": "msrope"}
        for option, wanted in (stock | {"rope_theta": 10000.0, "text_norm": True}).items():
            given = getattr(self.config, option)
            if given != wanted:
                raise ValueError(f"backbone.{option} is {given}; diffusers' Qwen-Image has {wanted}")
        width, head_width, last = self.config.width, self.config.head_width, self.config.depth - 1
        state = {key: self._reorder(key, value.clone(), neighbours) for key, value in self.state_dict().items()}
        prefix = f"transformer_blocks.{last}."
        for name, (out, into) in {
            "attn.add_q_proj": (width, width),
            "attn.to_add_out": (width, width),
            "txt_mlp.net.0.proj": (4 * width, width),
            "txt_mlp.net.2": (width, 4 * width),
        }.items():
            state[f"{prefix}{name}.weight"] = torch.zeros(out, into)
            state[f"{prefix}{name}.bias"] = torch.zeros(out)
        state[f"{prefix}attn.norm_added_q.weight"] = torch.zeros(head_width)
        for key in ("weight", "bias"):
            live = state[f"{prefix}txt_mod.1.{key}"]
            state[f"{prefix}txt_mod.1.{key}"] = torch.cat((live, torch.zeros(4 * width, *live.shape[1:])))
        return state

    def _reorder(self, key: str, value: Tensor, order: Callable[[Tensor, int], Tensor]) -> Tensor:
        """`value` with the numbers within each head in another order, where it makes queries or keys."""
        turned = re.search(r"attn\.(to_[qk]|add_[qk]_proj|norm_(added_)?[qk])\.", key)
        return order(value, self.config.head_width) if turned and len(value) % self.config.head_width == 0 else value

    def _dead(self, key: str) -> bool:
        """True for the weights of the stock class's last block that nothing reads."""
        dead = r"(attn\.(add_q_proj|to_add_out|norm_added_q)|txt_mlp)\."
        return re.match(rf"transformer_blocks\.{self.config.depth - 1}\.{dead}", key) is not None
