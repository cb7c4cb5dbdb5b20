"""The device beside the CPU, on the same weights, pictures and noise.

float32 products are whole (no TF32), so that what is apart is the order of sums; bfloat16 keeps 8 bits of a number.

Legend: B batch, C channels, S side, L text tokens, D width.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.given import Given, by_chance, pipeline_of
from benchmarks.gpu.contest import LEAST
from benchmarks.gpu.notes import Notes
from benchmarks.gpu.settings import Settings
from fromnoise.core.device import autocast, pick
from fromnoise.core.types import Cond
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import Linear
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.evaluation.judges.adherence import as_array, correct, draw_prompts
from fromnoise.models.config import BACKBONES, BackboneConfig, MMDiTConfig, VAEConfig
from fromnoise.pipeline.load import load
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.optim import Optimizer
from fromnoise.training.run import AdamW, Muon
from fromnoise.training.step import generator_of

ALLOWED = {"float32": 1e-4, "bfloat16": 5e-2}
"""Of the norm of a difference, as a share of the norm of what the CPU has in float32."""
ALLOWED_SAMPLER = 1e-3  # steps multiply what the first ones got wrong
ALLOWED_MUON = 5e-2  # its products are bfloat16 on both
ALLOWED_JUDGED = {"float32": 0.05, "bfloat16": 0.15}  # share of pictures that are right on one of both only
LEVELS = 4  # of 255, within which pictures count as alike
ALLOWED_OTHERS = {"float32": 0.1, "bfloat16": 1.0}  # share of pictures that are not alike
TINY = {"width": 32, "depth": 2, "head_width": 8, "groups": 4, "layers": 1}
"""Sizes of any backbone that has such a field."""
PLACES = {"cropped": "none", "learned": "rope", "sincos": "scaling"}
"""Further MMDiTs: what is added to a patch for its place, and how heads turn with it."""
B, C, SIDE, L, D = 4, 4, 16, 6, 16


@contextmanager
def whole_products() -> Iterator[None]:
    """Inside, float32 is float32 in products and convolutions, too."""
    matmul: Any = torch.backends.cuda.matmul
    conv: Any = torch.backends.cudnn
    before = matmul.allow_tf32, conv.allow_tf32
    matmul.allow_tf32 = conv.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, conv.allow_tf32 = before


def measure(settings: Settings, notes: Notes) -> None:
    """All of it; `measure` of every part takes the same two."""
    device = pick(settings.device)
    works: dict[str, Callable[[], None]] = {
        name: partial(compare_backbone, name, config, device, notes) for name, config in kinds().items()
    }
    works["VAE"] = partial(compare_vae, device, notes)
    for config in (AdamW(lr=1e-2), Muon(lr=1e-2, adamw_lr=1e-2)):
        works[config.type] = partial(compare_optimizer, config, device, notes)
    works["samplers"] = partial(compare_samplers, settings, device, notes)
    works["shipped model"] = partial(compare_pictures, settings, device, notes)
    with whole_products():
        for name, work in works.items():
            if notes.time_for(name, LEAST):
                notes.attempt(name, work)


def kinds() -> dict[str, BackboneConfig]:
    """Every kind of backbone, at tiny size."""
    found = {cls.model_fields["type"].default: tiny(cls) for cls in BACKBONES}
    more = {
        f"mmdit, {a} places, {r}": tiny(MMDiTConfig, absolute=a, rotation=r, pooled=True) for a, r in PLACES.items()
    }
    return found | more


def tiny(cls: type[BackboneConfig], **options: Any) -> BackboneConfig:
    sizes = {key: value for key, value in TINY.items() if key in cls.model_fields}
    return cls.model_validate(sizes | options)


def apart(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Norm of the difference as a share of the norm of what is wanted, over all numbers of both."""
    a, b = (torch.cat([x.detach().double().cpu().flatten() for x in some]) for some in (found, wanted))
    return ((a - b).norm() / b.norm()).item()


Answer = Callable[[Any, torch.device], tuple[Tensor, Tensor]]
"""Of a module on a device: what it makes, and the loss of it, a number."""


def compare(what: str, module: nn.Module, answer: Answer, device: torch.device, notes: Notes) -> None:
    """Forward, loss and gradients of `module` on the device, in float32 and bfloat16, beside those on the CPU."""
    kept = worked(copy.deepcopy(module), answer, torch.device("cpu"), None)
    for name, dtype in {"float32": None, "bfloat16": torch.bfloat16}.items():
        found = worked(copy.deepcopy(module).to(device), answer, device, dtype)
        for part, ours, wanted in zip(("forward", "loss", "gradients"), found, kept, strict=True):
            notes.check(f"{what}: {part} in {name}", apart(ours, wanted), ALLOWED[name])


