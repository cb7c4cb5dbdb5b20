"""How work is shared out among processes."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
import torch.distributed as dist

from fromnoise.core import device
from fromnoise.core.ranks import ALONE, Alone, joined


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


@pytest.mark.parametrize(
    ("kind", "fails", "left"), [("cuda", False, True), ("cuda", True, False), ("cpu", True, True), ("cpu", False, True)]
)
def test_a_process_that_fails_on_a_gpu_does_not_wait_for_the_others(
    kind: str, fails: bool, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is given, and no group is made: NCCL's end only together."""
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GROUP_WORLD_SIZE", raising=False)
    monkeypatch.setattr(device, "pick", lambda name: torch.device(name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda own: None)
    ended: list[str] = []
    given = {"rendezvous": lambda place: iter([(dist.HashStore(), 0, 2)]), "init_process_group": lambda *_, **__: None}
    given |= {"is_initialized": lambda: True, "destroy_process_group": lambda: ended.append("left")}
    for name, answer in given.items():
        monkeypatch.setattr(dist, name, answer)
    monkeypatch.setattr("fromnoise.core.ranks.Together", lambda group: ALONE)
    with suppress(MemoryError), joined(kind):
        if fails:
            raise MemoryError
    assert ended == ["left"] * left
