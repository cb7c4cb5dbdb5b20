"""What differs between exported pipelines, one function for each way: how prompts are read, a network is asked, steps
are taken, and latents become pictures. `pipeline` is the exported one.

Legend: B batch, C channels, H height, W width, L tokens, D width, p patch side, N steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fromnoise.conditioning.frozen import LAYERS
from fromnoise.core.types import Cond
from fromnoise.diffusion.path import Path
from fromnoise.diffusion.predict import Predict
from fromnoise.diffusion.sample import Draw
from fromnoise.diffusion.times import schedule
from fromnoise.nn.patch import grid_of, pack, unpack

# ---------------------------------------------------------------- prompts to conditions: (said, nothing said)


def read_text(pipeline: Any, prompts: Sequence[str], labels: Sequence[int] | None) -> tuple[Cond, Cond]:
    """By the tokenizer, and the text encoder that was trained along."""
    reader, pad = pipeline.conditioner, pipeline.tokenizer.pad_token_id
    rows = pipeline.tokenizer(list(prompts), truncation=True, max_length=reader.most)["input_ids"]
    width = reader.length if max(map(len, rows)) <= reader.length else reader.most
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=reader.device)  # (B, L)
    return reader(ids, ids != pad), reader.null(len(rows))


def read_classes(pipeline: Any, prompts: Sequence[str], labels: Sequence[int] | None) -> tuple[Cond, Cond]:
    """By the number of a class: `class_labels`, or prompts that are numbers."""
    reader, asked = pipeline.conditioner, prompts if labels is None else labels
    for label in asked:
        if not str(label).strip().isdecimal() or int(label) >= reader.classes:
            raise ValueError(f"{label!r} is no class of this model; allowed: 0 to {reader.classes - 1}")
    return reader(torch.tensor([int(label) for label in asked], device=reader.device)), reader.null(len(asked))


def read_nothing(pipeline: Any, prompts: Sequence[str], labels: Sequence[int] | None) -> tuple[Cond, Cond]:
    """Whatever is asked for, the same."""
    return pipeline.conditioner.null(len(prompts)), pipeline.conditioner.null(len(prompts))


def read_frozen(pipeline: Any, prompts: Sequence[str], labels: Sequence[int] | None) -> tuple[Cond, Cond]:
    """By frozen text encoders, and their linear maps."""
    reader, said = pipeline.conditioner, []
    for texts in (list(prompts), [""] * len(prompts)):
        said.append(reader(*zip(*(hidden(pipeline, i, texts) for i in range(len(reader.project))), strict=True)))
    return said[0], said[1]


def hidden(pipeline: Any, i: int, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """What encoder `i` makes of texts: tokens (B, L, W), mask (B, L), vector (B, W)."""
    config, suffix = pipeline.conditioner.config, f"_{i + 1}" if i else ""
    tokenizer, model = pipeline.components["tokenizer" + suffix], pipeline.components["text_encoder" + suffix]
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    options = {"padding": "max_length", "truncation": True, "max_length": config.lengths[i], "return_tensors": "pt"}
    batch = tokenizer(texts, **options).to(model.device)
    mask = batch["attention_mask"].bool()  # (B, L)
    mask[:, 0] = True
    mask = mask | config.padding[i]  # (B, L) all of them, where padding is read like text
    output = model(input_ids=batch["input_ids"], attention_mask=mask.long(), output_hidden_states=True)
    real = mask[..., None]  # (B, L, 1)
    tokens = LAYERS[config.layers[i]](output).float() * real  # (B, L, W)
    return tokens, mask, output.pooler_output.float() if config.pools[i] else tokens.sum(1) / real.sum(1)


# ---------------------------------------------------------------- networks: (x_t, t in [0, 1], condition) -> answer


def ask_backbone(pipeline: Any, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """fromnoise's own network."""
    return pipeline.transformer(x, t, cond.tokens, cond.mask, cond.vector)  # (B, C, H, W)


