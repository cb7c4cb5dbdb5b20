"""A shard of a prepared data set: samples packed into one safetensors file, and read where they lie.

Legend: N samples, U texts that differ, T tokens of all texts, W width of a token, C, h, w shape of a latent.
Half-precision numbers are kept as their bits, int16, because numpy has no bfloat16.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.files import load_metadata, load_tensors, save_tensors
from fromnoise.data.manifest import FORMAT, Layout, Manifest, ShardEntry, Statistics, StoredCounts
from fromnoise.data.split import chance

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
TOGETHER = 16  # latents whose statistics are taken at once: in float64 they are four times as large
DTYPES = {"F16": np.int16, "BF16": np.int16, "F64": np.float64, "I64": np.int64, "U8": np.uint8}


class Latent(NamedTuple):
    """What an encoder says of a picture."""

    mean: Tensor  # (C, h, w)
    std: Tensor | None = None  # (C, h, w); None for pixels


class Text(NamedTuple):
    """What the text encoders say of a caption, one entry for each encoder."""

    tokens: tuple[Tensor, ...] = ()  # (L, W) each, the real ones only
    vectors: tuple[Tensor, ...] = ()  # (W,) each, pooled


class Sample(NamedTuple):
    """A picture and what is said of it, encoded."""

    key: str  # no other sample has it; it decides whether the sample is trained on
    latent: Latent
    captions: Sequence[str]  # one or more; "" where there is none
    label: int = 0
    flipped: Latent | None = None  # of the mirror image, where no caption names a side
    picture: bytes = b""  # sha256 of the file, by which duplicates are told
    animated: bool = False  # it is the first of several frames


class Fault(NamedTuple):
    """An entry of the source that could not be read."""

    key: str
    reason: str


class Ragged(NamedTuple):
    """Rows of different lengths, one after the other."""

    values: np.ndarray  # (total, ...)
    offsets: np.ndarray  # (rows + 1,) int64

    def row(self, at: int) -> np.ndarray:
        """Row `at`, not copied."""
        return self.values[self.offsets[at] : self.offsets[at + 1]]


def pack(rows: Sequence[np.ndarray], empty: np.ndarray) -> Ragged:
    """Put rows together, (length, ...) each; `empty` is a row of no length, for where there are no rows."""
    return Ragged(np.concatenate([empty, *rows]), np.cumsum([0, *map(len, rows)]))


def pack_texts(texts: Iterable[str]) -> Ragged:
    """Put texts together as UTF-8 bytes."""
    return pack([np.frombuffer(text.encode(), np.uint8) for text in texts], np.empty(0, np.uint8))


def bits_of(x: Tensor, dtype: str, whose: str) -> np.ndarray:
    """The bits, int16, of numbers in a half-precision dtype.

    Raises:
        ValueError: one line that says `whose`, when some of them are not finite there.
    """
    half = x.detach().to("cpu", HALVES[dtype])
    if not half.isfinite().all():
        most = torch.finfo(HALVES[dtype]).max
        raise ValueError(f"{whose} has numbers that are not finite in {dtype}, which goes up to {most:.5g}")
    return half.contiguous().view(torch.int16).numpy()


def numbers_of(bits: np.ndarray, dtype: str) -> Tensor:
    """The numbers, float32, whose bits in a half-precision dtype are `bits`."""
    return torch.from_numpy(bits.copy()).view(HALVES[dtype]).float()


def pack_shard(layout: Layout, samples: Sequence[Sample], texts: Mapping[str, Text]) -> dict[str, np.ndarray]:
    """The arrays of a shard by name; equal captions are one text, in the order in which they first come.

    Raises:
        ValueError: one line that names the sample or the caption, whose numbers are not finite in the layout's dtypes.
    """
    place = {text: at for at, text in enumerate(dict.fromkeys(text for one in samples for text in one.captions))}
    none = np.empty(0, np.int64)
    ragged = {
        "key": pack_texts(one.key for one in samples),
        "captions": pack([np.array([place[text] for text in one.captions], np.int64) for one in samples], none),
        "text": pack_texts(place),
    }
    arrays = {
        "chance": np.array([chance(one.key) for one in samples], np.float64),
        "label": np.array([one.label for one in samples], np.int64),
        "size": np.array([layout.sizes.index(_size(one.latent)) for one in samples], np.int64),
        "picture": np.array([[*(one.picture or bytes(32))] for one in samples], np.uint8).reshape(-1, 32),
    }
    ragged |= _latents(layout, [one.latent for one in samples], samples, "")
    if layout.flipped:
        ragged |= _latents(layout, [one.flipped for one in samples], samples, "flipped_")
    for i, width in enumerate(layout.texts):
        read = [texts[text] for text in place]
        whose = [f"caption {text[:40]!r}" for text in place]
        tokens = [bits_of(one.tokens[i], layout.text_dtype, who) for one, who in zip(read, whose, strict=True)]
        vectors = [bits_of(one.vectors[i][None], layout.text_dtype, who) for one, who in zip(read, whose, strict=True)]
        ragged[f"tokens_{i}"] = pack(tokens, np.empty((0, width), np.int16))
        arrays[f"vector_{i}"] = np.concatenate([np.empty((0, width), np.int16), *vectors])
    arrays |= {f"{name}.values": one.values for name, one in ragged.items()}
    return arrays | {f"{name}.offsets": one.offsets for name, one in ragged.items()}


def _size(latent: Latent) -> tuple[int, int]:
    height, width = latent.mean.shape[1:]
    return height, width


def _latents(
    layout: Layout, latents: Sequence[Latent | None], samples: Sequence[Sample], prefix: str
) -> dict[str, Ragged]:
    """The numbers of latents, one after the other; none of what is None."""
    rows: dict[str, list[np.ndarray]] = {part: [] for part in layout.parts}
    for latent, one in zip(latents, samples, strict=True):
        for part in layout.parts:
            numbers = torch.empty(0) if latent is None else getattr(latent, part)
            assert latent is None or numbers.shape == (layout.latent, *_size(latent)), "a latent of the layout"
            rows[part].append(bits_of(numbers, layout.dtype, f"sample {one.key!r}").reshape(-1))
    return {f"{prefix}{part}": pack(rows[part], np.empty(0, np.int16)) for part in layout.parts}


def write_shard(
    path: Path, layout: Layout, samples: Sequence[Sample], texts: Mapping[str, Text], faults: Sequence[Fault], cut: int
) -> None:
    """Write a shard, whole or not at all; its bytes depend on the arguments alone.

    Raises:
        ValueError: as `shard_of` and `save_tensors`.
    """
    save_tensors(path, *shard_of(layout, samples, texts, faults, cut))


def shard_of(
    layout: Layout, samples: Sequence[Sample], texts: Mapping[str, Text], faults: Sequence[Fault], cut: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a shard, and what is told of it: nothing in them is shared with what is given.

    texts: of every caption, where the layout has features. faults: entries of the source that belong here and could
    not be read. cut: texts longer than an encoder reads.

    Raises:
        ValueError: as `pack_shard`.
    """
    arrays = pack_shard(layout, samples, texts)
    said = [caption for one in samples for caption in one.captions]
    counts = StoredCounts(
        samples=len(samples),
        captions=sum(map(bool, said)),
        uncaptioned=sum(not any(one.captions) for one in samples),
        texts=len(arrays["text.offsets"]) - 1,
        tokens=sum(len(arrays[f"tokens_{i}.values"]) for i in range(len(layout.texts))),
        cut=cut,
        faults=len(faults),
        animated=sum(one.animated for one in samples),
    )
    half = {f"{part}.values" for part in ("mean", "std", "flipped_mean", "flipped_std")}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name, tensor in tensors.items():
        if name in half:
            tensors[name] = tensor.view(HALVES[layout.dtype])
        elif name.startswith(("tokens_", "vector_")) and tensor.dtype == torch.int16:
            tensors[name] = tensor.view(HALVES[layout.text_dtype])
    told = {"format": FORMAT, "counts": counts.model_dump_json(), "faults": json.dumps(faults, ensure_ascii=False)}
    told["statistics"] = _statistics(layout, samples).model_dump_json()
    told["layout"] = digest(layout)
    return tensors, told


