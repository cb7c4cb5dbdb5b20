"""How work is shared out among processes."""

from __future__ import annotations

import pytest

from fromnoise.core.ranks import ALONE, Alone


class One(Alone):
    """Process `rank` of `size`."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 200])
def test_spans_are_alike_and_end_with_the_share(size: int, count: int) -> None:
    ranks = [One(rank, size) for rank in range(size)]
    shares = [range(*one.share(count)) for one in ranks]
    assert [i for share in shares for i in share] == list(range(count))
    spans = [range(*one.span(count)) for one in ranks]
    assert {len(span) for span in spans} == {max(map(len, shares))}
    for share, span in zip(shares, spans, strict=True):
        assert span[0] >= 0 and span[-1] < count
        assert list(span)[len(span) - len(share) :] == list(share)


def test_one_alone_has_everything() -> None:
    assert ALONE.share(5) == ALONE.span(5) == (0, 5)
