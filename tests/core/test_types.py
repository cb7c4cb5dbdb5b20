"""Conditions: padded, mixed and joined without a change in what they say."""

from __future__ import annotations

import torch

from fromnoise.core.types import Cond


def cond(rows: int, length: int, value: float) -> Cond:
    return Cond(
        torch.full((rows, length, 4), value), torch.ones(rows, length, dtype=torch.bool), torch.full((rows, 4), value)
    )


def test_padding_is_masked() -> None:
    padded = cond(2, 3, 1.0).padded(5)
    assert padded.tokens.shape == (2, 5, 4)
    assert padded.mask.tolist() == [[True, True, True, False, False]] * 2
    assert padded.tokens[:, 3:].abs().max() == 0


def test_what_is_masked_in_every_row_is_trimmed() -> None:
    other = cond(1, 4, -1.0).padded(5)
    both = cond(2, 3, 1.0).padded(7).cat(other).trimmed()
    assert both.tokens.shape == (3, 4, 4)
    assert both.mask.sum(1).tolist() == [3, 3, 4]
    nothing = Cond(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 4))
    assert nothing.trimmed().tokens.shape == (2, 1, 4)  # a backbone needs one


def test_where_takes_each_row_from_its_side() -> None:
    mixed = cond(3, 2, 1.0).where(torch.tensor([True, False, True]), cond(3, 4, -1.0))
    assert mixed.vector[:, 0].tolist() == [1, -1, 1]
    assert mixed.mask.sum(1).tolist() == [2, 4, 2]
    assert mixed.tokens[1].eq(-1).all()
    assert mixed.tokens[0, :2].eq(1).all()


def test_cat_puts_batches_one_after_the_other() -> None:
    both = cond(1, 2, 1.0).cat(cond(2, 4, -1.0))
    assert both.tokens.shape == (3, 4, 4)
    assert both.mask.sum(1).tolist() == [2, 4, 4]
    assert both.vector[:, 0].tolist() == [1, -1, -1]


def test_a_vector_alone_is_one_token() -> None:
    vector = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    one = Cond.of(vector)
    assert one.tokens.shape == (3, 1, 4)
    assert torch.equal(one.tokens[:, 0], vector) and torch.equal(one.vector, vector)
    assert one.mask.tolist() == [[True]] * 3
