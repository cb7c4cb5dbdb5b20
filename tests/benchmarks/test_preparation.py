"""The measurement of preparation at toy size."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import preparation


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by Linux")
@pytest.mark.skipif("FROMNOISE_DATA" not in os.environ, reason="$FROMNOISE_DATA is absent")
def test_both_ways_are_measured_and_recorded(tmp_path: Path) -> None:
    toy = "--pictures 18 --original 48 --side 32 --width 16 --layers 1".split()
    preparation.main([*toy, "--folder", str(tmp_path), "--out", str(tmp_path / "record.json")])
    record = json.loads((tmp_path / "record.json").read_text())
    ours, theirs = record["found"]["fromnoise"], record["found"]["everything at once"]
    for told in (ours, theirs):
        assert told["images_per_second"] == pytest.approx(18 / told["seconds"])
        assert 0 < told["mib_at_most_beyond_libraries"] < told["mib_at_most"]
    assert theirs["text_bytes"] == 18 * (2 * 16 * 78 + 77)
    assert 4 < theirs["text_bytes"] / ours["text_bytes"] == record["ratios"]["text_bytes"] < 15
    assert record["settings"] == {
        "pictures": 18, "original": 48, "side": 32, "batch": 16, "channels": 4, "width": 16, "layers": 1,
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest: --width"):
        preparation.main(["--widht", "3"])
