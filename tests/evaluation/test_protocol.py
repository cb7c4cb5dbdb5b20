"""MNIST's protocol on real digits, of which everything is known."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch

from fromnoise.conditioning.config import LabelConfig
from fromnoise.data.labelled import scaled
from fromnoise.evaluation.intervals import wilson
from fromnoise.evaluation.judges import classifier
from fromnoise.evaluation.judges.domains import DIGITS, PHOTOS
from fromnoise.evaluation.judges.protocol import Drawn, Reference, draw, measure, prompts, spread
from fromnoise.models.config import CNNConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline


@pytest.fixture(scope="module")
def judge() -> classifier.Classifier:
    return classifier.load(DIGITS)[0]


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = DIGITS.published().pictures("validation")
    return scaled(images[:2000]), labels[:2000]


@pytest.fixture(scope="module")
def real(judge: classifier.Classifier, held_out: tuple[torch.Tensor, torch.Tensor]) -> Reference:
    """As `protocol.reference`, of fewer digits."""
    data = DIGITS.published()
    (learned, labels), (test, _) = data.pictures("train"), data.pictures("test")
    seen = judge.classify(scaled(learned[:4000])).features
    return Reference(seen, judge.classify(scaled(test[:4000])).features, labels[:4000])


def test_real_digits_are_right_near_and_diverse(judge, held_out, real) -> None:
    found = measure(Drawn(*held_out, seconds=4.0), judge, real)
    assert found["accuracy"] > 0.98
    assert found["accuracy_interval"][0] < found["accuracy"] < found["accuracy_interval"][1]
    assert found["frechet"] < 2.5 * found["frechet_floor"]
    assert found["diversity"] == pytest.approx(1, abs=0.1)
    assert found["images_per_second"] == 500
    assert sum(found["seen"]) == pytest.approx(1)


def test_wrong_labels_noise_and_one_picture_over_and_over_are_found_out(judge, held_out, real) -> None:
    images, labels = held_out
    good = measure(Drawn(images, labels, 1.0), judge, real)
    assert measure(Drawn(images, (labels + 1) % 10, 1.0), judge, real)["accuracy"] < 0.02
    noise = torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert measure(Drawn(noise, labels[:500], 1.0), judge, real)["frechet"] > 20 * good["frechet"]
    first = torch.stack([images[labels == k][0] for k in range(10)])
    again = measure(Drawn(first.repeat(100, 1, 1, 1), torch.arange(10).repeat(100), 1.0), judge, real)
    assert again["accuracy"] > 0.89
    assert again["diversity"] < 0.01
    assert again["frechet"] > 5 * good["frechet"]


def test_blurred_digits_are_further_away_than_sharp_ones(judge, held_out, real) -> None:
    images, labels = held_out
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    sharp = measure(Drawn(images, labels, 1.0), judge, real)["frechet"]
    assert measure(Drawn(blurred, labels, 1.0), judge, real)["frechet"] > 3 * sharp


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (95, 100), (9900, 10_000)])
def test_wilson_holds_the_shares_that_a_test_would_not_refuse(right: int, count: int) -> None:
    z = NormalDist().inv_cdf(0.975)
    low, high = wilson(right, count, z)
    assert 0 <= low <= right / count <= high <= 1
    for bound in (low, high):  # at each end the score test is just significant: (p - share)^2 = z^2 p (1 - p) / n
        share = right / count
        assert (bound - share) ** 2 == pytest.approx(z * z * bound * (1 - bound) / count, abs=1e-12)


def test_spread_of_normal_features_is_known() -> None:
    features = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    # The distance of two plane normal points is Rayleigh's with sigma sqrt(2): mean sqrt(pi).
    assert spread(features, torch.arange(20_000) % 10) == pytest.approx(torch.pi**0.5, rel=0.02)


def test_classes_go_round_in_words_and_numbers() -> None:
    said, labels = prompts(DIGITS, 12)
    assert labels == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert said[7] == "a handwritten seven" and said[10] == "a handwritten zero"


def test_the_ways_to_say_a_class_go_round_too() -> None:
    said, labels = prompts(PHOTOS, 60)
    assert [said[i] for i in (5, 10, 25, 35, 45, 55)] == [
        "a photo of a dog",
        "a picture of an airplane",
        "a small photo of a dog",
        "a dog",
        "dog",
        "a photo of a dog",
    ]
    assert all(caption in PHOTOS.said[label] for caption, label in zip(said, labels, strict=True))


MODEL = ModelConfig(
    backbone=CNNConfig(width=16),
    conditioner=LabelConfig(classes=10, width=8),
    sampling=Sampling(steps=2, guidance=1.0),
    channels=1,
    size=28,
)


def test_a_digit_is_the_same_in_whatever_batch() -> None:
    pipeline = Pipeline.build(MODEL, [], seed=0)
    torch.manual_seed(0)
    for parameter in pipeline.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    told: list[tuple[int, int]] = []
    whole = draw(DIGITS, pipeline, 7, seed=3)
    parts = draw(DIGITS, pipeline, 7, seed=3, batch=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert whole.images.shape == (7, 1, 28, 28) and whole.seconds > 0
    torch.testing.assert_close(whole.images, parts.images, atol=5e-3, rtol=0)
    assert whole.labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert (whole.images[0] - whole.images[1]).abs().max() > 0.02


def test_a_model_of_colours_draws_no_digits() -> None:
    pipeline = Pipeline.build(MODEL.model_copy(update={"channels": 3}), [], seed=0)
    with pytest.raises(ValueError, match="3 channels and 28 pixels draws no digits that can be judged"):
        draw(DIGITS, pipeline, 1)
