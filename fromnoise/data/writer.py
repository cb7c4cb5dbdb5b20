"""Writing a prepared data set. Legend: C, h, w shape of a latent, L tokens of a caption, E width of a token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from fromnoise.data.manifest import MANIFEST, Layout, Manifest, read_manifest, refuse_another
from fromnoise.data.shards import HALVES, Row, Shard, write_shard

OURS = re.compile(r"\d{6,}-\d{5}\.safetensors|\..*\.tmp")  # shards, and what a killed process left of them


class Latent(NamedTuple):
    """What an encoder says of a picture."""

    mean: Tensor  # (C, h, w)
    std: Tensor | None = None  # (C, h, w); None for pixels


class Sample(NamedTuple):
    """A picture and what is said of it, encoded."""

    key: str  # no other sample has it; it decides whether the sample is trained on
    latent: Latent
    captions: Sequence[str]  # one or more; "" where there is none
    tokens: Sequence[Tensor] = ()  # (L, E) of each caption, the real ones only; none where the layout has no features
    flipped: Latent | None = None  # of the mirror image


class Writer:
    """Writes samples into `directory`, or goes on there.

        with Writer(directory, layout) as writer:
            for key in keys:
                if key not in writer.done:
                    writer.add(Sample(key, ...))

    A shard takes its name when it is whole and on disk, and only then the manifest tells of it. So a killed process
    loses the samples of the shard in progress, and no others; the same samples in the same order then give the same
    files, byte for byte, as if it had never been killed. Leaving the block writes the last shard, filled or not; an
    exception leaves it out. A last shard that is not full is filled up by the next writer.

    done: keys of the samples that are there.
    """

    def __init__(self, directory: Path, layout: Layout):
        """Make `directory`, or find that what is there was prepared alike; nobody else writes there meanwhile.

        Raises:
            ValueError: one line: it was prepared with something else (the first difference is named), it holds other
                files, a shard is damaged, another process writes there, it cannot be made.
        """
        self.directory, self.layout = directory, layout
        self.lock = FileLock(directory / ".lock")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another process writes in {directory}; stop it, or choose another directory") from None
        except OSError as error:
            raise ValueError(f"cannot make {directory}: {error.strerror}") from None
        try:
            self._open()
        except BaseException:
            self.lock.release()
            raise

    def _open(self) -> None:
        """Read what is there, or claim an empty directory."""
        if (self.directory / MANIFEST).exists():
            self.manifest = read_manifest(self.directory)
            refuse_another(self.directory, self.manifest.layout, self.layout)
        else:
            files = (path.name for path in self.directory.iterdir())
            if other := next((name for name in files if name != ".lock" and not OURS.fullmatch(name)), None):
                raise ValueError(
                    f"{self.directory} holds files ({other}) but no {MANIFEST}; choose a new or an empty directory"
                )
            self.manifest = Manifest.empty(self.layout)
            self.manifest.write(self.directory)
        self._sweep()
        shards = [Shard(self.directory, self.layout, entry) for entry in self.manifest.shards]
        self.done = {shard.key(at) for shard in shards for at in range(len(shard.chance))}
        self.rows: list[Row] = []  # of the shard in progress
        if shards and len(shards[-1].chance) < self.layout.shard:
            self.rows = [shards[-1].row(at) for at in range(len(shards[-1].chance))]
            self.manifest = self.manifest.without_last()
        self.written = len(self.rows)  # of them, on disk already

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and len(self.rows) > self.written:
                self._flush()
        finally:
            self.lock.release()

    def add(self, sample: Sample) -> None:
        """Write a sample; it is on disk when its shard is full.

        Raises:
            ValueError: one line that names the sample: its key is there already, it does not fit the layout, or it has
                numbers that are not finite in the layout's dtypes. Or as `write_bytes`.
        """
        row = self._row(sample)
        self.done.add(sample.key)
        self.rows.append(row)
        if len(self.rows) == self.layout.shard:
            self._flush()

    def _flush(self) -> None:
        self.manifest = write_shard(self.directory, self.manifest, self.rows)
        self.manifest.write(self.directory)
        self.rows, self.written = [], 0
        self._sweep()

    def _sweep(self) -> None:
        """Remove what the manifest does not tell of: a part-filled shard since filled up, and what a killed process
        left behind."""
        known = {entry.name for entry in self.manifest.shards}
        for path in self.directory.iterdir():
            if path.name not in known and OURS.fullmatch(path.name):
                path.unlink()

    def _row(self, sample: Sample) -> Row:
        """The sample in the layout's dtypes, if it fits the layout."""
        layout, key = self.layout, sample.key
        if key in self.done:
            raise ValueError(f"sample {key!r} is there already; a key is given once")
        if not sample.captions:
            raise ValueError(f"sample {key!r} has no caption; allowed: one or more, '' where there is none")
        given = {"mean": sample.latent.mean, "std": sample.latent.std}
        if sample.flipped:
            given |= {"flipped_mean": sample.flipped.mean, "flipped_std": sample.flipped.std}
        given = {name: tensor for name, tensor in given.items() if tensor is not None}
        if list(given) != layout.parts:
            raise ValueError(f"sample {key!r} has {', '.join(given)}; allowed: {', '.join(layout.parts)}")
        count = len(sample.captions) if layout.text_width else 0
        if len(sample.tokens) != count:
            raise ValueError(f"sample {key!r} has tokens of {len(sample.tokens)} captions; allowed: of {count}")
        parts = tuple(self._bits(key, name, tensor, layout.shape, layout.dtype) for name, tensor in given.items())
        shapes = [(max(1, len(one)), layout.text_width) for one in sample.tokens]
        tokens = tuple(
            self._bits(key, "tokens", one, shape, layout.text_dtype)
            for one, shape in zip(sample.tokens, shapes, strict=True)
        )
        return Row(key, parts, tuple(sample.captions), tokens)

    def _bits(self, key: str, name: str, x: Tensor, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        if x.shape != shape:
            raise ValueError(f"sample {key!r} has {name} of shape {tuple(x.shape)}; allowed: {shape}")
        half = x.detach().to("cpu", HALVES[dtype])
        if not half.isfinite().all():
            most = torch.finfo(HALVES[dtype]).max
            raise ValueError(f"sample {key!r} has {name} that are not finite in {dtype}, which goes up to {most:.5g}")
        return half.contiguous().view(torch.int16).numpy().copy()  # the caller may change what he gave
