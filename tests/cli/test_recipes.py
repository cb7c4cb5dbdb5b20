"""`fromnoise recipes`."""

from __future__ import annotations

import pytest

from fromnoise.cli.main import main
from fromnoise.recipes import RECIPES, VAE_RECIPES, summary


def test_every_recipe_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines, every = capsys.readouterr().out.splitlines(), [*RECIPES.items(), *VAE_RECIPES.items()]
    assert [line.split(maxsplit=1) for line in lines] == [[name, summary(recipe)] for name, recipe in every]
