"""`fromnoise evaluate`: a table for people, and JSON for programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fromnoise.cli.main import main
from fromnoise.core.config import write_yaml
from fromnoise.evaluation.adherence_table import adherence_lines
from fromnoise.pipeline.place import config_at
from fromnoise.training.run import Run

KEYS = ["single_object", "two_object", "counting", "colors", "position", "color_attr", "overall", "held_out"]


def test_json_is_all_that_is_printed(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint), "--json", "--samples", "6", "--steps", "1"]) == 0
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert next(iter(results)) == "adherence"
    assert list(results["adherence"]) == KEYS
    assert all(0 <= share <= 1 for share in results["adherence"].values())
    assert results["drawing"]["steps"] == 1 and results["drawing"]["interval"] == [0, 1]


def test_the_table_has_a_line_for_each_task(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint), "--samples", "6", "--steps", "1", "--raw", "--measure", "judge"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:16].strip().replace(" ", "_") for line in lines[:8]] == KEYS
    assert all("%   (" in line and line.endswith("at 95 %)") for line in lines[:8])
    assert lines[8] == "7 pictures are wrong, some for several reasons:"
    assert lines[9].split()[-1].isdigit() and any("count asked > seen" in line for line in lines)
    assert lines[-3].startswith("second judge: 0.0 % overall")
    assert lines[-1].startswith("prompts 6, pictures 7, seed 0, sampler euler, steps 1, guidance 2, interval 0 to 1, ")


def test_a_model_that_pleases_the_checker_is_told_of() -> None:
    share = {"adherence": {"overall": 0.9}, "intervals": {"overall": [0.8, 0.95]}, "drawing": {"seed": 0}}
    both = {"agree": 0.5, "pictures": 10, "only_checker": 5, "only_network": 0}
    second = {**both, "overall": 0.4, "overall_interval": [0.3, 0.5], "true_renders": both, "pleases_checker": True}
    told = adherence_lines({**share, "instead": {"wrong": 0}, "second": second})
    assert told[1] == "no picture is wrong" and told[-2].startswith("  this model pleases the checker: look at")
    assert not any("pleases" in line for line in adherence_lines({**share, "instead": {"wrong": 0}, "second": {
        **second, "pleases_checker": False}}))  # fmt: skip


def test_of_shapes_it_is_also_asked_whether_the_model_listens(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(checkpoint), "--json", "--samples", "6", "--steps", "1"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert {"adherence", "listening"} <= results.keys() and len(results["listening"]["times"]) == 10
    assert list(results["left_out"]) == ["features", "clipscore", "neighbours", "floor"]
    assert "--features pixels" in results["left_out"]["features"] and "without end" in results["left_out"]["floor"]


def test_who_stops_reading_loses_no_numbers(
    checkpoint: Path, tmp_path: Path, unread: Callable[[], AbstractContextManager[None]]
) -> None:
    run = shutil.copytree(checkpoint, tmp_path / "run")
    write_yaml(Run(model=config_at(run)), run / "run.yaml")
    with unread():
        assert main(["evaluate", str(run), "--samples", "6", "--steps", "1", "--measure", "judge"]) == 141
    assert json.loads((run / "evaluation.json").read_text())["drawing"]["steps"] == 1
