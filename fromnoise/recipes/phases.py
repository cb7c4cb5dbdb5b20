"""A first course in four phases, each adding one idea: flow matching, patches, classes, words.

All are asked for the flow (the velocity) on the straight line, at every time equally often.
"""

from __future__ import annotations

from fromnoise.conditioning.config import LabelConfig, NoConditionConfig, TextConfig
from fromnoise.data.config import CIFAR10Config, MNISTConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.path import Linear
from fromnoise.diffusion.times import Uniform
from fromnoise.models.config import CNNConfig, CrossDiTConfig, DiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.training.run import Muon, Run, Training

DIT = DiTConfig(patch=4, width=192, depth=6, head_width=48)
FLOW = Objective(target="flow", measure="flow", times=Uniform())
TRAINING = Training(steps=1200, batch=64, optimizer=Muon(lr=3e-3, adamw_lr=1e-3), warmup=100, decay=0.7)


def phase1() -> Run:
    """Flow matching with a small convolutional network: digits out of noise, any digit.

    Hardware: two CPU cores.
    Command:  fromnoise train phase1 --directory runs/phase1
    """
    sampling = Sampling(sampler="heun", steps=20, guidance=1.0)
    model = ModelConfig(
        backbone=CNNConfig(), conditioner=NoConditionConfig(), path=Linear(), objective=FLOW, sampling=sampling
    )
    return Run(recipe="phase1", data=MNISTConfig(), model=model, training=TRAINING)


def phase2() -> Run:
    """The same with a transformer: 28 pixels are 7 by 7 patches, and every patch attends to all.

    Hardware: two CPU cores.
    Command:  fromnoise train phase2 --directory runs/phase2
    """
    sampling = Sampling(sampler="heun", steps=20, guidance=1.0)
    model = ModelConfig(backbone=DIT, conditioner=NoConditionConfig(), path=Linear(), objective=FLOW, sampling=sampling)
    return Run(recipe="phase2", data=MNISTConfig(), model=model, training=TRAINING)


def phase3() -> Run:
    """The same told which digit: a learned vector for each class, one for none in a tenth of the samples, guidance.

    Hardware: two CPU cores; 8 minutes on one of them, beside other work.
    Expect:   a validation loss of .177, after 76,800 digits: docs/mnist.md.
    Command:  fromnoise train phase3 --directory runs/phase3
    """
    sampling = Sampling(sampler="heun", steps=20, guidance=2.0)
    model = ModelConfig(
        backbone=DIT, conditioner=LabelConfig(classes=10, width=192), path=Linear(), objective=FLOW, sampling=sampling
    )
    training = TRAINING.model_copy(update={"previews": tuple("0123456789")})
    return Run(recipe="phase3", data=MNISTConfig(), model=model, training=training)


def phase4() -> Run:
    """Words for photographs: a text encoder trained along, read by cross-attention, on CIFAR-10's ten classes.

    Hardware: a GPU. Not trained to its end here: no time and no result can be told.
    Command:  fromnoise train phase4 --directory runs/phase4
    """
    model = ModelConfig(
        backbone=CrossDiTConfig(patch=4, width=384, depth=6, head_width=64),
        conditioner=TextConfig(width=256, depth=2, heads=4),
        path=Linear(),
        objective=FLOW,
        sampling=Sampling(sampler="heun", steps=25, guidance=3.0),
    )
    training = Training(steps=20_000, batch=128, optimizer=Muon(lr=3e-3, adamw_lr=1e-3), warmup=200)
    return Run(recipe="phase4", data=CIFAR10Config(), model=model, training=training)
