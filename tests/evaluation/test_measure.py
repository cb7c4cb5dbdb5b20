"""What was measured is kept under what it hangs on."""

import json

import pytest

from fromnoise.evaluation.comparison.measure import kept, learned
from fromnoise.training.log import KINDS

LOGGED = {"step": 1} | dict.fromkeys(KINDS[0], 1.0)  # a line of metrics.jsonl


def test_the_same_key_is_read_and_another_one_measured_anew(tmp_path):
    file, calls = tmp_path / "run" / "quality.json", []

    def work() -> dict[str, int]:
        calls.append(1)
        return {"call": len(calls)}

    key = {"checkpoint": "abc", "samples": 10}
    assert kept(file, key, work) == kept(file, key, work) == {"call": 1}
    assert kept(file, key | {"checkpoint": "abd"}, work) == {"call": 2}
    assert kept(file, key | {"checkpoint": "abd"}, work) == {"call": 2}
    assert kept(file, key, work) == {"call": 3}
    assert json.loads(file.read_text()) == {"key": key, "found": {"call": 3}}


@pytest.mark.parametrize("told", ['{"key": {', "[]", "{}", "null", "5", '{"key": {}}', '{"key": {}, "found": 5}'])
def test_a_damaged_file_is_told(tmp_path, told):
    (tmp_path / "quality.json").write_text(told)
    with pytest.raises(ValueError, match=r"quality.json is damaged: .*; remove it, and that part is measured anew$"):
        kept(tmp_path / "quality.json", {}, dict)


@pytest.mark.parametrize(("lines", "what"), [(None, "losses"), ([], "losses"), ([LOGGED], "validation losses")])
def test_a_run_that_tells_of_no_losses_is_refused(tmp_path, lines, what):
    if lines is not None:
        (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ValueError, match=rf"^{tmp_path}/metrics\.jsonl tells of no {what}$"):
        learned(tmp_path)
