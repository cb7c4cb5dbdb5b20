"""What was measured is kept under what it hangs on."""

import json

import pytest

from fromnoise.evaluation.comparison.measure import kept


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


def test_half_a_file_is_told(tmp_path):
    (tmp_path / "quality.json").write_text('{"key": {')
    with pytest.raises(ValueError, match=r"quality.json is damaged \(.*\); remove it, and that part is measured anew$"):
        kept(tmp_path / "quality.json", {}, dict)
