"""`fromnoise evaluate`: a table for people, and JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fromnoise.cli.main import main

KEYS = ["single_object", "two_object", "counting", "colors", "position", "color_attr", "overall", "held_out"]


def test_json_is_all_that_is_printed(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint), "--json", "--n", "6", "--steps", "1"]) == 0
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert next(iter(results)) == "adherence"
    assert list(results["adherence"]) == KEYS
    assert all(0 <= share <= 1 for share in results["adherence"].values())
    assert results["drawing"]["steps"] == 1


def test_the_table_has_a_line_for_each_task(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint), "--n", "6", "--steps", "1", "--raw", "--measure", "judge"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:16].strip().replace(" ", "_") for line in lines[:-1]] == KEYS
    assert all(line.endswith(" %") for line in lines[:-1])
    assert lines[-1].startswith("prompts 6, seed 0, steps 1, guidance 2, seconds ")


def test_of_shapes_it_is_also_asked_whether_the_model_listens(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(checkpoint), "--json", "--n", "6", "--steps", "1"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert {"adherence", "listening"} <= results.keys() and len(results["listening"]["times"]) == 10
    assert list(results["left_out"]) == ["features", "clipscore", "neighbours", "floor"]
    assert "--features pixels" in results["left_out"]["features"] and "without end" in results["left_out"]["floor"]
