"""A shard of a prepared data set: samples packed into one safetensors file, and read where they lie.

Legend: N samples, U texts that differ, T tokens of all texts, E width of a token, C, h, w shape of a latent.
Half-precision numbers are kept as their bits, int16, because numpy has no bfloat16.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.files import content_hash, load_metadata, load_tensors, save_tensors
from fromnoise.data.manifest import Layout, Manifest, ShardEntry, Statistics
from fromnoise.data.split import chance

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
DTYPES = {"F16": np.int16, "BF16": np.int16, "F64": np.float64, "I64": np.int64, "U8": np.uint8}


class Row(NamedTuple):
    """A sample as it lies in a shard."""

    key: str
    parts: tuple[np.ndarray, ...]  # (C, h, w) int16 each, in the order of `Layout.parts`
    captions: tuple[str, ...]
    tokens: tuple[np.ndarray, ...]  # (., E) int16, one for each caption; none where the layout has no features


class Ragged(NamedTuple):
    """Rows of different lengths, one after the other."""

    values: np.ndarray  # (total, ...)
    offsets: np.ndarray  # (rows + 1,) int64

    def row(self, at: int) -> np.ndarray:
        """Row `at`, not copied."""
        return self.values[self.offsets[at] : self.offsets[at + 1]]


def pack(rows: Sequence[np.ndarray]) -> Ragged:
    """Put rows together: one or more, (length, ...) each."""
    return Ragged(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))


def pack_texts(texts: Iterable[str]) -> Ragged:
    """Put texts together as UTF-8 bytes."""
    return pack([np.array(bytearray(text.encode()), np.uint8) for text in texts])


def numbers_of(bits: np.ndarray, dtype: str) -> Tensor:
    """The numbers, float32, whose bits in a half-precision dtype are `bits`, an array of its own."""
    return torch.from_numpy(bits).view(HALVES[dtype]).float()


def pack_shard(layout: Layout, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The arrays of a shard by name; equal captions are one text, with the tokens that came with it first."""
    tokens: dict[str, np.ndarray] = {}
    for row in rows:
        features = row.tokens if layout.text_width else [np.empty((0, 0), np.int16)] * len(row.captions)
        for caption, feature in zip(row.captions, features, strict=True):
            tokens.setdefault(caption, feature)
    place = {text: at for at, text in enumerate(tokens)}
    ragged = {
        "key": pack_texts(row.key for row in rows),
        "captions": pack([np.array([place[caption] for caption in row.captions]) for row in rows]),
        "text": pack_texts(tokens),
    }
    if layout.text_width:
        ragged["tokens"] = pack(list(tokens.values()))
    arrays = {"chance": np.array([chance(row.key) for row in rows])}
    arrays |= {part: np.stack([row.parts[i] for row in rows]) for i, part in enumerate(layout.parts)}
    arrays |= {f"{name}.values": one.values for name, one in ragged.items()}
    return arrays | {f"{name}.offsets": one.offsets for name, one in ragged.items()}


def write_shard(directory: Path, manifest: Manifest, rows: Sequence[Row]) -> Manifest:
    """Write `rows` as the next shard; the manifest with it, not yet written. Errors as in `save_tensors`."""
    layout = manifest.layout
    arrays = pack_shard(layout, rows)
    # With the number of samples in its name, a shard that is filled up never takes the place of the one told of.
    path = directory / f"{len(manifest.shards):06}-{len(rows):05}.safetensors"
    halves = dict.fromkeys(layout.parts, layout.dtype) | {"tokens.values": layout.text_dtype}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors |= {name: tensors[name].view(HALVES[dtype]) for name, dtype in halves.items() if name in tensors}
    save_tensors(path, tensors, {"format": manifest.format})
    entry = ShardEntry(
        name=path.name,
        samples=len(rows),
        captions=len(arrays["captions.values"]),
        texts=len(arrays["text.offsets"]) - 1,
        tokens=len(arrays["tokens.values"]) if layout.text_width else 0,
        bytes=path.stat().st_size,
        sha256=content_hash(path),
    )
    mean = tensors["mean"].double().numpy()
    std = tensors["std"].double().numpy() if layout.std else np.zeros_like(mean)
    return manifest.with_shard(entry, Statistics.of(mean, std))


class Shard:
    """A shard mapped into memory: the system reads what is looked at, and takes the memory back when it needs it.

    chance: (N,) of each sample's key, which decides whether it is trained on.

    Raises:
        ValueError: one line that names the file: it is missing, or is not what the manifest tells of it.
    """

    def __init__(self, directory: Path, layout: Layout, entry: ShardEntry):
        path, self.layout = directory / entry.name, layout
        if not path.is_file():
            raise ValueError(f"shard {path} is missing")
        if path.stat().st_size != entry.bytes:
            raise ValueError(f"shard {path} has {path.stat().st_size:,} bytes; the manifest says {entry.bytes:,}")
        if load_metadata(path)["sha256"] != entry.sha256:
            raise ValueError(f"shard {path} is another one than the manifest tells of: its sha256 differs")
        self.arrays = _mapped(path)
        self.chance = self.arrays["chance"]
        self.keys, self.said, self.texts = map(self._ragged, ("key", "captions", "text"))
        self.tokens = self._ragged("tokens") if layout.text_width else None
        self._compare(path, entry)

    def _ragged(self, name: str) -> Ragged:
        return Ragged(self.arrays[f"{name}.values"], self.arrays[f"{name}.offsets"])

    def _compare(self, path: Path, entry: ShardEntry) -> None:
        """Find that the arrays are as many and as large as the manifest says."""
        counts = {"chance": entry.samples, "captions.values": entry.captions, "text.offsets": entry.texts + 1}
        shapes: dict[str, tuple[int, ...]] = {name: (count,) for name, count in counts.items()}
        shapes |= dict.fromkeys(self.layout.parts, (entry.samples, *self.layout.shape))
        if self.tokens:
            shapes["tokens.values"] = (entry.tokens, self.layout.text_width)
        for name, shape in shapes.items():
            found = self.arrays[name].shape if name in self.arrays else None
            if found != shape:
                raise ValueError(f"shard {path} has {name} of shape {found}; the manifest says {shape}")

    def key(self, at: int) -> str:
        """The key of sample `at`."""
        return self.keys.row(at).tobytes().decode()

    def text(self, at: int) -> str:
        """Text `at` of those that differ."""
        return self.texts.row(at).tobytes().decode()

    def row(self, at: int) -> Row:
        """All of sample `at`, copied."""
        said = self.said.row(at)
        tokens = tuple(self.tokens.row(text).copy() for text in said) if self.tokens else ()
        parts = tuple(self.arrays[part][at].copy() for part in self.layout.parts)
        return Row(self.key(at), parts, tuple(map(self.text, said)), tokens)


def verify_shard(directory: Path, layout: Layout, entry: ShardEntry) -> None:
    """Read all of a shard and find that it is what was written; ValueError, as `Shard` and `load_tensors`."""
    Shard(directory, layout, entry)
    load_tensors(directory / entry.name)


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a sound safetensors file, where they lie in it; read-only."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[8:start])
    arrays = {}
    for name, told in header.items():
        if name != "__metadata__":
            arrays[name] = np.ndarray(told["shape"], DTYPES[told["dtype"]], mapped, start + told["data_offsets"][0])
    return arrays
