"""Data sets as the hub has them, streamed from directories of the same files."""

import io
import json
import os
import pickle
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import fsspec
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from fromnoise.preparation.sources.hub import HubSource, _portions
from fromnoise.preparation.sources.source import Fault

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def tars(folder: Path, made, sizes: tuple[int, ...]) -> Path:
    """As text-to-image-2M: .jpg, and .json with a prompt."""
    folder.mkdir()
    start = 0
    for part, size in enumerate(sizes):
        with tarfile.open(folder / f"data_{part:06}.tar", "w") as archive:
            for i in range(start, start + size):
                said = json.dumps({"prompt": f"grey {i}"}).encode()
                for name, content in ((f"{i:08}.jpg", made.png(i)), (f"{i:08}.json", said)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        start += size
    return folder


def test_text_to_image_2m(made, tmp_path):
    folder = tars(tmp_path / "2M", made, (11, 10, 3))
    source = made.source(f"hub:{folder}", entries=24, shard=3)
    assert source.entries is None
    assert source.about == f"about 24 pictures of {folder} in 3 files, captions from json"
    portions = [list(source.read(portion)) for portion in source.portions]
    assert [len(portion) for portion in portions] == [3, 3, 5, 3, 3, 4, 3, 0, 0]
    found = [entry for portion in portions for entry in portion]
    assert [(entry.captions, entry.content) for entry in found] == [((f"grey {i}",), made.png(i)) for i in range(24)]
    assert len({entry.key for entry in found}) == 24 and found[12].key == f"hub:{folder}:1:1"
    assert made.entries(source) == found
    assert [list(source.read(portion)) for portion in reversed(source.portions)] == portions[::-1]
    moved = pickle.loads(pickle.dumps(source))
    assert list(moved.read(source.portions[4])) == portions[4]
    again = made.source(f"hub:{folder}", entries=24, shard=3)
    assert again.identity == source.identity and again.portions == source.portions
    folder.joinpath("data_000002.tar").touch()
    assert made.source(f"hub:{folder}", entries=24, shard=3).identity != source.identity


def test_portions_in_order_skip_nothing(made, tmp_path, monkeypatch):
    source = made.source(f"hub:{tars(tmp_path / '2M', made, (12,))}", entries=12, shard=3)
    skipped = []
    kind = type(source.stream)
    skip = kind.skip
    monkeypatch.setattr(kind, "skip", lambda self, n: skipped.append(n) or skip(self, n))
    for portion in source.portions:
        list(source.read(portion))
    assert skipped == [0]
    next(iter(source.read(source.portions[1])))  # given up half-way
    list(source.read(source.portions[2]))
    assert skipped == [0, 3, 6]


def test_parquet_with_classes(made, tmp_path):
    features = Features({"img": Image(), "title": Value("string"), "label": ClassLabel(names=["bat", "cat", "dog"])})
    rows = {
        "img": [{"bytes": made.png(i), "path": None} for i in range(20)],
        "title": [f"grey {i}" for i in range(20)],
        "label": [i % 3 if i < 18 else (None, -1)[i - 18] for i in range(20)],
    }
    (tmp_path / "set").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train-0.parquet", batch_size=2)
    source = made.source(f"hub:{tmp_path / 'set'}", caption_columns=["title"], entries=20, shard=6)
    assert source.classes == 3 and source.class_names == ("bat", "cat", "dog")
    assert source.portions == [  # row groups of two rows, put together
        {"piece": piece, "pieces": count, "first": 0, "end": None} for piece, count in ((0, 3), (3, 3), (6, 3), (9, 1))
    ]
    found = made.entries(source)
    assert found[19] == Fault(f"{source.where}:9:1", "class -1; allowed: 0 to 2")
    assert found[18] == Fault(f"{source.where}:9:0", "no class, where others have one")
    assert [entry.label for entry in found[:18]] == [i % 3 for i in range(18)]
    assert [entry.captions for entry in found[:18]] == [(f"grey {i}",) for i in range(18)]


@pytest.mark.skipif(not DATA.is_dir(), reason="$FROMNOISE_DATA is absent")
def test_a_folder_of_pictures(made):
    source = made.source(f"hub:{DATA / 'coco_mini_256'}", entries=76, shard=40)
    plain = made.source(DATA / "coco_mini_256")
    wanted = {entry.captions: entry.content for entry in made.pictures(plain).values()}
    assert {entry.captions: entry.content for entry in made.pictures(source).values()} == wanted
    assert len(source.portions) == 2


def test_a_network_that_fails_is_no_fault_of_a_picture(made, tmp_path, monkeypatch):
    rows = [{"file_name": f"{i}.png", "text": f"grey {i}"} for i in range(3)]
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(made.png(i))
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = made.source(f"hub:{tmp_path}", entries=3)
    opened = fsspec.open

    def failing(error: Exception):
        def attempt(path: str, mode: str) -> object:
            if path.endswith("1.png"):
                raise error
            return opened(path, mode)

        monkeypatch.setattr(fsspec, "open", attempt)
        return [entry for portion in source.portions for entry in source.read(portion)]

    for kind in (ConnectionError, RuntimeError):  # those of httpx are no OSErrors
        error = kind("aborted by\n the peer")
        told = made.refusal(lambda error=error: failing(error))
        assert told.startswith(f"cannot read hub:{tmp_path}:") and told.endswith(": aborted by the peer")
    first, gone, last = failing(FileNotFoundError("no such file"))
    assert gone == Fault(gone.key, "no such file") and (first.captions, last.captions) == (("grey 0",), ("grey 2",))


@pytest.mark.parametrize("pieces", [1, 3, 46, 1000])
@pytest.mark.parametrize("entries", [1, 1500, 46 * 48_000])
def test_portions_cover_every_piece_to_its_end(pieces, entries):
    portions = _portions(pieces, entries, 1024)
    open_ended = [portion for portion in portions if portion["end"] is None]
    assert [p for portion in open_ended for p in range(portion["piece"], portion["piece"] + portion["pieces"])] == [
        *range(pieces)
    ]
    for before, after in pairwise(portions):
        assert after["first"] == (before["end"] or 0)
    assert abs(len(portions) - max(1, entries / 1024)) <= max(pieces, 2)


def test_what_cannot_be_had(made, tmp_path, monkeypatch):
    folder = tars(tmp_path / "2M", made, (2,))
    refused = lambda **options: made.refusal(lambda: made.source(f"hub:{folder}", **options))  # noqa: E731
    assert refused() == f"hub:{folder} does not tell how many entries it has; say about how many by entries"
    assert refused(split="tset").endswith("no split 'tset'; allowed: train")
    assert "no column 'prompts'; allowed: jpg, json" in refused(caption_columns=["prompts"])
    assert "does not tell the classes of 'json'" in refused(label_column="json", entries=2)
    assert made.refusal(lambda: made.source("hub:nobody/nothing")).startswith("cannot read hub:nobody/nothing: ")
    source = made.source(f"hub:{folder}", entries=2)
    (folder / "data_000000.tar").unlink()
    assert "cannot read piece 0 of hub:" in made.refusal(lambda: list(source.read(source.portions[0])))
    monkeypatch.setitem(sys.modules, "datasets", None)
    told = "data sets of the hub need datasets: pip install 'fromnoise[hub]'"
    assert made.refusal(lambda: made.source("hub:owner/name")) == told
    assert isinstance(source, HubSource)
