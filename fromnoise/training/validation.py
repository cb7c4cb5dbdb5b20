"""The loss on pictures, times, noise and prompts that never change, by tenths of the time. Legend: B batch."""

from __future__ import annotations

import math

import torch

from fromnoise.core.device import autocast
from fromnoise.core.ranks import ALONE, Ranks
from fromnoise.core.types import Data
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.ema import Ema
from fromnoise.training.step import Sample, draw

BINS = 10
PER_BIN = 20
COUNT = BINS * PER_BIN
CHUNK = 50  # samples of one forward


class Validation:
    """`COUNT` fixed samples, shared out among `ranks`. Times are stratified: equally many, equally spaced, in each of
    `BINS` bins. Where held-out pictures come several times, each bin comes to see all of them."""

    def __init__(self, pipeline: Pipeline, data: Data, ranks: Ranks = ALONE):
        self.ranks = ranks
        sample = draw(pipeline, data.validation(COUNT), torch.Generator().manual_seed(0), dropping=False)
        place = torch.arange(COUNT)
        counts = data.counts
        distinct = COUNT if counts is None else counts.held_out or counts.learned  # pictures, which go round
        # After so many places each would come back to the same bin, so that a bin would not see all: move on by one.
        self.bins = (place + place // math.lcm(distinct, BINS)) % BINS  # (B,)
        t = (self.bins + (place // BINS + 0.5) / PER_BIN) / BINS  # (B,)
        sample = sample._replace(t=t)
        first, last = ranks.span(COUNT)
        rows = [(i, min(i + CHUNK, last)) for i in range(first, last, CHUNK)]
        self.chunks: list[Sample] = [sample.rows(*part).to(pipeline.device) for part in rows]

    def losses(self, pipeline: Pipeline, ema: Ema, dtype: torch.dtype | None) -> dict[str, float | list[float]]:
        """Mean losses of the weights as they are and of their average, whole and by bin from data to noise."""
        with ema.raw():
            raw = self.by_time(pipeline, dtype)
        with ema.applied():
            averaged = self.by_time(pipeline, dtype)
        return {
            "validation_raw": sum(raw) / BINS,
            "validation_ema": sum(averaged) / BINS,
            "validation_raw_by_time": raw,
            "validation_ema_by_time": averaged,
        }

    @torch.no_grad()
    def by_time(self, pipeline: Pipeline, dtype: torch.dtype | None) -> list[float]:
        """Mean loss of the weights as they are, by bin from data to noise."""
        # Eager: nothing is compiled for these few forwards.
        with autocast(pipeline.device, dtype), torch.compiler.set_stance("force_eager"):
            losses = [pipeline.loss(*chunk).float().cpu() for chunk in self.chunks]
        loss = self.ranks.rows(torch.cat(losses), COUNT)  # (B,)
        return [float(loss[self.bins == i].mean()) for i in range(BINS)]
