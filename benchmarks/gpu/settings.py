"""What is measured, at which sizes, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fromnoise.core.config import Config, Name
from fromnoise.models.config import MMDiTConfig, UNetConfig, VAEConfig
from fromnoise.recipes import named

QWEN = named("qwen-258m").model
assert isinstance(QWEN.backbone, MMDiTConfig), "the recipe is Qwen-Image's"


class Correctness(Config):
    """The device beside the CPU: every kind of network, an optimizer step, samplers, the model that ships."""

    seconds: PositiveFloat = 35.0
    """Seconds for it."""
    steps: PositiveInt = 8
    """Steps of each sampler."""
    prompts: PositiveInt = 36
    """Prompts that the model that ships draws on both, and a sixth of as many that name pairs never seen."""
    drawn_steps: PositiveInt | None = None
    """Steps from noise to those pictures; left out, as the model has it."""


class Training(Config):
    """Optimizer steps of Qwen-Image's network on latents, beside diffusers' class and a plain loop."""

    seconds: PositiveFloat = 150.0
    """Seconds for it."""
    batches: tuple[PositiveInt, ...] = (128, 64, 256)
    """Pictures of an optimizer step, in the order in which they are measured; the first is the recipe's."""
    steps: PositiveInt = 3
    """Optimizer steps of a turn: the device is waited for at the end of a turn only, as far as the loop lets it."""
    rounds: PositiveInt = 7
    """Turns of each, after one that does not count."""
    products: tuple[PositiveInt, ...] = (2048, 4096, 8192, 16384)
    """Sides of square matrices, the fastest of whose products is what utilisation is a share of."""


class Drawing(Config):
    """Pictures of Qwen-Image's network, one and many, eager, compiled, as CUDA graphs, and by diffusers' class."""

    seconds: PositiveFloat = 90.0
    """Seconds for it."""
    pictures: tuple[PositiveInt, ...] = (1, 16)
    """Pictures drawn together."""
    steps: PositiveInt = 28
    """Euler steps from noise to picture."""
    guidance: NonNegativeFloat = 4.0
    """Classifier-free guidance scale."""
    rounds: PositiveInt = 5
    """Turns of each, after one that does not count."""


class Stable(Config):
    """Stable Diffusion 1's U-Net, training and drawing, and its VAE's encoder."""

    seconds: PositiveFloat = 45.0
    """Seconds for it."""
    unet: UNetConfig = UNetConfig(width=320, multipliers=(1, 2, 4, 4), layers=2, attention=(0, 1, 2), heads=8)
    text_width: PositiveInt = 768
    """Width of a text token; there are as many as Qwen-Image's network has."""
    side: PositiveInt = 64
    """Cells along the side of a latent: 64 are 512 pixels."""
    batch: PositiveInt = 16
    """Pictures of an optimizer step."""
    pictures: PositiveInt = 4
    """Pictures drawn together."""
    steps: PositiveInt = 28
    """Euler steps from noise to picture."""
    guidance: NonNegativeFloat = 7.5
    """Classifier-free guidance scale."""
    vae: VAEConfig = VAEConfig()
    encoded: tuple[PositiveInt, ...] = (256, 512)
    """Sides of pictures that the VAE encodes, in pixels."""
    pixels: PositiveInt = 2**21
    """Pixels that it encodes together."""
    rounds: PositiveInt = 5
    """Turns of each, after one that does not count."""


class Recipes(Config):
    """Trainings from nothing by the package's own loop, drawn from and judged."""

    seconds: PositiveFloat = 190.0
    """Seconds for it."""
    shapes: NonNegativeFloat = 90.0
    """Seconds that `shapes` trains for; 0 leaves it out."""
    mnist: NonNegativeFloat = 60.0
    """Seconds that `mnist` trains for; 0 leaves it out, and so do digits that are not there."""
    pilot: PositiveInt = 60
    """Steps of a first training, which tells how many fit in these seconds."""
    prompts: PositiveInt = 240
    """Prompts by which shapes are judged."""
    digits: PositiveInt = 1000
    """Digits that are judged."""
    shapes_flags: str = ""
    """What else to say to `fromnoise train shapes`, as in "--training.batch 64"."""
    mnist_flags: str = ""
    """What else to say to `fromnoise train mnist`."""


class Part(NamedTuple):
    """A part of the whole, which runs in a process of its own."""

    module: str
    about: str


PARTS: Mapping[str, Part] = {
    "correctness": Part("benchmarks.gpu.correctness", "the device beside the CPU"),
    "training": Part("benchmarks.gpu.training", "a 258M MMDiT trains"),
    "drawing": Part("benchmarks.gpu.drawing", "a 258M MMDiT draws"),
    "stable": Part("benchmarks.gpu.stable", "Stable Diffusion's U-Net and VAE"),
    "recipes": Part("benchmarks.gpu.recipes", "shapes and digits from nothing"),
}
"""In the order in which they run. Each module has `measure(settings, notes)`."""


class Settings(Config):
    """What is measured."""

    parts: Annotated[tuple[Annotated[str, Name(PARTS)], ...], Field(min_length=1)] = tuple(PARTS)
    """Parts to run: correctness, training, drawing, stable, recipes."""
    device: str = "cuda"
    """Where: cuda, cuda:1, ...; cpu, at toy sizes, to try this command."""
    out: Path = Path("build/gpu")
    """Directory for gpu.json and the pictures."""
    seconds: PositiveFloat = 525.0
    """Seconds for the whole; what does not fit is left out, and said."""
    compile: bool = True
    """Also measure what runs compiled."""
    correctness: Correctness = Correctness()
    network: MMDiTConfig = QWEN.backbone
    channels: PositiveInt = 4
    """Channels of the latents that the network learns: 4 x 32 x 32 for pictures of 256 pixels."""
    side: PositiveInt = 32
    """Cells along the side of such a latent."""
    text: PositiveInt = 77
    """Text tokens; how many of them are real differs from picture to picture."""
    text_width: PositiveInt = 768
    """Width of a text token."""
    training: Training = Training()
    drawing: Drawing = Drawing()
    stable: Stable = Stable()
    recipes: Recipes = Recipes()
