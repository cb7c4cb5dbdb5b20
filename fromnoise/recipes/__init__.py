"""Recipes: functions that return a `Run` or a `VAERun`. Each docstring states hardware, time, expected result and the
command."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from fromnoise.core.config import hint
from fromnoise.recipes.autoencoders import vae, vae_small
from fromnoise.recipes.folder import folder
from fromnoise.recipes.generations import ddpm, dit, sd1, sd2, sd3, x0
from fromnoise.recipes.latents import ldm, phase5, phase5_classes, scratch_128, scratch_256
from fromnoise.recipes.mnist import mnist
from fromnoise.recipes.phases import phase1, phase2, phase3, phase4
from fromnoise.recipes.positions import positions
from fromnoise.recipes.qwen import qwen_258m
from fromnoise.recipes.shapes import shapes
from fromnoise.training.run import Run, VAERun

RECIPES: dict[str, Callable[[], Run]] = {
    "shapes": shapes,
    "folder": folder,
    "mnist": mnist,
    "phase1": phase1,
    "phase2": phase2,
    "phase3": phase3,
    "phase4": phase4,
    "ddpm": ddpm,
    "sd1": sd1,
    "sd2": sd2,
    "dit": dit,
    "sd3": sd3,
    "x0": x0,
    "positions": positions,
    "ldm": ldm,
    "phase5": phase5,
    "phase5-classes": phase5_classes,
    "scratch-128": scratch_128,
    "scratch-256": scratch_256,
    "qwen-258m": qwen_258m,
}
"""The recipes by the name that `fromnoise train` knows them by: models that draw."""

VAE_RECIPES: dict[str, Callable[[], VAERun]] = {"vae": vae, "vae-small": vae_small}
"""Those of autoencoders."""


def all_recipes() -> dict[str, Callable[[], Run | VAERun]]:
    """All of them by name, those of autoencoders last."""
    return {**RECIPES, **VAE_RECIPES}


def named(name: str) -> Run:
    """The run of the recipe called `name`.

    Raises:
        ValueError: when there is none; it lists those there are, and names the nearest.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; {hint(name, RECIPES)}")
    return RECIPES[name]()


def summary(recipe: Callable[[], Run | VAERun]) -> str:
    """The first line of a recipe's docstring."""
    return (inspect.getdoc(recipe) or "").partition("\n")[0]
