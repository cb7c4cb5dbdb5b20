"""What a user points at, and what is drawn of it where nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from fromnoise.core.config import write_yaml
from fromnoise.core.files import content_hash
from fromnoise.pipeline.config import Sampling
from fromnoise.plots import KINDS
from fromnoise.plots.subject import DATA, Subject, Wish, find, no_model
from fromnoise.recipes import named


def test_a_recipe_has_a_config_and_no_weights() -> None:
    found = find("sd1")
    assert found.config == named("sd1").model and found.model is None and found.name == "sd1"
    assert "no weights" in no_model(found, Wish())


def test_a_run_a_checkpoint_and_a_file_are_the_same_model(place: Callable[..., Path]) -> None:
    run = place()
    step = run / "checkpoints" / "step-00000001"
    places = {run: "small", step: "step-00000001", step / "ema.safetensors": "ema"}
    for at, name in places.items():
        found = find(at, device="cpu")
        assert found.name == name and found.model is not None and found.run is not None
        assert found.run.data.type == "mnist"
        assert found.metadata == {"checkpoint": content_hash(step / "ema.safetensors")}


def test_a_run_is_drawn_as_a_sweep_has_chosen(place: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, chosen = place(), Sampling(sampler="heun", steps=3, guidance=4.0)
    write_yaml(chosen, run / "sampling.yaml")
    found = find(run, device="cpu")
    assert found.config.sampling == found.pipeline.config.sampling == chosen and found.steps(Wish()) == 3
    assert "sampling.yaml" in capsys.readouterr().err


def test_a_file_alone_has_no_run(place: Callable[..., Path], tmp_path: Path) -> None:
    alone = (place() / "checkpoints" / "step-00000001" / "ema.safetensors").rename(tmp_path / "alone.safetensors")
    found = find(alone, device="cpu")
    assert found.run is None and found.name == "alone"
    assert found.known is DATA["mnist"]  # by its words


def test_neither_a_run_nor_a_recipe() -> None:
    with pytest.raises(ValueError, match=r"'shaps' is neither a run nor a recipe; .* nearest: shapes"):
        find("shaps")
    with pytest.raises(ValueError, match="nothing at runs/gone"):
        find("runs/gone")


def test_prompts_wished_come_first_then_previews_then_examples(subject: Callable[..., Subject]) -> None:
    made = subject()
    assert [ask.prompt for ask in made.asks(Wish(("x", "y", "z")), 2)] == ["x", "y", "z"]
    assert [ask.prompt for ask in made.asks(Wish(), 2)] == ["a handwritten zero", "a handwritten one"]
    previews = find("sd1").asks(Wish(), 3)
    assert [ask.prompt for ask in previews] == list(named("sd1").training.previews[:3])


def test_classes_are_asked_for_by_number(subject: Callable[..., Subject]) -> None:
    made = subject("dit", "label")
    assert [ask.label for ask in made.asks(Wish(), 3)] == [0, 1, 2]
    assert [ask.label for ask in made.asks(Wish(("7", "1")), 3)] == [7, 1]
    for wrong in ("10", "-1", "seven"):
        with pytest.raises(ValueError, match=f"prompt '{wrong}' is no class of this model; allowed: a number, 0 to 9"):
            made.asks(Wish((wrong,)), 1)


def test_long_samplers_are_cut_short_unless_asked_for() -> None:
    assert find("ddpm").steps(Wish()) == 50
    assert find("ddpm").steps(Wish(steps=200)) == 200
    assert find("sd3").steps(Wish()) == 28


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_refuse_and_draw(kind: str) -> None:
    plot = import_module(f"fromnoise.plots.{kind}")
    assert isinstance(plot.refusal(find("shapes"), Wish()), str) and callable(plot.draw) and callable(plot.figure)