def digest(layout: Layout) -> str:
    """sha256 (hex) of a layout: shards of two layouts are told apart by it."""
    return hashlib.sha256(layout.model_dump_json().encode()).hexdigest()


def _statistics(layout: Layout, samples: Sequence[Sample]) -> Statistics:
    """Of the latents of a shard, as they are stored."""
    total = Statistics.none(layout.latent)
    for size in layout.sizes:
        latents = [one.latent for one in samples if _size(one.latent) == size]
        for first in range(0, len(latents), TOGETHER):
            mean, std = (
                torch.stack([zeros if x is None else x for x in numbers])  # (N, C, h, w)
                .to(HALVES[layout.dtype])
                .double()
                .transpose(0, 1)
                .flatten(1)  # (C, N h w)
                .numpy()
                for zeros in [torch.zeros(layout.latent, *size)]
                for numbers in zip(*latents[first : first + TOGETHER], strict=True)
            )
            total = total.merged(Statistics.of(mean, std))
    return total


def finish(
    directory: Path, layout: Layout, shards: Sequence[str], source: str, class_names: tuple[str, ...] = ()
) -> Manifest:
    """Write the manifest of the `shards` in `directory`, file names in order, and return it.

    Raises:
        ValueError: one line, when a shard is missing, damaged or of another layout, or the disk is full.
    """
    counts, statistics, entries = StoredCounts(), Statistics.none(layout.latent), []
    pictures = []  # 32 bytes a sample are held until the duplicates are counted
    for name in shards:
        told = load_metadata(directory / name)
        if told.get("layout") != digest(layout):
            raise ValueError(f"shard {directory / name} was prepared with other settings; remove it to go on")
        entry = ShardEntry(
            name=name,
            bytes=(directory / name).stat().st_size,
            sha256=told["sha256"],
            counts=StoredCounts.model_validate_json(told["counts"]),
        )
        entries.append(entry)
        counts = counts.plus(entry.counts)
        statistics = statistics.merged(Statistics.model_validate_json(told["statistics"]))
        hashes = _mapped(directory / name)[1]["picture"]
        pictures.append(hashes[hashes.any(1)])  # (., 32) of those whose file is known
    every = np.concatenate([np.empty((0, 32), np.uint8), *pictures])  # (., 32)
    manifest = Manifest(
        source=source,
        class_names=class_names,
        layout=layout,
        counts=counts,
        duplicates=len(every) - len(np.unique(every, axis=0)),
        statistics=statistics,
        shards=tuple(entries),
    )
    manifest.write(directory)
    return manifest


