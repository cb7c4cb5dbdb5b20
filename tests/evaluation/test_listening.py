"""Does it listen? Closed forms for networks that answer by the class alone, or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fromnoise.conditioning.config import LabelConfig, NoConditionConfig
from fromnoise.core.types import Cond
from fromnoise.data.config import FolderConfig
from fromnoise.data.labelled import Labelled, LabelledData, scaled
from fromnoise.data.split import VALIDATION, chance
from fromnoise.diffusion.loss import Objective
from fromnoise.evaluation.features.real import NotMeasured
from fromnoise.evaluation.listening import PICTURES, _alike, _gap, _numbered, _others, listening
from fromnoise.models.config import CNNConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pipeline import Pipeline

SIDE, CLASSES = 4, 5
OFF = 0.1  # error of a network that knows the class


class Fixed(nn.Module):
    """Answers with the first number of the condition, everywhere; and is always wrong by `OFF`."""

    def __init__(self, heard: float):
        super().__init__()
        self.heard = nn.Parameter(torch.tensor(heard))

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return (self.heard * cond.vector[:, :1, None, None] + OFF).expand_as(x)  # (B, C, H, W)


def flat_data() -> LabelledData:
    """Pictures of one grey level, which their class decides."""
    labels = np.arange(50, dtype=np.uint8) % CLASSES
    images = np.broadcast_to((labels * 50)[:, None, None, None], (50, 1, SIDE, SIDE)).copy()
    some = Labelled(images, labels)
    return LabelledData(some, some, lambda: some, [[str(k)] for k in range(CLASSES)], 0, flip=False)


def levels() -> Tensor:
    return scaled(torch.arange(CLASSES) * 50)


def model(heard: float, conditioner: Any = None, objective: Objective | None = None) -> Pipeline:
    config = ModelConfig(
        backbone=CNNConfig(width=16),
        conditioner=conditioner or LabelConfig(classes=CLASSES, width=8),
        objective=objective or Objective(target="x0", measure="x0"),
        channels=1,
        size=SIDE,
    )
    pipeline = Pipeline.build(config, [], 0)
    pipeline.backbone = Fixed(heard)
    if conditioner is None:
        table = pipeline.conditioner.table.data
        table.zero_()
        table[:CLASSES, 0] = levels()
    return pipeline


def test_a_network_that_hears_the_class_pays_for_a_wrong_one() -> None:
    found = listening(model(1.0), flat_data())
    labels = flat_data().validation(PICTURES).labels
    own, other = levels()[labels], levels()[labels.roll(-1)]  # the next one's class is another
    np.testing.assert_allclose(found["loss"], OFF**2, rtol=1e-4)
    np.testing.assert_allclose(found["loss_shuffled"], float((other + OFF - own).square().mean()), rtol=1e-4)
    np.testing.assert_allclose(found["loss_null"], float((OFF - own).square().mean()), rtol=1e-4)
    gap = (found["loss_shuffled"][0] - OFF**2) / OFF**2
    assert found["gap"] == pytest.approx(gap, rel=1e-3)
    assert found["distinct"] == CLASSES and found["gap_interval"][1] > found["gap"] > 10


def test_how_far_the_class_moves_the_velocity() -> None:
    """On the straight path x0's error is one of the velocity over t, and the velocity is eps - x0."""
    data = flat_data()
    found = listening(model(1.0), data)
    batch = data.validation(PICTURES)
    eps = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))
    velocity = (eps - batch.images).square().sum()
    for t, moved in zip(found["times"], found["moved"], strict=True):
        expected = (levels()[batch.labels].square().sum() * SIDE**2 / t**2 / velocity).sqrt()
        assert moved == pytest.approx(float(expected), rel=1e-4)


def test_the_loss_is_the_one_trained_with() -> None:
    found = listening(model(1.0, objective=Objective(target="x0", measure="flow", max_weight=25.0)), flat_data())
    expected = [min(1 / t**2, 25.0) * OFF**2 for t in found["times"]]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-3)


