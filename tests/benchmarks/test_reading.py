"""The measurement of reading at toy size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import reading
from fromnoise.data.manifest import read_manifest


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by Linux")
def test_every_size_is_written_read_and_recorded(tmp_path: Path) -> None:
    toy = "--small 30 --large 60 --largest 90 --tokens 3 --width 4 --batch 8 --batches 2 --rounds 3".split()
    reading.main([*toy, "--folder", str(tmp_path), "--out", str(tmp_path / "record.json")])
    record = json.loads((tmp_path / "record.json").read_text())
    assert [told["samples"] for told in record["sizes"]] == [30, 60, 90]
    for told in record["sizes"]:
        assert len(told["samples_per_second_by_round"]) == 3
        assert told["samples_per_second"] == sorted(told["samples_per_second_by_round"])[1] > 0
        assert told["bytes"] > told["samples"] * (2 * 2 * 4 * 32 * 32 + 2 * 3 * 4)
        assert 0 <= told["mib_held"] < told["mib_of_the_process"] and told["written_per_second"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_is_written_is_what_is_asked_for(tmp_path: Path) -> None:
    reading.write(tmp_path / "data", 20, reading.Settings(tokens=3, width=4))
    manifest = read_manifest(tmp_path / "data")
    assert manifest.counts.samples == manifest.counts.captions == 20 and manifest.counts.tokens == 60
    assert manifest.layout.sizes == ((32, 32),) and manifest.layout.latent == 4 and manifest.layout.texts == (4,)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest: --width"):
        reading.main(["--widht", "3"])
