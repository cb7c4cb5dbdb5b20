"""The order of training pictures."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.data.epochs import Epochs


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


def test_the_seed_and_the_epoch_decide():
    first, second, other = Epochs(100, 0).batch(0, 100), Epochs(100, 0).batch(1, 100), Epochs(100, 1).batch(0, 100)
    for ours, *others in zip(first, second, other, strict=True):
        assert not any(np.array_equal(ours, theirs) for theirs in others)
    assert first.caption.min() >= 0 and first.caption.max() < 1 and 0.3 < first.mirror.mean() < 0.7
