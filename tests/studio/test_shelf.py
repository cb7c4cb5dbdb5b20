"""Which models can be drawn with, and which are refused: gone, outside, unsafe, foreign."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise.core.config import write_yaml
from fromnoise.pipeline.config import Sampling
from fromnoise.pipeline.place import config_at
from fromnoise.studio.shelf import HELD, Shelf, inside
from fromnoise.studio.trainings import Trainings
from fromnoise.training.run import VAERun


class Trap:
    """A pickle that, when it is read, makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_what_was_given_comes_first_and_vaes_draw_nothing(runs: Path, tmp_path: Path) -> None:
    (runs / "vae" / "checkpoints" / "step-00000001").mkdir(parents=True)
    write_yaml(VAERun(), runs / "vae" / "run.yaml")
    (runs / "begun").mkdir()
    shelf = Shelf({"given": runs / "one"}, runs)
    assert shelf.names()[0] == "given" and set(shelf.names()) == {"given", "one", "other", "digits"}
    assert Shelf({}, tmp_path / "none").names() == []


@pytest.mark.parametrize(
    "record", [b"", b"- a list", b"type: [", b"\xff", None], ids=["empty", "list", "cut", "bytes", "no"]
)
def test_a_run_whose_record_cannot_be_read_is_not_offered(record: bytes | None, runs: Path) -> None:
    bad = runs / "one" / "run.yaml"
    bad.unlink()
    bad.mkdir() if record is None else bad.write_bytes(record)
    assert set(Shelf({}, runs).names()) == {"other", "digits"}


def test_a_run_that_is_deleted_while_they_are_listed_is_not_offered(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glob = Path.glob

    def slowly(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        shutil.rmtree(runs / "one", ignore_errors=True)
        return found

    monkeypatch.setattr(Path, "glob", slowly)
    assert set(Shelf({}, runs).names()) == {"other", "digits"}


def test_what_a_link_brings_from_outside_is_not_offered(runs: Path) -> None:
    (runs / "one").rename(runs.parent / "away")
    (runs / "one").symlink_to(runs.parent / "away")
    weights = runs / "other" / "checkpoints" / "step-00000005" / "ema.safetensors"
    weights.unlink()
    weights.symlink_to(runs.parent / "away" / "checkpoints" / "step-00000005" / "ema.safetensors")
    assert Shelf({}, runs).names() == ["digits"] and set(Trainings(runs).names()) == {"other", "digits"}
    weights.unlink()
    weights.symlink_to(weights)
    assert Shelf({}, runs).names() == ["digits"]


def test_a_model_is_loaded_once_and_anew_when_it_was_trained_on(runs: Path) -> None:
    shelf = Shelf({}, runs)
    first = shelf.subject("one")
    assert shelf.subject("one") is first
    shutil.copytree(runs / "other" / "checkpoints" / "step-00000005", runs / "one" / "checkpoints" / "step-00000009")
    assert shelf.subject("one").metadata != first.metadata
    for name in ("one", "other", "digits"):
        shelf.subject(name)
    assert len(shelf.held) <= HELD


def test_it_draws_as_a_sweep_has_chosen(runs: Path) -> None:
    chosen = Sampling(sampler="heun", steps=2, guidance=1.5)
    shelf = Shelf({}, runs)
    usual = shelf.subject("one").pipeline.config.sampling
    write_yaml(chosen, runs / "one" / "sampling.yaml")
    assert shelf.subject("one").pipeline.config.sampling == chosen
    assert config_at(runs / "one").sampling == chosen
    (runs / "one" / "sampling.yaml").write_text("sampler: heun\n")
    some = usual.model_copy(update={"sampler": "heun"})
    assert shelf.subject("one").pipeline.config.sampling == some == config_at(runs / "one").sampling
    (runs / "one" / "sampling.yaml").unlink()
    assert shelf.subject("one").pipeline.config.sampling == usual == config_at(runs / "one").sampling


def test_a_run_that_vanishes_is_told(runs: Path) -> None:
    shelf = Shelf({"given": runs / "other"}, runs)
    assert shelf.subject("one") is not shelf.subject("given")
    shutil.rmtree(runs / "one")
    shutil.rmtree(runs / "other")
    with pytest.raises(ValueError, match=r"there is no run 'one' \(any more\); allowed: "):
        shelf.subject("one")
    with pytest.raises(ValueError, match=r"nothing at .*other"):
        shelf.subject("given")


@pytest.mark.parametrize("name", ["..", ".", "", "../secret", "/etc", "one/../../secret", "link", "a\x00b"])
def test_a_place_outside_the_folder_is_refused(name: str, runs: Path) -> None:
    shutil.copytree(runs / "one", runs.parent / "secret")
    (runs / "link").symlink_to(runs.parent / "secret")
    with pytest.raises(ValueError, match="is outside the folder of runs"):
        Shelf({}, runs).subject(name)
    assert inside(runs, "new") == runs / "new"


@pytest.mark.parametrize("name", [None, 5, ["one"]])
def test_what_is_no_name_is_told(name: Any, runs: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"model: given {name!r}; allowed: ")):
        Shelf({"given": runs / "one"}, runs).subject(name)


def test_weights_that_a_link_brings_from_outside_are_refused(runs: Path) -> None:
    outside = runs.parent / "weights.safetensors"
    weights = runs / "one" / "checkpoints" / "step-00000005" / "ema.safetensors"
    weights.rename(outside)
    weights.symlink_to(outside)
    with pytest.raises(ValueError, match="is outside the folder of runs"):
        Shelf({}, runs).subject("one")


@pytest.mark.parametrize("kind", ["pickle", "torch", "foreign", "cut"])
def test_an_unsafe_or_foreign_checkpoint_is_refused_and_nothing_executed(kind: str, runs: Path) -> None:
    from safetensors.torch import save_file

    weights, mark = runs / "one" / "checkpoints" / "step-00000005" / "ema.safetensors", runs.parent / "executed"
    if kind == "pickle":
        weights.write_bytes(pickle.dumps(Trap(mark)))
    elif kind == "torch":
        torch.save({"model": Trap(mark)}, weights)
    elif kind == "foreign":
        save_file({"weight": torch.zeros(2)}, weights)
    else:
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"not a safetensors file|was not written by fromnoise") as refused:
        Shelf({}, runs).subject("one")
    assert "\n" not in str(refused.value) and not mark.exists()
