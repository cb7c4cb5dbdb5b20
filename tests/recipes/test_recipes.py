"""Recipes: functions whose docstring says what they are, and whose run can be recorded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fromnoise
from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.core.config import write_yaml
from fromnoise.data.config import FolderConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes import RECIPES, VAE_RECIPES, folder, named
from fromnoise.recipes.generations import NUMBERS
from fromnoise.training.run import read_run

EVERY = {**RECIPES, **VAE_RECIPES}


@pytest.mark.parametrize("name", EVERY)
def test_a_recipe_is_a_run_that_can_be_recorded(name: str, tmp_path: Path) -> None:
    run = EVERY[name]()
    assert run.recipe == name
    write_yaml(run, tmp_path / "run.yaml")
    assert read_run(tmp_path / "run.yaml") == run


@pytest.mark.parametrize("name", EVERY)
def test_a_recipe_says_what_it_needs_and_its_command(name: str) -> None:
    text = EVERY[name].__doc__ or ""
    assert "Hardware:" in text
    assert f"Command:  fromnoise train {name} " in text


def test_generations_have_the_same_number_of_parameters() -> None:
    captions = [f"a handwritten {number}" for number in NUMBERS]
    counts = {}
    for name in ("ddpm", "sd1", "sd2", "dit", "sd3", "x0"):
        model = named(name).model.model_copy(update={"channels": 1, "size": 32})
        counts[name] = sum(p.numel() for p in Pipeline.build(model, captions, 0).parameters())
    assert max(counts.values()) < 1.02 * min(counts.values()), counts


def test_vaes_have_the_sizes_they_tell() -> None:
    for name, size in (("vae", 15_481_255), ("vae-small", 961_739)):
        run = VAE_RECIPES[name]()
        assert sum(p.numel() for p in Autoencoder.build(run.model, 0).parameters()) == size


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown recipe 'floder'; allowed: shapes, folder, .*; nearest: folder"):
        named("floder")


def test_folder_takes_a_directory() -> None:
    data = folder("pictures").data
    assert isinstance(data, FolderConfig)
    assert data.path == Path("pictures")


def test_the_package_shows_five_names_and_imports_no_torch() -> None:
    assert dir(fromnoise) == ["Run", "evaluate", "load", "recipes", "train"]
    script = (
        "import sys, fromnoise\n"
        "assert fromnoise.recipes.shapes() == fromnoise.Run.model_validate(fromnoise.recipes.shapes().model_dump())\n"
        "assert 'torch' not in sys.modules\n"
        "assert [callable(getattr(fromnoise, name)) for name in ('load', 'train', 'evaluate')] == [True] * 3\n"
        "assert not hasattr(fromnoise, 'none')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
