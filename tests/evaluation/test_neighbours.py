"""Copies of training pictures: by all pairs, mirrored, and what is said of honest and of dishonest pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from fromnoise.evaluation.distances.neighbours import KEPT, LEAST, Nearest, memorisation, nearest


def normal(seed: int, count: int, width: int = 6) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 50), st.integers(1, 20), st.integers(2, 60), st.integers(1, 25))
def test_as_by_all_pairs_however_they_come(seed: int, asked: int, learned: int, part: int) -> None:
    x, y = normal(seed, asked), normal(seed + 1, learned)
    told: list[int] = []
    found = nearest(x, None, y.split(part), told.append)
    across = cdist(x.numpy().astype(float), y.numpy().astype(float))
    np.testing.assert_allclose(found.distance.numpy(), np.sort(across, 1)[:, :KEPT], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.place[:, 0].numpy(), across.argmin(1))
    assert told[-1] == learned


def test_a_mirror_image_is_a_copy_where_training_mirrors() -> None:
    pictures = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = pictures[7:8].flip(-1)
    learned = [pictures.flatten(1)]
    assert nearest(drawn.flatten(1), None, learned).distance[0, 0] > 0.1
    found = nearest(drawn.flatten(1), drawn.flip(-1).flatten(1), learned)
    assert found.place[0, 0] == 7 and found.distance[0, 0] < 1e-6 < found.distance[0, 1]


def test_honest_pictures_are_as_near_as_held_out_ones() -> None:
    learned = [normal(0, 2000)]
    drawn, kept = (nearest(normal(seed, 1000), None, learned) for seed in (1, 2))
    found = memorisation(drawn, kept)
    low, high = found["near_interval"]
    assert low < found["near_expected"] < high and found["near_expected"] == 50 / 1001
    assert found["copies"] < 0.05 and found["distance"] == pytest.approx(found["distance_held_out"], rel=0.05)


@pytest.mark.parametrize("held_out", [LEAST, 300])
def test_few_held_out_pictures_accuse_no_honest_model(held_out: int) -> None:
    trials, rng = 100, torch.Generator().manual_seed(0)
    sides: list[int] = []
    near, expected = 0.0, 0.0
    for _ in range(trials):
        distance = torch.rand(1000 + held_out, 2, generator=rng, dtype=torch.float64).sort(1).values
        drawn, kept = (Nearest(one, torch.zeros_like(one).long()) for one in distance.split([1000, held_out]))
        found = memorisation(drawn, kept)
        near, expected = near + found["near"] / trials, found["near_expected"]
        low, high = found["near_interval"]
        sides.append((low > expected) - (high < expected))
    spread = (expected * (1 - expected) / held_out / trials) ** 0.5
    assert 0.03 < expected <= 0.05 and near == pytest.approx(expected, abs=3 * spread)
    assert sides.count(1) <= 6 and sides.count(-1) <= 6  # 2.5 are to be expected of each, at most


def test_copies_are_found_out_even_among_honest_ones() -> None:
    learned, kept = normal(0, 2000), nearest(normal(2, 500), None, [normal(0, 2000)])
    some = torch.cat((learned[:50] + 0.01 * normal(3, 50), normal(1, 50)))
    found = memorisation(nearest(some, None, [learned]), kept)
    assert 0.5 <= found["near"] < 0.6 and found["near_interval"][0] > 0.35
    assert 0.5 <= found["copies"] < 0.55 and found["copies_held_out"] < 0.05


def test_blurred_pictures_are_no_copies() -> None:
    """All in the middle: nearer to the training pictures than those are to each other, but not to one of them."""
    learned = [normal(0, 2000, 40)]
    found = memorisation(nearest(0.2 * normal(1, 200, 40), None, learned), nearest(normal(2, 500, 40), None, learned))
    assert found["distance"] < 0.8 * found["distance_held_out"]
    assert found["near"] < 0.1 and found["copies"] == 0


def test_a_copy_of_a_picture_that_was_trained_on_twice_is_near() -> None:
    twice = normal(0, 1000).repeat(2, 1)
    found = memorisation(nearest(twice[:100] + 1e-3, None, [twice]), nearest(normal(2, 500), None, [twice]))
    assert found["near"] == 1 and found["copies"] == 0
