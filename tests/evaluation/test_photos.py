"""The judge of CIFAR-10's photographs: what it recognises, what it refuses, and what it says of known models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fromnoise.cli.main import main
from fromnoise.conditioning.config import LabelConfig
from fromnoise.core.config import write_yaml
from fromnoise.core.files import content_hash
from fromnoise.data.config import CIFAR10Config, DataConfig, FolderConfig, PreparedConfig, ShapesConfig
from fromnoise.data.labelled import Labelled, LabelledData, scaled
from fromnoise.evaluation.comparison.asked import Asked
from fromnoise.evaluation.comparison.compare import compare
from fromnoise.evaluation.comparison.match import Entry
from fromnoise.evaluation.judges import domains
from fromnoise.evaluation.judges.classifier import Classifier, accuracy, digest, load
from fromnoise.evaluation.judges.domains import DIGITS, PADDING, PHOTOS, crop_and_flip
from fromnoise.evaluation.judges.fit import train
from fromnoise.evaluation.judges.judge import NoJudge, PictureJudge, judge_of, kind_of
from fromnoise.evaluation.subject import Subject
from fromnoise.evaluation.wanted import Wanted
from fromnoise.models.config import DiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "cifar10_classifier.json"
FILES = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "cifar10"
REAL = pytest.mark.skipif(not FILES.is_dir(), reason="$FROMNOISE_DATA/cifar10 is absent")
FEW = 1000
MODEL = ModelConfig(
    backbone=DiTConfig(patch=16, width=24, depth=1, head_width=12),
    conditioner=LabelConfig(width=24),
    sampling=Sampling(steps=1, guidance=1.0),
)


@pytest.fixture(scope="module")
def published() -> LabelledData:
    return CIFAR10Config(path=FILES).build(0)


def first(count: int, data: LabelledData) -> LabelledData:
    """The same data with fewer pictures."""
    learned, held_out = (Labelled(*(part[:count] for part in some)) for some in (data.learned, data.held_out))
    return LabelledData(learned, held_out, data.test, data.said, 0, flip=False)


@pytest.fixture(scope="module")
def few(published: LabelledData) -> LabelledData:
    return first(FEW, published)


@pytest.fixture(scope="module")
def judge(few: LabelledData) -> PictureJudge:
    found = judge_of("cifar10", few)
    assert isinstance(found, PictureJudge) and found.domain is PHOTOS
    return found


class Known:
    """A model of which it is known what it draws: `paint(labels)`, pictures (B, 3, 32, 32) of classes."""

    def __init__(self, paint: Callable[[Tensor], Tensor], conditioner: str = "text"):
        self.config = SimpleNamespace(channels=3, size=32, conditioner=SimpleNamespace(type=conditioner))
        self.space = SimpleNamespace(decode=lambda x: x)
        self.paint = paint

    def stream(self, said: list[str], *how: object, labels: list[int], **more: object) -> Iterator[Any]:
        assert all(caption in PHOTOS.said[label] for caption, label in zip(said, labels, strict=True))
        yield SimpleNamespace(x=self.paint(torch.tensor(labels)))


def measured(judge: PictureJudge, model: Known) -> dict[str, Any]:
    pipeline: Any = model
    return judge.measure(pipeline, 500, 0, None, None, lambda done, total: None)


@pytest.fixture(scope="module")
def perfect(published: LabelledData) -> Known:
    """Draws real photographs of what it is asked for, others than those it is compared with."""
    images, labels = (some[FEW:] for some in published.pictures("validation"))
    pools = [iter(images[labels == k]) for k in range(10)]
    return Known(lambda asked: scaled(torch.stack([next(pools[k]) for k in asked.tolist()])))


def test_what_comes_with_fromnoise_is_on_record() -> None:
    record, known = json.loads(RECORD.read_text()), load(PHOTOS)[1]
    assert PHOTOS.asset.stat().st_size < 4e6 and record["parameters"] < 1e6
    assert record["sha256"] == content_hash(PHOTOS.asset)
    assert (record["command"], record["data"]) == (known["command"], known["data"])
    assert known["command"].startswith("python -m benchmarks.cifar10_classifier --seed ")
    assert float(known["accuracy"]) == pytest.approx(record["accuracy"]["validation"], abs=1e-4) and (
        record["accuracy"]["validation"] >= 0.9
    )


@REAL
class TestReal:
    def test_photographs_never_trained_on_are_recognised(
        self, judge: PictureJudge, published: LabelledData, few: LabelledData
    ) -> None:
        assert digest(*published.pictures("train")) == load(PHOTOS)[1]["data"]
        assert accuracy(judge.network, *few.pictures("validation")) > 0.88

    def test_a_perfect_model_is_right_near_and_diverse(self, judge: PictureJudge, perfect: Known) -> None:
        found = measured(judge, perfect)
        low, high = found["accuracy_interval"]
        assert found["accuracy"] > 0.88 and low < found["accuracy"] < high
        assert found["frechet"] < 1.5 * found["frechet_floor"]
        assert found["diversity"] == pytest.approx(1, abs=0.15)
        assert len(found["by_class"]) == 10 and min(found["by_class"]) > 0.6

    def test_noise_and_one_picture_over_and_over_are_found_out(
        self, judge: PictureJudge, published: LabelledData
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        noise = measured(judge, Known(lambda asked: torch.rand(len(asked), 3, 32, 32, generator=generator) * 2 - 1))
        assert noise["accuracy"] < 0.3 and noise["frechet"] > 5 * noise["frechet_floor"]
        images, labels = published.pictures("train")
        one = scaled(torch.stack([images[labels == k][0] for k in range(10)]))
        again = measured(judge, Known(lambda asked: one[asked]))
        assert again["accuracy"] > 0.7 and again["diversity"] < 0.01
        assert again["frechet"] > 3 * again["frechet_floor"]

    def test_a_model_that_is_told_nothing_is_not_asked_what_it_shows(
        self, judge: PictureJudge, few: LabelledData
    ) -> None:
        images = scaled(few.pictures("validation")[0])
        found = measured(judge, Known(lambda asked: images[: len(asked)], conditioner="none"))
        assert found["accuracy"] is None and found["by_class"] is None and found["frechet"] >= 0

    def test_the_command_goes_by_the_data_of_the_run(
        self,
        published: LabelledData,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        few = first(200, published)
        monkeypatch.setitem(domains.DOMAINS, "cifar10", replace(PHOTOS, published=lambda: few))
        run = a_run(tmp_path / "photos", CIFAR10Config(path=FILES))
        assert main(["evaluate", str(run), "--samples", "20", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["samples"] == 20 and len(found["by_class"]) == 10
        assert main(["evaluate", str(a_run(tmp_path / "mine", FolderConfig(path=tmp_path)))]) == 2
        assert "no judge of folder data; allowed: --judge shapes, mnist, cifar10" in capsys.readouterr().err
        told = ["--samples", "20", "--judge", "cifar10", "--measure", "judge"]
        assert main(["evaluate", str(tmp_path / "mine"), *told]) == 0
        lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
        assert float(lines["accuracy"].split()[1]) == pytest.approx(100 * found["accuracy"])
        assert float(lines["truck"].split()[1]) == pytest.approx(100 * found["by_class"][9])
        assert f"as many real photos: {found['frechet_floor']:.3f}" in lines["frechet"]

    def test_photographs_at_another_size_than_the_judges_have_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fromnoise.evaluation.subject.kind_of", lambda config: "cifar10")
        place = a_run(tmp_path / "large", FolderConfig(path=tmp_path))
        for size, kind in ((32, "cifar10"), (64, "folder")):
            subject = Subject(place, Wanted(device="cpu"), lambda what: nullcontext(lambda done, total: None))
            subject.pipeline = Pipeline.build(MODEL.model_copy(update={"size": size}), ["a"], 0)
            assert subject.kind == kind and (subject.domain is None) == (size == 64)

    def test_runs_are_compared_by_the_judge(
        self, published: LabelledData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = first(200, published)
        monkeypatch.setattr("fromnoise.data.config.CIFAR10Config.build", lambda self, seed: few)
        monkeypatch.setattr("fromnoise.evaluation.comparison.compare.report", lambda results: "")
        usual = {"steps": 1, "batch": 4, "precision": "float32", "compile": "off", "device": "cpu"}
        entries = []
        for target in ("x0", "flow"):
            model = MODEL.model_dump() | {"objective": {"target": target}}
            run = {"recipe": target, "data": {"type": "cifar10", "path": FILES}, "model": model, "training": usual}
            entries.append(Entry(target, Run.model_validate(run), None))
        asked = Asked(samples=10, sweep=10, speeds=(1,), guidances=(1.0,), device="cpu")
        compare(entries, tmp_path, asked, lambda line: None, lambda what: nullcontext(lambda done, total: None))
        results = json.loads((tmp_path / "report.json").read_text())
        assert results["judge"]["name"] == "photos" and "those of 200 real ones" in results["judge"]["about"]
        for recipe in results["recipes"]:
            quality = recipe["runs"][0]["quality"]
            assert quality["samples"] == 10 and quality["frechet"] > quality["frechet_floor"] > 0


def a_run(place: Path, data: DataConfig) -> Path:
    """A run directory with a last checkpoint."""
    last = place / "checkpoints" / "step-00000001"
    last.mkdir(parents=True)
    Pipeline.build(MODEL, ["a photo of a dog"], 0).save(last / "ema.safetensors", {})
    run = Run.model_validate({"recipe": "any", "data": data.model_dump(), "model": MODEL.model_dump()})
    write_yaml(run, place / "run.yaml")
    return place


class TestPieces:
    def test_what_is_no_photograph_is_refused(self) -> None:
        network = load(PHOTOS)[0]
        for shape in ((1, 1, 32, 32), (1, 3, 28, 28), (1, 3, 64, 64), (3, 32, 32)):
            with pytest.raises(ValueError, match=r"are no photos; allowed: \(N, 3, 32, 32\)$"):
                network.classify(torch.zeros(shape))
        with pytest.raises(ValueError, match=r"torch.uint8; allowed: floating point"):
            network.classify(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))

    def test_the_judge_of_digits_is_not_that_of_photographs(self) -> None:
        with pytest.raises(ValueError, match=r"mnist_classifier.safetensors is no classifier of photos: "):
            load(PHOTOS, DIGITS.asset)

    def test_sights_are_crops_and_mirror_images(self) -> None:
        images = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
        images[:, :, 12:20, 12:20] = torch.linspace(-1, 1, 8)  # brighter to the right
        seen = crop_and_flip(images, torch.Generator().manual_seed(0))
        assert seen.shape == images.shape
        slope = seen[:, :, 15:17, 17:19].mean((1, 2, 3)) - seen[:, :, 15:17, 13:15].mean((1, 2, 3))
        assert 0.35 < (slope < 0).float().mean() < 0.65
        moved = 0
        for image, sight in zip(images, seen, strict=True):
            wide = torch.nn.functional.pad(image[None], [PADDING] * 4, mode="reflect")[0]
            windows = wide.unfold(1, 32, 1).unfold(2, 32, 1)  # (3, 9, 9, 32, 32)
            same = [(windows == one[:, None, None]).all(-1).all(-1).all(0) for one in (sight, sight.flip(-1))]
            assert same[0].any() or same[1].any()
            moved += not (same[0][PADDING, PADDING] or same[1][PADDING, PADDING])
        assert moved > 180

    def test_training_learns_and_is_a_function_of_its_arguments(self) -> None:
        labels = torch.arange(64) % 10
        images = (labels * 25)[:, None, None, None].expand(-1, 3, 32, 32).to(torch.uint8)  # grey tells the class
        small, losses = replace(PHOTOS, batch=16), list[float]()
        model = train(small, images, labels, 0, 5, lambda epoch, loss: losses.append(loss))
        again = train(small, images, labels, 0, 5)
        assert losses[-1] < 0.8 * losses[0]
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name])
        assert isinstance(model, Classifier) and not model.training

    def test_data_that_were_prepared_are_judged_by_what_they_were_prepared_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manifest = SimpleNamespace(source="")
        monkeypatch.setattr("fromnoise.evaluation.judges.judge.read_manifest", lambda path: manifest)
        for source, kind in {
            "50,000 pictures of cifar10, 10 classes, 5 captions each": "cifar10",
            "50,000 pictures of uoft-cs/cifar10 in 5 files, columns img and label": "cifar10",
            "300 scenes of shapes at 32 px, a caption each": "shapes",
            "9 pictures of someone/3d-shapes in 2 files": "prepared",
            "": "prepared",
        }.items():
            manifest.source = source
            assert kind_of(PreparedConfig(path=tmp_path)) == kind
        assert isinstance(judge_of("prepared", ShapesConfig().build(0)), NoJudge)
        digits = SimpleNamespace(pictures=lambda split: (None, [0] * 7))
        monkeypatch.setitem(domains.DOMAINS, "mnist", replace(DIGITS, published=lambda: digits))
        found = judge_of("mnist", ShapesConfig().build(0))
        assert isinstance(found, PictureJudge) and found.data is digits and "those of 7 real ones" in found.about
