"""SD3's weights in an MMDiT, and back: diffusers' `SD3Transformer2DModel` with qk_norm="rms_norm" (SD3.5).

The same network in other words: SD3 has pooled text, cropped places, no rotation and no norm of the text, and calls its
modules by other names. Its dual-attention layers, and SD3 medium's unnormed queries, are not here.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from fromnoise.models.config import MMDiTConfig
from fromnoise.models.mmdit import MMDiT
from fromnoise.nn.patch import channel_first, channel_last
from fromnoise.nn.state import load_strictly

NAMES = {
    "norm1.linear": "img_mod.1",
    "norm1_context.linear": "txt_mod.1",
    "ff.net": "img_mlp.net",
    "ff_context.net": "txt_mlp.net",
    "context_embedder": "txt_in",
    "pos_embed.proj": "img_in",
}
"""diffusers' names of SD3's modules, and of Qwen-Image's, which are ours."""
DEAD = r"attn\.(add_q_proj|norm_added_q)\."  # of the last block: nobody asks what the text would


def import_sd3(model: MMDiT, stock: dict[str, Tensor]) -> None:
    """Take the weights of the stock class; dead keys and the table of places are dropped, all others must match.

    Raises ValueError where a key is missing, unknown or of another shape, or where the model is of another kind.
    """
    _check(model.config)
    live = dict[str, Tensor]()
    last = f"transformer_blocks.{model.config.depth - 1}."
    for key, value in stock.items():
        if key == "pos_embed.pos_embed" or (key.startswith(last) and re.search(DEAD, key)):
            continue
        if key == "pos_embed.proj.weight":
            value = value.flatten(1)  # (D, C p p): a convolution of patches is a product
        if key.startswith("proj_out."):
            value = channel_first(value, model.config.patch)
        if key.startswith(last + "norm1_context."):
            value = _exchanged(value)
        live[_renamed(key, NAMES)] = value
    load_strictly(model, live)


def export_sd3(model: MMDiT) -> dict[str, Tensor]:
    """The weights under the stock class's names; what it has and never uses is written as zeros.

    Raises ValueError for a model of another kind.
    """
    config = model.config
    _check(config)
    back = {ours: theirs for theirs, ours in NAMES.items()}
    last = f"transformer_blocks.{config.depth - 1}."
    state = dict[str, Tensor]()
    for key, value in model.state_dict().items():
        value = value.clone()
        if key == "img_in.weight":
            value = value.unflatten(1, (-1, config.patch, config.patch))  # (D, C, p, p)
        if key.startswith("proj_out."):
            value = channel_last(value, config.patch)
        if key.startswith(last + "txt_mod."):
            value = _exchanged(value)
        state[_renamed(key, back)] = value
    state["pos_embed.pos_embed"] = model.absolute(config.largest, config.largest)[None]  # (1, largest^2, D)
    state[last + "attn.add_q_proj.weight"] = torch.zeros(config.width, config.width)
    state[last + "attn.add_q_proj.bias"] = torch.zeros(config.width)
    state[last + "attn.norm_added_q.weight"] = torch.zeros(config.head_width)
    return state


def _renamed(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        key = re.sub(rf"(^|\.){re.escape(old)}\.", rf"\1{new}.", key)
    return key


def _exchanged(rows: Tensor) -> Tensor:
    """(scale, shift) to (shift, scale), and back: the stock class's last norm of the text has them so."""
    return torch.cat(rows.chunk(2)[::-1])


def _check(config: MMDiTConfig) -> None:
    stock = {"pooled": True, "modulation": "own", "absolute": "cropped", "rotation": "none", "text_norm": False}
    for option, wanted in stock.items():
        given = getattr(config, option)
        if given != wanted:
            raise ValueError(f"backbone.{option} is {given}; diffusers' SD3 has {wanted}")