def faults_of(path: Path) -> list[Fault]:
    """Entries of the source that could not be read and would have been in this shard."""
    return [Fault(*one) for one in json.loads(load_metadata(path)["faults"])]


class Shard:
    """A shard mapped into memory: the system reads what is looked at, and takes the memory back when it needs it.

    chance: (N,) of each sample's key, which decides whether it is trained on. size: (N,) place of its latent's size in
    `Layout.sizes`. label: (N,).

    Raises:
        ValueError: one line that names the file: it is missing, or is not what the manifest tells of it.
    """

    def __init__(self, directory: Path, layout: Layout, entry: ShardEntry):
        path, self.layout = directory / entry.name, layout
        if not path.is_file():
            raise ValueError(f"shard {path} is missing")
        if path.stat().st_size != entry.bytes:
            raise ValueError(f"shard {path} has {path.stat().st_size:,} bytes; the manifest says {entry.bytes:,}")
        told = load_metadata(path)
        if told["sha256"] != entry.sha256:
            raise ValueError(f"shard {path} is another one than the manifest tells of: its sha256 differs")
        if told.get("layout") != digest(layout):
            raise ValueError(f"shard {path} was prepared with another layout than the manifest tells of")
        self.mapping, self.arrays = _mapped(path)
        self.chance, self.size, self.label = (self.arrays[name] for name in ("chance", "size", "label"))
        self.keys, self.said, self.texts = map(self._ragged, ("key", "captions", "text"))
        self.tokens = [self._ragged(f"tokens_{i}") for i in range(len(layout.texts))]
        self.latents = {part: self._ragged(part) for part in layout.parts}
        self.flipped = {part: self._ragged(f"flipped_{part}") for part in layout.parts} if layout.flipped else {}

    def _ragged(self, name: str) -> Ragged:
        return Ragged(self.arrays[f"{name}.values"], self.arrays[f"{name}.offsets"])

    def key(self, at: int) -> str:
        """The key of sample `at`."""
        return self.keys.row(at).tobytes().decode()

    def text(self, at: int) -> str:
        """Text `at` of those that differ."""
        return self.texts.row(at).tobytes().decode()

    def release(self) -> None:
        """Give back the memory of what was looked at: it stays in the system's cache, and is mapped again when asked
        for. Where the system cannot be told, it takes the memory back by itself, later."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)

    def read(self, text: int) -> Text:
        """What the encoders say of text `text`: float32."""
        dtype = self.layout.text_dtype
        tokens = tuple(numbers_of(one.row(text), dtype) for one in self.tokens)  # (L, W) each
        vectors = (numbers_of(self.arrays[f"vector_{i}"][text], dtype) for i in range(len(self.tokens)))  # (W,) each
        return Text(tokens, tuple(vectors))

    def stored(self, at: int, flipped: bool) -> Tensor:
        """The latent of sample `at`, or of its mirror image where that is there: mean and, where the layout has it,
        standard deviation, (2 C, h, w) or (C, h, w) float32."""
        source = self.flipped if flipped and len(self.flipped["mean"].row(at)) else self.latents
        shape = (self.layout.latent, *self.layout.sizes[self.size[at]])
        return torch.cat([numbers_of(one.row(at), self.layout.dtype).view(shape) for one in source.values()])


def verify_shard(directory: Path, layout: Layout, entry: ShardEntry) -> None:
    """Read all of a shard and find that it is what was written; ValueError, as `Shard` and `load_tensors`."""
    Shard(directory, layout, entry)
    load_tensors(directory / entry.name)


def _mapped(path: Path) -> tuple[mmap.mmap, dict[str, np.ndarray]]:
    """A sound safetensors file mapped into memory, and its tensors where they lie in it; read-only."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[8:start])
    arrays = {}
    for name, told in header.items():
        if name != "__metadata__":
            arrays[name] = np.ndarray(told["shape"], DTYPES[told["dtype"]], mapped, start + told["data_offsets"][0])
    return mapped, arrays
