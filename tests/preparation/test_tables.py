"""Pictures in directories and tables: every caption, every fault, and nothing that changed meanwhile."""

import json
import os
import pickle
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from fromnoise.data.listing import list_pictures
from fromnoise.preparation.sources.source import Picture

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))
AWKWARD = {
    "nul": ("a\0 cat\0", "a cat"),
    "right to left": ("قطة نائمة على כיסא", "قطة نائمة على כיסא"),
    "emoji": ("a 👩🏽‍🚀 and 🏳️‍🌈", "a 👩🏽‍🚀 and 🏳️‍🌈"),
    "long": ("word " * 10_000, ("word " * 10_000).strip()),
    "lines": ("two\nlines\u2028more", "two\nlines\u2028more"),
}


def write(
    folder: Path, made, rows: Sequence[dict[str, object]] | Sequence[dict[str, str]], kind: str = "jsonl"
) -> Path:
    """Four pictures a.png to d.png in grey levels 0 to 3, and a table of them."""
    for level, name in enumerate("abcd"):
        (folder / f"{name}.png").write_bytes(made.png(level))
    table = folder / f"metadata.{kind}"
    table.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return table


@pytest.mark.skipif(not DATA.is_dir(), reason="$FROMNOISE_DATA is absent")
@pytest.mark.parametrize("name", ["coco_mini_256", "noto_emoji_128"])
def test_a_real_folder_says_what_training_from_it_says(made, name):
    source = made.source(DATA / name, shard=500)
    found = made.pictures(source)
    assert {key: picture.captions for key, picture in found.items()} == list_pictures(DATA / name).captions
    for key, picture in list(found.items())[:20]:
        assert picture.content == (DATA / name / key).read_bytes()
    assert source.about.startswith(f"{len(found):,} pictures, ") and source.classes == 1
    again = made.source(DATA / name, shard=500)
    assert again.portions == source.portions and again.identity == source.identity
    assert json.loads(json.dumps(source.portions)) == source.portions
    assert pickle.loads(pickle.dumps(source)).identity == source.identity  # as it goes to other processes


def test_rows_about_one_picture_are_put_together_in_the_order_of_the_table(made, tmp_path):
    rows = [
        {"image": "d.png", "caption": ["first", " second "], "label": 3},
        {"image": "./a.png", "caption": "a", "label": 0},
        {"image": "d.png", "caption": "third", "label": 3},
        {"image": "b.png", "caption": None, "label": 1},
        {"image": "c.png", "caption": " \n ", "label": 0},
        {"image": "b.png", "caption": None},
    ]
    source = made.source(write(tmp_path, made, rows), shard=3)
    assert [(entry.key, entry.captions, entry.label, entry.content) for entry in made.entries(source)] == [
        ("d.png", ("first", "second", "third"), 3, made.png(3)),
        ("a.png", ("a",), 0, made.png(0)),
        ("b.png", (), 1, made.png(1)),
        ("c.png", (), 0, made.png(2)),
    ]
    assert source.portions == [{"first": 0, "count": 3}, {"first": 3, "count": 1}]
    assert source.classes == 4 and source.about == (
        "4 pictures, 4 captions, 4 classes from metadata.jsonl; of 2 pictures nothing is said"
    )


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_awkward_captions_are_kept(made, tmp_path, kind):
    table = write(tmp_path, made, [])
    if kind == "jsonl":
        rows = [{"file_name": "a.png", "text": said} for said, _ in AWKWARD.values()]
        table.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        table = tmp_path / f"table.{kind}"
        between = "," if kind == "csv" else "\t"
        lines = [between.join(("a.png", f'"{said}"')) for said, _ in AWKWARD.values()]
        table.write_text("\ufeff" + "\r\n".join([f"Image {between} Text ", *lines]), encoding="utf-8", newline="")
    (entry,) = made.entries(made.source(table))
    assert entry.captions == tuple(kept for _, kept in AWKWARD.values())


