"""Pictures in parquet files: exact rows of every portion, whatever the row groups."""

import os
import sys
from pathlib import Path

import pytest

from fromnoise.preparation.sources.source import Fault, Picture

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))


def write(path: Path, columns: dict[str, list], group: int = 4) -> Path:
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pa.table(columns), path, row_group_size=group, use_dictionary=False, write_batch_size=32)
    return path


def test_portions_across_row_groups_and_files(made, tmp_path):
    for part, start in enumerate((0, 7, 7, 20)):
        levels = range(start, (7, 7, 20, 23)[part])
        pictures = pa.array([made.png(level) for level in levels], pa.binary())
        write(tmp_path / "all" / f"{part}.parquet", {"image": pictures, "text": [f"grey {level}" for level in levels]})
    source = made.source(tmp_path / "all", shard=5)
    assert [portion["count"] for portion in source.portions] == [5, 5, 5, 5, 3]
    found = list(made.pictures(source).values())
    assert [picture.captions for picture in found] == [(f"grey {level}",) for level in range(23)]
    assert [picture.content for picture in found] == [made.png(level) for level in range(23)]
    assert [picture.key for picture in found[6:9]] == ["0.parquet:6", "2.parquet:0", "2.parquet:1"]
    assert source.about == "23 pictures in 4 parquet files, captions from text"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "more").symlink_to(tmp_path / "all", target_is_directory=True)
    linked = made.source(tmp_path / "linked", shard=5)
    assert [picture.key for picture in made.pictures(linked).values()] == [f"more/{picture.key}" for picture in found]
    pattern = made.source(tmp_path / "all" / "{2..3}.parquet")
    assert [picture.captions for picture in made.pictures(pattern).values()] == [(f"grey {i}",) for i in range(7, 23)]


def test_every_kind_of_cell(made, tmp_path):
    cells = [{"bytes": made.png(i), "path": f"{i}.png"} for i in range(3)]
    columns = {
        "img": [*cells, {"bytes": None, "path": "gone.png"}, None],
        "captions": [["a", " b "], [], None, ["c"], ["d"]],
        "fine_label": [4, None, 2, 1, 1],
    }
    source = made.source(write(tmp_path / "a.parquet", columns))
    assert made.entries(source) == [
        Picture("a.parquet:0", made.png(0), ("a", "b"), 4),
        Fault("a.parquet:1", "no class, where others have one"),
        Picture("a.parquet:2", made.png(2), (), 2),
        Fault("a.parquet:3", "no picture in column 'img', but {'bytes': None, 'path': 'gone.png'}"),
        Fault("a.parquet:4", "no picture in column 'img', but None"),
    ]
    assert source.classes == 5


def test_captions_that_are_no_text_are_faults(made, tmp_path):
    source = made.source(write(tmp_path / "a.parquet", {"png": [made.png()], "text": [7]}))
    assert made.told(source) == [("a.parquet:0", "a caption must be text or a list of texts, not 7")]


@pytest.mark.parametrize(
    ("cells", "given"),
    [
        ([None, [1, 2], [3]], "[1, 2]"),
        ([None, {"id": 1}, None], "{'id': 1}"),
        ([1.0, None, 0.25], "0.25"),
        ([b"cat", b"dog", b""], "b'cat'"),
    ],
)
def test_a_column_with_a_usual_name_that_holds_no_classes(made, tmp_path, cells, given):
    folder = tmp_path / "all"
    columns = {"image": [made.png()] * 3, "text": ["a", "b", "c"]}
    write(folder / "a.parquet", {**columns, "label": cells})
    write(folder / "b.parquet", columns)
    said = f"the class in column 'label' must be a whole number or a word, not {given}"
    source = made.source(folder)
    assert source.about == f"6 pictures in 2 parquet files, captions from text; no classes: {said}"
    assert (
        source.classes == 1 and [one.captions for one in made.pictures(source).values()] == [("a",), ("b",), ("c",)] * 2
    )
    refused = f"{folder / 'a.parquet'}: {said}"
    assert made.refusal(lambda: made.source(folder, label_column="label")) == refused
    write(folder / "a.parquet", {"image": columns["image"], "label": cells})
    assert made.refusal(lambda: made.source(folder)) == refused


def test_classes_that_are_whole_floats(made, tmp_path):
    columns = {"image": [made.png(i) for i in range(3)], "label": [10.0, None, 9.0]}
    source = made.source(write(tmp_path / "a.parquet", columns))
    assert [one.label for one in made.pictures(source).values()] == [10, 9] and source.classes == 11


def test_classes_that_are_words(made, tmp_path):
    columns = {"image": [made.png(i) for i in range(3)], "label": ["cat", "Dog", "bird"]}
    source = made.source(write(tmp_path / "a.parquet", columns))
    assert source.class_names == ("Dog", "bird", "cat")
    assert [one.label for one in made.pictures(source).values()] == [2, 0, 1]


@pytest.mark.skipif(not DATA.is_dir(), reason="$FROMNOISE_DATA is absent")
def test_published_files(made):
    source = made.source(DATA / "cifar10", shard=1000)
    assert (source.entries, source.classes, len(source.portions)) == (50_000, 10, 50)
    last = list(source.read(source.portions[-1]))
    assert len(last) == 1000 and last[-1].key == "train-00004-of-00005.parquet:9999"


def test_what_cannot_be_read(made, tmp_path):
    path = write(tmp_path / "a" / "a.parquet", {"image": [made.png()] * 50, "text": ["a"] * 50})
    write(tmp_path / "a" / "b.parquet", {"image": [made.png()], "prompt": ["a"]})
    refused = lambda name: made.refusal(lambda: made.source(tmp_path / name))  # noqa: E731
    assert refused("a").endswith("b.parquet has no column 'text', as a.parquet has")
    whole = path.read_bytes()
    for damaged in (b"", b"not parquet at all", whole[:-20]):
        path.write_bytes(damaged)
        assert refused("a/a.parquet").startswith(f"{path} is damaged, cut short or no parquet file")
    write(path, {"image": [], "text": []})
    assert "holds no rows" in refused("a/a.parquet")
    path.write_bytes(whole[:30] + bytes(len(whole) - 230) + whole[-200:])
    if "damaged" not in made.refusal(lambda: [list(made.source(path).read(portion)) for portion in [PORTION]]):
        pytest.fail("zeros in place of rows were not seen")


PORTION = {"first": 0, "count": 50}


def test_a_file_that_changes_is_named(made, tmp_path):
    path = write(tmp_path / "a.parquet", {"image": [made.png()], "text": ["a"]})
    source = made.source(path)
    write(path, {"image": [made.png()], "text": ["another"]})
    assert made.refusal(lambda: list(source.read(source.portions[0]))).startswith(f"{path} changed since it was listed")
    assert made.source(path).identity != source.identity


def test_without_pyarrow_the_extra_is_named(made, tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", {"image": [made.png()], "text": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert made.refusal(lambda: made.source(path)) == "parquet files need pyarrow: pip install 'fromnoise[parquet]'"


def test_memory_does_not_grow_with_the_row_group(made, tmp_path):
    """2,000 rows of 20 KB in one row group: 40 MB, of which a page and a batch of 32 rows are held."""
    noise = [os.urandom(20_000) for _ in range(2000)]
    path = write(tmp_path / "a.parquet", {"image": noise, "text": ["a"] * 2000}, group=2000)
    del noise
    source = made.source(path, shard=500)
    before, most = pa.total_allocated_bytes(), 0
    for portion in source.portions:
        for _ in source.read(portion):
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < 5_000_000
