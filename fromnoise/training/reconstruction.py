"""An autoencoder in training: pictures from themselves.

Legend: B batch, C channels, H height, W width of a picture; Z channels, h height, w width of its latent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.fidelity import WINDOW, quality
from fromnoise.autoencoder.perceptual import SMALLEST, Perceptual
from fromnoise.core.device import autocast
from fromnoise.core.files import write_bytes
from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.core.transfer import sent
from fromnoise.core.types import Data
from fromnoise.pipeline.load import weights
from fromnoise.pipeline.pictures import as_pictures, as_png, grid
from fromnoise.pipeline.pipeline import Precision
from fromnoise.space.export import save_vae
from fromnoise.space.folder import CONFIG
from fromnoise.training.directory import sealed
from fromnoise.training.ema import Ema
from fromnoise.training.fast import dtype_of
from fromnoise.training.run import VAERun
from fromnoise.training.step import among_blank, generator_of
from fromnoise.training.trainee import Looks, Trainee

VALIDATED = 256  # held-out pictures at most
MEASURED = 2048  # training pictures whose latents say what a model is to shift and scale by
SHOWN = 8  # pictures of a preview
PIXELS = 2**16  # of one forward that trains nothing: 64 pictures of 32 x 32, a quarter of what 256 of them hold
FOLDER = "vae"  # of a run's directory


class Sample(NamedTuple):
    """What `Autoencoder.loss` takes."""

    images: Tensor  # (B, C, H, W)
    eps: Tensor  # (B, Z, h, w)
    step: int

    @property
    def size(self) -> int:
        """How many samples: B."""
        return len(self.images)

    def to(self, device: torch.device) -> Sample:
        """The same on `device`; from pinned memory the copy does not wait."""
        images, eps = (sent(x, device) for x in (self.images, self.eps))
        return Sample(images, eps, self.step)

    def pinned(self) -> Sample:
        """The same in page-locked memory."""
        return Sample(self.images.pin_memory(), self.eps.pin_memory(), self.step)

    def rows(self, first: int, last: int) -> Sample:
        """Samples `first` to `last`, the last left out."""
        return Sample(self.images[first:last], self.eps[first:last], self.step)

    def about(self, row: int) -> str:
        """What to tell of a sample at which the loss broke: nothing."""
        return ""

    def suspects(self) -> dict[str, Tensor]:
        """What was given of it, by name."""
        return {"picture": self.images, "noise": self.eps}


def fit(run: VAERun, data: Data, say: Callable[[str], None]) -> VAERun:
    """`run` with what follows from the data filled in, and told.

    Raises:
        ValueError: one line, when the pictures or the batch do not fit it; and as `sealed`.
    """
    run = sealed(run, data)
    channels, training, vae, loss = data.image_shape[0], run.training, run.model.vae, run.model.loss
    if data.validation(1).encoded:
        raise ValueError(f"data.type is {run.data.type}, which serves latents; a VAE learns from pictures themselves")
    if training.batch % training.accumulate:
        raise ValueError(
            f"training.batch is {training.batch}; allowed: multiples of training.accumulate, {training.accumulate}"
        )
    least = max(WINDOW, SMALLEST if loss.perceptual else 0, 3 * 2**loss.discriminator_layers if loss.adversarial else 0)
    for height, width in data.sizes:
        if height % vae.factor or width % vae.factor:
            raise ValueError(
                f"pictures of {height} x {width} pixels do not fit a VAE of {len(vae.multipliers)} levels, which takes "
                f"multiples of {vae.factor}: choose another data.size or fewer model.vae.multipliers"
            )
        if min(height, width) < least:
            raise ValueError(
                f"pictures of {height} x {width} pixels; its loss and its validation take {least} or more a side"
            )
    if channels not in (1, 3) and loss.perceptual:
        raise ValueError(f"pictures have {channels} channels; model.loss.perceptual takes 1 or 3")
    if channels != vae.channels:
        say(f"from the data: model.vae.channels {channels}")
    fitted = run.model.model_copy(update={"vae": vae.model_copy(update={"channels": channels})})
    return run.model_copy(update={"model": fitted})


def draw(model: Autoencoder, images: Tensor, step: int, generator: torch.Generator) -> Sample:
    """Pictures (B, C, H, W) and the noise of their latents."""
    shape = model.latent_shape(*images.shape[-2:])
    return Sample(images, torch.randn(len(images), *shape, generator=generator), step)


class Reconstruction(Trainee):
    """An autoencoder that learns to tell a picture in few numbers."""

    def __init__(self, run: VAERun, data: Data, say: Callable[[str], None], ranks: Ranks = ALONE):
        self.run, self.data, self.say, self.ranks = run, data, say, ranks
        loss = run.model.loss
        self.perceptual = Perceptual(loss.vgg, loss.heads) if loss.perceptual and loss.vgg and loss.heads else None

    def build(self) -> Autoencoder:
        """A fresh autoencoder."""
        return Autoencoder.build(self.run.model, self.run.training.seed, self.perceptual)

    def load(self, path: Path) -> Autoencoder:
        """The autoencoder in a checkpoint's file."""
        return Autoencoder.load(path, self.perceptual)

    def draw(self, model: Autoencoder, step: int, size: int) -> Sample:
        """Pictures, and the noise of their latents."""
        first, last = self.ranks.share(size)
        own = self.data.train(step, size, self.ranks.rank, self.ranks.size).images  # (b, C, H, W)
        images = among_blank(own, first, size)  # (B, C, H, W), as the noise is drawn of all
        return draw(model, images, step, generator_of(self.run.training.seed, step)).rows(first, last)

    def trial(self, model: Autoencoder, size: int) -> Sample:
        """As `draw`, of held-out pictures, at the last step: with the discriminator, where there is one by then. Of
        several processes at the first: DDP would expect gradients of what has had them before it begins."""
        step = self.run.training.steps if self.ranks.size == 1 else 0
        return draw(model, self.data.validation(size).images, step, generator_of(0, 0))

    def rehearse(self, model: Autoencoder) -> None:
        """Tell of the latent, and reconstruct a picture."""
        channels, height, width = self.data.image_shape
        z, h, w = model.latent_shape(height, width)
        less = channels * height * width / (z * h * w)
        self.say(f"{channels} x {height} x {width} pixels to {z} x {h} x {w} latent values, {less:g} times fewer")
        with torch.no_grad():
            model.judged(*self.trial(model, 1).to(model.device)[:2])

    def validation(self, model: Autoencoder) -> Validation:
        """Losses and quality on held-out pictures."""
        return Validation(model, self.data)

    def previews(self, directory: Path) -> Previews:
        """Held-out pictures over their reconstructions."""
        return Previews(directory, self.data, self.ranks)

    def looks(self) -> Looks:
        """Both sets of weights are validated, and the average judged once more; at the end latents are measured, which
        asks the encoder alone."""
        return Looks(3 * VALIDATED, 2 * SHOWN, MEASURED // 2 + VALIDATED, 3 * SHOWN)

    def finish(self, directory: Path, device: torch.device) -> None:
        """Write the VAE as diffusers saves it, with averaged weights, and tell how good it is."""
        folder, model = directory / FOLDER, self.load(weights(directory)).to(device)
        if not (folder / CONFIG).is_file():  # the last file that is written
            mean, std = self.measure(model)
            save_vae(model.vae, folder, mean, std, self.data.image_shape[-1])
        told = quality(model.vae, fixed(model, self.data, VALIDATED))
        spread = " ".join(f"{value:.2f}" for value in told["latent_std"])
        self.say(f"held-out pictures: PSNR {told['psnr']:.2f} dB, SSIM {told['ssim']:.4f}, latent std {spread}")
        self.say(f"{folder} is the VAE for --model.space.path, and for diffusers' AutoencoderKL.from_pretrained")

    @torch.no_grad()
    def measure(self, model: Autoencoder) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of training pictures, by channel: (Z,) each."""
        rows = chunk(self.data)
        means, squares = [], []
        for step in range(-(-MEASURED // rows)):
            posterior = model.vae.encode(self.data.train(step, rows).images.to(model.device))
            center, spread = (x.cpu().double() for x in (posterior.mean, posterior.std))  # an Apple GPU has no float64
            means.append(center.mean((0, 2, 3)))  # (Z,)
            squares.append((center.square() + spread.square()).mean((0, 2, 3)))
        mean = torch.stack(means).mean(0)  # (Z,)
        return mean, (torch.stack(squares).mean(0) - mean.square()).sqrt()  # (Z,) each


class Validation:
    """Fixed pictures with fixed noise."""

    def __init__(self, model: Autoencoder, data: Data):
        self.samples = fixed(model, data, VALIDATED)

    def losses(self, model: Autoencoder, ema: Ema, dtype: torch.dtype | None) -> dict[str, Any]:
        """The loss of the weights as they are and of their average, less what a discriminator says; and how well the
        average reconstructs."""
        with autocast(model.device, dtype), torch.compiler.set_stance("force_eager"):
            with ema.raw():
                raw = self.loss(model)
            with ema.applied():
                averaged, told = self.loss(model), quality(model.vae, self.samples)
        return {"validation_raw": raw, "validation_ema": averaged} | told

    @torch.no_grad()
    def loss(self, model: Autoencoder) -> float:
        """The mean loss of the weights as they are."""
        judged = [model.judged(images.to(model.device), eps.to(model.device)) for images, eps in self.samples]
        return float(torch.cat([one.error + one.kl for one in judged]).mean())


class Previews:
    """PNGs with a column for each picture: as it is, from the weights as they are, and from their average."""

    def __init__(self, directory: Path, data: Data, ranks: Ranks):
        self.directory, self.ranks, self.images = directory, ranks, data.validation(SHOWN).images

    @torch.no_grad()
    def write(self, step: int, model: Autoencoder, ema: Ema, precision: Precision) -> None:
        """Draw the preview after `step` steps."""
        images = self.images.to(model.device)

        def made() -> Tensor:
            return model.vae.decode(model.vae.encode(images).mean).float()  # (B, C, H, W)

        with autocast(model.device, dtype_of(precision)), torch.compiler.set_stance("force_eager"):
            with ema.raw():
                raw = made()
            with ema.applied():
                averaged = made()
        if not self.ranks.first:
            return
        under = [kind for kind in ("real", "raw", "average") for _ in range(SHOWN)]
        sheet = grid(as_pictures(torch.cat((images, raw, averaged))), SHOWN, under)
        self.directory.mkdir(exist_ok=True)
        write_bytes(self.directory / f"step-{step:08d}.png", as_png(sheet))


def fixed(model: Autoencoder, data: Data, most: int) -> list[tuple[Tensor, Tensor]]:
    """Held-out pictures, `most` at most and each once, and fixed noise for their latents, in parts."""
    images = data.validation(most).images  # (B, C, H, W)
    again = (images[1:] == images[0]).flatten(1).all(1).nonzero()  # where they begin to go round
    images = images[: int(again[0]) + 1] if len(again) else images
    images, eps, _ = draw(model, images, 0, torch.Generator().manual_seed(0))
    return list(zip(images.split(chunk(data)), eps.split(chunk(data)), strict=True))


def chunk(data: Data) -> int:
    """How many of the pictures go through together where nothing is trained."""
    _, height, width = data.image_shape
    return max(1, PIXELS // (height * width))
