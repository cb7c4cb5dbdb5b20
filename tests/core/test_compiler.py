"""What a killed compiler leaves in the cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fromnoise.core.compiler import remove_unlinked


def test_what_a_killed_process_left_unlinked_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for name, content, age in (("unlinked", b"", 100), ("being-linked", b"", 5), ("whole", b"code", 100)):
        library = tmp_path / name[:2] / f"{name}.so"
        library.parent.mkdir(exist_ok=True)
        library.write_bytes(content)
        os.utime(library, (time.time() - age, time.time() - age))
    remove_unlinked()
    assert sorted(path.name for path in tmp_path.rglob("*.so")) == ["being-linked.so", "whole.so"]