def test_a_network_that_does_not_hear_loses_nothing() -> None:
    found = listening(model(0.0), flat_data())
    assert found["gap"] == 0 and found["gap_interval"] == [0, 0]
    assert found["loss"] == found["loss_shuffled"] == found["loss_null"]
    assert found["moved"] == [0] * 10


def test_what_has_no_captions_is_not_asked() -> None:
    with pytest.raises(NotMeasured, match="reads no prompts"):
        listening(model(0.0, conditioner=NoConditionConfig(width=8)), flat_data())
    with pytest.raises(NotMeasured, match="no other says anything else"):
        _others(_alike(_numbered("aaaaa")))


@pytest.mark.parametrize("said", ["abab", "aab", "abcabcabc", "aabbb", "aaaaab"])
def test_everyone_gets_another_caption(said: str) -> None:
    other: list[int] = _others(_alike(_numbered(said))).tolist()
    assert all(said[i] != said[j] for i, j in enumerate(other))


def test_another_way_to_say_a_class_is_no_other_caption() -> None:
    data = flat_data()
    data.said = [[f"{k}", f"a {k}", f"the level {k}"] for k in range(CLASSES)]
    data.held_out = Labelled(*(np.repeat(one[:CLASSES], 10, 0) for one in data.held_out))  # alike ones together
    found = listening(model(1.0), data)
    labels = data.validation(PICTURES).labels
    own, other = levels()[labels], levels()[(labels + 1) % CLASSES]  # ten places on is the next class
    np.testing.assert_allclose(found["loss_shuffled"], float((other + OFF - own).square().mean()), rtol=1e-4)


def test_a_picture_that_comes_again_gets_a_caption_of_another_and_is_no_news(tmp_path: Path) -> None:
    """Two pictures are held out, with three captions each: whatever comes again makes the interval no narrower."""
    names = [f"{i}.png" for i in range(1000)]
    held_out = [name for name in names if chance(name) < VALIDATION][:2]
    for name in held_out + [name for name in names if chance(name) >= VALIDATION][:30]:
        Image.new("RGB", (8, 8), (int(name[:-4]) % 256,) * 3).save(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text("\n".join(f"{name} said way {k}" for k in range(3)))
    batch = FolderConfig(path=tmp_path, size=8).build(0).validation(PICTURES)
    pictures = _numbered([image.numpy().tobytes() for image in batch.images])
    other = _others(_alike(pictures) | _alike(_numbered(batch.captions)))
    assert (pictures[other] != pictures).all()

    data = flat_data()
    data.held_out = Labelled(*(one[:2] for one in data.held_out))
    found = listening(model(1.0), data)
    own, theirs = levels()[:2], levels()[[1, 0]]
    gaps = ((theirs + OFF - own).square() / OFF**2 - 1).numpy()  # of the two
    half = math.tan(math.pi * 0.475) * gaps.std(ddof=1) / 2**0.5  # with one degree of freedom t is Cauchy's
    assert found["distinct"] == 2
    assert found["gap_interval"] == pytest.approx([gaps.mean() - half, gaps.mean() + half], rel=1e-3)


@pytest.mark.parametrize("rise", [1.05, 30.0])
def test_the_interval_of_the_gap_holds_the_gap(rise: float) -> None:
    """Exponential losses, a part of which hangs on the picture alone. With the loss under the own captions taken as
    exact, the interval held a gap of 29 in 82 % of cases."""
    draws = torch.distributions.Exponential(torch.tensor(1.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        held = 0
        for _ in range(500):
            own = draws.sample((1, PICTURES))  # (K, N)
            gap, half = _gap(own, rise * (0.2 * own + 0.8 * draws.sample(own.shape)), torch.arange(PICTURES))
            held += abs(gap - (rise - 1)) < half
    assert 0.92 <= held / 500 <= 0.98


def test_real_digits(tiny: Callable[..., Any]) -> None:
    run = tiny("flow")
    config = run.model.model_copy(update={"channels": 1, "size": 28})
    told: list[tuple[int, int]] = []
    found = listening(Pipeline.build(config, [], 0), run.data.build(0), lambda done, total: told.append((done, total)))
    assert abs(found["gap"]) < 0.01 and told[-1] == (10, 10)  # nothing is learned yet
