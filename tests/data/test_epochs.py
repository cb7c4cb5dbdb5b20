"""The order of training pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data.epochs import BucketEpochs, Epochs


@given(count=st.integers(1, 50), seed=st.integers(0, 3), size=st.integers(1, 120), steps=st.integers(1, 12))
def test_batches_are_the_epochs_cut_in_pieces(count, seed, size, steps):
    epochs, again = Epochs(count, seed), Epochs(count, seed)
    straight = [epochs.batch(step, size) for step in range(steps)]
    for step in reversed(range(steps)):
        for ours, theirs in zip(again.batch(step, size), straight[step], strict=True):
            assert len(ours) == size and np.array_equal(ours, theirs)
    order = np.concatenate([draws.order for draws in straight])
    for first in range(0, len(order) - count + 1, count):
        assert sorted(order[first : first + count]) == list(range(count))


def test_parts_of_processes_make_the_batch():
    draws = Epochs(20, 0).batch(3, 12)
    parts = [draws.part(rank, 4) for rank in range(4)]
    for whole, *pieces in zip(draws, *parts, strict=True):
        assert np.array_equal(whole, np.concatenate(pieces))
    with pytest.raises(ValueError, match="a batch of 12 for 5 processes; allowed: multiples of 5"):
        draws.part(0, 5)


def test_the_seed_and_the_epoch_decide():
    first, second, other = Epochs(100, 0).batch(0, 100), Epochs(100, 0).batch(1, 100), Epochs(100, 1).batch(0, 100)
    for ours, *others in zip(first, second, other, strict=True):
        assert not any(np.array_equal(ours, theirs) for theirs in others)
    assert first.caption.min() >= 0 and first.caption.max() < 1 and 0.3 < first.mirror.mean() < 0.7


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    seed=st.integers(0, 3),
    size=st.integers(1, 30),
    turns=st.integers(1, 3),
)
def test_buckets_come_by_their_size_and_each_is_passed_through_in_order(counts, seed, size, turns):
    epochs, again = BucketEpochs(counts, seed), BucketEpochs(counts, seed)
    steps = turns * sum(counts)
    straight = [epochs.batch(step, size) for step in range(steps)]
    for step in reversed(range(steps)):
        bucket, draws = again.batch(step, size)
        assert bucket == straight[step][0]
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(draws, straight[step][1], strict=True))
    for bucket, count in enumerate(counts):
        order = np.concatenate([draws.order for which, draws in straight if which == bucket])
        assert len(order) == turns * count * size
        for first in range(0, len(order), count):
            assert sorted(order[first : first + count]) == list(range(count))
        came = np.cumsum([which == bucket for which, _ in straight])
        even = np.arange(1, steps + 1) * count / sum(counts)
        assert np.abs(came - even).max() <= len(counts) + 1  # never far from its share


def test_buckets_have_orders_of_their_own_and_turns_differ():
    epochs = BucketEpochs([50, 50], 0)
    turns = [[epochs.batch(step, 50) for step in range(first, first + 100)] for first in (0, 100)]
    assert [bucket for bucket, _ in turns[0]] != [bucket for bucket, _ in turns[1]]
    first = [next(draws.order for bucket, draws in turns[0] if bucket == which) for which in (0, 1)]
    assert not np.array_equal(first[0], first[1])
    passes = [[draws.order for bucket, draws in turn if bucket == 0] for turn in turns]
    assert not any(np.array_equal(ours, theirs) for ours, theirs in zip(*passes, strict=True))
    assert [bucket for bucket, _ in turns[0]] != [BucketEpochs([50, 50], 1).batch(step, 50)[0] for step in range(100)]
