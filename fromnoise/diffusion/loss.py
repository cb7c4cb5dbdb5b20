"""The training objective: what is predicted, what its error is measured in, at which times. Kept free of torch.

Legend: B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fromnoise.core.config import Config, Kind, Name
from fromnoise.diffusion.path import Path, expand, mix
from fromnoise.diffusion.target import TARGETS, det
from fromnoise.diffusion.times import TIMES, LogitNormal, Times

if TYPE_CHECKING:
    from torch import Tensor

    from fromnoise.core.types import Cond


class Objective(Config):
    """Weighted squared error. At fixed x_t an error in target p is an error in target m times det_m / det_p,
    so "predict x0, measure velocity" (JiT: Li and He 2025) is a weight, and needs no second code path."""

    target: Annotated[str, Name(TARGETS)] = "x0"
    """What the network is asked for."""
    measure: Annotated[str, Name(TARGETS)] = "flow"
    """What the squared error is measured in."""
    max_weight: Annotated[float, Field(gt=0)] = 400.0
    """Largest weight, near a pole of the measure; 400 is t >= 0.05 for x0 measured as flow on the linear path."""
    times: Annotated[Times, Kind(TIMES)] = LogitNormal()
    """Distribution of the times trained on."""
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the prompts replaced by nothing, for guidance."""

    def weight(self, path: Path, t: Tensor) -> Tensor:
        """(det_m / det_p)^2, at most `max_weight`; t (B,) strictly between 0 and 1 -> (B,)."""
        coefs = path(t)
        ratio = det(coefs, TARGETS[self.measure]) / det(coefs, TARGETS[self.target])
        return ratio.square().clamp(max=self.max_weight)

    def loss(
        self,
        model: Callable[[Tensor, Tensor, Cond], Tensor],
        x0: Tensor,
        cond: Cond,
        t: Tensor,
        eps: Tensor,
        path: Path,
    ) -> Tensor:
        """Weighted mean squared error of each sample; x0 and eps (B, ...), t (B,) -> (B,)."""
        coefs = path(t)  # (B,) each
        a, b = TARGETS[self.target](coefs)  # (B,) each
        wanted = expand(a, x0) * x0 + expand(b, x0) * eps  # (B, ...)
        error = model(mix(coefs, x0, eps), t, cond) - wanted  # (B, ...)
        return self.weight(path, t) * error.square().flatten(1).mean(1)  # (B,)
