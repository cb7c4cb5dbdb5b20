"""What runs fastest is measured once and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from fromnoise.core.config import write_yaml
from fromnoise.core.ranks import ALONE, Alone, Ranks
from fromnoise.models.config import UNetConfig
from fromnoise.pipeline.pipeline import Pipeline, Precision
from fromnoise.training import fast
from fromnoise.training.fast import Choices, choose, largest_part, quickest_part
from fromnoise.training.run import Run
from fromnoise.training.step import Sample, accumulate_gradients, draw, generator_of
from tests.conftest import stirred


def serving(pipeline: Pipeline, data: Any) -> Callable[[int], Sample]:
    """Samples of as many pictures."""
    return lambda size: draw(pipeline, data.train(0, size), generator_of(0, 0))


def test_measured_choices_are_told_kept_and_made_again(
    tmp_path: Path, pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: p.detach().clone() for name, p in pipeline.named_parameters()}
    told: list[str] = []
    training = tiny_run(precision="auto", compile="auto").training
    choices = choose(pipeline, serving(pipeline, shapes), training, tmp_path / "measured.yaml", told.append)
    assert (choices.device, choices.batch, choices.compile) == ("cpu", 4, False)
    assert len(told) == 1 and "float32, not compiled: 6 steps" in told[0]
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in pipeline.named_parameters())

    def never(*_: object) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(fast, "seconds_of", never)
    assert choose(pipeline, never, training, tmp_path / "measured.yaml", never) == choices  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
@pytest.mark.parametrize(
    ("compiled", "half", "expected"),
    [
        (0.5, 0.8, ("bfloat16", True)),
        (0.5, None, ("float32", True)),
        (1.5, 0.95, ("float32", False)),  # not clearly the quicker
        (1.5, 0.8, ("bfloat16", False)),
        (0.9, 0.8, ("bfloat16", False)),
    ],
)
def test_what_ends_the_steps_soonest_wins(
    pipeline: Pipeline,
    shapes: Any,
    tiny_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    compiled: float,
    half: float | None,
    expected: tuple[str, bool],
) -> None:
    """The times are given: no two runs would measure the same ones. half: in bfloat16, where it has fast products."""
    block = pipeline.backbone.transformer_blocks[0]

    def seconds(model: Pipeline, sample: Sample, parts: int, dtype: torch.dtype | None, *_: object) -> float:
        return compiled if block._compiled_call_impl else half if half and dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(fast, "fast_bfloat16", lambda device: half is not None)
    monkeypatch.setattr(fast, "seconds_of", seconds)
    training = tiny_run(precision="auto", compile="auto", steps=1000).training
    choices = choose(pipeline, serving(pipeline, shapes), training, tmp_path / "measured.yaml", print)
    assert (choices.precision, choices.compile) == expected


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_a_slow_minute_chooses_nothing(
    pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Eager steps were tried in a quick one; then everything takes twice as long."""
    block, asked = pipeline.backbone.transformer_blocks[0], list[int]()

    def seconds(*_: object) -> float:
        asked.append(1)
        return (1 if len(asked) == 1 else 2) * (0.8 if block._compiled_call_impl else 1.0)

    monkeypatch.setattr(fast, "fast_bfloat16", lambda device: False)
    monkeypatch.setattr(fast, "seconds_of", seconds)
    told = list[str]()
    training = tiny_run(precision="auto", compile="auto", steps=1000).training
    assert choose(pipeline, serving(pipeline, shapes), training, tmp_path / "measured.yaml", told.append).compile
    assert told[0].startswith("float32, compiled: a forward and backward takes 1.6 s compiled in float32, 2 s eager")


def test_what_is_not_to_be_compiled_still_has_its_precision_chosen(
    pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fast, "fast_bfloat16", lambda device: True)
    monkeypatch.setattr(fast, "seconds_of", lambda model, sample, parts, dtype, *_: 0.5 if dtype else 1.0)
    told: list[str] = []
    training = tiny_run(precision="auto", compile="off").training
    choices = choose(pipeline, serving(pipeline, shapes), training, tmp_path / "measured.yaml", told.append)
    assert (choices.precision, choices.compile) == ("bfloat16", False)
    assert told == [
        "bfloat16, not compiled: a forward and backward takes 1 s eager in float32, 0.5 s eager in bfloat16"
    ]


