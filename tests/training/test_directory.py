"""The directory of a run."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.config import read_yaml, write_yaml
from fromnoise.data.config import BucketsConfig, FolderConfig, PreparedConfig, ShapesConfig
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.prepare import prepare
from fromnoise.training.alone import Holder, holder, trained_alone
from fromnoise.training.directory import claim, derive
from fromnoise.training.loop import train
from fromnoise.training.reconstruction import fit
from fromnoise.training.reference import fingerprint
from fromnoise.training.run import AdamW, Run, VAERun


def test_what_follows_from_the_data_is_filled_in_and_told(tiny_run: Callable[..., Run]) -> None:
    data = ShapesConfig(size=48).build(0)
    told: list[str] = []
    run = derive(tiny_run(), data, told.append)
    assert (run.model.size, run.model.channels) == (48, 3)
    assert told == ["from the data: model.size 48, model.channels 3"]
    assert derive(run, data, told.append) == run
    assert len(told) == 1


def test_a_batch_must_split_evenly(tiny_run: Callable[..., Run], shapes: Any) -> None:
    with pytest.raises(ValueError, match=r"training.batch is 4; allowed: multiples of training.accumulate, 3"):
        derive(tiny_run(accumulate=3), shapes, print)


def test_the_run_is_recorded_and_read_back(tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    claim(tiny_run(), tmp_path)
    assert read_yaml(Run, tmp_path / "run.yaml") == tiny_run()
    claim(tiny_run(), tmp_path)


def test_only_one_at_a_time_trains_in_a_directory(tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    directory = tmp_path / "new" / "deep"
    assert holder(directory) is None
    with trained_alone(directory):
        assert holder(directory) == Holder(os.getpid(), platform.node())
        told = f"another process trains in {directory}; stop it, or choose another directory"
        with pytest.raises(ValueError, match=re.escape(told)), trained_alone(directory):
            pass
        with pytest.raises(ValueError, match=re.escape(told)):
            train(tiny_run(), directory)
    assert not directory.exists()
    train(tiny_run(), directory)
    assert holder(directory) is None
    (directory / ".pid").write_text(f"{os.getpid()} {platform.node()}")  # as a killed process leaves it
    assert holder(directory) is None


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"cannot make .*file/run: Not a directory"),
        trained_alone(tmp_path / "file" / "run"),
    ):
        pass


def test_another_run_is_refused_by_its_first_differing_key(tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    claim(tiny_run(), tmp_path)
    run = tiny_run(batch=8, seed=3)
    with pytest.raises(ValueError) as error:
        claim(run, tmp_path)
    told = f"{tmp_path} holds another run: training.batch is 4 there, 8 here; choose another directory"
    assert str(error.value) == told
    with pytest.raises(ValueError, match=r"training.optimizer.type is 'muon' there, 'adamw' here"):
        claim(tiny_run(optimizer=AdamW()), tmp_path)
    assert read_yaml(Run, tmp_path / "run.yaml") == tiny_run()


def test_more_steps_are_refused_and_why(tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    claim(tiny_run(), tmp_path)
    with pytest.raises(
        ValueError, match=r"holds a run of 6 steps, not 12: its learning rate and its average depend on"
    ):
        claim(tiny_run(steps=12), tmp_path)


def test_what_decides_no_weight_may_change(tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    claim(tiny_run(), tmp_path)
    changed = tiny_run(keep=5, log_every=1, save_every=1, validate_every=1, preview_every=1, previews=())
    claim(changed, tmp_path)
    assert read_yaml(Run, tmp_path / "run.yaml") == changed


@pytest.mark.parametrize("kind", [FolderConfig, BucketsConfig])
@pytest.mark.parametrize("change", ["a caption", "a picture", "a picture more"])
def test_a_run_goes_on_with_the_pictures_and_captions_that_it_was_begun_with(
    tmp_path: Path, tiny_run: Callable[..., Run], kind: type[FolderConfig | BucketsConfig], change: str
) -> None:
    pictures, place = tmp_path / "pictures", tmp_path / "run"
    pictures.mkdir()
    place.mkdir()
    for i in range(3):
        Image.new("RGB", (16, 16)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"picture {i}")
    asked = tiny_run().model_copy(update={"data": kind(path=pictures, size=16)})

    def derived(run: Run) -> Run:
        return derive(run, run.data.build(0), lambda line: None)

    claim(derived(asked), place)
    recorded = read_yaml(Run, place / "run.yaml")
    claim(derived(recorded), place)
    assert derived(asked) == recorded
    if change == "a caption":
        (pictures / "1.txt").write_text("another")
    else:
        at = 1 if change == "a picture" else 3
        Image.new("RGB", (20, 20)).save(pictures / f"{at}.png")
        (pictures / f"{at}.txt").write_text(f"picture {at}")
    told = rf"{pictures} holds other pictures or captions \(sha256 \w+\.\.\.\) than the run was begun with"
    with pytest.raises(ValueError, match=told):
        derived(recorded)
    with pytest.raises(ValueError, match=told):
        fit(VAERun(data=recorded.data), recorded.data.build(0), print)
    told = r"holds another run: data.sha256 is .* as its pictures or captions have changed since; choose another dir"
    with pytest.raises(ValueError, match=told):
        claim(derived(asked), place)
    now = derived(asked)
    write_yaml(now.model_copy(update={"data": asked.data}), place / "run.yaml")  # as before they were recorded
    claim(now, place)
    assert read_yaml(Run, place / "run.yaml") == now


def test_names_of_classes_follow_from_the_data_and_prompts_may_say_them(
    tmp_path: Path, tiny_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for i, label in enumerate(("cat", "Dog", "bird")):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "label": label}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    prepare(str(tmp_path), tmp_path / "set", Preparation(size=32))
    asked, place = tiny_run(steps=1, previews=("cat",)), tmp_path / "run"
    model = asked.model.model_copy(update={"conditioner": LabelConfig(classes=3, width=16)})
    asked = asked.model_copy(update={"data": PreparedConfig(path=tmp_path / "set"), "model": model})
    pipeline = train(asked, place)
    assert pipeline.conditioner.labels(["cat", "0"]) == [2, 0]
    assert "from the data: classes 0 Dog, 1 bird, 2 cat" in capsys.readouterr().err
    recorded = read_yaml(Run, place / "run.yaml")
    write_yaml(recorded.model_copy(update={"model": model}), place / "run.yaml")  # as before names were recorded
    claim(recorded, place)
    assert fingerprint(recorded) == fingerprint(recorded.model_copy(update={"model": model}))


def test_a_directory_of_other_things_is_left_alone(tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files but no run.yaml: it is no run; choose a new or an empty"):
        claim(tiny_run(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_a_kill_left_of_the_first_file_is_no_obstacle(tmp_path: Path, tiny_run: Callable[..., Run]) -> None:
    (tmp_path / ".run.yaml.123.tmp").write_text("rec")
    claim(tiny_run(), tmp_path)
