"""`fromnoise evaluate` on pictures and prompts that have no judge: what is measured, kept, said, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fromnoise
from fromnoise.cli.main import main
from fromnoise.conditioning.config import TextConfig
from fromnoise.core.config import write_yaml
from fromnoise.core.files import content_hash, load_tensors
from fromnoise.data.config import BucketsConfig, DataConfig, FolderConfig, PreparedConfig
from fromnoise.data.split import VALIDATION, chance
from fromnoise.evaluation.features import real
from fromnoise.evaluation.features.real import halves, learned, learned_one
from fromnoise.evaluation.wanted import Wanted
from fromnoise.evaluation.whole import in_turn
from fromnoise.models.config import MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run
from tests.conftest import stirred

HELD_OUT, LEARNED = 24, 50
MODEL = ModelConfig(
    backbone=MMDiTConfig(patch=8, width=16, depth=1, head_width=8),
    conditioner=TextConfig(vocabulary=280, width=16, depth=1, heads=1),
    sampling=Sampling(steps=2, guidance=2),
    size=16,
)
FEATURES = ("frechet", "kernel", "precision", "recall", "density", "coverage")


def listed() -> list[str]:
    """Names of files of which chance holds the first `HELD_OUT` out, and none of the others."""
    names = [f"{i}.png" for i in range(3000)]
    held_out = [name for name in names if chance(name) < VALIDATION][:HELD_OUT]
    return held_out + [name for name in names if chance(name) >= VALIDATION][:LEARNED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each, and a little noise, of which chance holds out as many as are wanted."""
    place, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for i, name in enumerate(listed()):
        colour = ("red", "green", "blue")[i % 3]
        picture = rng.integers(0, 60, (16, 16, 3))
        picture[..., i % 3] += 190
        Image.fromarray(picture.astype(np.uint8)).save(place / name)
        (place / name).with_suffix(".txt").write_text(f"all {colour}")
    return place


def photographs(place: Path, *shapes: tuple[int, int]) -> Path:
    """Noise in the heights and widths `shapes`, in turn."""
    rng = np.random.default_rng(0)
    place.mkdir()
    for i, name in enumerate(listed()):
        Image.fromarray(rng.integers(0, 256, (*shapes[i % len(shapes)], 3), np.uint8)).save(place / name)
        (place / name).with_suffix(".txt").write_text(f"picture {i}")
    return place


def in_buckets(place: Path, *shapes: tuple[int, int], prepared: bool) -> DataConfig:
    """Such noise in buckets of 32 pixels, as files or prepared."""
    pictures = photographs(place / "photographs", *shapes)
    if not prepared:
        return BucketsConfig(path=pictures, size=32, multiple=8)
    buckets = ("--size", "32", "--buckets", "true", "--multiple", "8")
    assert main(["prepare", str(pictures), "--out", str(place / "prepared"), *buckets]) == 0
    return PreparedConfig(path=place / "prepared")


def a_run(place: Path, data: DataConfig, **model: Any) -> Path:
    """A run directory with a last checkpoint, of which nothing was learned."""
    config = MODEL.model_copy(update=model)
    last = place / "checkpoints" / "step-00000001"
    last.mkdir(parents=True)
    pipeline = stirred(Pipeline.build(config, ["all red", "all green", "all blue"], 0), 0.1)
    pipeline.save(last / "ema.safetensors", {})
    write_yaml(Run.model_validate({"data": data.model_dump(), "model": config.model_dump()}), place / "run.yaml")
    return place


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("run"), FolderConfig(path=folder, size=16))


