"""Linear maps between fromnoise's modules, multiplied into the weights of a class that has no place for them.

Legend: K classes, D width, W width of a text encoder, Z channels of a latent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fromnoise.interop.layout import CLASSES
from fromnoise.interop.stock import Stock, stock_of, time_layer, turned
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.folder import KL_FIELDS, KL_ONLY

Originals = dict[str, Tensor]
"""Weights of a pipeline, by the names of its state, as they were before."""


def on_time(state: dict[str, Tensor], slowest: int) -> dict[str, Tensor]:
    """Weights for networks that are told timestep i where fromnoise's are told 1000 t = i + 1."""
    return state | {key: turned(state[key], 1.0, slowest) for key in time_layer(state)}


def folded(pipeline: Pipeline) -> tuple[Stock, Originals]:
    """The backbone as StableDiffusionPipeline or DiTPipeline asks it."""
    stock = stock_of(pipeline)
    assert stock is not None, "every U-Net, and every DiT of classes, has a class there"
    return (folded_dit if stock.ask == "ask_dit" else folded_stable_diffusion)(pipeline, stock)


def refolded(pipeline: Pipeline, into_stock: bool) -> dict[str, Tensor]:
    """The weights that an export of `pipeline` has for its backbone, in a pipeline of diffusers' or our own."""
    stock = folded(pipeline)[0] if into_stock else stock_of(pipeline)
    assert stock is not None, "what was folded has a class there"
    return stock.state


def folded_stable_diffusion(pipeline: Pipeline, stock: Stock) -> tuple[Stock, Originals]:
    """A U-Net that reads the CLIP's own tokens, as StableDiffusionPipeline hands them over."""
    (project,) = pipeline.conditioner.project
    weight = project.weight.detach()  # (D, W)
    state = on_time(stock.state, 0)
    read = [key for key in state if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    state |= {key: (state[key].double() @ weight.double()).float() for key in read}  # (., D) -> (., W)
    config = stock.config | {"cross_attention_dim": weight.shape[1]}
    originals = {f"backbone.{key}": stock.state[key] for key in (*read, *time_layer(stock.state))}
    return stock._replace(config=config, state=state), originals | {"conditioner.project.0.weight": weight.clone()}


def folded_dit(pipeline: Pipeline, stock: Stock) -> tuple[Stock, Originals]:
    """A DiT whose table has as many rows as DiTPipeline asks for, that of no class the last."""
    state = on_time(stock.state, 1)
    for key in state:
        if key.endswith("embedding_table.weight"):
            table = state[key]  # (K + 1, D)
            unused = table.new_zeros(CLASSES + 1 - len(table), table.shape[1])
            state[key] = torch.cat((table[:-1], unused, table[-1:]))  # (1001, D)
    ours = pipeline.state_dict()
    kept = [
        key for key in ours if key.startswith(("backbone.condition.", "backbone.timestep_embedder.linear_1.weight"))
    ]
    originals = {key: ours[key].clone() for key in (*kept, "conditioner.table")}
    return stock._replace(config=stock.config | {"num_embeds_ada_norm": CLASSES}, state=state), originals


def folded_vae(pipeline: Pipeline) -> Any:
    """An AutoencoderKL whose latents are shifted and scaled already: its scaling_factor is 1."""
    from diffusers import AutoencoderKL

    space, config = pipeline.space, pipeline.space.vae.config
    shift, scale = (torch.tensor(space.state[name]) for name in ("shift", "scale"))  # (Z,) each
    levels, z = len(config.multipliers), config.latent_channels
    told: dict[str, Any] = {theirs: getattr(config, ours) for theirs, ours in KL_FIELDS.items()}
    told |= {"out_channels": config.channels, "sample_size": pipeline.config.size, "scaling_factor": 1.0}
    told |= {"block_out_channels": [config.width * multiplier for multiplier in config.multipliers]}
    told |= {name: [KL_ONLY[name]] * levels for name in ("down_block_types", "up_block_types")}
    told |= {"use_quant_conv": True, "use_post_quant_conv": True, "force_upcast": False}
    state = {key: value.clone() for key, value in space.vae.named_buffers()}
    for name, width in (("quant_conv", 2 * z), ("post_quant_conv", z)):
        state.setdefault(f"{name}.weight", torch.eye(width)[..., None, None])
        state.setdefault(f"{name}.bias", torch.zeros(width))

    # Encoder: (mean - shift) scale, and log variance + 2 log scale. Decoder: of z / scale + shift.
    times, plus = torch.cat((scale, torch.ones(z))), torch.cat((-shift * scale, 2 * scale.log()))  # (2 Z,) each
    state["quant_conv.weight"] = state["quant_conv.weight"] * times[:, None, None, None]
    state["quant_conv.bias"] = state["quant_conv.bias"] * times + plus
    back = state["post_quant_conv.weight"]  # (Z, Z, 1, 1)
    state["post_quant_conv.bias"] = state["post_quant_conv.bias"] + back[..., 0, 0] @ shift
    state["post_quant_conv.weight"] = back / scale[:, None, None]
    vae = AutoencoderKL(**told)
    vae.load_state_dict(state, strict=True)
    return vae
