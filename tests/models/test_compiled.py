"""What is compiled is compiled whole: where the compiler gives up half-way, a training is a third slower, silently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.core.recompute import recompute
from fromnoise.core.types import Cond
from fromnoise.models.config import BackboneConfig
from fromnoise.recipes import RECIPES, VAE_RECIPES, named

TOY = {"width": 32, "depth": 2, "head_width": 8, "groups": 4}
"""Sizes of any backbone that has such a field."""


def shrunk(name: str) -> BackboneConfig:
    """The backbone of a recipe, as small as it goes."""
    config = named(name).model.backbone
    return type(config).model_validate(dict(config) | {key: TOY[key] for key in TOY if key in dict(config)})


def options(name: str) -> str:
    """What is chosen for that backbone besides numbers."""
    return repr([type(shrunk(name)), *(one for one in dict(shrunk(name)).items() if isinstance(one[1], str | bool))])


KINDS = {options(name): name for name in RECIPES}
"""For each kind of backbone a recipe that has it."""

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles


def assert_whole(blocks: Sequence[nn.Module], forward: Callable[[], Any]) -> None:
    """Each of `blocks` can be traced whole in bfloat16 on what `forward` gives it; else torch says where it cannot."""
    given: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def keep(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given[block] = args, kwargs

    torch.compiler.reset()
    with torch.autocast("cpu", torch.bfloat16):
        hooks = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
        forward()
        for hook in hooks:
            hook.remove()
        for block in blocks:
            args, kwargs = given[block]
            torch.compile(block, backend="eager", dynamic=False, fullgraph=True)(*args, **kwargs)


AGAIN = ("shapes", "sd1")
"""Recipes whose blocks are traced once more as they are when they are computed again in the backward."""


@pytest.mark.parametrize(("name", "again"), [*((name, False) for name in KINDS.values()), *((n, True) for n in AGAIN)])
def test_the_blocks_of_every_kind_of_backbone_are_compiled_whole(name: str, again: bool) -> None:
    backbone: Any = shrunk(name).build(channels=4, cond_width=16)
    recompute(backbone.blocks(), again)
    tokens = torch.randn(2, 5, 16)
    cond = Cond(tokens, torch.ones(2, 5, dtype=torch.bool), tokens.mean(1))
    x, t = torch.randn(2, 4, 32, 32), torch.tensor([0.2, 0.7])
    assert_whole(backbone.blocks(), lambda: backbone(x, t, cond))


@pytest.mark.parametrize("name", VAE_RECIPES)
def test_the_levels_of_every_vae_are_compiled_whole(name: str) -> None:
    run = VAE_RECIPES[name]()
    loss = run.model.loss.model_copy(update={"perceptual": 0.0})
    model = Autoencoder.build(run.model.model_copy(update={"loss": loss}), 0)
    images = torch.randn(1, 3, 32, 32)
    assert_whole(model.blocks(), lambda: model.vae.decode(model.vae.encode(images).mean))
