"""A network as a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from fromnoise.core.types import Cond
from fromnoise.diffusion.predict import Model

WARM_UP = 3  # calls before the record, as torch.cuda.graph wants them: libraries make their workspaces in these


class Graphed:
    """A network recorded at its first call, on a CUDA device; every later one plays the record again.

    The processor then starts one graph in place of a thousand kernels. All calls have the shapes of the first, and
    weights must stay where they are.
    """

    def __init__(self, network: Model):
        self.network = network
        self.held: list[Tensor] = []  # what the record reads
        self.graph = torch.cuda.CUDAGraph()

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x (B, C, H, W), t (B,) -> (B, C, H, W)."""
        given = [x, t, cond.tokens, cond.mask, cond.vector]
        if not self.held:
            self._record(given)
        for held, new in zip(self.held, given, strict=True):
            held.copy_(new)
        self.graph.replay()
        return self.answer.clone()  # (B, C, H, W)

    def _record(self, given: list[Tensor]) -> None:
        self.held = [tensor.clone() for tensor in given]
        x, t, *said = self.held
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.network(x, t, Cond(*said))
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self.graph):
            self.answer = self.network(x, t, Cond(*said))
