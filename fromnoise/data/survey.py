"""Which pictures of a directory go to which bucket: from the headers of their files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fromnoise.data.buckets import Buckets, Size, kept, scale
from fromnoise.data.pictures import measure
from fromnoise.data.reading import none_readable, read_all


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A bucket and its pictures: their names in order, and their own sizes."""

    size: Size
    pictures: dict[str, Size]

    @property
    def crops(self) -> dict[str, float]:
        """Share of each picture's area that is cropped."""
        return {name: 1 - kept(picture, self.size) for name, picture in self.pictures.items()}

    @property
    def enlarged(self) -> int:
        """How many pictures are made larger."""
        return sum(scale(picture, self.size) > 1 for picture in self.pictures.values())


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Where the pictures go."""

    filled: list[Filled]
    """The buckets that have pictures, the highest resolution first, from the tallest to the widest."""
    empty: list[Size]
    """Those that have none."""
    small: dict[str, Size]
    """Pictures smaller than every bucket."""
    unreadable: dict[str, str]
    """Pictures whose header cannot be read, and why."""

    @property
    def problems(self) -> list[str]:
        """One line for each picture left out."""
        unreadable = [f"{name}: {why}" for name, why in self.unreadable.items()]
        return [*unreadable, *(f"{name}: {size}, smaller than every bucket" for name, size in self.small.items())]


def survey(folder: Path, names: Sequence[str], buckets: Buckets, advance: Callable[[int, int], None]) -> Survey:
    """Sort the pictures `names` of `folder`; `advance` is called with how many were read, and how many there are.

    Raises:
        ValueError: one line, when no picture can be read or all are too small.
    """
    sizes, unreadable = read_all(folder, names, lambda place: measure(folder / names[place]), advance)
    return sorted_out(str(folder), sizes, unreadable, buckets)


def sorted_out(where: str, sizes: Mapping[str, Size], unreadable: dict[str, str], buckets: Buckets) -> Survey:
    """Sort pictures of `where` whose sizes are known; errors as in `survey`."""
    if not sizes:
        raise ValueError(none_readable(where, unreadable))
    places = {name: buckets.choose(size) for name, size in sizes.items()}
    small = {name: sizes[name] for name, place in places.items() if place is None}
    if len(small) == len(sizes):
        largest = max(small.values(), key=lambda size: size.area)
        raise ValueError(
            f"all {len(small):,} pictures of {where} are smaller than every bucket: the largest is {largest}, the "
            f"buckets are {', '.join(map(str, buckets.sizes))}"
        )
    groups: dict[Size, dict[str, Size]] = {}
    for name, place in places.items():
        if place is not None:
            groups.setdefault(place, {})[name] = sizes[name]
    filled = [Filled(size=size, pictures=groups[size]) for size in buckets.sizes if size in groups]
    empty = [size for size in buckets.sizes if size not in groups]
    return Survey(filled=filled, empty=empty, small=small, unreadable=unreadable)
