"""What tests of sources share."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from fromnoise.preparation.sources.config import SourceOptions
from fromnoise.preparation.sources.open import open_source
from fromnoise.preparation.sources.source import Fault, Picture, Source


class Made:
    """What tests make and ask for."""

    @staticmethod
    def png(level: int = 0, sides: tuple[int, int] = (8, 8)) -> bytes:
        """The file of a picture of one grey level."""
        out = io.BytesIO()
        Image.fromarray(np.full((*sides, 3), level, np.uint8)).save(out, "png")
        return out.getvalue()

    @staticmethod
    def source(where: object, **options: object) -> Source:
        return open_source(str(where), SourceOptions.model_validate(options))

    @staticmethod
    def entries(source: Source) -> list[Picture | Fault]:
        """All of a source, in order; read twice, backwards the second time, as portions do not depend on each other."""
        portions = [list(source.read(portion)) for portion in source.portions]
        again = [list(source.read(portion)) for portion in reversed(source.portions)]
        assert portions == again[::-1]
        found = [entry for portion in portions for entry in portion]
        assert len({entry.key for entry in found}) == len(found)
        assert source.entries in (None, len(found))
        return found

    def told(self, source: Source) -> list[tuple[str, str]]:
        """Keys and reasons of what cannot be used."""
        return [(entry.key, entry.reason) for entry in self.entries(source) if isinstance(entry, Fault)]

    def pictures(self, source: Source) -> dict[str, Picture]:
        return {entry.key: entry for entry in self.entries(source) if isinstance(entry, Picture)}

    @staticmethod
    def refusal(act: Callable[[], object]) -> str:
        """What a user is told, in one line."""
        with pytest.raises(ValueError) as error:
            act()
        assert "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture(scope="session")
def made() -> Made:
    return Made()
