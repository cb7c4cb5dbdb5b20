"""A folder as a data set: resumable, each picture once an epoch, nothing unreadable fatal."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fromnoise.core.types import Batch
from fromnoise.data.config import FolderConfig
from fromnoise.data.folder import SIDED, FolderData
from fromnoise.data.split import chance, split

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))
EMOJI, PHOTOS = DATA / "noto_emoji_128", DATA / "coco_mini_256"


def write(folder: Path, count: int, captions: int = 1, said: str = "picture") -> Path:
    """Pictures whose left half has grey level `i`, and whose captions name it."""
    folder.mkdir(exist_ok=True)
    rows = []
    for i in range(count):
        levels = np.full((8, 8, 3), i, np.uint8)
        levels[:, 4:] = 255
        Image.fromarray(levels).save(folder / f"{i:03}.png")
        rows.append({"file_name": f"{i:03}.png", "captions": [f"{said} {i} told {k}" for k in range(captions)]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def load(folder: Path, seed: int = 0, **settings: object) -> FolderData:
    config = FolderConfig.model_validate({"path": folder, "size": 8, **settings})
    return FolderData(config, seed, report=lambda line: None)


def sides(names: list[str]) -> tuple[list[int], list[int]]:
    learned, held_out = split(np.array([chance(name) for name in names]))
    return learned.tolist(), held_out.tolist()


def shown(batch: Batch) -> list[int]:
    """Which picture each row is, from its pixels; the mirrored ones are negative minus one."""
    levels = ((batch.images[:, 0, 0] + 1) * 127.5).round().int()  # (B, S)
    return [int(row[0]) if row[-1] == 255 else -int(row[-1]) - 1 for row in levels]


def told(batch: Batch) -> list[int]:
    return [int(caption.split()[1]) for caption in batch.captions]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("small") / "pictures", 40, captions=3)


class TestTraining:
    def test_batches_are_pictures_with_their_own_captions(self, small):
        data = load(small)
        batch = data.train(0, 16)
        assert batch.images.shape == (16, *data.image_shape) and batch.images.dtype == torch.float32
        assert batch.images.min() >= -1 and batch.images.max() == 1
        assert batch.labels.tolist() == [0] * 16
        assert shown(batch) == told(batch)

    def test_any_step_is_the_same_in_a_new_object_and_another_with_another_seed(self, small):
        first, again, other = load(small), load(small), load(small, seed=1)
        straight = [first.train(step, 7) for step in range(12)]
        for step in (11, 3, 0):  # as after a resume, in any order
            batch = again.train(step, 7)
            assert torch.equal(batch.images, straight[step].images) and batch.captions == straight[step].captions
        assert other.train(0, 7).captions != straight[0].captions

    @settings(max_examples=30, deadline=None)
    @given(size=st.integers(1, 90), seed=st.integers(0, 3), epoch=st.integers(0, 4))
    def test_every_picture_once_an_epoch_whatever_the_batch(self, small, size, seed, epoch):
        data = load_once(small, seed)
        count = len(data.learned)
        first, last = epoch * count, (epoch + 1) * count
        rows = [row for step in range(first // size, -(-last // size)) for row in shown(data.train(step, size))]
        rows = rows[first % size :][:count]
        assert sorted(rows) == sorted(data.learned)

    def test_epochs_differ_in_order_and_in_captions(self, small):
        data = load(small)
        count = len(data.learned)
        epochs = [data.train(step, count) for step in range(30)]
        assert shown(epochs[0]) != shown(epochs[1])
        of_one = Counter(caption for batch in epochs for caption in batch.captions if caption.startswith("picture 7 "))
        assert len(of_one) == 3 and min(of_one.values()) >= 3

    def test_mirrored_only_when_asked_and_where_no_side_is_named(self, small, tmp_path):
        assert all(row >= 0 for step in range(5) for row in shown(load(small).train(step, 32)))
        rows = [row for step in range(5) for row in shown(load(small, flip=True).train(step, 32))]
        assert 0.35 < sum(row < 0 for row in rows) / len(rows) < 0.65
        sided = load(write(tmp_path / "sided", 20, said="Left"), flip=True)
        assert all(row >= 0 for step in range(5) for row in shown(sided.train(step, 32)))
        mixed = write(tmp_path / "mixed", 1, captions=2)
        row = {"file_name": "000.png", "captions": ["picture 0", "turned rightwards"]}
        (mixed / "metadata.jsonl").write_text(json.dumps(row))
        assert shown(load(mixed, flip=True).train(0, 64)) == [0] * 64

    @pytest.mark.parametrize(
        ("caption", "sided"),
        [
            ("a star LEFT of a ring", True),
            ("right-facing fist", True),
            ("arrow_right", True),
            ("counterclockwise arrows", True),
            ("bright lights", False),
            ("a cleft rock, upright", False),
            ("a cat", False),
        ],
    )
    def test_words_that_name_a_side(self, caption, sided):
        assert bool(SIDED.search(caption)) == sided


LOADED: dict[int, FolderData] = {}


def load_once(folder: Path, seed: int) -> FolderData:
    return LOADED.setdefault(seed, load(folder, seed))


class TestSplit:
    def test_no_picture_is_in_both_and_none_is_lost(self, small):
        data = load(small)
        assert sorted(data.learned + data.held_out) == list(range(40))
        trained = {row for step in range(10) for row in shown(data.train(step, 20))}
        assert trained == set(data.learned)
        assert set(shown(data.validation(100))) == set(data.held_out)

    @settings(max_examples=40)
    @given(st.sets(st.integers(0, 10**6).map(str), min_size=20, max_size=80))
    def test_a_picture_keeps_its_side_when_another_is_added(self, names):
        before, after = sorted(names), sorted(names | {"new"})
        learned, held_out = sides(before)
        assert learned and held_out and not set(learned) & set(held_out)
        kept = {after[i] for i in sides(after)[1]}
        if len(held_out) > 1:
            assert {before[i] for i in held_out} <= kept
        assert kept - {before[i] for i in held_out} <= {"new"}

    def test_about_one_in_twenty(self):
        learned, held_out = sides([f"images/{i}.jpg" for i in range(20_000)])
        assert 900 < len(held_out) < 1100 and len(learned) == 20_000 - len(held_out)

    @pytest.mark.parametrize("count", [1, 2, 19])
    def test_a_tiny_folder_validates_on_what_there_is_and_says_so(self, tmp_path, count):
        lines: list[str] = []
        data = FolderData(FolderConfig(path=write(tmp_path / "a", count), size=8), 0, lines.append)
        assert set(shown(data.validation(20))) == set(shown(data.train(0, count))) == set(range(count))
        assert any("none is held out" in line for line in lines)

    def test_validation_is_fixed_and_goes_round_with_other_captions(self, small):
        data, other = load(small), load(small, seed=5)
        count = len(data.held_out)
        batch, again = data.validation(3 * count), other.validation(3 * count)
        assert torch.equal(batch.images, again.images) and batch.captions == again.captions
        assert shown(batch) == told(batch) == 3 * shown(data.validation(count))
        assert len(set(batch.captions)) == 3 * count

    def test_captions_to_learn_from_are_those_trained_on(self, small):
        data = load(small)
        every = [f"picture {i} told {k}" for i in data.learned for k in range(3)]
        assert data.captions(10_000) == every
        some = data.captions(20)
        assert len(set(some)) == 20 and set(some) <= set(every) and some == load(small, seed=3).captions(20)


class TestProblems:
    def test_unreadable_pictures_are_listed_and_left_out(self, tmp_path):
        folder = write(tmp_path / "a", 30)
        whole = (folder / "003.png").read_bytes()
        (folder / "003.png").write_bytes(whole[:-25])
        (folder / "010.png").write_text("not a picture")
        (folder / "011.png").unlink()
        (folder / "029.png").write_bytes(b"")
        Image.new("RGB", (8, 8)).save(folder / "unlisted.png")
        lines: list[str] = []
        data = FolderData(FolderConfig(path=folder, size=8), 0, lines.append)
        reasons = dict(problem.split(": ", 1) for problem in data.problems)
        assert list(reasons) == ["003.png", "010.png", "011.png", "029.png", "unlisted.png"]
        assert reasons["010.png"] == "cannot identify image file"
        assert reasons["011.png"] == "No such file or directory"
        assert all(reasons.values()) and not any("\n" in problem for problem in data.problems)
        assert [line for line in lines if "left out" in line] == [
            f"5 pictures left out: {'; '.join(data.problems[:3])}; and 2 more"
        ]
        batch = data.train(0, len(data.learned))
        assert shown(batch) == told(batch)
        assert sorted(shown(batch) + shown(data.validation(len(data.held_out)))) == sorted(
            set(range(30)) - {3, 10, 11, 29}
        )

    def test_names_that_are_no_text(self, tmp_path):
        good, damaged = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9.png", b"th\xe9.png"))
        Image.new("RGB", (8, 8)).save(good)
        damaged.write_bytes(b"not a picture")
        for picture in (good, damaged):
            picture.with_suffix(".txt").write_text("a cup")
        lines: list[str] = []
        data = FolderData(FolderConfig(path=tmp_path, size=8), 0, lines.append)
        assert data.names == [good.name] and len(data.problems) == 1
        assert "th\\udce9.png: cannot identify" in "\n".join(lines) and "\n".join(lines).encode()
        assert chance(good.name) == chance("caf\\udce9.png")  # its key where the folder is prepared
        assert chance("größer.png") == 0.2668062965241928  # as it always was

    def test_nothing_readable_is_refused_in_one_line(self, tmp_path):
        folder = write(tmp_path / "a", 2)
        for path in folder.glob("*.png"):
            path.write_text("not a picture")
        with pytest.raises(ValueError, match=r"^none of the 2 pictures of .* can be read: 000.png: cannot identify"):
            load(folder)

    def test_more_than_memory_holds_is_refused_in_one_line(self, tmp_path, monkeypatch):
        folder = write(tmp_path / "a", 3)
        empty = np.empty
        # The allocation that fails is really asked for: 40 TiB.
        monkeypatch.setattr(np, "empty", lambda shape, dtype: empty((shape[0] * 10**9, *shape[1:]), dtype))
        with pytest.raises(ValueError, match=r"^3 pictures at size 4096 need 0\.1 GiB of memory, more than there is"):
            load(folder, size=4096)

    def test_what_is_held_in_memory_is_said(self, small, capsys):
        FolderConfig(path=small, size=16).build(0)
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        assert "40 pictures at 16 px, 120 captions from metadata.jsonl, 0.0 MiB in memory; " in err


@pytest.mark.skipif(not EMOJI.is_dir(), reason="$FROMNOISE_DATA/noto_emoji_128 is absent")
def test_emoji():
    data = load(EMOJI, size=16)
    assert data.problems == [] and len(data.names) == 1644
    assert 60 <= len(data.held_out) <= 105
    captions = [caption for step in range(25) for caption in data.train(step, 63).captions]
    assert Counter(captions) == Counter(data.said[i][0] for i in data.learned)
    at = data.names.index("images/emoji_u1f534.png")
    assert data.said[at] == ("red circle",)
    assert (data.pictures[at, :, 0, 0] == 255).all()  # laid on white
    red, green, blue = data.pictures[at, :, 8, 8].astype(int)
    assert red > 150 and green < 100 and blue < 100


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="$FROMNOISE_DATA/coco_mini_256 is absent")
def test_photos_have_five_captions_each():
    data = load(PHOTOS, size=32)
    assert data.problems == [] and len(data.names) == 76
    assert {len(said) for said in data.said} == {5}
    assert len(data.captions(10_000)) == 5 * len(data.learned)
