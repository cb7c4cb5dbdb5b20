"""Which shape a picture is trained in, when shapes are kept: buckets of sizes with about the same number of pixels.

As NovelAI did for Stable Diffusion ("NovelAI Improvements on Stable Diffusion", 2022), and SDXL at several aspects
(Podell et al. 2023, section 2.3, appendix I): of all heights and widths that are multiples of some number of pixels,
those that fill a budget of them. A picture goes where cropping loses the least of it; here it is never enlarged, unless
that is asked for.

Legend: a size is (height, width) in pixels, of an upright picture or of a bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Size(NamedTuple):
    """Pixels of a picture or of a bucket."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @property
    def area(self) -> int:
        """How many pixels there are."""
        return self.height * self.width

    def holds(self, other: Size) -> bool:
        """Whether `other` can be cut out of this size."""
        return other.height <= self.height and other.width <= self.width


class Box(NamedTuple):
    """A part of a picture, in its pixels and fractions of them, as Pillow wants it."""

    left: float
    top: float
    right: float
    bottom: float


def default_multiple(size: int) -> int:
    """What sides of buckets are multiples of where nothing is asked for: 8 times a power of two, about `size` / 16.

    At 1024 pixels it is SDXL's 64.
    """
    multiple = 8
    while 2 * multiple <= size / 16:
        multiple *= 2
    return multiple


def bucket_sizes(size: int, multiple: int, largest_aspect: float) -> list[Size]:
    """The buckets of a budget of `size` x `size` pixels, from the tallest to the widest.

    Of every short side that is a multiple of `multiple`, the longest long side that keeps to the budget, standing and
    lying. The square is always among them, and no side is more than `largest_aspect` times the other.

    Raises:
        ValueError: one line, when `size` is no multiple of `multiple`, or the aspect is below 1.
    """
    if multiple < 1 or size < 1 or size % multiple:
        raise ValueError(f"size is {size}; allowed: multiples of {multiple}, as the sides of its buckets are")
    if not largest_aspect >= 1:
        raise ValueError(f"largest_aspect is {largest_aspect:g}; allowed: 1 or more")
    shorts = range(multiple, size + 1, multiple)
    pairs = [(short, size * size // short // multiple * multiple) for short in shorts]
    lying = [Size(short, long) for short, long in pairs if long <= largest_aspect * short]
    return sorted({*lying, *(Size(width, height) for height, width in lying)}, key=lambda s: (s.width / s.height, s))


def kept(picture: Size, bucket: Size) -> float:
    """Share of the picture's area that is seen in the bucket; 1 where both have one shape."""
    a, b = picture.height * bucket.width, picture.width * bucket.height
    return min(a, b) / max(a, b)


def scale(picture: Size, bucket: Size) -> float:
    """How much larger the picture is made before it is cropped: the least at which it fills the bucket."""
    return max(bucket.height / picture.height, bucket.width / picture.width)


def crop_box(picture: tuple[float, float], bucket: Size) -> Box:
    """The largest centred part of the picture that has the bucket's shape: never outside of it, by no rounding.

    picture: height and width, in pixels and fractions of them.
    """
    tall, wide = picture
    height, width = float(tall), float(wide)
    if bucket.height * wide >= bucket.width * tall:  # the picture is the wider one: sides are lost
        width = tall * bucket.width / bucket.height
    else:
        height = wide * bucket.height / bucket.width
    left, top = (wide - width) / 2, (tall - height) / 2
    return Box(left, top, min(left + width, float(wide)), min(top + height, float(tall)))


class Buckets:
    """The buckets that there are, and which of them a picture goes to."""

    def __init__(self, size: int, multiple: int | None, largest_aspect: float, tiers: int, upscale: bool):
        """Buckets of `size` x `size` pixels, of half that side, of its quarter: `tiers` resolutions, each with sides
        rounded down to the multiple. With `upscale` there is but the first, and small pictures are enlarged to it.

        Raises:
            ValueError: as `bucket_sizes`.
        """
        self.multiple = default_multiple(size) if multiple is None else multiple
        self.upscale = upscale
        first = bucket_sizes(size, self.multiple, largest_aspect)
        lower = {size // 2**k // self.multiple * self.multiple for k in range(1, 1 if upscale else tiers)}
        sides = sorted(lower - {0, size}, reverse=True)
        self.tiers: Sequence[list[Size]] = [
            first,
            *(bucket_sizes(side, self.multiple, largest_aspect) for side in sides),
        ]

    @property
    def sizes(self) -> list[Size]:
        """All buckets, the highest resolution first."""
        return list(dict.fromkeys(size for tier in self.tiers for size in tier))

    def choose(self, picture: Size) -> Size | None:
        """The bucket of the highest resolution that the picture fills, in which it loses the least of its area.

        None for a picture that is smaller than every bucket. Of equals the larger bucket, then the less oblong one, so
        that a picture on its side gets the bucket on its side.
        """
        for tier in self.tiers:
            open_to_it = tier if self.upscale else [bucket for bucket in tier if picture.holds(bucket)]
            if open_to_it:
                return min(open_to_it, key=lambda bucket: (-kept(picture, bucket), -bucket.area, max(bucket)))
        return None
