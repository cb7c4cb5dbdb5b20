"""The entries of a portion to what is stored of them: decoded and resized, then encoded by frozen models.

The numbers of a picture depend, in their last bits, on those encoded together with it; so which ones these are depends
on the portion alone.

Legend: B batch, C channels, H and W rows and columns of a picture, Z channels, h and w rows and columns of a latent,
T texts, L tokens of the longest, L_t those of one, W width of a token.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fromnoise.conditioning.config import FrozenTextConfig
from fromnoise.conditioning.frozen import FrozenTextConditioner
from fromnoise.core.device import autocast, keep_freed_memory, pick, release_freed_memory
from fromnoise.core.files import save_tensors
from fromnoise.data.buckets import Buckets, Size
from fromnoise.data.folder import SIDED
from fromnoise.data.manifest import Layout
from fromnoise.data.pictures import fit
from fromnoise.data.shards import HALVES, Fault, Latent, Sample, Text, shard_of
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.decode import decode
from fromnoise.preparation.sources.source import Fault as Missing
from fromnoise.preparation.sources.source import Picture
from fromnoise.preparation.stages import Stages
from fromnoise.space.config import LatentConfig, PixelConfig
from fromnoise.space.latent import sha256_of

PIXELS = {"cpu": 3 * 2**16, "other": 2**19}  # encoded together, by one core or by a whole accelerator, at most
FEATURES = 2**23  # numbers of an encoder's first layer that a core makes of them, at most
TEXTS = 32  # captions encoded together


class Models:
    """The frozen models, and the layout of what they say.

    Raises:
        ValueError: one line, when one of them is not there or cannot be read, or the size does not fit the VAE.
    """

    def __init__(self, settings: Preparation, classes: int, device: str):
        self.device = pick(device)
        config = LatentConfig(path=settings.vae) if settings.vae else PixelConfig()
        self.space = config.build().to(self.device)
        self.text: FrozenTextConditioner | None = None
        if settings.text:
            self.text = FrozenTextConfig(encoders=settings.text).build([]).to(self.device)
        channels, factor = 3, self.space.factor
        if settings.size % factor:
            raise ValueError(f"size is {settings.size}; allowed: multiples of {factor}, the pixels of a latent cell")
        self.buckets = _buckets(settings)
        sizes = self.buckets.sizes if self.buckets else [Size(settings.size, settings.size)]
        if odd := [size for size in sizes if size.height % factor or size.width % factor]:
            raise ValueError(f"a bucket is {odd[0]}; allowed: sides that are multiples of {factor}: change multiple")
        latent, _, _ = self.space.latent_shape(channels, settings.size, settings.size)
        stored = self.space.encode(torch.zeros(1, channels, *sizes[0]))  # (1, 2 Z or Z, h, w)
        encoders = {"vae": sha256_of(settings.vae)} if settings.vae else {}
        self.layout = Layout(
            encoders=encoders | ({"text": self.text.state["encoders"]} if self.text else {}),
            channels=channels,
            size=settings.size,
            factor=factor,
            latent=latent,
            sizes=tuple((size.height // factor, size.width // factor) for size in sizes),
            dtype=settings.dtype,
            std=stored.shape[1] == 2 * latent,
            flipped=settings.flip,
            texts=tuple(encoder.width for encoder in self.text.encoders) if self.text else (),
            text_dtype=settings.dtype,
            classes=classes,
        )


def _buckets(settings: Preparation) -> Buckets | None:
    if not settings.buckets:
        return None
    return Buckets(settings.size, settings.multiple, settings.largest_aspect, settings.tiers, settings.upscale)


class Ready(NamedTuple):
    """A picture that is ready to be encoded, without its file."""

    key: str
    captions: tuple[str, ...]
    label: int
    digest: bytes  # sha256 of the file
    animated: bool  # it is the first of several frames
    pixels: np.ndarray  # (C, H, W) uint8


class Encoding:
    """A portion on its way: what is known of it, and what is still computed."""

    def __init__(self) -> None:
        self.pictures: list[Ready] = []  # without pixels, in order
        self.faults: list[Fault] = []
        self.batches: dict[Size, list[Ready]] = {}  # not full yet
        self.latents: list[Future[dict[str, tuple[Latent, Latent | None]]]] = []


class Encoded(NamedTuple):
    """What is stored of a portion."""

    samples: list[Sample]
    texts: dict[str, Text]
    faults: list[Fault]
    cut: int  # texts longer than an encoder reads


class Encoder:
    """Encodes portions by `threads` threads of one core each, so that no number depends on how many cores there are;
    models on an accelerator have one thread to themselves.

    At a time 4 pictures a thread are decoded, and 2 batches a thread wait to be encoded.
    """

    def __init__(self, models: Models, settings: Preparation, threads: int, stages: Stages):
        self.models, self.settings, self.threads, self.stages = models, settings, threads, stages
        self.layout, self.half = models.layout, HALVES[models.layout.dtype]
        self.product = torch.bfloat16 if settings.precision == "bfloat16" else None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, there are threads; what they have not begun at its end is never done."""
        before, on_cpu = torch.get_num_threads(), self.models.device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        self.workers = ThreadPoolExecutor(self.threads, "decode", torch.set_num_threads, (1,))
        self.encoders = self.workers if on_cpu else ThreadPoolExecutor(1, "encode")
        self.pixels = min(PIXELS["cpu"], FEATURES // width_of(self.models.space)) if on_cpu else PIXELS["other"]
        try:
            yield
        finally:
            for pool in (self.workers, self.encoders):
                pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # what threads started later begin with

    def begin(self, entries: Iterable[Picture | Missing], tick: Callable[[], None]) -> Encoding:
        """Read and decode a portion, and let its pictures be encoded; returns before that is done. `tick` is called
        once for each entry."""
        portion, waiting = Encoding(), deque[Future[Ready | Fault]]()
        for entry in self.stages.reading(entries):
            tick()
            waiting.append(self.workers.submit(self._decode, entry))
            if len(waiting) > 4 * self.threads:
                self._take(portion, waiting.popleft().result())
        for future in waiting:
            self._take(portion, future.result())
        for batch in portion.batches.values():
            self._encode(portion, batch)
        return portion

    def complete(self, portion: Encoding) -> Encoded:
        """Wait for the latents of a portion, which then lets go of them, and read its captions.

        Raises:
            ValueError: one line that names a picture of whose numbers some are not finite.
        """
        found = {key: latents for future in portion.latents for key, latents in future.result().items()}
        portion.latents.clear()
        samples = [
            Sample(one.key, latent, one.captions, one.label, flipped, one.digest, one.animated)
            for one in portion.pictures
            for latent, flipped in [found[one.key]]
        ]
        texts, cut = self._texts([text for one in samples for text in one.captions], len(samples))
        return Encoded(samples, texts, portion.faults, cut)

    def write(self, portion: Encoding, path: Path) -> None:
        """Write the shard of a portion.

        Raises:
            ValueError: as `complete`, `shard_of` and `save_tensors`.
        """
        done = self.complete(portion)
        with self.stages.timed("write", len(done.samples)):
            shard = shard_of(self.layout, *done)
            del done  # the pieces are not held while the whole is written
            save_tensors(path, *shard)
        release_freed_memory()

    def _decode(self, entry: Picture | Missing) -> Ready | Fault:
        """A picture's pixels, in the size of its bucket."""
        if isinstance(entry, Missing):
            return Fault(*entry)
        try:
            with self.stages.timed("decode", 1):
                decoded = decode(entry.content, self._size, self.settings.background)
            with self.stages.timed("resize", 1):
                pixels = fit(decoded.loaded, decoded.wanted)  # (C, H, W)
        except ValueError as error:
            return Fault(entry.key, str(error))
        digest = hashlib.sha256(entry.content).digest()
        return Ready(entry.key, entry.captions or ("",), entry.label, digest, decoded.animated, pixels)

    def _size(self, picture: Size) -> Size:
        if self.models.buckets is None:
            return Size(self.layout.size, self.layout.size)
        size = self.models.buckets.choose(picture)
        if size is None:
            raise ValueError(f"{picture}, smaller than every bucket")
        return size

    def _take(self, portion: Encoding, one: Ready | Fault) -> None:
        """Put a picture into its batch, and let that be encoded when it is full."""
        if isinstance(one, Fault):
            portion.faults.append(one)
            return
        portion.pictures.append(one._replace(pixels=np.empty(0, np.uint8)))
        size = Size(*one.pixels.shape[1:])
        batch = portion.batches.setdefault(size, [])
        batch.append(one)
        if len(batch) >= self.pixels // size.area:
            self._encode(portion, portion.batches.pop(size))

    def _encode(self, portion: Encoding, batch: list[Ready]) -> None:
        ahead = 2 * self.threads
        if len(portion.latents) >= ahead:
            portion.latents[-ahead].result()
        portion.latents.append(self.encoders.submit(self._latents, batch))

    def _latents(self, batch: list[Ready]) -> dict[str, tuple[Latent, Latent | None]]:
        """Of each key of a batch of one size the latent, and that of its mirror image where no caption names a side."""
        with self.stages.timed("VAE", len(batch)) if self.settings.vae else nullcontext():
            images = torch.from_numpy(np.stack([one.pixels for one in batch])).float() / 127.5 - 1  # (B, C, H, W)
            plain = self._stored(images)
            turned = [
                i for i, one in enumerate(batch) if self.layout.flipped and not any(map(SIDED.search, one.captions))
            ]
            mirrored = dict(zip(turned, self._stored(images[turned].flip(-1)), strict=True)) if turned else {}
        return {one.key: (plain[i], mirrored.get(i)) for i, one in enumerate(batch)}

    def _stored(self, images: Tensor) -> list[Latent]:
        """What is kept of pictures (B, C, H, W), each."""
        with autocast(self.models.device, self.product):
            stored = apart(self.models.space.encode(images).to(self.half))  # (B, 2 Z, h, w) or (B, Z, h, w)
        return [Latent(*one.split(self.layout.latent)) for one in stored]

    def _texts(self, captions: Sequence[str], pictures: int) -> tuple[dict[str, Text], int]:
        """What the text encoders say of each different caption, and how many of them are cut."""
        model = self.models.text
        if model is None or not captions:
            return {}, 0
        texts = list(dict.fromkeys(captions))
        with self.stages.timed("text", pictures):
            lengths = list(zip(*(one.lengths(texts) for one in model.encoders), strict=True))
        most = [one.config.length for one in model.encoders]
        cut = sum(any(n > m for n, m in zip(row, most, strict=True)) for row in lengths)
        # Those of one length stand together: little of a batch is padding.
        order = iter(sorted(range(len(texts)), key=lambda i: (lengths[i], i)))
        batches = iter(lambda: [texts[i] for i in islice(order, TEXTS)], [])
        futures = [self.encoders.submit(self._read, batch) for batch in batches]
        return {text: said for future in futures for text, said in future.result().items()}, cut

    def _read(self, texts: list[str]) -> dict[str, Text]:
        """What the text encoders say of each of some texts: of real tokens only."""
        model = self.models.text
        assert model is not None, "called for texts only"
        with self.stages.timed("text", 0):
            with autocast(self.models.device, self.product):
                features = model.encode(texts, torch.zeros(len(texts), dtype=torch.int64))
            read = []  # of each encoder, tokens and vector of each text
            for i in range(len(model.encoders)):
                mask = features[f"mask_{i}"]  # (T, L)
                tokens = apart(features[f"tokens_{i}"][mask].to(self.half)).split(mask.sum(1).tolist())  # T of (L_t, W)
                vectors = apart(features[f"vector_{i}"].to(self.half))  # (T, W)
                read.append(zip(tokens, vectors, strict=True))
            return {text: Text(*zip(*said, strict=True)) for text, *said in zip(texts, *read, strict=True)}


def width_of(space: nn.Module) -> int:
    """Channels of the first layer of what encodes pictures: how much a pixel takes meanwhile."""
    return next((layer.out_channels for layer in space.modules() if isinstance(layer, nn.Conv2d)), 1)


def apart(x: Tensor) -> Tensor:
    """`x` on the CPU, in memory of its own: in the C library's heap, what is kept long holds back what is freed around
    it."""
    memory = torch.frombuffer(mmap.mmap(-1, x.nbytes), dtype=x.dtype)
    return memory.view(x.shape).copy_(x)
