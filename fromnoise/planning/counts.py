"""Parameters by part, operations of a picture, and bytes of a step: counted on a hollow model.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.conditioning.frozen import FrozenTextConditioner
from fromnoise.core.device import autocast
from fromnoise.core.flops import count_flops
from fromnoise.core.recompute import recompute
from fromnoise.core.types import Data
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.planning.absent import AbsentEncoder, Say, find_conditioner, find_space
from fromnoise.space.latent import LatentSpace
from fromnoise.training import reconstruction, step, validation
from fromnoise.training.drawing import CAPTIONS
from fromnoise.training.estimate import Resident, resident
from fromnoise.training.hollow import Counted, Living, count, of_rows
from fromnoise.training.run import Run, VAERun
from fromnoise.training.trainee import Model, Sample

ROWS = 2  # of a sample that others are made like


class Flops(NamedTuple):
    """Operations, two for each multiplication with addition: products, convolutions and attention."""

    forward: int
    """Of one sample."""
    training: int
    """Of one sample of an optimizer step: forward and backward."""
    picture: int
    """Of one picture drawn as the run says, guidance and decoder included; of a VAE, of one reconstruction."""
    rows: int
    """Samples that the backbone sees to draw it."""


class Counts(NamedTuple):
    """All that is known of a run without running it."""

    trained: dict[str, int]
    """Parameters of each part that learns."""
    frozen: dict[str, int]
    flops: Flops
    resident: Resident
    graphs: int
    """Kinds of block, each of which is compiled by itself."""
    latent: tuple[int, int, int]
    """Shape of what the network sees of a picture (of a VAE: of what it tells)."""


class Pieces(NamedTuple):
    """What a pipeline is built of beside its backbone, and a batch's features."""

    conditioner: Any
    space: Any
    features: dict[str, Tensor]

    def pipeline(self, config: ModelConfig) -> Pipeline:
        """With a backbone of chance weights."""
        return Pipeline(config, self.conditioner, self.space)


class Subject(NamedTuple):
    """A hollow model, and a sample of it."""

    model: Model
    sample: Sample


def pieces_of(run: Run, data: Data, assume: Say) -> Pieces:
    """Conditioner and space of `run`, with stand-ins for what is absent, and what `ROWS` captions are encoded to."""
    conditioner, space = find_conditioner(run, data, CAPTIONS, assume), find_space(run, assume)
    return Pieces(conditioner, space, conditioner.read(data.validation(ROWS), torch.Generator()))


def drawing(run: Run, pieces: Pieces) -> Subject:
    """The model of `run` without numbers, and a sample of `ROWS` rows. Inside `hollow`."""
    model = pieces.pipeline(run.model)
    recompute(model.blocks(), run.training.recompute)
    z = torch.empty(ROWS, *model.latent_shape(run.model.size, run.model.size))  # (B, C, H, W)
    keep, t = torch.ones(ROWS, dtype=torch.bool), torch.full((ROWS,), 0.5)
    return Subject(model, step.Sample(z, pieces.features, t, z, keep))


def autoencoder(run: VAERun, data: Data) -> Subject:
    """The same of a VAE; LPIPS is left out. Inside `hollow`."""
    model = Autoencoder.build(run.model, 0)
    recompute(model.blocks(), run.training.recompute)
    images = torch.empty(ROWS, *data.image_shape)  # (B, C, H, W)
    eps = torch.empty(ROWS, *model.latent_shape(*data.image_shape[1:]))
    return Subject(model, reconstruction.Sample(images, eps, run.model.loss.adversarial_start))


def counts_of(run: Run | VAERun, subject: Subject, rows: int) -> Counts:
    """Parameters and operations of the hollow model of `run`; `rows` of a picture. Inside `hollow`."""
    model, sample = subject
    one = sample.rows(0, 1)
    forward = count_flops(lambda: model.loss(*one))
    training = count_flops(lambda: model.loss(*one).sum().backward())
    model.zero_grad()
    held = resident(model, run.training.optimizer)
    if isinstance(run, VAERun):
        assert isinstance(one, reconstruction.Sample) and isinstance(model, Autoencoder)
        latent = model.latent_shape(*one.images.shape[2:])
        made = count_flops(lambda: model.vae.decode(model.vae.encode(one.images).mean))
        parts = {"encoder": model.vae.encoder, "decoder": model.vae.decoder, "discriminator": model.discriminator}
        trained = {name: _numbers(part.parameters()) for name, part in parts.items() if part}
        rest = _numbers(model.parameters()) - sum(trained.values())
        trained |= {"moments' mixing": rest} if rest else {}
        return Counts(trained, {}, Flops(forward, training, made, rows), held, _kinds(model.blocks()), latent)
    assert isinstance(one, step.Sample)
    decoded = count_flops(lambda: model.space.decode(one.z))
    trained = {
        "backbone": _numbers(model.backbone.parameters()),
        "conditioner": _numbers(model.conditioner.parameters()),
    }
    flops = Flops(forward, training, rows * forward + decoded, rows)
    graphs, latent = _kinds(model.backbone.blocks()), model.latent_shape(run.model.size, run.model.size)
    return Counts(trained, _frozen(model), flops, held, graphs, latent)


def count_step(
    run: Run | VAERun, subject: Subject, batch: int, accumulate: int, dtype: torch.dtype | None, fused: bool
) -> Counted:
    """A step of `batch` in `accumulate` parts. Inside `hollow`. fused: as on a GPU, whose attention keeps no scores."""
    dtype = fusing(dtype) if fused else dtype
    return count(subject.model, subject.sample, batch, accumulate, run.training.optimizer, dtype)


def fusing(dtype: torch.dtype | None) -> torch.dtype | None:
    """A type as large, whose attention is a fused kernel on a CPU, too."""
    return torch.float16 if dtype == torch.bfloat16 else dtype


def count_look(run: Run | VAERun, subject: Subject, data: Data, dtype: torch.dtype | None) -> int:
    """Bytes of what lives at most, besides weights, while held-out pictures are looked at. Inside `hollow`.

    dtype: what validation runs in; a VAE is judged in float32 once more, at the end.
    """
    model = subject.model
    rows = reconstruction.chunk(data) if isinstance(run, VAERun) else validation.CHUNK
    sample = of_rows(subject.sample, rows)
    with Living(model) as living, torch.no_grad():
        if isinstance(model, Autoencoder):
            model.judged(sample.images, sample.eps)
        else:
            with autocast(model.device, dtype):
                model.loss(*sample)
    return living.most


def _frozen(model: Pipeline) -> dict[str, int]:
    """Parameters of what the pipeline has and does not train."""
    told = {}
    if isinstance(model.space, LatentSpace):
        told["VAE"] = _numbers(model.space.vae.buffers())
    if isinstance(model.conditioner, FrozenTextConditioner):
        for one in model.conditioner.encoders:
            absent = isinstance(one, AbsentEncoder)
            told[f"text encoder {one.config.path}"] = one.parameters if absent else _numbers(one.model.parameters())
    return told


def _numbers(tensors: Any) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _kinds(blocks: Sequence[nn.Module]) -> int:
    return len({(type(block), tuple(p.shape for p in block.parameters())) for block in blocks})