def test_half_a_character_is_no_text_that_could_be_stored(made, tmp_path):
    table = write(tmp_path, made, [{"file_name": "a.png", "text": "half \ud83d here"}])
    assert made.pictures(made.source(table))["a.png"].captions == ("half ? here",)


def test_columns_of_another_name(made, tmp_path):
    rows = [{"place": "a.png", "long": "a long one", "short": "one", "kind": "cat"}]
    rows += [{"place": "b.png", "long": "b", "short": "", "kind": "bat"}]
    options = {"picture_column": "place", "caption_columns": ["long", "Short"], "label_column": "kind"}
    source = made.source(write(tmp_path, made, rows), **options)
    found = made.pictures(source)
    assert found["a.png"].captions == ("a long one", "one") and found["b.png"].captions == ("b",)
    assert (found["a.png"].label, found["b.png"].label, source.classes) == (1, 0, 2)  # words in order


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        ({"imgae": "a.png", "text": "a"}, {}, "no column with pictures: looked for file_name"),
        ({"imgae": "a.png", "text": "a"}, {}, "allowed: imgae, text; nearest: imgae"),
        ({"image": "a.png", "captoin": "a"}, {}, "no column with captions or classes: looked for captions"),
        ({"image": "a.png", "captoin": "a"}, {}, "allowed: image, captoin; nearest: captoin"),
        (
            {"image": "a.png", "text": "a"},
            {"caption_columns": ["texts"]},
            "no column 'texts'; allowed: image, text",
        ),
        ({"image": "a.png", "text": "a"}, {"picture_column": "img"}, "no column 'img'"),
        ({"image": "a.png", "label": -1}, {}, "class -1; allowed: whole numbers from 0 on, or words"),
    ],
)
def test_columns_that_are_not_there(made, tmp_path, row, options, said):
    table = write(tmp_path, made, [row])
    refusal = made.refusal(lambda: made.source(table, **options))
    assert said in refusal and refusal.startswith(str(table))


def test_rows_that_name_their_captions_otherwise(made, tmp_path):
    rows = [
        {"image": "a.png", "captions": ["first", "second"]},
        {"image": "b.png", "text": "third"},
        {"image": "c.png", "caption": None},
        {"image": "d.png", "summary": "a column that nobody asked for"},
        {"image": "d.png", "captions": None, "text": "fourth"},
    ]
    table = write(tmp_path, made, rows)
    source = made.source(table)
    assert [entry.captions for entry in made.entries(source)] == [("first", "second"), ("third",), (), ("fourth",)]
    assert source.about == "4 pictures, 4 captions from metadata.jsonl; of 1 pictures nothing is said"
    asked = made.source(table, caption_columns=("captions",))
    assert [entry.captions for entry in made.entries(asked)] == [("first", "second"), (), (), ()]


def test_rows_that_cannot_be_used_are_faults(made, tmp_path):
    table = write(tmp_path, made, [])
    lines = [
        '{"file_name": "a.png", "text": "a", "label": 1}',
        "",
        '{"file_name": "b.png", "text": "b',
        '["b.png", "b"]',
        '{"file_name": 7, "text": "b"}',
        '{"file_name": "b\\u0000.png", "text": "b"}',
        '{"file_name": "b.png", "text": 7}',
        '{"text": "b"}',
        '{"file_name": "\\ud83d.png", "text": "b"}',
        '{"file_name": "gone.png", "text": "gone", "label": 1}',
        '{"file_name": "a.png", "text": "another", "label": 2}',
        '{"file_name": "c.png", "text": "c", "label": [1]}',
    ]
    table.write_bytes("\n".join(lines).encode() + b'\n{"file_name": "d.png", "text": "\xff"}')
    source = made.source(table, shard=4)
    told = dict(made.told(source))
    assert list(told) == [
        *(f"metadata.jsonl:{line}" for line in (3, 4, 5, 6, 7, 8, 9)),
        "gone.png",
        *(f"metadata.jsonl:{line}" for line in (11, 12, 13)),
    ]
    reasons = ["not JSON", "must be an object", "name must be text, not 7", "name must be text", "not 7", "not None"]
    reasons += ["surrogates", "No such file", "another class for a.png, '2'; the first is kept"]
    reasons += ["whole number or a word", "not JSON"]
    assert all(reason in said for reason, said in zip(reasons, told.values(), strict=True))
    assert made.pictures(source)["a.png"] == Picture("a.png", made.png(0), ("a",), 1)


