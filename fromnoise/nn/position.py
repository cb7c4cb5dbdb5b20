"""Where tokens stand: rotations of text and picture, side by side, and what is added to a patch.

All place rows and columns in units of a patch, and differ in three things: where the origin is, whether a larger
picture reaches further or is measured finer, and where the text stands.

Legend: L text tokens, h and w patches down and across, N = h w, D width, d head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.nn.attention import Turn, turn_of
from fromnoise.nn.embed import grid_features


class Places(NamedTuple):
    """Rows and columns."""

    text: tuple[Tensor, Tensor]  # (L,) each
    rows: Tensor  # (h,)
    columns: Tensor  # (w,)


Rotation = Callable[[int, int, int, int], Places]
"""(h, w, L, patches along a side when trained) -> places."""


def rope(h: int, w: int, length: int, grid: int) -> Places:
    """2-D rotary positions (FiT: Lu et al. 2024): from the corner; the text is not rotated, and has no order."""
    still = torch.zeros(length)  # (L,)
    return Places((still, still), torch.arange(h).float(), torch.arange(w).float())


def scaling(h: int, w: int, length: int, grid: int) -> Places:
    """Scaling rope (Seedream 2.0, 2025): centred, and squeezed to the span trained on, whatever the size.

    The text is a picture of [1, L]: one row, its columns beyond the last of the picture.
    """
    rows, columns = ((torch.arange(n) - (n - 1) / 2) * (grid / n) for n in (h, w))  # (h,), (w,)
    return Places((torch.zeros(length), grid / 2 + torch.arange(length)), rows, columns)


def msrope(h: int, w: int, length: int, grid: int) -> Places:
    """Qwen-Image's MSRoPE (Wu et al. 2025): the picture is centred on 0, and reaches further when it is larger.

    Text token i stands at (m + i, m + i) with m = max(h // 2, w // 2): on the diagonal beyond the picture, so that a
    larger picture never collides with it.
    """
    words = (torch.arange(length) + max(h // 2, w // 2)).float()  # (L,)
    rows, columns = ((torch.arange(n) - (n - n // 2)).float() for n in (h, w))  # (h,), (w,)
    return Places((words, words), rows, columns)


ROTATIONS: dict[str, Rotation | None] = {"none": None, "rope": rope, "scaling": scaling, "msrope": msrope}


class Turns(NamedTuple):
    """Where the tokens of both streams stand, as rotations; None where nothing turns."""

    text: Turn | None  # of L tokens
    image: Turn | None  # of N


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept must serve training, too, whoever asks first
def turns_of(
    name: str, h: int, w: int, length: int, grid: int, head_width: int, theta: float, device: torch.device
) -> Turns:
    """The rotations called `name`. Half of a head's pairs turn with the row, half with the column."""
    rotation = ROTATIONS[name]
    if rotation is None:
        return Turns(None, None)
    places = rotation(h, w, length, grid)
    frequencies = theta ** -(torch.arange(0, head_width // 2, 2) / (head_width // 2))  # (d / 4,)

    def turn(row: Tensor, column: Tensor) -> Turn:
        angles = torch.cat((row[:, None] * frequencies, column[:, None] * frequencies), -1)  # (M, d / 2)
        cos, sin = turn_of(angles)
        return cos.to(device), sin.to(device)

    image = turn(places.rows.repeat_interleave(w), places.columns.repeat(h))
    return Turns(turn(*places.text), image)


class Nowhere(nn.Module):
    """Nothing is added."""

    def forward(self, h: int, w: int, device: torch.device | None = None) -> Tensor:
        return torch.zeros((), device=device)


class SinCos(nn.Module):
    """Sines and cosines, counted from the corner (DiT); a larger picture reaches further."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, h: int, w: int, device: torch.device | None = None) -> Tensor:
        """-> (N, D)."""
        rows, columns = (torch.arange(n, device=device) for n in (h, w))  # (h,), (w,)
        return grid_features(rows, columns, self.width)  # (N, D)


class Cropped(nn.Module):
    """Sines and cosines of the middle of a large grid, in units of the grid trained on (SD3)."""

    def __init__(self, width: int, grid: int, largest: int):
        super().__init__()
        self.width, self.grid, self.largest = width, grid, largest

    def forward(self, h: int, w: int, device: torch.device | None = None) -> Tensor:
        """-> (N, D); ValueError for a picture of more than `largest` patches along a side."""
        if max(h, w) > self.largest:
            raise ValueError(f"{h}x{w} patches are more than backbone.largest, {self.largest}, along a side")
        sides = (torch.arange(n, device=device) + (self.largest - n) // 2 for n in (h, w))
        rows, columns = (side * (self.grid / self.largest) for side in sides)  # (h,), (w,)
        return grid_features(rows, columns, self.width)  # (N, D)


class Learned(nn.Module):
    """A vector for each patch of the grid trained on (ViT: Dosovitskiy et al. 2021); stretched over other grids.

    A patch of another grid takes what lies at its place in the picture, between the four vectors nearest (section 3.2
    there); beyond the outermost ones, the nearest.
    """

    def __init__(self, width: int, grid: int):
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, width, grid, grid))

    def forward(self, h: int, w: int, device: torch.device | None = None) -> Tensor:
        """-> (N, D), where the table is."""
        table = self.table
        if (h, w) != table.shape[-2:]:
            table = F.interpolate(table, (h, w), mode="bilinear", antialias=False)  # (1, D, h, w)
        return table.flatten(2).squeeze(0).T  # (N, D)
