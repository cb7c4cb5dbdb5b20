"""Weights that real processes share out by rows: what each begins with, and what it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.utils import get_total_norm

from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.core.ranks import Alone, Together, joined
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training import parallel
from fromnoise.training.drawing import Drawing
from fromnoise.training.parallel import Sharded, split
from fromnoise.training.run import Run
from tests.training.processes import all_of, become, serving


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with serving() as context:
        yield context


SHAPES = [(5, 3), (2, 7), (7, 2, 3, 3), (1, 4), (3, 3), (6, 5), (4, 4)]
"""Of gradients whose rows do not come out even, or are too few for three processes."""


def gathered(rank: int, size: int, port: int) -> None:
    """Each process has the gradients that are its share whole, of many as of one."""
    from torch.distributed.tensor import Shard, distribute_tensor

    become(rank, size, port)
    with joined("cpu") as ranks:
        parallel = Sharded(ranks, torch.device("cpu"), size)
        generator = torch.Generator().manual_seed(0)
        whole = [torch.randn(shape, generator=generator) for shape in SHAPES]
        held = [distribute_tensor(one, parallel.mesh, [Shard(0)]) for one in whole]
        for count in range(1, len(whole) + 1):
            own = whole[slice(*parallel.sharers.share(count))]
            got = parallel.collected(held[:count])
            assert len(got) == len(own) and all(map(torch.equal, got, own))
        norm = parallel.norm(get_total_norm([parallel.held(one) for one in held]))
        torch.testing.assert_close(norm, get_total_norm(whole))


def test_gradients_are_whole_where_they_are_taken_and_their_norm_is_known_to_all(context: Any) -> None:
    processes = all_of(context, 3, gathered)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def filled(rank: int, size: int, port: int, run: Run, file: Path) -> None:
    """Each process holds its rows of the first one's weights, and had none of the backbone's before."""
    become(rank, size, port)
    data, others = run.data.build(0), [run, begun_with(run, file)]
    whole = [*(Drawing(one, data, print).build() for one in others), Pipeline.load(file)]
    with joined("cpu") as ranks:
        parallel = split(ranks, run.training)
        trainees = [Drawing(one, data, print, ranks) for one in others]
        for model, expected in zip([*(one.build() for one in trainees), trainees[0].load(file)], whole, strict=True):
            assert {p.is_meta for p in model.backbone.parameters()} == {rank != 0}
            parallel.place(model, torch.device("cpu"))
            for p, wanted in zip(model.parameters(), expected.parameters(), strict=True):
                assert torch.equal(parallel.held(p), wanted[slice(*parallel.rows(p))])


def begun_with(run: Run, file: Path) -> Run:
    return run.model_copy(update={"start": run.start.model_copy(update={"run": file})})


def test_weights_are_those_of_the_first_process_and_no_other_has_them_whole(
    tmp_path: Path, context: Any, tiny_run: Callable[..., Run]
) -> None:
    run, file = tiny_run(batch=8, parallel="fsdp"), tmp_path / "model.safetensors"
    Pipeline.build(run.model, run.data.build(0).captions(500), seed=5).save(file, {})
    processes = all_of(context, 2, filled, run, file)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


class Two(Alone):
    """One of two processes."""

    size = 2


def test_a_batch_is_not_found_by_processes_that_share_weights_on_gpus(
    tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is given: one process that has no room would leave the others waiting."""
    monkeypatch.setattr(parallel, "pick", lambda name: torch.device("cuda"))
    training = tiny_run(batch=0, parallel="fsdp").training
    with pytest.raises(ValueError, match=r"^training.batch is 0 and training.parallel fsdp: .*; allowed: a number, or"):
        split(Two(), training)


def test_frozen_encoders_go_where_the_shares_go(
    folders: dict[str, Path], tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP moves weights one by one, and theirs are none of the model's."""
    model, asked = tiny_run().model, list[torch.device]()
    encoders = FrozenTextConfig(encoders=(EncoderConfig(path=str(folders["t5"]), length=16),))
    pipeline = Pipeline.build(model.model_copy(update={"conditioner": encoders}), ["a red circle"], 0)
    monkeypatch.setattr(pipeline.conditioner.encoders[0].model, "to", asked.append)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        Sharded(Together(dist.group.WORLD), torch.device("cpu"), 1).place(pipeline, torch.device("cpu"))
    finally:
        dist.destroy_process_group()
    assert asked == [torch.device("cpu")]
