"""Backbones under the names of diffusers' classes: which class, its config, its weights; and back.

Legend: K classes, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fromnoise.core.config import hint
from fromnoise.models.config import BackboneConfig, CrossDiTConfig, DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.models.sd3 import export_sd3, import_sd3
from fromnoise.pipeline.pipeline import Pipeline


class Stock(NamedTuple):
    """A backbone as a class of diffusers has it."""

    slot: str  # folder that it lies in: unet or transformer
    cls: str
    config: dict[str, Any]  # of the class
    state: dict[str, Tensor]  # its weights
    ask: str  # the function of carried.glue that asks it


def stock_of(pipeline: Pipeline) -> Stock | None:
    """The backbone of `pipeline` as diffusers has it; None where no class there has such weights."""
    config: Any = pipeline.config
    make = MAKERS.get(type(config.backbone))
    return make(pipeline, config.backbone) if make else None


def sides(pipeline: Pipeline) -> tuple[int, int]:
    """Channels of what the backbone sees, and its side."""
    channels, side, _ = pipeline.latent_shape(pipeline.config.size, pipeline.config.size)
    return channels, side


def table_of(pipeline: Pipeline) -> Tensor | None:
    """Rows for all classes and for none, (K + 1, D); None where conditions are no classes."""
    tables = {"label": lambda: pipeline.conditioner.table, "none": lambda: pipeline.conditioner.token.expand(2, -1)}
    kind = pipeline.config.conditioner.type
    return tables[kind]().detach() if kind in tables else None


def _unet(pipeline: Pipeline, c: UNetConfig) -> Stock:
    channels, side = sides(pipeline)
    attends = [level in c.attention for level in range(len(c.multipliers))]
    config = {
        "sample_size": side,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)],
        "block_out_channels": [c.width * multiplier for multiplier in c.multipliers],
        "layers_per_block": c.layers,
        "attention_head_dim": c.heads,  # what that class means by it is the number of heads
        "norm_num_groups": c.groups,
        "cross_attention_dim": pipeline.conditioner.width,
    }
    return Stock("unet", "UNet2DConditionModel", config, pipeline.backbone.export_state(), "ask_unet")


def _patches(pipeline: Pipeline, c: DiTConfig | CrossDiTConfig) -> dict[str, Any]:
    channels, side = sides(pipeline)
    return {
        "num_attention_heads": c.width // c.head_width,
        "attention_head_dim": c.head_width,
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": c.depth,
        "patch_size": c.patch,
        "sample_size": side,
    }


def _pixart(pipeline: Pipeline, c: CrossDiTConfig) -> Stock:
    config = _patches(pipeline, c) | {
        "cross_attention_dim": c.width,
        "caption_channels": pipeline.conditioner.width,
        "interpolation_scale": 1,
        "use_additional_conditions": False,
    }
    return Stock("transformer", "PixArtTransformer2DModel", config, pipeline.backbone.export_state(), "ask_pixart")


def _dit(pipeline: Pipeline, c: DiTConfig) -> Stock | None:
    table = table_of(pipeline)
    if table is None:
        return None
    config = _patches(pipeline, c) | {"num_embeds_ada_norm": len(table) - 1, "norm_eps": 1e-6}
    return Stock("transformer", "DiTTransformer2DModel", config, pipeline.backbone.export_state(table), "ask_dit")


def _mmdit(pipeline: Pipeline, c: MMDiTConfig) -> Stock | None:
    channels, _ = sides(pipeline)
    shape = {
        "patch_size": c.patch,
        "num_layers": c.depth,
        "attention_head_dim": c.head_width,
        "num_attention_heads": c.width // c.head_width,
        "joint_attention_dim": pipeline.conditioner.width,
    }
    options = (c.pooled, c.modulation, c.absolute, c.rotation, c.text_norm)
    if options == (True, "own", "cropped", "none", False):
        config = shape | {
            "sample_size": c.grid * c.patch,
            "in_channels": channels,
            "out_channels": channels,
            "caption_projection_dim": c.width,
            "pooled_projection_dim": pipeline.conditioner.width,
            "pos_embed_max_size": c.largest,
            "qk_norm": "rms_norm",
        }
        return Stock("transformer", "SD3Transformer2DModel", config, export_sd3(pipeline.backbone), "ask_sd3")
    if (*options, c.rope_theta) == (False, "own", "none", "msrope", True, 10000.0):
        config = shape | {
            "in_channels": channels * c.patch**2,
            "out_channels": channels,
            "axes_dims_rope": [0, c.head_width // 2, c.head_width // 2],
        }
        state = pipeline.backbone.export_state()
        return Stock("transformer", "QwenImageTransformer2DModel", config, state, "ask_qwen")
    return None


MAKERS: dict[type[BackboneConfig], Callable[[Pipeline, Any], Stock | None]] = {
    UNetConfig: _unet,
    CrossDiTConfig: _pixart,
    DiTConfig: _dit,
    MMDiTConfig: _mmdit,
}

# ---------------------------------------------------------------- and back


class Read(NamedTuple):
    """What a config.json of diffusers tells of a backbone."""

    config: BackboneConfig
    channels: int
    width: int  # of the condition's tokens
    size: int  # side of what it sees
    classes: int | None  # of a table within the weights
    load: Callable[[Any, dict[str, Tensor]], Tensor | None]  # weights into the module; the table, where there is one


def read_unet(told: dict[str, Any]) -> Read:
    """UNet2DConditionModel with SD1's blocks."""
    kinds = {"CrossAttnDownBlock2D": True, "DownBlock2D": False, "CrossAttnUpBlock2D": True, "UpBlock2D": False}
    down, up = told["down_block_types"], told["up_block_types"]
    for block in (*down, *up):
        if block not in kinds:
            raise ValueError(f"block {block} is not of SD1's U-Net; {hint(block, kinds)}")
    attends = [kinds[block] for block in down]
    heads = told.get("num_attention_heads") or told["attention_head_dim"]
    only = {
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "addition_embed_type": None,
        "class_embed_type": None,
        "encoder_hid_dim": None,
        "time_cond_proj_dim": None,
        "use_linear_projection": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "act_fn": "silu",
        "transformer_layers_per_block": 1,
        "resnet_time_scale_shift": "default",
        "dual_cross_attention": False,
        "only_cross_attention": False,
        "center_input_sample": False,
    }
    _refuse(told, only)
    if attends != [kinds[block] for block in reversed(up)]:
        raise ValueError(f"up_block_types is {up}; allowed: the reverse of down_block_types, {down}")
    for key, value in (("attention_head_dim", heads), ("layers_per_block", told.get("layers_per_block", 2))):
        if not isinstance(value, int):
            raise ValueError(f"{key} is {value!r}; allowed: one number for all levels")
    _same_channels(told)
    widths = told["block_out_channels"]
    config = UNetConfig(
        width=math.gcd(*widths),
        multipliers=tuple(width // math.gcd(*widths) for width in widths),
        layers=told.get("layers_per_block", 2),
        attention=tuple(level for level, yes in enumerate(attends) if yes),
        heads=heads,
        groups=told.get("norm_num_groups", 32),
    )
    size = told.get("sample_size") or 64
    return Read(config, told["in_channels"], told["cross_attention_dim"], size, None, _import)


def read_dit(told: dict[str, Any]) -> Read:
    """DiTTransformer2DModel; of a learned variance the half that tells it is left out."""
    _refuse(told, {"activation_fn": "gelu-approximate", "attention_bias": True, "norm_elementwise_affine": False})
    channels, out = told["in_channels"], told.get("out_channels") or told["in_channels"]
    if out not in (channels, 2 * channels):
        raise ValueError(f"out_channels is {out}; allowed: {channels}, or {2 * channels} with a learned variance")
    width = told["num_attention_heads"] * told["attention_head_dim"]

    def load(module: Any, state: dict[str, Tensor]) -> Tensor:
        for key in ("proj_out_2.weight", "proj_out_2.bias"):
            if out != channels and key in state:
                kept = state[key].unflatten(0, (-1, out))[:, :channels]  # (p p, C, ...): channels are last
                state = state | {key: kept.flatten(0, 1)}
        return module.import_state(state)

    config = DiTConfig(
        patch=told["patch_size"], width=width, depth=told["num_layers"], head_width=told["attention_head_dim"]
    )
    return Read(config, channels, width, told["sample_size"], told["num_embeds_ada_norm"], load)


def read_pixart(told: dict[str, Any]) -> Read:
    """PixArtTransformer2DModel without its extra conditions."""
    _refuse(told, {"use_additional_conditions": False, "norm_type": "ada_norm_single", "attention_bias": True})
    _same_channels(told)
    width = told["num_attention_heads"] * told["attention_head_dim"]
    config = CrossDiTConfig(
        patch=told["patch_size"], width=width, depth=told["num_layers"], head_width=told["attention_head_dim"]
    )
    return Read(config, told["in_channels"], told["caption_channels"], told["sample_size"], None, _import)


def read_sd3(told: dict[str, Any]) -> Read:
    """SD3Transformer2DModel of SD3.5 large."""
    _refuse(told, {"qk_norm": "rms_norm"})
    if told.get("dual_attention_layers"):
        raise ValueError("dual_attention_layers are given (SD3.5 medium); allowed: none (SD3.5 large)")
    _same_channels(told)
    width = told["num_attention_heads"] * told["attention_head_dim"]
    config = MMDiTConfig(
        patch=told["patch_size"],
        width=width,
        depth=told["num_layers"],
        head_width=told["attention_head_dim"],
        pooled=True,
        rotation="none",
        absolute="cropped",
        grid=told["sample_size"] // told["patch_size"],
        largest=told["pos_embed_max_size"],
        text_norm=False,
    )
    wide, pooled = told["joint_attention_dim"], told["pooled_projection_dim"]
    if pooled > wide:
        raise ValueError(f"pooled_projection_dim is {pooled}; allowed: at most joint_attention_dim, {wide}")

    def load(module: Any, state: dict[str, Tensor]) -> None:
        key = "time_text_embed.text_embedder.linear_1.weight"
        if key in state:  # a vector as wide as the tokens, of which only the first numbers are read
            state = state | {key: nn.functional.pad(state[key], (0, wide - pooled))}
        import_sd3(module, state)

    return Read(config, told["in_channels"], wide, told["sample_size"], None, load)


def read_qwen(told: dict[str, Any]) -> Read:
    """QwenImageTransformer2DModel."""
    _refuse(told, {"guidance_embeds": False, "zero_cond_t": False, "use_layer3d_rope": False})
    d, axes = told["attention_head_dim"], list(told.get("axes_dims_rope", (16, 56, 56)))
    config = MMDiTConfig(
        patch=told["patch_size"], width=told["num_attention_heads"] * d, depth=told["num_layers"], head_width=d
    )
    if axes != [0, d // 2, d // 2]:
        raise ValueError(f"axes_dims_rope is {axes}; allowed: {[0, d // 2, d // 2]}, of pictures without a time axis")
    channels = told["in_channels"] // told["patch_size"] ** 2
    if told.get("out_channels") != channels:
        raise ValueError(f"out_channels is {told.get('out_channels')}; allowed: in_channels / patch_size^2, {channels}")
    return Read(config, channels, told["joint_attention_dim"], 16 * told["patch_size"], None, _import)


READERS: dict[str, Callable[[dict[str, Any]], Read]] = {
    "UNet2DConditionModel": read_unet,
    "DiTTransformer2DModel": read_dit,
    "PixArtTransformer2DModel": read_pixart,
    "SD3Transformer2DModel": read_sd3,
    "QwenImageTransformer2DModel": read_qwen,
}


def _import(module: Any, state: dict[str, Tensor]) -> None:
    module.import_state(state)


def _refuse(told: dict[str, Any], only: dict[str, Any]) -> None:
    for key, allowed in only.items():
        if (given := told.get(key, allowed)) != allowed:
            raise ValueError(f"{key} is {given!r}; allowed: {allowed!r}")


def _same_channels(told: dict[str, Any]) -> None:
    out = told.get("out_channels")
    if out not in (None, told["in_channels"]):
        raise ValueError(f"out_channels is {out}; allowed: as many as in_channels, {told['in_channels']}")


def time_layer(state: dict[str, Tensor]) -> list[str]:
    """Keys of the first layer that reads the time's features, under diffusers' names."""
    return [
        key for key in state if key.endswith(("time_embedding.linear_1.weight", "timestep_embedder.linear_1.weight"))
    ]


def turned(weight: Tensor, by: float, slowest: int = 0) -> Tensor:
    """The layer (D, F) that answers at time t what `weight` answers at t + `by` / 1000.

    Features are cosines and sines of 1000 t f; cos((a + b) f) and sin((a + b) f) are linear in those of a.
    """
    half = weight.shape[1] // 2
    steps = torch.arange(half, dtype=torch.float32) / (half - slowest)
    angle = by * torch.exp(-math.log(10000.0) * steps).double()  # (F / 2,)
    cos, sin = weight.double().split(half, 1)  # (D, F / 2) each
    return torch.cat((cos * angle.cos() + sin * angle.sin(), sin * angle.cos() - cos * angle.sin()), 1).to(weight.dtype)
