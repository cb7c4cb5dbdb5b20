"""The position codes against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fromnoise.nn.attention import Turn, rotate
from fromnoise.nn.position import Learned, SinCos, Turns, msrope, rope, scaling, turns_of

CPU = torch.device("cpu")
HEAD = 16
TRAINED = 4
GRIDS = [(4, 4), (6, 6), (8, 8), (4, 8), (8, 4)]


def turns(name: str, h: int, w: int, length: int = 3) -> Turns:
    return turns_of(name, h, w, length, TRAINED, HEAD, 100.0, CPU)


def scores(a: Turn | None, b: Turn | None) -> Tensor:
    """Products of one query and one key, wherever each of them stands."""
    assert a and b
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, HEAD, generator=generator)
    return rotate(q.expand(len(a[0]), -1), a) @ rotate(k.expand(len(b[0]), -1), b).T


@pytest.mark.parametrize("name", ["rope", "scaling", "msrope"])
@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_scores_depend_on_differences_of_places_alone(name: str, h: int, w: int) -> None:
    image = turns(name, h, w).image
    found = scores(image, image).reshape(h, w, h, w)
    torch.testing.assert_close(found[1:, 1:, 1:, 1:], found[:-1, :-1, :-1, :-1], atol=1e-5, rtol=0)
    assert (found[0, 0, 1, 0] - found[0, 0, 0, 1]).abs() > 1e-3  # a row is no column
    assert (found[0, 0, 1, 0] - found[1, 0, 0, 0]).abs() > 1e-3  # and up is not down


@pytest.mark.parametrize("name", ["rope", "msrope"])
def test_patches_apart_score_alike_on_a_larger_grid(name: str) -> None:
    small, large = (turns(name, n, n).image for n in (4, 8))
    trained, larger = scores(small, small).reshape(4, 4, 4, 4), scores(large, large).reshape(8, 8, 8, 8)
    torch.testing.assert_close(larger[:4, :4, :4, :4], trained, atol=1e-5, rtol=0)


def test_scaling_gives_every_second_place_the_scores_trained_on() -> None:
    small, large = (turns("scaling", n, n).image for n in (4, 8))
    trained, larger = scores(small, small).reshape(4, 4, 4, 4), scores(large, large).reshape(8, 8, 8, 8)
    torch.testing.assert_close(larger[::2, ::2, ::2, ::2], trained, atol=1e-5, rtol=0)
    assert (larger[:4, :4, :4, :4] - trained).abs().max() > 0.1


def test_rope_counts_from_the_corner_and_does_not_rotate_text() -> None:
    places = rope(2, 3, 4, TRAINED)
    assert places.rows.tolist() == [0, 1] and places.columns.tolist() == [0, 1, 2]
    assert all(not place.any() for place in places.text)
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(3, HEAD, generator=generator)
    assert torch.equal(rotate(words, turns("rope", 4, 4).text), words)


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_scaling_spans_the_range_trained_on_whatever_the_size(h: int, w: int) -> None:
    places = scaling(h, w, 5, TRAINED)
    for found, n in ((places.rows, h), (places.columns, w)):
        step = TRAINED / n
        torch.testing.assert_close(found, (torch.arange(n) + 0.5) * step - TRAINED / 2)  # middles of n equal parts
        assert found.min() - step / 2 == -TRAINED / 2 and found.max() + step / 2 == TRAINED / 2
    row, column = places.text  # a picture of [1, L], at the right of the other
    assert not row.any()
    assert column.tolist() == [2, 3, 4, 5, 6] and column.min() > places.columns.max()


@pytest.mark.parametrize(("h", "w"), GRIDS)
def test_msrope_is_centred_and_its_text_goes_on_along_the_diagonal(h: int, w: int) -> None:
    places = msrope(h, w, 3, TRAINED)
    assert places.rows.tolist() == list(range(-h // 2, h // 2))
    assert places.columns.tolist() == list(range(-w // 2, w // 2))
    first = max(h, w) // 2
    assert [place.tolist() for place in places.text] == [[first, first + 1, first + 2]] * 2
    assert first > max(places.rows.max(), places.columns.max())


def test_sincos_is_the_formula_and_reaches_further_on_a_larger_grid() -> None:
    width, row, column = 8, 5, 2
    found = SinCos(width)(6, 4)
    angles = [place * 10000 ** (-i / 2) for place in (column, row) for i in range(2)]
    across, down = angles[:2], angles[2:]
    expected = [f(a) for half in (across, down) for f in (math.sin, math.cos) for a in half]
    torch.testing.assert_close(found[row * 4 + column], torch.tensor(expected))
    torch.testing.assert_close(SinCos(width)(9, 7).reshape(9, 7, width)[:6, :4], found.reshape(6, 4, width))


def test_learned_is_its_table_where_it_was_trained_and_bilinear_elsewhere() -> None:
    code = Learned(width=3, grid=TRAINED)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        code.table.copy_(torch.randn(code.table.shape, generator=generator))
    table = code.table.detach()[0]  # (D, 4, 4)
    assert torch.equal(code(4, 4).detach(), table.flatten(1).T)
    for h, w in GRIDS[1:]:
        found = code(h, w).detach().T.reshape(3, h, w)
        for row, column in ((0, 0), (1, 2), (h - 1, 1), (h // 2, w - 1)):
            torch.testing.assert_close(found[:, row, column], between(table, (row + 0.5) / h, (column + 0.5) / w))
    code(8, 6).sum().backward()
    assert code.table.grad is not None and (code.table.grad > 0).all()


def between(table: Tensor, y: float, x: float) -> Tensor:
    """What lies at (y, x), in shares of the picture, between the four nearest vectors of a table (D, G, G)."""
    side = table.shape[-1]
    y, x = (min(max(place * side - 0.5, 0.0), side - 1.0) for place in (y, x))
    (top, left), (bottom, right) = (int(y), int(x)), (min(int(y) + 1, side - 1), min(int(x) + 1, side - 1))
    down, across = y - top, x - left
    upper = (1 - across) * table[:, top, left] + across * table[:, top, right]
    lower = (1 - across) * table[:, bottom, left] + across * table[:, bottom, right]
    return (1 - down) * upper + down * lower
