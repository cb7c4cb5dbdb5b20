"""`fromnoise recipes`: the recipes, a line each."""

from __future__ import annotations

from collections.abc import Sequence

from fromnoise.cli.flags import Parser
from fromnoise.recipes import all_recipes, summary


def main(args: Sequence[str]) -> None:
    parser = Parser(
        usage="fromnoise recipes", description="Lists the recipes that `fromnoise train` knows.", allow_abbrev=False
    )
    parser.parse_args(args)
    recipes = all_recipes()
    width = max(map(len, recipes)) + 2
    for name, recipe in recipes.items():
        print(f"{name:<{width}}{summary(recipe)}")
