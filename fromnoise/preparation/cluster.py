"""Preparation on a cluster by Ray Data: one portion in, one shard out, by any worker and any number of times."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fromnoise.preparation.config import Preparation
from fromnoise.preparation.encode import Encoder, Models
from fromnoise.preparation.local import run
from fromnoise.preparation.plan import Plan, check
from fromnoise.preparation.sources.open import open_source
from fromnoise.preparation.stages import Stages


class Encode:
    """A worker: holds the models, and writes the shard of each portion that it is given.

    What is wrong is told, not raised: Ray would wrap it up in its own errors, and try again.
    """

    def __init__(self, where: str, settings: dict[str, Any], device: str, out: str):
        self.out, self.fault = Path(out), ""
        try:
            asked = Preparation.model_validate(settings)
            self.source = open_source(where, asked)
            models = Models(asked, self.source.classes, device)
            self.plan = Plan.of(self.source, asked, models.layout)
            check(self.out, self.plan)  # this machine may hold another VAE, or see another source
            self.encoder = Encoder(models, asked, 1, Stages())
        except ValueError as error:
            self.fault = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Write shard `row["portion"]`, if it is not there: what went wrong, if anything; and how long stages took."""
        portion, stages = int(row["portion"]), Stages()
        if not self.fault and not (self.out / self.plan.shards[portion]).exists():
            self.encoder.stages = stages
            try:
                run(self.encoder, self.source, self.plan, self.out, [portion], lambda: None)
            except ValueError as error:
                self.fault = str(error)
        return {"fault": self.fault, "stages": json.dumps(stages.told())}


def run_on_ray(
    where: str,
    settings: Preparation,
    device: str,
    out: Path,
    todo: Sequence[int],
    workers: int,
    stages: Stages,
    tick: Callable[[], None],
) -> None:
    """Write the shards `todo` by so many workers of the Ray cluster of $RAY_ADDRESS, else of one on this machine. All
    of them see the source, the models and `out` by the same paths. Ray starts a worker that died, and what it did,
    again.

    Raises:
        ValueError: one line, when Ray is not installed, or what a worker found wrong.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError('preparation by Ray needs: pip install "fromnoise[cluster]"') from None
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items([{"portion": i} for i in todo], override_num_blocks=len(todo))
        worker: Any = Encode  # its types name functions only
        done = rows.map(
            worker,
            fn_constructor_args=(where, settings.model_dump(mode="json"), device, str(out.resolve())),
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if device.startswith("cuda") else None,
        )
        for row in done.iter_rows():
            if row["fault"]:
                raise ValueError(row["fault"])
            stages.merge(json.loads(row["stages"]))
            tick()
    finally:
        ray.shutdown()