@pytest.fixture(scope="module")
def clip(save_clip: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def evaluated(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, args), "--json", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main(["evaluate", *map(str, args)]) == 2
    return capsys.readouterr().err.splitlines()[-1]


class TestDefaults:
    def test_who_types_nothing_more_gets_all_that_the_data_allow(
        self, run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = evaluated(capsys, run, "--samples", 20)
        assert found == json.loads((run / "evaluation.json").read_text())
        assert found["command"].startswith(f"fromnoise evaluate {run} --samples 20") and found["seed"] == 0
        assert found["drawing"] == MODEL.sampling.model_dump(mode="json")
        assert found["checkpoint"] == content_hash(run / "checkpoints" / "step-00000001" / "ema.safetensors")
        (record,) = found["features"]
        assert record["extractor"] == "pixels" and record["samples"] == 20 and record["reference"] == LEARNED
        assert all(name in record and name + "_floor" in record for name in FEATURES)
        assert record["frechet"] > 2 * record["frechet_floor"] and record["coverage"] < record["coverage_floor"]
        near = found["neighbours"]
        assert (near["samples"], near["held_out"], near["training_pictures"]) == (20, 20, LEARNED)
        with Image.open(run / near["sheet"]) as sheet:
            assert sheet.width > 8 * 128
        assert len(found["listening"]["loss"]) == 10 and found["floor"]["training_pictures"] == LEARNED
        assert "no judge of folder data; allowed: --judge shapes" in found["left_out"]["judge"]
        assert "needs a CLIP" in found["left_out"]["clipscore"]

    def test_python_finds_the_same_and_keeps_it(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = evaluated(capsys, run, "--samples", 10, "--measure", "features")
        del found["command"]
        wanted = Wanted(samples=10, measure=("features",), device="cpu")
        assert fromnoise.evaluate(run, wanted) == found == json.loads((run / "evaluation.json").read_text())

    def test_the_table_tells_the_same(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", str(run), "--samples", "20"]) == 0
        lines = capsys.readouterr().out.splitlines()
        found = json.loads((run / "evaluation.json").read_text())
        words = {line.split()[0]: line.split() for line in lines if line.strip()}
        (record,) = found["features"]
        assert [float(words[name][1]) for name in FEATURES] == pytest.approx(
            [record[name] for name in FEATURES], abs=1e-4
        )
        assert float(words["near"][1]) == pytest.approx(100 * found["neighbours"]["near"], abs=0.1)
        assert sum(line.startswith("no ") for line in lines) == len(found["left_out"]) == 2
        assert [len(line.split()) for line in lines if line.startswith("  t  ")] == [11, 11]

    def test_the_same_seed_gives_the_same_numbers(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first, again = (evaluated(capsys, run, "--samples", 10, "--measure", "features") for _ in range(2))
        other = evaluated(capsys, run, "--samples", 10, "--measure", "features", "--seed", 5)
        assert first == again and other["features"][0]["frechet"] != first["features"][0]["frechet"]


class TestChosen:
    def test_only_what_is_asked_for_is_measured(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = evaluated(capsys, run, "--measure", "listening", "floor")
        assert list(found) == ["listening", "floor", "left_out", "checkpoint", "seed", "command"]
        assert found["left_out"] == {}

    def test_by_a_clip_and_a_classifier_at_once(
        self, run: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = Path(shutil.copytree(run, tmp_path / "run"))
        args = (place, "--samples", 20, "--measure", "features", "clipscore", "--features", clip, "cifar10")
        found = evaluated(capsys, *args)
        by_clip, by_classifier = found["features"]
        assert by_clip["width"] == 12 and by_classifier["extractor"] == "cifar10"
        (score,) = found["clipscore"]
        assert score["samples"] == 20 and 0 <= score["clipscore"] <= 2.5 and score["sha256"] == by_clip["sha256"]

        (kept,) = (place / "features").glob("*.safetensors")
        tensors, metadata = load_tensors(kept)
        assert metadata["extractor"] == by_clip["sha256"] and tensors["floor"].shape == (20, 12)
        before = kept.stat().st_mtime_ns
        assert evaluated(capsys, *args) | {"command": ""} == found | {"command": ""}
        assert kept.stat().st_mtime_ns == before  # read, and not made again
        assert evaluated(capsys, *args, "--real", 25)["features"][0]["reference"] == 25
        assert kept.stat().st_mtime_ns > before  # of other pictures, it is

    def test_features_kept_elsewhere_are_compared_with_or_refused_by_name(
        self, run: Path, clip: Path, save_clip: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = Path(shutil.copytree(run, tmp_path / "run"))
        args = ("--samples", 20, "--measure", "features", "--features")
        first = evaluated(capsys, place, *args, clip)
        (kept,) = (place / "features").glob("*.safetensors")
        again = evaluated(capsys, place / "checkpoints" / "step-00000001", *args, clip, "--reference", kept)
        assert again["features"] == first["features"]
        told = refused(capsys, place, *args, save_clip(tmp_path / "other", 1), "--reference", kept)
        assert f"{kept} holds features by {clip.name} (sha256 {first['features'][0]['sha256'][:12]}...)" in told
        assert "seen by other" in told and told.endswith("the two cannot be compared")
        weights = place / "checkpoints" / "step-00000001" / "ema.safetensors"
        assert "holds no features of real pictures" in refused(capsys, place, *args, clip, "--reference", weights)


class TestOtherData:
    def test_buckets(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        place = a_run(tmp_path / "run", BucketsConfig(path=folder, size=16))
        found = evaluated(capsys, place, "--samples", 20)
        assert found["features"][0]["samples"] == 20 and found["neighbours"]["training_pictures"] == LEARNED

    @pytest.mark.parametrize("prepared", [False, True], ids=["files", "prepared"])
    def test_every_training_picture_is_read_once_whatever_its_size(
        self, prepared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(real, "PART", 16)
        pipeline = Pipeline.build(MODEL, [], 0)
        data = in_buckets(tmp_path, (32, 32), (32, 48), (48, 32), (32, 32), prepared=prepared).build(0)
        assert len(data.sizes) == 3
        every = [picture for part in learned(pipeline, data, 0, LEARNED).read() for picture in part]
        assert len(every) == len({picture.numpy().tobytes() for picture in every}) == LEARNED
        assert all(torch.equal(learned_one(pipeline, data, place), every[place]) for place in range(0, LEARNED, 7))
        floor, reference = halves(pipeline, data, 1000, 1000)
        split = [picture for some in (floor, reference) for part in some.read() for picture in part]
        assert len(split) == LEARNED and all(map(torch.equal, split, every))

    @pytest.mark.parametrize("prepared", [False, True], ids=["files", "prepared"])
    def test_all_that_can_be_is_measured_where_no_training_picture_is_square(
        self, prepared: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = a_run(tmp_path / "run", in_buckets(tmp_path, (32, 48), prepared=prepared), size=32)
        capsys.readouterr()
        found = evaluated(capsys, place, "--samples", 20)
        assert found["features"][0]["reference"] == found["neighbours"]["training_pictures"] == LEARNED
        if prepared:  # what is held out has the same size
            assert found["floor"]["training_pictures"] == LEARNED and "validation" in found["floor"]
        else:
            assert found["left_out"]["floor"] == "all training pictures are 24x40, and held-out ones have another size"

    def test_latents(self, folder: Path, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        prepared = tmp_path / "prepared"
        assert main(["prepare", str(folder), "--out", str(prepared), "--size", "16", "--vae", str(vae)]) == 0
        capsys.readouterr()
        space: Any = {"type": "latent", "path": vae, "shift": (0.0,), "scale": (1.0,)}
        model = ModelConfig.model_validate(
            MODEL.model_dump()
            | {"space": space, "backbone": {"type": "mmdit", "width": 16, "depth": 1, "head_width": 8}}
        )
        place = a_run(tmp_path / "run", PreparedConfig(path=prepared), space=model.space, backbone=model.backbone)
        found = evaluated(capsys, place, "--samples", 20)
        assert found["features"][0]["samples"] == 20 and found["floor"]["training_pictures"] == LEARNED
        assert found["neighbours"]["of"] == LEARNED

    def test_what_is_not_there_is_left_out_and_said(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = a_run(tmp_path / "run", FolderConfig(path=tmp_path / "gone", size=16))
        told = refused(capsys, place, "--samples", 20)
        assert "nothing can be measured" in told
        found = refused(capsys, place, "--measure", "listening")
        assert "the data of the run are not there" in found and "gone" in found


class TestBadInput:
    def test_too_few_pictures_are_said(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = evaluated(capsys, run, "--samples", 6, "--measure", "features", "neighbours")
        (record,) = found["features"]
        assert not any(name in record for name in FEATURES) and len(record["notes"]) == 4
        assert "frechet of 6 pictures would say nothing; allowed: 10 or more" in record["notes"]
        near = found["neighbours"]
        assert (near["samples"], near["held_out"], near["near_expected"]) == (6, 20, 1 / 21)

    def test_too_few_held_out_pictures_are_said(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        few = tmp_path / "few"
        few.mkdir()
        for file in sorted(folder.iterdir())[:20]:
            shutil.copy(file, few)
        place = a_run(tmp_path / "run", FolderConfig(path=few, size=16))
        found = evaluated(capsys, place, "--samples", 20)
        assert "pictures held out: 0; allowed: 20 or more" in found["left_out"]["neighbours"]
        assert "validation" not in found["floor"] and found["features"][0]["samples"] < 20
        assert "pictures held out: 0" in refused(capsys, place, "--measure", "neighbours")

    @pytest.mark.parametrize(
        ("args", "told"),
        [
            (
                ["--measure", "judge", "listening"],
                "there is no judge of folder data; allowed: --judge shapes, mnist, cifar10",
            ),
            (["--measure", "clipscore"], "CLIPScore needs a CLIP"),
            (["--measure", "fid"], "measure.0: given 'fid'; allowed: auto, judge, features"),
            (["--features", "dinov2"], "nothing sees pictures at 'dinov2'; allowed: the folder"),
            (["--features", "mnist"], "are no digits"),
            (["--samples", "5"], "samples: given '5'; input should be greater than or equal to 6"),
            (
                ["--seed", str(2**63)],
                f"seed: given '{2**63}'; input should be less than {2**63}",
            ),
            (["--device", "tpu"], "device 'tpu' is not here; allowed: auto"),
        ],
    )
    def test_a_fault_is_one_line(
        self, run: Path, capsys: pytest.CaptureFixture[str], args: list[str], told: str
    ) -> None:
        assert told in refused(capsys, run, "--samples", 6, *args)

    def test_a_run_without_a_checkpoint(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copy(run / "run.yaml", tmp_path)
        assert "no checkpoint in" in refused(capsys, tmp_path)


def test_classes_go_round() -> None:
    labels = torch.tensor([2, 2, 0, 1, 0, 1, 2, 2])
    assert labels[in_turn(labels)].tolist() == [0, 1, 2, 0, 1, 2, 2, 2]
    assert in_turn(labels)[:3].tolist() == [2, 3, 0]


def test_help_tells_every_measure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("--measure", "--features", "--reference", "neighbours", "listening"))
