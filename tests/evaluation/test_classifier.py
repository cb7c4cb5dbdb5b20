"""The judge of digits: what comes with fromnoise recognises them, and tells real ones from spoilt ones."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.core.files import save_tensors
from fromnoise.data.config import MNISTConfig
from fromnoise.data.labelled import scaled
from fromnoise.evaluation.distances.frechet import floor, frechet_distance
from fromnoise.evaluation.judges.classifier import Classifier, Judged, digest, load, save
from fromnoise.evaluation.judges.domains import DIGITS, jiggle
from fromnoise.evaluation.judges.fit import rate, train

FILES = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "mnist"
Splits = dict[str, tuple[Tensor, Tensor]]
REAL = pytest.mark.skipif(not FILES.is_dir(), reason="$FROMNOISE_DATA/mnist is absent")


@pytest.fixture(scope="module")
def judge() -> Classifier:
    return load(DIGITS)[0]


@pytest.fixture(scope="module")
def splits() -> Splits:
    data = MNISTConfig(path=FILES).build(0)
    return {split: data.pictures(split) for split in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def seen(judge: Classifier, splits: Splits) -> dict[str, Judged]:
    """What the judge sees in the digits held out, and in those of the test."""
    return {split: judge.classify(scaled(splits[split][0])) for split in ("validation", "test")}


def test_what_comes_with_fromnoise_is_small_and_says_where_it_is_from(judge: Classifier) -> None:
    assert DIGITS.asset.stat().st_size < 2 * 2**20
    known = load(DIGITS)[1]
    assert known["command"].startswith("python -m benchmarks.mnist_classifier --seed ") and len(known["data"]) == 64
    assert float(known["accuracy"]) >= 0.995
    assert not judge.training


@REAL
class TestReal:
    def test_digits_never_trained_on_are_recognised(self, seen: dict[str, Judged], splits: Splits) -> None:
        found, labels = seen["test"], splits["test"][1]
        assert found.logits.shape == (10_000, 10) and found.features.shape == (10_000, 128)
        right = (found.logits.argmax(1) == labels).double().mean().item()
        assert right >= 0.995
        # Another machine may round one digit in a thousand the other way.
        assert right == pytest.approx(float(load(DIGITS)[1]["accuracy"]), abs=1e-3)

    def test_the_data_on_record_are_the_digits_trained_on(self, splits: Splits) -> None:
        assert digest(*splits["train"]) == load(DIGITS)[1]["data"]

    def test_padded_digits_are_the_same_digits(self, judge: Classifier, splits: Splits) -> None:
        images = scaled(splits["test"][0][:100])
        padded = F.pad(images, (2, 2, 2, 2), value=-1.0)
        for ours, theirs in zip(judge.classify(padded), judge.classify(images), strict=True):
            assert torch.equal(ours, theirs)

    def test_the_frechet_distance_grows_with_what_is_spoilt(
        self, judge: Classifier, seen: dict[str, Judged], splits: Splits
    ) -> None:
        images = scaled(splits["validation"][0][:1000])
        reference = seen["test"].features
        least = floor(seen["validation"].features, reference, 1000)
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        for spoilt in (
            [images + amount * noise for amount in (0.0, 0.3, 0.6, 1.0)],
            [F.avg_pool2d(images, k, 1, k // 2, count_include_pad=False) for k in (1, 3, 5, 7)],
            [images.roll(shift, -1) for shift in (0, 4, 6, 8)],
        ):
            distances = [frechet_distance(judge.classify(some).features, reference) for some in spoilt]
            assert distances == sorted(distances)
            assert distances[0] < 3 * least and distances[-1] > 10 * distances[0]

    def test_a_class_left_out_is_seen(self, seen: dict[str, Judged], splits: Splits) -> None:
        labels, features, reference = splits["validation"][1], seen["validation"].features, seen["test"].features
        whole = frechet_distance(features, reference)
        assert frechet_distance(features[labels != 7], reference) > 3 * whole

    def test_training_is_a_function_of_its_arguments_and_learns(self, splits: Splits) -> None:
        images, labels = (some[:1024] for some in splits["train"])
        losses: list[float] = []
        first = train(DIGITS, images, labels, 3, 2, lambda epoch, loss: losses.append(loss))
        again, other = train(DIGITS, images, labels, 3, 2), train(DIGITS, images, labels, 4, 2)
        assert losses[1] < losses[0] < 2.5
        for name, tensor in first.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name])
        assert not torch.equal(first.head.weight, other.head.weight)

    def test_the_benchmark_writes_weights_and_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: Splits
    ) -> None:
        from benchmarks import classifier

        few = {split: (images[:512], labels[:512]) for split, (images, labels) in splits.items()}
        monkeypatch.setattr("fromnoise.data.labelled.LabelledData.pictures", lambda self, split: few[split])
        monkeypatch.setattr(classifier, "COUNTS", (100, 500))
        weights, result = tmp_path / "a.safetensors", tmp_path / "a.json"
        monkeypatch.setattr(sys, "argv", ["_", "--epochs", "1", "--weights", str(weights), "--result", str(result)])
        classifier.main("mnist", 10)
        assert load(DIGITS, weights)[1]["data"] == digest(*few["train"]) and '"frechet_floor"' in result.read_text()


class TestPieces:
    def test_loading_leaves_the_callers_chances_alone(self) -> None:
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        model, _ = load(DIGITS)
        assert torch.equal(torch.rand(3), expected)
        assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())

    def test_what_is_no_digit_is_refused(self) -> None:
        model = Classifier(DIGITS).eval()
        for shape in ((1, 3, 28, 28), (1, 1, 30, 30), (1, 28, 28)):
            with pytest.raises(ValueError, match=r"allowed: \(N, 1, 28, 28\) and \(N, 1, 32, 32\)"):
                model.classify(torch.zeros(shape))
        with pytest.raises(ValueError, match=r"torch.uint8; allowed: floating point"):
            model.classify(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))

    def test_batches_change_nothing(self) -> None:
        model, images = Classifier(DIGITS).eval(), torch.rand(10, 1, 28, 28) * 2 - 1
        for ours, theirs in zip(model.classify(images, batch=3), model.classify(images), strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_pictures_move_a_little_and_stay_in_range(self) -> None:
        images = torch.full((64, 1, 28, 28), -1.0)
        images[:, :, 10:18, 10:18] = 1.0
        moved = jiggle(images, torch.Generator().manual_seed(0))
        assert moved.shape == images.shape and moved.min() >= -1 and moved.max() <= 1
        assert not torch.equal(moved[0], moved[1])
        light = (moved + 1).sum((1, 2, 3)) / (images + 1).sum((1, 2, 3))
        assert light.min() > 0.7 and light.max() < 1.4
        assert (moved[:, :, :4] == -1).all() and (moved[:, :, -4:] == -1).all()

    def test_the_rate_rises_then_falls(self) -> None:
        rates = [rate(k / 100, 0.15) for k in range(101)]
        assert rates[0] == 0 and max(rates) == rates[15] == 1 and rates[-1] == pytest.approx(0)
        assert rates[:16] == sorted(rates[:16]) and rates[15:] == sorted(rates[15:], reverse=True)

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        save(Classifier(DIGITS), tmp_path / "a.safetensors", {"seed": "0"})
        assert load(DIGITS, tmp_path / "a.safetensors")[1]["seed"] == "0"
        save_tensors(tmp_path / "b.safetensors", {"w": torch.zeros(3)}, {})
        with pytest.raises(ValueError, match=r"^.*b.safetensors is no classifier of digits: "):
            load(DIGITS, tmp_path / "b.safetensors")
        with pytest.raises(ValueError, match="no file at"):
            load(DIGITS, tmp_path / "c.safetensors")
