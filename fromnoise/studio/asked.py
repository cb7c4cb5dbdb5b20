"""What somebody typed into the page, checked before anything is drawn. Free of torch."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import NamedTuple

from PIL import Image

LONGEST = 1000  # letters of a prompt
MOST = 64  # pictures of a sweep
DRAWN = ("prompt", "seed", "steps", "guidance", "sampler")  # what a picture made here says of itself


class Asked(NamedTuple):
    """How one picture is to be drawn; None is as the model has it."""

    prompt: str
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    size: tuple[int, int] | None = None


def prompt_of(text: str) -> str:
    """The prompt, its white space made single.

    Raises:
        ValueError: one line, when it is too long, or holds characters that cannot be written.
    """
    prompt = " ".join(text.split())
    if len(prompt) > LONGEST:
        raise ValueError(f"the prompt has {len(prompt):,} characters; allowed: up to {LONGEST:,}")
    for place, letter in enumerate(prompt, start=1):
        if unicodedata.category(letter) in ("Cc", "Cs"):
            what = f"U+{ord(letter):04X}, a control character"
            raise ValueError(f"character {place} of the prompt is {what}; allowed: text")
    return prompt


def seed_of(number: float | None) -> int:
    """A seed; nothing typed is 0."""
    return int(number or 0)


def numbers(text: str, what: str) -> list[float]:
    """The numbers in "1 2 3.5" or "1, 2, 3.5", each once, rising.

    Raises:
        ValueError: one line, where one is none, or there are none or too many.
    """
    words = text.replace(",", " ").split()
    try:
        found = sorted({float(word) for word in words})
    except ValueError:
        raise ValueError(f"{what}: given {text[:40]!r}; allowed: numbers, as in 1 2 4") from None
    if not 1 <= len(found) <= MOST or not all(0 <= number <= 1000 for number in found):
        raise ValueError(f"{what}: given {text[:40]!r}; allowed: 1 to {MOST} numbers from 0 to 1000")
    return found


class Restored(NamedTuple):
    """How a picture was drawn, by its own account."""

    asked: Asked
    checkpoint: str
    """Hash of the weights; "" where it does not say."""


def restored(file: Path) -> Restored:
    """What a picture made by fromnoise says of how it was drawn; its pixels are not decoded.

    Raises:
        ValueError: one line, when it is no such picture.
    """
    try:
        with Image.open(file, formats=["PNG"]) as image:
            told, size = dict(image.info), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise ValueError(f"{file.name} is no PNG that can be read; allowed: a picture made here") from None
    for key in DRAWN:
        if key not in told:
            raise ValueError(f"{file.name} does not say its {key}; allowed: a picture that the studio or sample made")
    try:
        asked = Asked(
            prompt_of(told["prompt"]),
            int(told["seed"]),
            int(told["steps"]),
            float(told["guidance"]),
            str(told["sampler"]),
            (size[1], size[0]),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file.name} does not say how it was drawn: {' '.join(str(error).split())}") from None
    return Restored(asked, str(told.get("checkpoint", "")))