def test_convolutions_gain_too_little_to_be_compiled_for_as_few_steps(pipeline: Pipeline) -> None:
    backbone = UNetConfig(width=8, multipliers=(1, 2), attention=(1,), heads=2, groups=4)
    unet = Pipeline.build(pipeline.config.model_copy(update={"backbone": backbone}), ["a red circle"], 0)
    assert fast.repays(pipeline, 1000, 0.5, 1) and not fast.repays(pipeline, 1000, 0.5, 4)
    assert not fast.repays(unet, 1000, 0.5, 1) and fast.repays(unet, 4000, 0.5, 1)


@pytest.mark.filterwarnings("ignore")
def test_what_is_to_be_compiled_and_cannot_is_one_line(
    pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    training = tiny_run(compile="on").training
    with torch._inductor.config.patch("cpp.cxx", ("/nowhere/g++",)), pytest.raises(ValueError, match=r".") as caught:  # type: ignore[attr-defined]
        choose(pipeline, serving(pipeline, shapes), training, tmp_path / "measured.yaml", print)
    assert str(caught.value).startswith("training.compile is on, and compiling fails: ")
    assert str(caught.value).endswith("; allowed: auto, off")
    assert not (tmp_path / "measured.yaml").exists()


def test_on_another_device_it_is_measured_anew_with_the_same_batch(
    tmp_path: Path, pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run]
) -> None:
    file, told = tmp_path / "measured.yaml", list[str]()
    write_yaml(Choices(device="cuda", batch=12, precision="bfloat16", compile=True), file)
    choices = choose(pipeline, serving(pipeline, shapes), tiny_run(batch=0).training, file, told.append)
    assert choices == Choices(device="cpu", batch=12, precision="float32", compile=False)
    assert told[0] == "begun on cuda, going on on cpu: measured anew, and not the same to the last bit"


