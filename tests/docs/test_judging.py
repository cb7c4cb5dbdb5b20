"""docs/judging.md: what it tells to run for public judges gives the names that they read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import fromnoise

PAGE = Path(fromnoise.__file__).parent.parent / "docs" / "judging.md"


def test_pictures_get_the_names_that_judges_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    known = [
        {"id": "whoops8", "prompt": "long"},
        {"tag": "color", "prompt": "a red car"},
        {"tag": "color", "prompt": "b"},
    ]
    for i, metadata in enumerate(known):
        place = tmp_path / "pictures" / "shapes-dpg" / f"{i:05}"
        (place / "samples").mkdir(parents=True)
        (place / "metadata.jsonl").write_text(json.dumps(metadata))
        for name in ("grid.png", "samples/0000.png", "samples/0001.png"):
            (place / name).write_text(f"{i} {name}")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert Path("judged/whoops8.png").read_text() == "0 grid.png"
    names = sorted(path.name for path in Path("judged/color/samples").iterdir())
    assert names == ["a red car_000000.png", "a red car_000001.png", "b_000002.png", "b_000003.png"]
