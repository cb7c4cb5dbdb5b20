"""An order of samples that needs no memory."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data.shuffle import Shuffle, permute


@given(count=st.integers(1, 700), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6))
def test_every_key_gives_a_permutation_and_each_place_can_be_asked_for_alone(count, seed, epoch):
    order = permute(np.arange(count), count, (seed, epoch))
    assert sorted(order.tolist()) == list(range(count))
    at = np.arange(count)[::-3]
    assert np.array_equal(permute(at, count, (seed, epoch)), order[at])


@given(count=st.integers(1, 50), seed=st.integers(-3, 3), size=st.integers(1, 120), steps=st.integers(1, 12))
def test_batches_are_the_epochs_cut_in_pieces(count, seed, size, steps):
    shuffle = Shuffle(count, seed)
    batches = [shuffle.batch(step, size) for step in reversed(range(steps))][::-1]
    epoch, place = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert np.array_equal(epoch, np.arange(steps * size) // count)
    for first in range(0, len(place) - count + 1, count):
        assert sorted(place[first : first + count].tolist()) == list(range(count))


def test_seeds_and_epochs_differ_and_look_random():
    count = 10_000
    orders = [permute(np.arange(count), count, key) for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(count))[0, 1]) < 0.05  # 5 standard errors
        assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.05
        assert (one == np.arange(count)).sum() < 10  # a permutation has 1 fixed point on average
        assert all((one == other).sum() < 10 for other in orders[:i])


def test_every_order_of_three_comes_about_as_often():
    orders = [tuple(permute(np.arange(3), 3, (0, epoch)).tolist()) for epoch in range(1200)]
    counts = [orders.count(one) for one in set(orders)]
    assert len(counts) == 6 and min(counts) > 140 and max(counts) < 260  # 200, 13 of standard deviation


def test_a_million_samples_are_a_permutation():
    order = permute(np.arange(1_000_003), 1_000_003, (7, 3))
    assert np.array_equal(np.sort(order), np.arange(1_000_003))
