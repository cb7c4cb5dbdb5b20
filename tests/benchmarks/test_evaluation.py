"""The example of docs/evaluate.md is what its record says, and the record is what the table is made from."""

from __future__ import annotations

import json
from pathlib import Path

from fromnoise.evaluation.judges.domains import DIGITS
from fromnoise.evaluation.table import table

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "results" / "evaluation_mnist.json").read_text())


def test_the_page_shows_what_is_on_record() -> None:
    page = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- results -->\n```\n")[2].partition("\n```\n<!-- /results -->")[0]
    assert shown == RECORD["table"] == table(RECORD, DIGITS)


def test_what_must_be_known_of_a_number_stands_beside_it() -> None:
    assert RECORD["command"] == "python -m benchmarks.evaluation runs/mnist" and RECORD["machine"]["cpu"]
    assert RECORD["seed"] == 0 and len(RECORD["checkpoint"]) == 64
    (record,) = RECORD["features"]
    assert record["samples"] == RECORD["samples"] == 1000 and len(record["sha256"]) == 64
