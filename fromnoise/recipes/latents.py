"""Diffusion in the latents of a VAE, on what `fromnoise prepare` wrote: encoded once, read at every step.

| recipe | backbone | path | asked for | what is read |
|---|---|---|---|---|
| ldm | U-Net | VP, scaled-linear betas | eps | captions, by an encoder trained along |
| phase5 | MMDiT | linear | flow | captions, by an encoder trained along |
| phase5-classes | DiT | linear | flow | the class |
| scratch-128 | U-Net | VP, 200 rescaled betas | eps | captions, by a frozen CLIP |
| scratch-256 | U-Net | VP, 200 rescaled betas | eps | captions, by a frozen CLIP |
"""

from __future__ import annotations

from pathlib import Path

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig, LabelConfig, TextConfig
from fromnoise.data.config import PreparedConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Linear
from fromnoise.diffusion.times import LogitNormal, Uniform
from fromnoise.models.config import DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.space.config import LatentConfig
from fromnoise.training.run import Muon, Run, Training

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SAID = tuple(f"a photo of a{'n' if word[0] in 'aeiou' else ''} {word}" for word in CLASSES)
FLOW = Objective(target="flow", measure="flow", times=LogitNormal())
SCALED_LINEAR = VP(beta_start=0.00085, beta_end=0.012, power=2)


def ldm(path: str | Path = "prepared/cifar10", vae: str | Path = "runs/vae-small/vae") -> Run:
    """Latent diffusion (Rombach et al. 2022) on CIFAR-10: sd1's method in the latents of vae-small.

    `path` is what `fromnoise prepare` wrote, `vae` the VAE it was prepared with; from the command line they are
    --data.path and --model.space.path.

    Hardware: two CPU cores.
    Expect:   a validation loss of 0.256; what a classifier sees in its photographs is not measured.
    Command:  fromnoise train ldm --directory runs/ldm
    """
    model = ModelConfig(
        backbone=UNetConfig(width=48, multipliers=(1, 2, 4), layers=1, attention=(1, 2), heads=4, groups=8),
        conditioner=TextConfig(vocabulary=400, length=16, width=192, depth=2, heads=6),
        space=LatentConfig(path=Path(vae)),
        path=SCALED_LINEAR,
        objective=Objective(target="eps", measure="eps", times=Uniform()),
        sampling=Sampling(sampler="ddim", steps=30, guidance=5.0),
    )
    return _on_cifar10("ldm", path, model, SAID)


def phase5(path: str | Path = "prepared/cifar10", vae: str | Path = "runs/vae-small/vae") -> Run:
    """Words and latents together: a caption and a two-stream transformer, on latents 12 times fewer than pixels.

    `path` is what `fromnoise prepare` wrote, `vae` the VAE it was prepared with; from the command line they are
    --data.path and --model.space.path. Pictures of 64 or 128 pixels are a matter of what was prepared.

    Hardware: two CPU cores; 37 minutes beside other work, after 10 for vae-small and 1 to prepare.
    Expect:   a classifier sees the class asked for in 84 % of the photographs drawn: docs/cifar10.md.
    Command:  fromnoise train phase5 --directory runs/phase5
    """
    model = ModelConfig(
        backbone=MMDiTConfig(patch=1, width=192, depth=6, head_width=32, pooled=True, rope_theta=1000.0),
        conditioner=TextConfig(vocabulary=400, length=16, width=192, depth=2, heads=6),
        space=LatentConfig(path=Path(vae)),
        path=Linear(),
        objective=FLOW,
        sampling=Sampling(sampler="euler", steps=28, guidance=3.0),
    )
    return _on_cifar10("phase5", path, model, SAID)


def phase5_classes(path: str | Path = "prepared/cifar10", vae: str | Path = "runs/vae-small/vae") -> Run:
    """The same told the class in place of a caption, by a one-stream transformer.

    `path` is what `fromnoise prepare` wrote, `vae` the VAE it was prepared with; from the command line they are
    --data.path and --model.space.path.

    Hardware: two CPU cores.
    Expect:   a validation loss of 1.15; what a classifier sees in its photographs is not measured.
    Command:  fromnoise train phase5-classes --directory runs/phase5-classes
    """
    model = ModelConfig(
        backbone=DiTConfig(patch=1, width=192, depth=6, head_width=32),
        conditioner=LabelConfig(classes=10, width=192),
        space=LatentConfig(path=Path(vae)),
        path=Linear(),
        objective=FLOW,
        sampling=Sampling(sampler="euler", steps=28, guidance=3.0),
    )
    return _on_cifar10("phase5-classes", path, model, tuple("0123456789"))


def _on_cifar10(name: str, path: str | Path, model: ModelConfig, previews: tuple[str, ...]) -> Run:
    training = Training(
        steps=7000, batch=64, optimizer=Muon(lr=3e-3, adamw_lr=1e-3), warmup=200, decay=0.7, previews=previews
    )
    return Run(recipe=name, data=PreparedConfig(path=Path(path)), model=model, training=training)


def scratch_128(
    path: str | Path = "prepared/pictures", vae: str | Path = "runs/vae/vae", clip: str = "openai/clip-vit-base-patch32"
) -> Run:
    """Stable Diffusion's method at 128 pixels with a VAE of one's own: a U-Net of 21M reads CLIP's tokens.

    200 betas, rescaled so that the last leaves nothing of the picture: sampling starts from noise, and training ends
    there.

    `path` is what `fromnoise prepare DIR --size 128 --vae runs/vae/vae --text CLIP` wrote; from the command line the
    three are --data.path, --model.space.path and --model.conditioner.encoders.

    Hardware: a GPU. Not trained here yet: no time and no result can be told.
    Command:  fromnoise train scratch-128 --directory runs/scratch-128
    """
    return _scratch("scratch-128", 128, path, vae, clip, Sampling(sampler="ddpm", steps=200, guidance=1.0))


def scratch_256(
    path: str | Path = "prepared/pictures", vae: str | Path = "runs/vae/vae", clip: str = "openai/clip-vit-base-patch32"
) -> Run:
    """The same at 256 pixels, with guidance and DPM-Solver++ in a tenth of the steps.

    `path` is what `fromnoise prepare DIR --size 256 --vae runs/vae/vae --text CLIP` wrote; from the command line the
    three are --data.path, --model.space.path and --model.conditioner.encoders. --start.run runs/scratch-128 begins with
    the weights of the smaller size.

    Hardware: a GPU. Not trained here yet: no time and no result can be told.
    Command:  fromnoise train scratch-256 --directory runs/scratch-256
    """
    return _scratch("scratch-256", 256, path, vae, clip, Sampling(sampler="dpmpp_2m", steps=20, guidance=5.0))


def _scratch(name: str, size: int, path: str | Path, vae: str | Path, clip: str, sampling: Sampling) -> Run:
    model = ModelConfig(
        backbone=UNetConfig(width=72, multipliers=(1, 2, 4), layers=1, attention=(1, 2), heads=8, groups=24),
        conditioner=FrozenTextConfig(encoders=(EncoderConfig(path=clip),), width=512),
        space=LatentConfig(path=Path(vae)),
        path=VP.rescaled(200),
        objective=Objective(target="eps", measure="eps", times=Uniform()),
        sampling=sampling,
        size=size,
    )
    training = Training(steps=100_000, batch=64, optimizer=Muon(lr=1e-3, adamw_lr=3e-4), warmup=1000, ema=0.02)
    return Run(recipe=name, data=PreparedConfig(path=Path(path)), model=model, training=training)
