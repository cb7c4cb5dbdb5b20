"""From a source to a prepared data set: what is stored is what the models say, whatever happens on the way."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.cli.prepare import table
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.core import files, needs
from fromnoise.data.manifest import MANIFEST, numbered, read_manifest
from fromnoise.data.pictures import read_picture
from fromnoise.data.prepared import verify
from fromnoise.data.shards import Shard, faults_of
from fromnoise.preparation import prepare as module
from fromnoise.preparation.config import Preparation
from fromnoise.preparation.plan import PLAN
from fromnoise.preparation.prepare import QUARANTINE, prepare
from fromnoise.space.config import LatentConfig

COUNT, SIZE, SHARD = 21, 16, 8  # pictures: two shards, and a part of one
CAPTIONS = ("a red circle", "one blue square left of a red circle", "two green cat photo above a circle", "cat")


def picture(at: int, kind: str = "png") -> bytes:
    """The file of picture `at`: smooth, of a shape of its own."""
    rng = np.random.default_rng(at)
    small = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
    out = io.BytesIO()
    small.resize((20 + at, 40 - at)).save(out, kind)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several shapes, each with one or two captions."""
    place = tmp_path / "source"
    place.mkdir()
    lines = []
    for i in range(COUNT):
        name = f"{i:02}.{'png' if i % 2 else 'jpg'}"
        (place / name).write_bytes(picture(i, "png" if i % 2 else "jpeg"))
        said = [CAPTIONS[i % len(CAPTIONS)], f"photo {i}"][: 1 + i % 2]
        lines.append(json.dumps({"file_name": name, "captions": said}))
    (place / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture(scope="module")
def encoder(save_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("t5"), "t5")


@pytest.fixture
def settings(vae: Path, encoder: Path) -> Callable[..., Preparation]:
    """`settings(changes)`: both encoders, tiny pictures, mirror images."""

    def make(**changes: Any) -> Preparation:
        text = (EncoderConfig(path=str(encoder), length=6),)
        usual: dict[str, Any] = dict(size=SIZE, shard=SHARD, vae=vae, text=text, flip=True)
        return Preparation.model_validate(usual | changes)

    return make


def content(directory: Path) -> dict[str, bytes]:
    """Every byte of a prepared data set."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name != ".lock"}


def shards(directory: Path) -> list[Shard]:
    manifest = read_manifest(directory)
    return [Shard(directory, manifest.layout, entry) for entry in manifest.shards]


class TestWhatIsStored:
    def test_latents_are_those_of_the_pictures_and_of_their_mirror_images(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], vae: Path
    ) -> None:
        prepare(str(folder), tmp_path / "out", settings())
        space = LatentConfig(path=vae).build()
        seen = 0
        for shard in shards(tmp_path / "out"):
            for at in range(len(shard.chance)):
                image = torch.tensor(read_picture(folder / shard.key(at), SIZE, 255)).float() / 127.5 - 1
                sided = any("left" in shard.text(text) for text in shard.said.row(at))
                mirrored = image if sided else image.flip(-1)
                torch.testing.assert_close(shard.stored(at, False), space.encode(image[None])[0], atol=2e-3, rtol=2e-3)
                wanted = space.encode(mirrored[None])[0]
                torch.testing.assert_close(shard.stored(at, True), wanted, atol=2e-3, rtol=2e-3)
                assert bool(len(shard.flipped["mean"].row(at))) != sided
                seen += 1
        assert seen == COUNT

    def test_tokens_are_the_real_ones_of_every_caption_once_a_shard(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        asked = settings()
        done = prepare(str(folder), tmp_path / "out", asked)
        text = FrozenTextConfig(encoders=asked.text).build([])
        said = {}
        for line in (folder / "metadata.jsonl").read_text().splitlines():
            row = json.loads(line)
            said[row["file_name"]] = row["captions"]
        for shard in shards(tmp_path / "out"):
            texts = [shard.text(at) for at in range(len(shard.texts.offsets) - 1)]
            assert len(set(texts)) == len(texts)
            for at in range(len(shard.chance)):
                assert [texts[place] for place in shard.said.row(at)] == said[shard.key(at)]
            features = text.encode(texts, torch.zeros(len(texts), dtype=torch.int64))
            for at in range(len(texts)):
                read, mask = shard.read(at), features["mask_0"][at]
                assert len(read.tokens[0]) == mask.sum() <= 6
                torch.testing.assert_close(read.tokens[0], features["tokens_0"][at][mask], atol=2e-3, rtol=2e-3)
                torch.testing.assert_close(read.vectors[0], features["vector_0"][at], atol=2e-3, rtol=2e-3)
        cut = [caption for caption in CAPTIONS if len(caption.split()) >= 6]
        assert done.manifest.counts.cut == len(cut) * len(done.manifest.shards) > 0
        assert done.manifest.layout.encoders["text"] == text.state["encoders"]

    def test_two_text_encoders_are_kept_side_by_side(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], encoder: Path
    ) -> None:
        both = tuple(EncoderConfig(path=str(encoder), length=length) for length in (6, 4))
        prepare(str(folder), tmp_path / "out", settings(text=both))
        for shard in shards(tmp_path / "out"):
            for at in range(len(shard.texts.offsets) - 1):
                long, short = shard.read(at).tokens
                assert len(short) == min(len(long), 4) and len(shard.read(at).vectors) == 2
                if len(long) <= 4:  # read whole by both
                    torch.testing.assert_close(long, short, rtol=2e-3, atol=2e-3)

    def test_in_bfloat16_the_encoders_say_about_the_same(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        prepare(str(folder), tmp_path / "exact", settings())
        prepare(str(folder), tmp_path / "rounded", settings(precision="bfloat16"))
        kinds: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"latent": [], "tokens": []}
        for exact, rounded in zip(shards(tmp_path / "exact"), shards(tmp_path / "rounded"), strict=True):
            for at in range(len(exact.chance)):
                kinds["latent"].append((exact.stored(at, True), rounded.stored(at, True)))
            for at in range(len(exact.texts.offsets) - 1):
                kinds["tokens"].append((exact.read(at).tokens[0], rounded.read(at).tokens[0]))
        for pairs in kinds.values():
            one, other = (torch.cat([part.flatten() for part in parts]) for parts in zip(*pairs, strict=True))
            assert 1e-4 < (one - other).std() / one.std() < 2e-2  # 8 bits: rounding is seen, and no more than that

    def test_without_a_vae_pixels_are_stored(self, folder: Path, tmp_path: Path) -> None:
        done = prepare(str(folder), tmp_path / "out", Preparation(size=SIZE, shard=SHARD))
        (shard, *_) = shards(tmp_path / "out")
        wanted = torch.tensor(read_picture(folder / shard.key(3), SIZE, 255)).float() / 127.5 - 1
        torch.testing.assert_close(shard.stored(3, False), wanted, atol=1e-3, rtol=0)
        assert done.manifest.layout.encoders == {} and not done.manifest.layout.std and "VAE" not in done.rates

    def test_in_buckets_every_picture_keeps_about_its_shape(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        Image.new("RGB", (6, 6)).save(folder / "zz.png")
        with open(folder / "metadata.jsonl", "a") as file:
            file.write('{"file_name": "zz.png", "captions": "cat"}\n')
        done = prepare(str(folder), tmp_path / "out", settings(buckets=True, multiple=4, tiers=1))
        found = set()
        for shard in shards(tmp_path / "out"):
            for at in range(len(shard.chance)):
                with Image.open(folder / shard.key(at)) as image:
                    tall = image.height > image.width
                _, height, width = shard.stored(at, False).shape
                assert height >= width if tall else height <= width
                found.add((height, width))
        assert len(found) > 1 and found <= set(done.manifest.layout.sizes)
        assert done.manifest.counts.samples == COUNT
        assert (tmp_path / "out" / QUARANTINE).read_text() == (
            '{"key": "zz.png", "reason": "6x6, smaller than every bucket"}\n'
        )

    def test_how_many_threads_there_are_changes_no_byte(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for threads in (1, 5):
            monkeypatch.setattr(module, "cores", lambda count=threads: count)
            prepare(str(folder), tmp_path / f"out{threads}", settings())
        assert content(tmp_path / "out1") == content(tmp_path / "out5")
        verify(tmp_path / "out1")


class TestWhatCannotBeRead:
    def test_it_is_quarantined_with_its_reason_and_duplicates_are_counted(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        (folder / "03.png").write_bytes(b"")
        (folder / "04.jpg").write_bytes((folder / "04.jpg").read_bytes()[:200])
        (folder / "05.png").unlink()
        (folder / "07.png").write_bytes((folder / "09.png").read_bytes())
        frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime")]
        frames[0].save(folder / "11.png", save_all=True, append_images=frames[1:])
        done = prepare(str(folder), tmp_path / "out", settings())
        told = [json.loads(line) for line in (tmp_path / "out" / QUARANTINE).read_text().splitlines()]
        assert [one["key"] for one in told] == ["03.png", "04.jpg", "05.png"]
        assert (
            told[0]["reason"] == "the file is empty" and "truncated" in told[1]["reason"].lower() and told[2]["reason"]
        )
        counts = done.manifest.counts
        assert (counts.samples, counts.faults, counts.animated, done.manifest.duplicates) == (COUNT - 3, 3, 1, 1)
        assert [one.key for one in faults_of(tmp_path / "out" / "000000.safetensors")] == [one["key"] for one in told]

    def test_captions_that_are_not_there_are_not_counted(self, folder: Path, tmp_path: Path) -> None:
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        rows = [row | ({"captions": []} if i < 6 else {"captions": ["one", "two"]}) for i, row in enumerate(rows)]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        done = prepare(str(folder), tmp_path / "out", Preparation(size=SIZE, shard=SHARD))
        assert (done.manifest.counts.captions, done.manifest.counts.uncaptioned) == (2 * (COUNT - 6), 6)
        told = [line.split() for line in table(done).splitlines()]
        assert ["captions", "30"] in told and ["without", "caption", "6"] in told

    def test_which_number_a_class_has_is_told_and_kept(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        rows = [row | {"label": ("cat", "Dog", "bird")[i % 3]} for i, row in enumerate(rows)]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        prepare(str(folder), tmp_path / "out", Preparation(size=SIZE, shard=SHARD))
        assert capsys.readouterr().err.splitlines()[1] == "classes: 0 Dog, 1 bird, 2 cat"
        manifest = read_manifest(tmp_path / "out")
        assert (manifest.class_names, manifest.layout.classes) == (("Dog", "bird", "cat"), 3)
        assert shards(tmp_path / "out")[0].label.tolist()[:4] == [2, 0, 1, 2]
        assert numbered([str(i) for i in range(1021)]).endswith(", 19 19, and 1,001 more")

    def test_where_nothing_can_be_read_that_is_an_error(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        for path in folder.glob("*.[jp][pn]g"):
            path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"none of the 21 pictures of .* can be read: 00.jpg: the file is empty"):
            prepare(str(folder), tmp_path / "out", settings())

    def test_a_portion_of_nothing_readable_is_an_empty_shard(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        for i in range(SHARD, 2 * SHARD):
            next(folder.glob(f"{i:02}.*")).write_bytes(b"no picture")
        done = prepare(str(folder), tmp_path / "out", settings())
        assert [entry.counts.samples for entry in done.manifest.shards] == [SHARD, 0, COUNT - 2 * SHARD]

    def test_any_caption_is_kept_as_it_is(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        strange = ["שלום עולם", "🦊 🐈‍⬛", "cat " * 10_000, "nul\0 in it", " "]
        for i, caption in enumerate(strange):
            with open(folder / "metadata.jsonl", "a") as file:
                file.write(json.dumps({"file_name": f"{i:02}.{'png' if i % 2 else 'jpg'}", "captions": caption}) + "\n")
        prepare(str(folder), tmp_path / "out", settings())
        (shard, *_) = shards(tmp_path / "out")
        found = {shard.text(at) for at in range(len(shard.texts.offsets) - 1)}
        assert {"שלום עולם", "🦊 🐈‍⬛", ("cat " * 10_000).strip(), "nul in it"} <= found and " " not in found


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "size": ({"size": 8}, "size 16, not 8"),
    "dtype": ({"dtype": "bfloat16"}, "dtype 'float16', not 'bfloat16'"),
    "precision": ({"precision": "bfloat16"}, "precision 'float32', not 'bfloat16'"),
    "flip": ({"flip": False}, "flipped True, not False"),
    "no vae": ({"vae": None}, "encoders.vae"),
    "no text": ({"text": ()}, "encoders.text"),
    "shard": ({"shard": 9}, "shard 8, not 9"),
    "background": ({"background": 0}, "background 255, not 0"),
    "buckets": ({"buckets": True, "multiple": 8}, "sizes"),
}


class TestGoingOn:
    @pytest.mark.parametrize("change", CHANGES)
    def test_other_settings_are_refused_by_name(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], change: str
    ) -> None:
        prepare(str(folder), tmp_path / "out", settings())
        (tmp_path / "out" / "000001.safetensors").unlink()
        before = content(tmp_path / "out")
        changes, told = CHANGES[change]
        with pytest.raises(ValueError, match=r"was prepared with .*; choose another directory") as error:
            prepare(str(folder), tmp_path / "out", settings(**changes))
        assert told in str(error.value) and "\n" not in str(error.value)
        assert content(tmp_path / "out") == before

    def test_pictures_resized_in_another_way_are_not_mixed_with_these(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        prepare(str(folder), tmp_path / "out", settings())
        plan = json.loads((tmp_path / "out" / PLAN).read_text())
        del plan["settings"]["resizing"]  # as an older version wrote it
        (tmp_path / "out" / PLAN).write_text(json.dumps(plan))
        with pytest.raises(ValueError, match=r"was prepared with resizing None, not 'cut at .*; choose another dir"):
            prepare(str(folder), tmp_path / "out", settings())

    def test_another_encoder_is_refused_by_name(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], save_vae: Any, save_encoder: Any
    ) -> None:
        prepare(str(folder), tmp_path / "out", settings())
        other = save_vae(tmp_path / "vae", seed=1)
        with pytest.raises(ValueError, match=r"encoders\.vae"):
            prepare(str(folder), tmp_path / "out", settings(vae=other))
        text = save_encoder(tmp_path / "text", "t5", seed=1)
        with pytest.raises(ValueError, match=r"encoders\.text"):
            prepare(str(folder), tmp_path / "out", settings(text=(EncoderConfig(path=str(text), length=6),)))
        moved = Path(shutil.copytree(settings().text[0].path, tmp_path / "moved"))  # the same weights elsewhere
        prepare(str(folder), tmp_path / "out", settings(text=(EncoderConfig(path=str(moved), length=6),)))

    @pytest.mark.parametrize("name", ["metadata.jsonl", "05.png"])
    def test_a_source_that_changed_since_is_refused_by_name(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], name: str
    ) -> None:
        prepare(str(folder), tmp_path / "out", settings())
        text = (folder / name).read_bytes()
        (folder / name).write_bytes(text.replace(b"cat", b"dog") if name.endswith("jsonl") else text + b" ")
        what = "metadata.jsonl" if name.endswith("jsonl") else "pictures"
        with pytest.raises(ValueError, match=f"{what} is another one than .* was prepared from, or has changed since"):
            prepare(str(folder), tmp_path / "out", settings())

    def test_what_is_there_is_not_done_again(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        prepare(str(folder), out, settings())
        whole, kept = content(out), (out / "000000.safetensors").stat().st_mtime_ns
        for name in ("000001.safetensors", MANIFEST):
            (out / name).unlink()
        (out / ".000001.safetensors.123.tmp").write_bytes(b"half of it")
        done = prepare(str(folder), out, settings())
        assert content(out) == whole and (out / "000000.safetensors").stat().st_mtime_ns == kept
        assert "decode" in done.rates
        monkeypatch.setattr(module, "estimate", None)  # not called
        (out / ".quarantine.jsonl.123.tmp").write_bytes(b"half of it")  # killed when all shards were there
        assert prepare(str(folder), out, settings()).rates == {}
        assert content(out) == whole

    def test_files_that_are_no_data_set_are_left_alone(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation]
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"holds files \(thesis.txt\) but no plan.json; choose a new"):
            prepare(str(folder), tmp_path / "out", settings())

    def test_a_source_that_changes_during_the_run_is_named_and_what_was_written_stays(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fromnoise.preparation.sources.table import TableSource

        reading = TableSource.read

        def changing(self: TableSource, portion: dict[str, Any]) -> Any:
            if portion["first"] == SHARD:
                (folder / "12.jpg").write_bytes(picture(0, "jpeg"))
            return reading(self, portion)

        monkeypatch.setattr(TableSource, "read", changing)
        with pytest.raises(ValueError, match=r"12\.jpg changed since it was listed"):
            prepare(str(folder), tmp_path / "out", settings())
        assert (tmp_path / "out" / "000000.safetensors").exists()
        assert not (tmp_path / "out" / MANIFEST).exists()


class TestFullDisk:
    def test_one_that_is_too_small_is_told_before_anything_is_written(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: usage(1000, 0, 1000))
        with pytest.raises(ValueError, match=r"out needs about [\d.]+ KiB, and its disk has 1,000 bytes free; choose"):
            prepare(str(folder), tmp_path / "out", settings())
        assert not (tmp_path / "out").exists()

    def test_one_that_fills_up_loses_nothing(
        self, folder: Path, tmp_path: Path, settings: Callable[..., Preparation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepare(str(folder), tmp_path / "whole", settings())
        replace = os.replace

        def full(old: Path, new: Path) -> None:
            if Path(new).name == "000001.safetensors":
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", full)
            with pytest.raises(ValueError, match=r"cannot write .*000001.safetensors: No space left on device"):
                prepare(str(folder), tmp_path / "out", settings())
        assert (tmp_path / "out" / "000000.safetensors").exists()
        prepare(str(folder), tmp_path / "out", settings())
        assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_the_estimate_is_near_what_comes_of_it(
    folder: Path, tmp_path: Path, settings: Callable[..., Preparation], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(str(folder), tmp_path / "out", settings())
    told = capsys.readouterr().err
    assert re.search(
        r"21 pictures need about [\d.]+ KiB on disk, [\d.]+ [MG]iB of memory and 0:\d\d \(\d+ measured\)", told
    )
    kib = float(told.split("need about ")[1].split(" KiB")[0])
    real = sum(len(data) for name, data in content(tmp_path / "out").items() if name.endswith("tensors")) / 1024
    assert 0.4 < kib / real < 1.2  # names of tensors and the like are not counted
