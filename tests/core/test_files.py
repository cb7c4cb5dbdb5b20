"""Files: whole or not at all, and tensors that know when they were altered."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.core.files import (
    KINDS,
    content_hash,
    elsewhere,
    load_metadata,
    load_tensors,
    read_lines,
    read_object,
    read_tensors,
    save_tensors,
    write_bytes,
    write_text,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@settings(max_examples=30)
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3))
def test_tensors_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, shape: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.safetensors"
    tensors = {"one": (torch.rand(shape) * 9).to(dtype), "turned": torch.rand(3, 2).T}
    save_tensors(path, tensors, {"note": "é"})
    loaded, metadata = load_tensors(path)
    assert metadata == {"note": "é", "sha256": content_hash(path)}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_the_hash_is_of_names_types_shapes_values_and_metadata(tmp_path: Path) -> None:
    def hash_of(tensors: dict[str, torch.Tensor], **metadata: str) -> str:
        save_tensors(tmp_path / "x", tensors, metadata)
        return content_hash(tmp_path / "x")

    ones = torch.ones(4)
    hashes = [
        hash_of({"a": ones}),
        hash_of({"b": ones}),
        hash_of({"a": ones.view(2, 2)}),
        hash_of({"a": ones.view(torch.int32)}),
        hash_of({"a": 2 * ones}),
        hash_of({"a": ones}, note="x"),
    ]
    assert len(set(hashes)) == len(hashes)
    assert hash_of({"a": ones, "b": 2 * ones}) == hash_of({"b": 2 * ones, "a": ones})


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    metadata = {f"key {i}": str(i) for i in range(20)}
    for name in ("one", "two"):
        save_tensors(tmp_path / name, {"b": torch.ones(3), "a": torch.ones(2, dtype=torch.bfloat16)}, metadata)
        metadata = dict(reversed(metadata.items()))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_library_writes_the_same(tmp_path: Path) -> None:
    from safetensors.torch import save

    shapes = {"none": (0, 3), "number": (), "row": (3,), "square": (2, 5), "é": (1,)}
    tensors = {
        f"{name} {kind}": torch.arange(10)[: torch.Size(shape).numel()].view(shape).to(getattr(torch, kind[6:]))
        for name, shape in shapes.items()
        for kind in KINDS
    }
    save_tensors(tmp_path / "a", tensors, {"note": "ü"})
    ours, theirs = (tmp_path / "a").read_bytes(), save(tensors, load_metadata(tmp_path / "a"))
    (told, data), (header, body) = (_parted(one) for one in (ours, theirs))
    assert told == header and data == body and (len(ours) - len(data)) % 8 == 0


def _parted(file: bytes) -> tuple[Any, bytes]:
    """Header and tensors of a safetensors file."""
    start = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:start]), file[start:]


def test_every_altered_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.arange(3.0), "b": torch.arange(2)}, {"note": "text"})
    data = path.read_bytes()
    for i in range(len(data)):
        if data[i : i + 1] == b" ":
            continue  # padding of the header, which says nothing
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(ValueError, match=r"a\.safetensors") as caught:
            load_tensors(path)
        assert "\n" not in str(caught.value)


def test_a_cut_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.arange(30.0)}, {})
    data = path.read_bytes()
    for size in (0, 4, 40, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match="cut short or not a safetensors file"):
            load_tensors(path)


def test_what_is_not_ours_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="no file at"):
        load_tensors(tmp_path / "none")
    with pytest.raises(ValueError, match="no file at"):
        load_metadata(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not written by fromnoise"):
        load_tensors(tmp_path / "foreign")
    assert torch.equal(read_tensors(tmp_path / "foreign")["a"], torch.ones(1))
    for name in ("none", "text"):
        (tmp_path / "text").write_text("no tensors\n")
        with pytest.raises(ValueError, match=f"cannot read {tmp_path / name}: ") as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=f"cannot write .*file: {os.strerror(code)}") as caught:
        write_bytes(path, b"new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_real_limit_on_size_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    script = """
import resource, sys
from fromnoise.core.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(sys.argv[1], bytes(5000))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {path}: File too large (5,000 bytes to write, ")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_no_reader_ever_sees_half_a_file(tmp_path: Path) -> None:
    """A process that writes over and over is killed; whatever is there afterwards is whole."""
    path = tmp_path / "file"
    script = """
import itertools, sys
from fromnoise.core.files import write_bytes
for i in itertools.count():
    write_bytes(sys.argv[1], bytes([i % 256]) * 100_000)
    print(flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(100):
            data = path.read_bytes()
            assert len(data) == 100_000
            assert len(set(data)) == 1
        writer.kill()
        writer.wait()
    data = path.read_bytes()
    assert len(data) == 100_000
    assert len(set(data)) == 1


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write .*none/file: No such file or directory"):
        write_text(tmp_path / "none" / "file", "x")


@pytest.mark.parametrize("end", ["", "\n", '\n{"step"', '\n{"step": 3, "loss": 0.'])
def test_lines_of_a_run_in_training_are_read_but_for_half_a_line(tmp_path: Path, end: str) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    path.write_text('{"step": 1}\n{"step": 2}' + end)
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged: line 2: "):
        read_lines(path)


def test_a_frozen_model_is_found_where_its_run_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its path as seen from where the training began, a directory above the run; or in the run itself, moved."""
    project, run = tmp_path / "project", tmp_path / "project/runs/a"
    for folder in (project / "vaes/one", run):
        folder.mkdir(parents=True)
    write_text(project / "vaes/one/config.json", "{}")
    path = Path("vaes/one")
    assert elsewhere(path, run) == project / path
    monkeypatch.chdir(project)
    assert elsewhere(path, Path("runs/a")) is None  # it is where it was
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "elsewhere"
    run.rename(moved)
    assert elsewhere(path, moved) is None
    (project / path).rename(moved / "one")
    assert elsewhere(path, moved) == moved / "one"


@pytest.mark.parametrize("told", [b"5", b"null", b"[]", b'"\xc3\xa9"', b"\xff"])
def test_what_is_no_object_is_told(tmp_path: Path, told: bytes) -> None:
    lines, file = tmp_path / "lines.jsonl", tmp_path / "object.json"
    lines.write_bytes(b'{"step": 1}\n' + told + b"\n")
    file.write_bytes(told)
    with pytest.raises(ValueError, match=r"lines.jsonl is damaged: line 2: .*\S") as first:
        read_lines(lines)
    with pytest.raises(ValueError, match=r"object.json is damaged: .*\S") as second:
        read_object(file)
    assert "\n" not in str(first.value) + str(second.value)
