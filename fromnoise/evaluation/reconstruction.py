"""How well a run's VAE reconstructs pictures that it was not trained on, and what its latents are like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.fidelity import quality
from fromnoise.core.device import pick
from fromnoise.pipeline.load import weights
from fromnoise.training.reconstruction import fixed
from fromnoise.training.run import VAERun


def evaluate(
    run: VAERun,
    directory: Path,
    *,
    n: int,
    raw: bool = False,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """PSNR, SSIM and latent statistics (`fidelity.quality`) of the VAE that `run` trained in `directory`, on at most
    `n` of the pictures it held out, and how many these were.

    raw: of the weights as trained, in place of their average. `progress` is told (done, of how many).

    Raises:
        ValueError: one line, when there is no checkpoint that can be read, or no data.
    """
    model = Autoencoder.load(weights(directory, raw=raw)).to(pick(device)).eval()
    samples = fixed(model, run.data.build(run.training.seed), n)
    count = sum(len(images) for images, _ in samples)

    def told() -> Iterator[tuple[Tensor, Tensor]]:
        done = 0
        for images, eps in samples:
            yield images, eps
            done += len(images)
            progress(done, count)

    return {"pictures": count} | quality(model.vae, told())