def test_on_a_processor_without_bfloat16_what_was_chosen_with_it_is_measured_anew(
    tmp_path: Path, pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, told = tmp_path / "measured.yaml", list[str]()
    kept = Choices(device="cpu", batch=12, precision="bfloat16", compile=False)
    write_yaml(kept, file)
    monkeypatch.setattr(fast, "fast_bfloat16", lambda device: False)
    for able in (True, False):
        monkeypatch.setattr(fast, "has_bfloat16", lambda device, able=able: able)
        choices = choose(pipeline, serving(pipeline, shapes), tiny_run(precision="auto").training, file, told.append)
        assert choices == kept.model_copy(update={} if able else {"precision": "float32"})
    assert told[0] == (
        "begun on cpu, going on on a cpu that cannot multiply bfloat16: measured anew, and not the same to the last bit"
    )
    told.clear()
    write_yaml(kept, file)
    asked = tiny_run(precision="bfloat16").training  # who asks for it has it
    assert choose(pipeline, serving(pipeline, shapes), asked, file, told.append) == kept
    assert len(told) == 1 and told[0].startswith("training.precision is bfloat16, which this CPU multiplies")


def test_a_batch_is_found_in_whole_parts(
    tmp_path: Path, pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def seconds(_pipeline: Pipeline, sample: Any, *_: object) -> float:
        seen.append(len(sample.t))
        return 1.0 if len(sample.t) <= 32 else 10.0

    monkeypatch.setattr(fast, "seconds_of", seconds)
    training = tiny_run(batch=0, accumulate=3).training
    choices = choose(pipeline, serving(pipeline, shapes), training, tmp_path / "measured.yaml", print)
    assert choices.batch == 96 and seen == [16, 32, 64]


def test_where_a_part_fits_one_process_and_not_another_both_go_on_to_talk(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is given: 64 pictures do not fit this process, and the other would have found that they do."""
    device, asked, talked = torch.device("cuda:1"), list[object](), list[float]()
    for name, value in {"mem_get_info": (0, 2**40), "reset_peak_memory_stats": None, "max_memory_allocated": 1}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: asked.append(device) or value)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(Pipeline, "device", device)

    class Two(Alone):
        def every(self, *values: float) -> list[tuple[float, ...]]:
            talked.extend(values)
            return [values, (True,)]

    def seconds(part: int, ranks: Ranks) -> float:
        assert ranks is ALONE
        if part > 32:
            raise torch.OutOfMemoryError
        return 1.0

    assert fast._find_part(pipeline, seconds, Two()) == 32
    assert talked == [True, True, False] and set(asked) == {device}


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_where_compiling_fails_in_another_process_none_compiles(
    pipeline: Pipeline, shapes: Any, tiny_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Two(Alone):
        def every(self, *values: float) -> list[tuple[float, ...]]:
            return [values, values if values != (False,) else (True,)]

    monkeypatch.setattr(fast, "fast_bfloat16", lambda device: True)
    monkeypatch.setattr(fast, "seconds_of", lambda *_: 1.0)
    training, told = tiny_run(precision="auto", compile="auto", steps=1000).training, list[str]()
    file = tmp_path / "measured.yaml"
    choices = choose(pipeline, serving(pipeline, shapes), training, file, told.append, ranks=Two())
    assert not choices.compile and told == ["float32, not compiled: it fails here (in another process)"]


def test_the_quickest_part_is_the_smallest_of_the_fast_ones() -> None:
    assert quickest_part(lambda part: 0.1 + part / 1000) > 1000  # a fixed cost: the more the better
    assert quickest_part(lambda part: part / 1000) == 16  # no gain
    assert quickest_part(lambda part: part / 1000 if part <= 128 else part / 500) == 16
    assert quickest_part(lambda part: 0.064 if part <= 64 else part / 1000) == 64


def test_the_largest_part_that_fits() -> None:
    assert largest_part(lambda part: part <= 300) == 256
    assert largest_part(lambda part: True) == 4096
    with pytest.raises(ValueError, match="not even 16 pictures fit"):
        largest_part(lambda part: False)


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_compiled_blocks_give_the_same_gradients(pipeline: Pipeline, shapes: Any) -> None:
    torch.compiler.reset()
    sample = draw(pipeline, shapes.train(0, 4), generator_of(0, 0))
    accumulate_gradients(pipeline, sample, 1, None)
    expected = {name: p.grad for name, p in pipeline.named_parameters()}
    pipeline.zero_grad()
    graphs, passed = counters["stats"]["unique_graphs"], counters["aot_autograd"]["autograd_cache_bypass"]
    with pipeline.compiled():
        accumulate_gradients(pipeline, sample, 1, None)
    assert counters["stats"]["unique_graphs"] == graphs + 2  # blocks, and the last block
    assert counters["aot_autograd"]["autograd_cache_bypass"] == passed  # all is kept for the next process
    for name, p in pipeline.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-3, atol=1e-5)
    accumulate_gradients(pipeline, sample, 1, None)
    assert counters["stats"]["unique_graphs"] == graphs + 2


@pytest.mark.filterwarnings("ignore")  # torch warns of its own code when it compiles
def test_a_compiled_model_draws_the_same_pictures(tiny_run: Callable[..., Run], shapes: Any) -> None:
    torch.compiler.reset()
    model = tiny_run().model
    shallow = model.backbone.model_copy(update={"depth": 1})  # one kind of block: g++ takes a second for each kernel
    pipeline = stirred(Pipeline.build(model.model_copy(update={"backbone": shallow}), shapes.captions(200), 0), 0.05)
    prompts = ["a red circle", "two blue stars"]
    apart: dict[Precision, int] = {"float32": 1, "bfloat16": 8}
    for precision, most in apart.items():
        eager = np.stack([np.asarray(p).astype(int) for p in pipeline(prompts, steps=3, precision=precision)])
        with pipeline.compiled():
            quick = np.stack([np.asarray(p).astype(int) for p in pipeline(prompts, steps=3, precision=precision)])
        assert np.abs(eager - quick).max() <= most
        assert eager.std() > 10