@pytest.mark.parametrize("odd", [[1, 2], {"id": 3}, 0.25])
def test_a_column_with_a_usual_name_that_seldom_holds_a_class(made, tmp_path, odd):
    rows = [{"image": f"{name}.png", "text": name, "labels": odd} for name in "abcd"]
    table = write(tmp_path, made, [{**rows[0], "labels": 1}, *rows[1:]])
    said = f"the class in column 'labels' must be a whole number or a word, not {odd}"
    source = made.source(table)
    assert source.about == f"4 pictures, 4 captions from metadata.jsonl; no classes: {said}"
    assert source.classes == 1 and len(made.pictures(source)) == 4
    assert made.refusal(lambda: made.source(table, label_column="labels")) == f"{table}: {said}"


def test_classes_that_are_whole_floats(made, tmp_path):
    labels = {"a": 10.0, "b": None, "c": 9.0, "d": 9}
    rows = [{"image": f"{name}.png", "text": name, "label": label} for name, label in labels.items()]
    source = made.source(write(tmp_path, made, rows))
    assert [one.label for one in made.pictures(source).values()] == [10, 9, 9] and source.classes == 11


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize(("labels", "numbers"), [([1, None, 0], [1, 0]), (["dog", None, "cat"], [1, 0])])
def test_a_picture_without_a_class_is_a_fault_where_others_have_one(made, tmp_path, kind, labels, numbers):
    rows = [{"image": f"{name}.png", "text": name, "label": label} for name, label in zip("abc", labels, strict=True)]
    table = write(tmp_path, made, rows)
    if kind == "csv":
        table = tmp_path / "table.csv"
        lines = (f"{row['image']},{row['text']},{'' if row['label'] is None else row['label']}" for row in rows)
        table.write_text("\n".join(["image,text,label", *lines]))
    source = made.source(table)
    assert source.class_names == (("cat", "dog") if "dog" in labels else ())
    assert made.told(source) == [("b.png", "no class, where others have one")]
    assert [(one.key, one.label) for one in made.pictures(source).values()] == [
        ("a.png", numbers[0]),
        ("c.png", numbers[1]),
    ]
    assert source.about == (
        f"2 pictures, 2 captions, 2 classes from {table.name}; 1 pictures without a class are left out"
    )


def test_classes_are_found_though_the_first_row_has_none(made, tmp_path):
    rows = [{"image": "a.png", "text": "a"}, {"image": "b.png", "label": 1}, {"image": "c.png", "label": 0}]
    source = made.source(write(tmp_path, made, rows))
    assert source.classes == 2 and made.told(source) == [("a.png", "no class, where others have one")]
    assert [one.label for one in made.pictures(source).values()] == [1, 0]
    assert made.source(tmp_path, label_column="label").classes == 2


def test_a_class_is_needed_in_one_row_of_a_picture_only_and_in_none_where_no_picture_has_one(made, tmp_path):
    rows = [{"image": "a.png", "text": "a"}, {"image": "a.png", "text": "again", "label": 2}]
    rows = [{"label": None, **row} for row in [*rows, {"image": "a.png", "text": "more"}]]
    (entry,) = made.entries(made.source(write(tmp_path, made, rows)))
    assert (entry.captions, entry.label) == (("a", "again", "more"), 2)
    source = made.source(write(tmp_path, made, [{**row, "label": None} for row in rows]))
    assert source.classes == 1 and [entry.label for entry in made.entries(source)] == [0]


