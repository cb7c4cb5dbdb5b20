"""What a prepared data set decides of the run that is trained on it, and what it must agree with."""

from __future__ import annotations

from collections.abc import Callable

from fromnoise.conditioning.config import LabelConfig
from fromnoise.data.manifest import first_difference, numbered, text_identity
from fromnoise.data.prepared import PreparedData
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.space.config import LatentConfig
from fromnoise.training.run import Run


def matched(run: Run, data: PreparedData, say: Callable[[str], None]) -> Run:
    """`run` with what `data` tells filled in, and told: the names of classes, and what latents are moved and scaled by.

    Raises:
        ValueError: one line, when latents are another VAE's.
    """
    names, conditioner = data.manifest.class_names, run.model.conditioner
    if names and isinstance(conditioner, LabelConfig) and conditioner.names != names:
        say(f"from the data: classes {numbered(names)}")
        conditioner = conditioner.model_copy(update={"names": names})
        run = run.model_copy(update={"model": run.model.model_copy(update={"conditioner": conditioner})})
    place, vae, space = data.directory, data.layout.encoders.get("vae"), run.model.space
    if vae is None:
        return run
    if not isinstance(space, LatentConfig):
        raise ValueError(
            f"{place} holds latents of a VAE (sha256 {vae[:12]}...), and model.space.type is {space.type!r}: "
            f"give --model.space.type latent --model.space.path VAE"
        )
    from fromnoise.space.latent import sha256_of

    if (there := sha256_of(space.path)) != vae:
        raise ValueError(
            f"{place} holds latents of another VAE (sha256 {vae[:12]}...) than model.space.path, {space.path} "
            f"({there[:12]}...): prepare the data anew, or give the VAE that it was prepared with"
        )
    if space.shift is None or space.scale is None:
        space = space.filled(*data.scaling, say)
    return run.model_copy(update={"model": run.model.model_copy(update={"space": space})})


def agree(pipeline: Pipeline, data: PreparedData) -> None:
    """Find that the text features of `data` are those of the pipeline's own encoders.

    Raises:
        ValueError: one line, when they are others'.
    """
    here, there = pipeline.conditioner.state.get("encoders"), data.layout.encoders.get("text")
    if here and there and (different := first_difference(text_identity(there), text_identity(here))):
        raise ValueError(
            f"the data was prepared with other text encoders than model.conditioner has: {different}; prepare the data "
            f"anew, or give the encoders that it was prepared with"
        )
