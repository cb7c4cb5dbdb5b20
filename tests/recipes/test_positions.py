"""The codes are trained alike, and answer at sizes that they were not trained on."""

from __future__ import annotations

import itertools

import pytest
import torch

from fromnoise.core.types import Cond
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes.positions import BACKBONE, CODES, positions

SIZES = [(32, 32), (48, 48), (64, 64), (32, 64), (64, 32)]


def test_the_codes_differ_in_their_places_and_in_nothing_else() -> None:
    wanted = {
        "learned": ("none", "learned"),
        "sincos": ("none", "sincos"),
        "rope": ("rope", "none"),
        "scaling": ("scaling", "none"),
        "msrope": ("msrope", "none"),
    }
    runs = {code: positions(code).model_dump() for code in CODES}
    taken = {
        code: tuple(run["model"]["backbone"].pop(key) for key in ("rotation", "absolute")) for code, run in runs.items()
    }
    assert taken == wanted
    assert all(run == runs["msrope"] for run in runs.values())


def test_the_codes_begin_with_the_same_weights() -> None:
    first = {}
    for code in CODES:
        model = positions(code).model
        small = model.backbone.model_copy(update={"width": 32, "depth": 2})
        pipeline = Pipeline.build(model.model_copy(update={"backbone": small}), ["a red circle"], 0)
        first[code] = pipeline.state_dict()
    table = first["learned"].pop("backbone.absolute.table")
    assert table.std() > 0.01
    for code, state in first.items():
        assert list(state) == list(first["msrope"])
        assert all(torch.equal(value, first["msrope"][key]) for key, value in state.items()), code


def test_an_unknown_code_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown position code 'msrop'; allowed: learned, .*; nearest: msrope"):
        positions("msrop")


def answer(code: str, x: torch.Tensor) -> torch.Tensor:
    """What a model with `code` and weights that hide nothing answers."""
    torch.manual_seed(0)
    config = MMDiTConfig.model_validate({**dict(BACKBONE), "width": 32, "depth": 2, **CODES[code]})
    model = config.build(channels=3, cond_width=16)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():  # the table of `learned` keeps its start, and draws nothing
        if name != "absolute.table":
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    tokens = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(2))
    cond = Cond(tokens, torch.ones(1, 5, dtype=torch.bool), tokens.mean(1))
    with torch.no_grad():
        return model(x, torch.tensor([0.5]), cond)


@pytest.mark.parametrize("size", SIZES)
def test_each_code_is_finite_and_tells_places_apart_at_every_size(size: tuple[int, int]) -> None:
    said = {code: answer(code, torch.zeros(1, 3, *size)) for code in CODES}
    h, w = size[0] // 4, size[1] // 4
    for code, y in said.items():
        assert y.shape == (1, 3, *size) and y.isfinite().all(), code
        patches = y.reshape(3, h, 4, w, 4).permute(1, 3, 0, 2, 4).flatten(0, 1).flatten(1)  # (N, 48)
        apart = torch.cdist(patches, patches, compute_mode="donot_use_mm_for_euclid_dist") + torch.eye(h * w)
        assert apart.min() > 1e-5, code  # nothing but its place tells a patch from another
    for one, other in itertools.combinations(CODES, 2):
        assert (said[one] - said[other]).abs().max() > 1e-3, (one, other)