def ask_unet(pipeline: Any, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """UNet2DConditionModel."""
    said = {"encoder_hidden_states": cond.tokens, "encoder_attention_mask": cond.mask}
    return pipeline.unet(x, 1000 * t, **said, return_dict=False)[0]  # (B, C, H, W)


def ask_dit(pipeline: Any, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """DiTTransformer2DModel, which embeds classes itself: the condition's vector is the class's number."""
    labels = cond.vector[:, 0].long()  # (B,)
    return pipeline.transformer(x, 1000 * t, labels, return_dict=False)[0]  # (B, C, H, W)


def ask_pixart(pipeline: Any, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """PixArtTransformer2DModel."""
    said = {"encoder_hidden_states": cond.tokens, "encoder_attention_mask": cond.mask}
    return pipeline.transformer(x, timestep=1000 * t, **said, return_dict=False)[0]  # (B, C, H, W)


def ask_sd3(pipeline: Any, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """SD3Transformer2DModel. It masks no text, so pictures whose texts are equally long go together, less padding."""
    answer, lengths = torch.empty_like(x), cond.mask.sum(1)  # (B, C, H, W), (B,)
    for length in lengths.unique():
        rows = lengths == length  # (B,)
        tokens = cond.tokens[rows][cond.mask[rows]].unflatten(0, (-1, int(length)))  # (., length, D)
        answer[rows] = pipeline.transformer(
            x[rows],
            encoder_hidden_states=tokens,
            pooled_projections=cond.vector[rows],
            timestep=1000 * t[rows],
            return_dict=False,
        )[0].to(x.dtype)
    return answer


def ask_qwen(pipeline: Any, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
    """QwenImageTransformer2DModel, whose time is in [0, 1]."""
    p = pipeline.transformer.config.patch_size
    h, w = grid_of(x, p)
    tokens = pipeline.transformer(
        pack(x, p),
        encoder_hidden_states=cond.tokens,
        encoder_hidden_states_mask=cond.mask,
        timestep=t,
        img_shapes=[[(1, h, w)]] * len(x),
        return_dict=False,
    )[0]  # (B, h w, C p p)
    return unpack(tokens, h, w, p)  # (B, C, H, W)


# ---------------------------------------------------------------- steps from noise to data


def steps_of_sampler(
    scheduler: Any, predict: Predict, noise: Tensor, count: int, start: float, path: Path, draw: Draw
) -> Iterator[Tensor]:
    """By fromnoise's own sampler."""
    for step in scheduler.steps(predict, noise, count, start, path, draw):
        yield step.x


def steps_of_flow_euler(
    scheduler: Any, predict: Predict, noise: Tensor, count: int, start: float, path: Path, draw: Draw
) -> Iterator[Tensor]:
    """By FlowMatchEulerDiscreteScheduler, on the linear path: the velocity is eps - x0."""
    scheduler.set_timesteps(sigmas=[1 - i / count for i in range(count)], device=noise.device)
    times = schedule(count, scheduler.shift)  # (N + 1,) its own, less the rounding
    x = noise  # (B, C, H, W)
    for t, name in zip(times, scheduler.timesteps, strict=False):
        p = predict(x, t.expand(len(x)))
        x = scheduler.step(p.eps - p.x0, name, x, return_dict=False)[0]
        yield x


# ---------------------------------------------------------------- latents to pictures


def show_pixels(pipeline: Any, z: Tensor, shift: float) -> Tensor:
    """(B, C, H, W), shifted -> in [-1, 1]."""
    return (z + shift).clamp(-1, 1)  # (B, C, H, W)


def show_latents(pipeline: Any, z: Tensor, shift: list[float], scale: list[float]) -> Tensor:
    """(B, Z, h, w), shifted and scaled -> (B, C, H, W) in [-1, 1]."""
    moved, scaled = (torch.tensor(numbers, device=z.device).reshape(-1, 1, 1) for numbers in (shift, scale))
    return pipeline.vae.decode(z / scaled + moved).sample.float().clamp(-1, 1)  # (B, C, H, W)
