"""Files that are never half written: bytes, text, and tensors that know when they were altered.

Torch is imported only where tensors are handled, so that reading a record of settings stays quick.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

KINDS = {
    "torch.int64": "I64", "torch.float64": "F64", "torch.float32": "F32", "torch.int32": "I32",
    "torch.bfloat16": "BF16", "torch.float16": "F16", "torch.int16": "I16",
    "torch.int8": "I8", "torch.uint8": "U8", "torch.bool": "BOOL",
}  # fmt: skip
"""Types of numbers as safetensors calls them, in the order in which it stores them."""


def write_bytes(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """Write `parts`, one after the other, to `path`, whole or not at all: a new file beside it is synced to disk, then
    takes its name.

    Raises:
        ValueError: one line, when the disk is full or the place cannot be written; an older file stays as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(partial, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:  # an interrupt must not leave half a file behind either
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {_reason(error, path.parent, sum(map(len, parts)))}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all; errors as in `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The JSON objects in a file of one a line; none where there is no file. A last line that is half written, as of a
    run in training, is left out.

    Raises:
        ValueError: one line, when what stands there is no JSON, or no object.
    """
    path = Path(path)
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            found.append(_object(line))
        except ValueError as error:
            if line.endswith(b"\n"):
                raise ValueError(f"{path} is damaged: line {number}: {error}") from None
    return found


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: one line, when what stands there is no JSON, or no object.
    """
    try:
        return _object(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def sync_directory(directory: Path) -> None:
    """Make names just created or replaced in `directory` survive a power cut. Windows opens no directory, and keeps
    names in a journal."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def names_path(word: str) -> bool:
    """Whether a word is written like a path: with a separator of this system in it."""
    return any(separator in word for separator in (os.sep, os.altsep) if separator)


def elsewhere(folder: Path, run: Path) -> Path | None:
    """Where else the frozen model of `folder` is that the run in the directory `run` was trained with, where nothing is
    at `folder`, seen from here: in the run itself, under the same name, or at `folder` seen from a directory above it,
    as where the training began. So a run that holds copies of what it needs may be moved, and one that was trained
    below a project's directory is used from anywhere. None where there is no need, or nothing."""
    if folder.exists():
        return None
    places = [run.resolve() / folder.name, *(above / folder for above in run.resolve().parents)]
    return next((place for place in places if (place / "config.json").is_file()), None)


def save_tensors(path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all, whose metadata holds "sha256" over everything in it.

    The same tensors and metadata give the same bytes. safetensors' own `save` writes metadata in another order each
    time, and holds all tensors twice more meanwhile.

    Raises:
        ValueError: as `write_bytes`.
    """
    assert "sha256" not in metadata, "sha256 is computed here"
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {**metadata, "sha256": _digest(stored, metadata)}}
    parts, at, order = [], 0, list(KINDS)
    for name, tensor in sorted(stored.items(), key=lambda one: (order.index(str(one[1].dtype)), one[0])):
        place = [at, at := at + tensor.nbytes]
        header[name] = {"dtype": KINDS[str(tensor.dtype)], "shape": list(tensor.shape), "data_offsets": place}
        parts.append(_bytes_of(tensor))
    told = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)  # tensors start at a multiple of 8 bytes
    write_bytes(path, len(told).to_bytes(8, "little"), told, *parts)


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors (on the CPU) and the metadata of a file that `save_tensors` wrote.

    Raises:
        ValueError: one line, when the file is missing, cut short, not safetensors, or not what was written.
    """
    metadata = load_metadata(path)
    tensors = read_tensors(path)
    others = {key: value for key, value in metadata.items() if key != "sha256"}
    if _digest(tensors, others) != metadata["sha256"]:
        raise ValueError(f"{path} was altered after it was written: its sha256 differs from the one recorded in it")
    return tensors, metadata


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors (on the CPU) of any safetensors file.

    Raises:
        ValueError: one line, when the file is missing, cut short, or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def tensor_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the tensors of a safetensors file that is known to be whole."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return list(file.keys())


def read_tensor(path: str | os.PathLike[str], name: str) -> Tensor:
    """The tensor called `name` (on the CPU) of a safetensors file that is known to be whole."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of a file that `save_tensors` wrote, without reading (or checking) its tensors; errors alike."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ValueError(f"no file at {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is cut short or not a safetensors file: {' '.join(str(error).split())}") from None
    if "sha256" not in metadata:
        raise ValueError(f"{path} was not written by fromnoise: its metadata holds no sha256")
    return metadata


def file_hash(path: str | os.PathLike[str]) -> str:
    """sha256 (hex) of a whole file, as `sha256sum` has it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: str | os.PathLike[str]) -> str:
    """The sha256 recorded in a file that `save_tensors` wrote; errors as in `load_metadata`."""
    return load_metadata(path)["sha256"]


def _object(text: bytes) -> dict[str, Any]:
    """The object that `text` is in JSON; ValueError in one line where it is none."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{textwrap.shorten(text.decode(), 40)} is no JSON object")
    return found


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """sha256 (hex) over the metadata and, in order of name, each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not copied."""
    import torch

    if not tensor.numel():  # torch cannot look at the bytes of nothing
        return memoryview(b"")
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _reason(error: OSError, directory: Path, size: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(directory).free
        return f"{error.strerror} ({size:,} bytes to write, {free:,} free); what was there before is kept"
    return error.strerror or str(error)
