"""fromnoise's samplers where diffusers keeps its schedulers."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from fromnoise.diffusion.path import Path
from fromnoise.diffusion.predict import Predict
from fromnoise.diffusion.sample import Draw, Step, choose
from fromnoise.diffusion.times import schedule


class SamplerScheduler(SchedulerMixin, ConfigMixin):
    """The sampler called `sampler`. shift: moves its times towards noise. eta: share of fresh noise in ddim."""

    @register_to_config
    def __init__(self, sampler: str, shift: float, eta: float):
        self.times_shift = shift
        self.choose(sampler, eta)

    def choose(self, sampler: str, eta: float = 0.0) -> None:
        """Draw with another sampler from now on; ValueError for a name that there is not."""
        self.sample = choose(sampler, eta)

    def steps(
        self, predict: Predict, noise: Tensor, count: int, start: float, path: Path, draw: Draw
    ) -> Iterator[Step]:
        """The sample after each of `count` steps from time `start` to the data."""
        yield from self.sample(predict, noise, schedule(count, self.times_shift, start), path, draw)
