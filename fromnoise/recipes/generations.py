"""From DDPM to SD3 on MNIST, at one size: what each generation changed, and nothing else.

All read the same captions ("a handwritten seven") by the same text encoder trained along, but `dit` and `x0`, which are
given the class; all have the same number of parameters within 2 %, the same data, batch, steps and optimizer.

| recipe | backbone | path | asked for | sampler | guidance |
|---|---|---|---|---|---|
| ddpm | U-Net | VP, linear betas | eps | ddpm, 1000 steps | 1 |
| sd1 | U-Net | VP, scaled-linear betas | eps | ddim, 20 steps | 7.5 |
| sd2 | U-Net | VP, scaled-linear betas | v | dpmpp_2m, 15 steps | 5 |
| dit | DiT | VP, linear betas | eps, measured in v | ddim, 25 steps | 4 |
| sd3 | MMDiT | linear | flow | euler, 28 steps | 3.5 |
| x0 | DiT | linear | x0, measured in flow | euler, 28 steps | 3.5 |
"""

from __future__ import annotations

from fromnoise.conditioning.config import LabelConfig, TextConfig
from fromnoise.data.config import MNISTConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import VP, Linear
from fromnoise.diffusion.times import LogitNormal, Uniform
from fromnoise.models.config import DiTConfig, MMDiTConfig, UNetConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.training.run import Muon, Run, Training

UNET = UNetConfig(width=16, multipliers=(1, 2, 5), layers=1, attention=(2,), heads=4, groups=8)
DIT = DiTConfig(patch=4, width=128, depth=5, head_width=32)
MMDIT = MMDiTConfig(
    patch=4,
    width=120,
    depth=3,
    head_width=40,
    pooled=True,
    rotation="none",
    absolute="cropped",
    grid=7,
    largest=14,
    text_norm=False,
)
TEXT = TextConfig(vocabulary=300, length=12, width=96, depth=1, heads=3)
CLASSES = LabelConfig(classes=10, width=192)
SCALED_LINEAR = VP(beta_start=0.00085, beta_end=0.012, power=2)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MATCHED = ("ddpm", "sd1", "sd2", "dit", "sd3", "x0")
"""Those that are said to have the same number of parameters."""
SAID = tuple(f"a handwritten {number}" for number in NUMBERS)
GIVEN = tuple("0123456789")  # for those that are given the class


def ddpm() -> Run:
    """DDPM (Ho et al. 2020) on MNIST: a U-Net finds the noise, and takes it out in 1000 small random steps.

    Hardware: two CPU cores.
    Expect:   a validation loss of .0236; digits without guidance, some of them torn. A thousand steps a digit take long
              on a CPU, and ten thousand were not judged.
    Command:  fromnoise train ddpm --directory runs/ddpm
    """
    objective = Objective(target="eps", measure="eps", times=Uniform())
    sampling = Sampling(sampler="ddpm", steps=1000, guidance=1.0)
    return _run("ddpm", ModelConfig(backbone=UNET, conditioner=TEXT, path=VP(), objective=objective, sampling=sampling))


def sd1() -> Run:
    """Stable Diffusion 1 (Rombach et al. 2022) on MNIST: DDPM's network and target, few DDIM steps, strong guidance.

    Hardware: two CPU cores.
    Expect:   after 11 minutes on one core all digits are what was asked for, and much alike: docs/mnist.md.
    Command:  fromnoise train sd1 --directory runs/sd1
    """
    objective = Objective(target="eps", measure="eps", times=Uniform())
    sampling = Sampling(sampler="ddim", steps=20, guidance=7.5)
    model = ModelConfig(backbone=UNET, conditioner=TEXT, path=SCALED_LINEAR, objective=objective, sampling=sampling)
    return _run("sd1", model)


def sd2() -> Run:
    """Stable Diffusion 2 on MNIST: as sd1, but asked for v (Salimans and Ho 2022), which is never ill-posed.

    Hardware: two CPU cores.
    Expect:   after 11 minutes on one core all digits are what was asked for, and much alike: docs/mnist.md.
    Command:  fromnoise train sd2 --directory runs/sd2
    """
    objective = Objective(target="v", measure="v", times=Uniform())
    sampling = Sampling(sampler="dpmpp_2m", steps=15, guidance=5.0)
    model = ModelConfig(backbone=UNET, conditioner=TEXT, path=SCALED_LINEAR, objective=objective, sampling=sampling)
    return _run("sd2", model)


def sd3() -> Run:
    """Stable Diffusion 3 (Esser et al. 2024) on MNIST: two streams of tokens, and a straight line from data to noise.

    Hardware: two CPU cores.
    Expect:   after 3 to 10 minutes 99.9 % of the digits are what was asked for: docs/mnist.md.
    Command:  fromnoise train sd3 --directory runs/sd3
    """
    objective = Objective(target="flow", measure="flow", times=LogitNormal())
    sampling = Sampling(sampler="euler", steps=28, guidance=3.5)
    model = ModelConfig(backbone=MMDIT, conditioner=TEXT, path=Linear(), objective=objective, sampling=sampling)
    return _run("sd3", model)


def dit() -> Run:
    """DiT (Peebles and Xie 2023) on MNIST: a transformer on patches in the U-Net's place, given the class.

    Asked for eps, with its error measured in v: measured in eps, so short a training teaches it nothing at high noise.

    Hardware: two CPU cores.
    Expect:   after 4 minutes on one of them 98 % of the digits are what was asked for, with rough edges: docs/mnist.md.
    Command:  fromnoise train dit --directory runs/dit
    """
    objective = Objective(target="eps", measure="v", max_weight=25.0, times=Uniform())
    sampling = Sampling(sampler="ddim", steps=25, guidance=4.0)
    model = ModelConfig(backbone=DIT, conditioner=CLASSES, path=VP(), objective=objective, sampling=sampling)
    return _run("dit", model, GIVEN)


def x0() -> Run:
    """x0 prediction (JiT: Li and He 2025) on MNIST: the same DiT asked for the clean picture, measured as velocity.

    Hardware: two CPU cores.
    Expect:   after 3 to 10 minutes all digits are what was asked for, and much alike: docs/mnist.md.
    Command:  fromnoise train x0 --directory runs/x0
    """
    objective = Objective(target="x0", measure="flow", max_weight=25.0, times=LogitNormal())
    sampling = Sampling(sampler="euler", steps=28, guidance=3.5)
    model = ModelConfig(backbone=DIT, conditioner=CLASSES, path=Linear(), objective=objective, sampling=sampling)
    return _run("x0", model, GIVEN)


def _run(name: str, model: ModelConfig, previews: tuple[str, ...] = SAID) -> Run:
    training = Training(
        steps=2000, batch=64, optimizer=Muon(lr=3e-3, adamw_lr=1e-3), warmup=100, decay=0.7, previews=previews
    )
    return Run(recipe=name, data=MNISTConfig(), model=model, training=training)