def worked(
    module: nn.Module, answer: Answer, device: torch.device, dtype: torch.dtype | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What it makes, its loss, and all gradients."""
    with autocast(device, dtype):
        made, loss = answer(module, device)
    loss.backward()
    return [made], [loss], [p.grad for p in module.parameters() if p.grad is not None]


def compare_backbone(name: str, config: BackboneConfig, device: torch.device, notes: Notes) -> None:
    """A network on noisy pictures, and the loss of the flow."""
    torch.manual_seed(0)
    backbone = config.build(C, D)
    by_chance(backbone)
    generator = generator_of(0, 5)
    x0, eps = (torch.randn(B, C, SIDE, SIDE, generator=generator) for _ in range(2))  # (B, C, S, S) each
    tokens = torch.randn(B, L, D, generator=generator)  # (B, L, D)
    mask = torch.arange(L) < torch.tensor([L, 3, 1, L])[:, None]  # (B, L)
    t = torch.linspace(0.1, 0.9, B)  # (B,)
    objective = Objective(target="flow", measure="flow")

    def answer(module: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        cond = Cond(*(x.to(device) for x in (tokens, mask, tokens.mean(1))))
        z, noise, times = (x.to(device) for x in (x0, eps, t))
        made = module(z, times, cond)  # (B, C, S, S)
        return made.float(), objective.loss(module, z, cond, times, noise, Linear()).mean()

    compare(name, backbone, answer, device, notes)


def compare_vae(device: torch.device, notes: Notes) -> None:
    """A VAE on pictures: what it makes of them, and a loss that all its weights have a part in."""
    torch.manual_seed(0)
    vae = VAEConfig(width=16, multipliers=(1, 2), layers=1, groups=4).build()
    images = torch.rand(B, 3, SIDE, SIDE, generator=generator_of(0, 6)) * 2 - 1  # (B, 3, S, S)

    def answer(module: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        given = images.to(device)
        posterior = module.encode(given)
        made = module.decode(posterior.mean).float()  # (B, 3, S, S)
        return made, (made - given).square().mean() + posterior.std.float().mean()

    compare("VAE", vae, answer, device, notes)


def compare_optimizer(config: AdamW | Muon, device: torch.device, notes: Notes) -> None:
    """Two updates by the same gradients."""
    moved = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        model = tiny(MMDiTConfig).build(C, D).to(place)
        before = [p.detach().clone() for p in model.parameters()]
        optimizer, generator = Optimizer(model, config), generator_of(0, 7)
        for _ in range(2):
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator).to(place)
            optimizer.step(1.0)
        moved.append([p.detach() - old for p, old in zip(model.parameters(), before, strict=True)])
    allowed = ALLOWED_MUON if isinstance(config, Muon) else ALLOWED["float32"]
    notes.check(f"{config.type}: two updates", apart(moved[1], moved[0]), allowed)


def compare_samplers(settings: Settings, device: torch.device, notes: Notes) -> None:
    """What every sampler draws, guided, in float32."""
    torch.manual_seed(0)
    pipeline = pipeline_of(tiny(MMDiTConfig), C, SIDE, Given(B, L, D))
    by_chance(pipeline.backbone)
    steps = settings.correctness.steps
    for sampler in SAMPLERS:
        drawn = [
            deque(on.stream([""] * B, steps, 3.0, sampler=sampler, precision="float32"), maxlen=1)[0].x
            for on in (pipeline, copy.deepcopy(pipeline).to(device))
        ]
        notes.check(f"sampler {sampler}, {steps} steps", apart(drawn[1:], drawn[:1]), ALLOWED_SAMPLER)


def compare_pictures(settings: Settings, device: torch.device, notes: Notes) -> None:
    """What the model that ships draws from the same seeds, and how much of it is what was asked for."""
    s = settings.correctness
    prompts = [prompt for some in draw_prompts(s.prompts, 0).values() for prompt in some]

    def drawn(pipeline: Pipeline, precision: Any) -> np.ndarray:
        images = pipeline([prompt.text for prompt in prompts], s.drawn_steps, seed=0, precision=precision)
        return np.stack([as_array(image) for image in images])  # (N, H, W, 3)

    def right(pictures: np.ndarray) -> np.ndarray:
        return np.array([correct(*pair) for pair in zip(prompts, pictures, strict=True)])  # (N,)

    wanted = drawn(load(device="cpu"), "float32")
    told: dict[str, Any] = {"pictures": len(prompts), "cpu": float(right(wanted).mean())}
    for precision in ("float32", "bfloat16"):
        found = drawn(load(device=str(device)), precision)
        gaps = np.abs(found - wanted).max((1, 2, 3)) * 255  # (N,) levels
        others, differ = float((gaps > LEVELS).mean()), float((right(found) != right(wanted)).mean())
        what = f"shipped model in {precision}: share of pictures"
        notes.check(f"{what} over {LEVELS} levels apart", others, ALLOWED_OTHERS[precision])
        notes.check(f"{what} judged otherwise", differ, ALLOWED_JUDGED[precision])
        levels = {"most_levels": float(gaps.max()), "median_levels": float(np.median(gaps))}
        told[precision] = {"adherence": float(right(found).mean()), **levels}
    notes.put("shipped", told)
