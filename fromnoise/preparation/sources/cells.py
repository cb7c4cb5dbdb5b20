"""Captions and classes in the cells of a row, of whatever kind of table."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fromnoise.data import texts
from fromnoise.preparation.sources.columns import CAPTIONS, Columns


def captions_of(cells: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    """What a row says; errors as in `cleaned`."""
    names = columns.captions
    if not columns.asked and all(cells.get(name) is None for name in names):
        return cleaned([_usual(cells)])
    return cleaned(cells.get(name) for name in names)


def _usual(cells: Mapping[str, Any]) -> Any:
    """What stands under the first usual name with anything but null."""
    return next((cells[name] for name in CAPTIONS if cells.get(name) is not None), None)


def cleaned(values: Iterable[object]) -> tuple[str, ...]:
    """Captions as they are kept, without blank ones.

    values: each is text, a list of texts, an object with one of them under a usual name, or None.

    Raises:
        ValueError: one line, for anything else.
    """
    found: list[str] = []
    for value in values:
        if isinstance(value, Mapping):
            value = _usual(value)
        for text in value if isinstance(value, list | tuple) else [value]:
            if text is None:
                continue
            if not isinstance(text, str):
                raise ValueError(f"a caption must be text or a list of texts, not {repr(text)[:60]}")
            found.append(texts.cleaned(text))
    return tuple(filter(None, found))


class NoClass(ValueError):
    """One line on what stands where a class should."""


def label_of(cells: Mapping[str, Any], columns: Columns) -> str:
    """The class as it is told: a number, a word, or "" for none. A float that is whole is such a number: a column of
    whole numbers becomes one of floats in many programs, where one is missing.

    Raises:
        NoClass: for anything else.
    """
    value = cells.get(columns.label) if columns.label else None
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str):
        given = repr(value)[:60]
        raise NoClass(f"the class in column {columns.label!r} must be a whole number or a word, not {given}")
    return str(value).strip()


NONE = 0
"""Number of the label "" among those that came."""


class Classes:
    """Labels as they come, and the classes that they are in the end: whole numbers are, words are put in order."""

    def __init__(self) -> None:
        self.known = {"": NONE}

    def number(self, label: str) -> int:
        """The label's place among those that came."""
        return self.known.setdefault(label, len(self.known))

    def table(self, where: str) -> dict[str, int]:
        """The class of each label; none for "", unless no other came: then it is 0.

        Raises:
            ValueError: one line, when one is negative, as where a published test set hides its classes.
        """
        labels = sorted(filter(None, self.known))
        if not labels:
            return {"": 0}
        if self.names:
            return {name: i for i, name in enumerate(self.names)}
        if hidden := [label for label in labels if label.startswith("-")]:
            raise ValueError(f"{where}: class {hidden[0]}; allowed: whole numbers from 0 on, or words")
        return {label: int(label) for label in labels}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in the order of their numbers; none where all labels are whole numbers."""
        labels = sorted(filter(None, self.known))
        return () if all(label.removeprefix("-").isdecimal() for label in labels) else tuple(labels)

    def of(self, numbers: array[int], where: str) -> np.ndarray:
        """Classes (N,) int64 of the labels that `number` gave, 0 where others have one; errors as in `table`."""
        table = self.table(where)
        return np.array([table.get(label, 0) for label in self.known])[np.frombuffer(numbers, np.int64)]

    @property
    def count(self) -> int:
        """How many classes there are; 1 where there are none."""
        return max(self.table("").values()) + 1


UNCLASSED = "no class, where others have one"


def class_in(table: Mapping[str, int], label: str) -> int:
    """The class of a label, as in `Classes.table`.

    Raises:
        ValueError: one line, for "" where others have a class: 0 would be another's.
    """
    if label not in table:
        raise ValueError(UNCLASSED)
    return table[label]