def test_rows_of_a_csv_that_cannot_be_used_are_faults(made, tmp_path):
    write(tmp_path, made, []).unlink()
    table = tmp_path / "pictures.csv"
    table.write_bytes(b"file,text\na.png,a cat, asleep\n\nb.png\nc.png,caf\xe9\nd.png,d\n")
    source = made.source(tmp_path)
    assert made.told(source) == [
        ("pictures.csv:2", "3 cells under a header of 2: quote a caption with commas"),
        ("pictures.csv:4", "1 cells under a header of 2: quote a caption with commas"),
        ("pictures.csv:5", "not UTF-8 text"),
        ("a.png", "not in pictures.csv"),
        ("b.png", "not in pictures.csv"),
        ("c.png", "not in pictures.csv"),
    ]
    assert list(made.pictures(source)) == ["d.png"]
    table.write_text('file,text\na.png,"' + "a" * 200_000)
    assert made.refusal(lambda: made.source(table)).startswith(f"{table} line 2: not CSV")


def test_text_files_beside(made, tmp_path):
    write(tmp_path, made, []).unlink()
    (tmp_path / "a.txt").write_text("\ufeffone\n\n two \n", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    source = made.source(tmp_path)
    assert made.told(source) == [("b.png", "b.txt is not UTF-8 text: byte 3 is 0xe9")]
    found = made.pictures(source)
    assert found["a.png"] == Picture("a.png", made.png(0), ("one", "two"))
    assert found["c.png"].captions == () and list(found) == ["a.png", "c.png", "d.png"]
    assert source.about == "4 pictures, 2 of them with captions in .txt files"


@pytest.mark.skipif(sys.platform != "linux", reason="a file that nobody may read is Linux's")
def test_a_caption_that_cannot_be_read_is_a_fault_and_no_picture_without_one(made, tmp_path):
    write(tmp_path, made, []).unlink()
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").symlink_to("/proc/self/mem")
    source = made.source(tmp_path)
    assert made.told(source) == [("b.png", "b.txt cannot be read: Input/output error")]
    assert list(made.pictures(source)) == ["a.png", "c.png", "d.png"]


def test_text_files_in_capitals_beside(made, tmp_path):
    write(tmp_path, made, []).unlink()
    (tmp_path / "b.TXT").write_text("b")
    assert [one.captions for one in made.pictures(made.source(tmp_path)).values()] == [(), ("b",), (), ()]


def test_a_name_that_is_no_text(made, tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(made.png())
    ((key, entry),) = made.pictures(made.source(tmp_path)).items()
    assert key == "caf\\udce9.png" and entry.content == made.png()


ROWS = [{"file_name": f"{name}.png", "text": name} for name in "abcde"]


class TestChanges:
    """A source that is written to while it is read."""

    def changed(self, made, source) -> str:
        return made.refusal(lambda: [list(source.read(portion)) for portion in source.portions])

    def test_a_picture(self, made, tmp_path):
        table = write(tmp_path, made, ROWS)
        source = made.source(table)
        before = (tmp_path / "b.png").stat()
        (tmp_path / "b.png").write_bytes(made.png(9))
        os.utime(tmp_path / "b.png", ns=(0, before.st_mtime_ns + 1))
        assert self.changed(made, source).startswith(f"{tmp_path / 'b.png'} changed since it was listed")
        assert made.source(table).identity != source.identity
        (tmp_path / "b.png").write_bytes(made.png(1) + b"more")
        assert "now 77" in self.changed(made, source) or "bytes, now" in self.changed(made, source)
        (tmp_path / "b.png").unlink()
        assert "it is gone" in self.changed(made, source)

    def test_a_picture_that_comes_later(self, made, tmp_path):
        source = made.source(write(tmp_path, made, ROWS))
        assert made.told(source) == [("e.png", "No such file or directory")]
        (tmp_path / "e.png").write_bytes(made.png())
        assert self.changed(made, source) == (
            f"{tmp_path / 'e.png'} changed since it was listed: it was not there; start again when nothing writes there"
        )

    def test_the_table(self, made, tmp_path):
        table = write(tmp_path, made, ROWS)
        source = made.source(table)
        with open(table, "a") as file:
            file.write('{"file_name": "a.png", "text": "late"}\n')
        assert self.changed(made, source).startswith(f"{table} changed since it was listed")
        other = made.source(table)
        assert {name for name in source.parts if source.parts[name] != other.parts[name]} == {"metadata.jsonl"}

    def test_a_text(self, made, tmp_path):
        write(tmp_path, made, []).unlink()
        (tmp_path / "a.txt").write_text("a")
        source = made.source(tmp_path)
        (tmp_path / "a.txt").write_text("another")
        assert self.changed(made, source).startswith(f"{tmp_path / 'a.txt'} changed")
        other = made.source(tmp_path)
        assert {name for name in source.parts if source.parts[name] != other.parts[name]} == {"captions"}


UNUSABLE = [
    (b"", " is empty"),
    (b"\n\n", " is empty"),
    ("file_name,text\na.png,a cat\n".encode("utf-16"), " is not UTF-8 text: byte 0 is 0xff"),
    (b"file_name,text,,Text \na.png,a cat,,a dog\n", ": 2 columns are named 'text'; allowed: one of each name"),
]


class TestNothing:
    def test_where_there_is_nothing(self, made, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty.jsonl").write_text("\n")
        (tmp_path / "only header.csv").write_text("image,text\n")
        (tmp_path / "notes.md").write_text("no source")
        refused = lambda name: made.refusal(lambda: made.source(tmp_path / name))  # noqa: E731
        assert "holds no pictures" in refused("empty")
        assert "no source at" in refused("gone.csv") and "gone.csv" in refused("gone.csv")
        assert refused("empty.jsonl").endswith("empty.jsonl is empty")
        assert refused("only header.csv").endswith("only header.csv has no rows")
        assert "is no source; allowed: a directory, " in refused("notes.md")

    @pytest.mark.parametrize(("content", "said"), UNUSABLE)
    def test_a_csv_that_cannot_be_used_is_refused_as_by_training(self, made, tmp_path, content, said):
        write(tmp_path, made, []).unlink()
        (tmp_path / "metadata.csv").write_bytes(content)
        refusal = f"{tmp_path / 'metadata.csv'}{said}"
        assert made.refusal(lambda: made.source(tmp_path)) == made.refusal(lambda: list_pictures(tmp_path)) == refusal

    @pytest.mark.parametrize("content", [b"7\n", "{}".encode("utf-16")])
    def test_json_lines_of_which_none_can_be_used(self, made, tmp_path, content):
        (tmp_path / "a.jsonl").write_bytes(content)
        refusal = made.refusal(lambda: made.source(tmp_path / "a.jsonl"))
        assert refusal.startswith(f"{tmp_path / 'a.jsonl'} line 1: ")

    def test_two_kinds_in_one_directory(self, made, tmp_path):
        write(tmp_path, made, [])
        (tmp_path / "a.parquet").write_bytes(b"")
        assert "holds 1 .parquet, 4 pictures: name one kind" in made.refusal(lambda: made.source(tmp_path))


def test_memory_is_of_the_listing_and_not_of_captions_or_pictures(made, tmp_path):
    """4,000 pictures with 1,000 bytes of captions each."""
    (tmp_path / "a.png").write_bytes(made.png())
    table = tmp_path / "rows.jsonl"
    with open(table, "w") as file:
        for i in range(4000):
            file.write(json.dumps({"image": f"{i}.png", "text": f"{i} " + "x" * 1000}) + "\n")
    tracemalloc.start()
    source = made.source(table)
    entries = sum(1 for portion in source.portions for _ in source.read(portion))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert entries == 4000
    assert held < 4000 * 350 and most < 4000 * 600
