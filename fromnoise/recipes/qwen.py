"""Qwen-Image's way (Wu et al. 2025) at a size that one GPU trains."""

from __future__ import annotations

from pathlib import Path

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.data.config import PreparedConfig
from fromnoise.diffusion.loss import Objective
from fromnoise.diffusion.times import LogitNormal
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.space.config import LatentConfig
from fromnoise.training.run import AdamW, Run, Training


def qwen_258m(
    path: str | Path = "prepared/pictures", vae: str | Path = "your-vae", clip: str = "openai/clip-vit-large-patch14"
) -> Run:
    """Qwen-Image's MMDiT with 258M parameters on the latents of 256-pixel pictures, told by CLIP's words.

    `path` is what was prepared with the same VAE and text encoder, as by
    `fromnoise prepare hub:jackyhate/text-to-image-2M --size 256 --vae VAE --text CLIP --out prepared/pictures`;
    `vae` is the folder of Stable Diffusion's VAE as diffusers saves it. From the command line the three are
    --data.path, --model.space.path and --model.conditioner.encoders.

    Trained are the backbone and a linear map of CLIP's 77 tokens; VAE and CLIP are frozen, and no part of a checkpoint.

    The backbone has 249,403,344 parameters. Built as diffusers' class it has 257,669,392, of which nothing reads
    8,266,048: the last block's feed-forward and output layer for the text (5,313,024), and the queries and the
    modulation that serve only these (2,953,024).

    rope_theta is Qwen-Image's 10000, which is fixed in diffusers' class, and made for up to 83 patches a side. On the
    16 of these pictures 5 of an axis's 16 frequencies turn by more than a quarter; with --model.backbone.rope_theta 100
    it is 9, and the weights then fit no other class.

    Hardware: a GPU. Not trained here yet: no time and no result can be told.
    Command:  fromnoise train qwen-258m --data.path DIR --model.space.path VAE --directory runs/qwen-258m
    """
    model = ModelConfig(
        backbone=MMDiTConfig(patch=2, width=768, depth=12, head_width=64, rope_theta=10000.0),
        conditioner=FrozenTextConfig(encoders=(EncoderConfig(path=clip),), width=768),
        space=LatentConfig(path=Path(vae)),
        objective=Objective(target="flow", measure="flow", times=LogitNormal(), dropout=0.1),
        sampling=Sampling(sampler="euler", steps=28, guidance=4.0),
        size=256,
    )
    training = Training(
        steps=100_000,
        batch=128,
        optimizer=AdamW(lr=1e-4),
        warmup=2000,
        decay=0.0,
        clip=1.0,
        ema=0.02,  # of 100,000 steps: a decay of .9995
        save_every=1000,
        validate_every=1000,
        preview_every=1000,
    )
    return Run(recipe="qwen-258m", data=PreparedConfig(path=Path(path)), model=model, training=training)
