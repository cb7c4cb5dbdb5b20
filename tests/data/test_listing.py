"""Where captions come from, and what is said when they cannot be used."""

import json
import sys

import pytest

from fromnoise.data.listing import list_files, list_pictures


def touch(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def jsonl(folder, *rows: object) -> None:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def refusal(folder) -> str:
    with pytest.raises(ValueError) as error:
        list_pictures(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_json_lines_with_one_or_several_captions(tmp_path):
    touch(tmp_path, "b.png", "sub/a.png", "c.png")
    jsonl(
        tmp_path,
        {"file_name": "sub/a.png", "text": "first", "captions": [" first ", "second\u2028line", ""]},
        "",
        {"file_name": "./b.png", "text": "größer", "more": 1},
        {"file_name": "c.png", "caption": None, "prompt": ["one", "two"]},
    )
    listing = list_pictures(tmp_path)
    assert listing.captions == {
        "b.png": ("größer",),
        "c.png": ("one", "two"),
        "sub/a.png": ("first", "second\u2028line"),
    }
    assert list(listing.captions) == sorted(listing.captions)
    assert listing.problems == [] and listing.source == "metadata.jsonl"


@pytest.mark.parametrize("name", ["metadata.csv", "captions.csv", "anything.csv"])
@pytest.mark.parametrize("header", ["file_name,text", "Image, Caption", "\ufeffpath,prompt"])
def test_csv(tmp_path, name, header):
    rows = 'a.png,"a cat, asleep"\nb.jpg,"two\nlines"\na.png,a tabby\n'
    (tmp_path / name).write_text(f"{header}\n{rows}", encoding="utf-8")
    assert list_pictures(tmp_path).captions == {"a.png": ("a cat, asleep", "a tabby"), "b.jpg": ("two\nlines",)}


@pytest.mark.parametrize("name", ["METADATA.CSV", "Captions.csv", "Anything.CSV"])
def test_csv_in_capitals(tmp_path, name):
    (tmp_path / "._captions.csv").write_bytes(b"\0\5\26\7")  # as macOS leaves beside it on another's disk
    (tmp_path / name).write_text("file_name,text\na.png,a cat\n")
    listing = list_pictures(tmp_path)
    assert listing.captions == {"a.png": ("a cat",)} and listing.source == name


def test_csv_with_rows_numbered_under_no_name(tmp_path):
    (tmp_path / "metadata.csv").write_text(",file_name,text\n0,a.png,a cat\n1,b.png,a dog\n", encoding="utf-8")
    assert list_pictures(tmp_path).captions == {"a.png": ("a cat",), "b.png": ("a dog",)}


def test_text_files_beside(tmp_path):
    touch(tmp_path, "x/b.JPG", "a.png", "c.webp", "notes.md", ".hidden/d.png", "._a.png")
    (tmp_path / "a.txt").write_text("a cat\n\n  a tabby \n", encoding="utf-8")
    (tmp_path / "x/b.txt").write_text("a dog", encoding="utf-8")
    listing = list_pictures(tmp_path)
    assert listing.captions == {"a.png": ("a cat", "a tabby"), "x/b.JPG": ("a dog",)}
    assert listing.problems == ["c.webp: no caption in .txt files"]


def test_text_files_in_capitals_beside(tmp_path):
    touch(tmp_path, "x/IMAGE.JPG", "b.v2.png")
    (tmp_path / "x/IMAGE.TXT").write_text("a cat")
    (tmp_path / "b.v2.Txt").write_text("a bat")
    assert list_pictures(tmp_path).captions == {"b.v2.png": ("a bat",), "x/IMAGE.JPG": ("a cat",)}


def test_links_to_directories_are_followed_once(tmp_path):
    folder = tmp_path / "pictures"
    touch(folder, "dogs/a.png", "dogs/.hidden.png", "top.png", "looks.png/b.png")
    touch(tmp_path, "elsewhere/c.png", "elsewhere/deep/d.png")
    links = {"a round": folder, "another": "dogs", "cats": tmp_path / "elsewhere", "deep": tmp_path / "elsewhere/deep"}
    for name, target in {**links, ".hidden": tmp_path / "elsewhere", "zoo": tmp_path / "elsewhere"}.items():
        (folder / name).symlink_to(target, target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(folder, target_is_directory=True)
    (folder / "dogs" / "e.png").symlink_to(folder / "top.png")
    assert list_files(folder) == [
        "cats/c.png",
        "cats/deep/d.png",
        "dogs/a.png",
        "dogs/e.png",
        "looks.png/b.png",
        "top.png",
    ]
    (tmp_path / "through").symlink_to(folder, target_is_directory=True)
    assert list_files(tmp_path / "through") == list_files(folder)


def test_half_a_character_is_no_text_that_could_be_stored(tmp_path):
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": ["half \\ud83d here", "a\\u0000 cat", "\\u0000"]}'
    )
    assert list_pictures(tmp_path).captions == {"a.png": ("half ? here", "a cat")}


def test_pictures_without_a_caption_are_listed(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    jsonl(tmp_path, {"file_name": "a.png", "text": "a cat"}, {"file_name": "b.png", "text": "  "})
    listing = list_pictures(tmp_path)
    assert list(listing.captions) == ["a.png"]
    assert listing.problems == ["b.png: no caption in metadata.jsonl", "c.png: no caption in metadata.jsonl"]


def test_a_missing_or_empty_folder(tmp_path):
    assert refusal(tmp_path / "nowhere") == f"data folder {tmp_path / 'nowhere'} does not exist"
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file").endswith("is not a directory")
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refusal(tmp_path / "empty") and ".png" in refusal(tmp_path / "empty")


def test_captions_missing_altogether(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    assert "holds 2 pictures and no captions (looked for metadata.jsonl" in refusal(tmp_path)
    jsonl(tmp_path, {"file_name": "a.png", "text": ""})
    assert "no captions" in refusal(tmp_path)


GOOD = {"file_name": "a.png", "text": "a cat"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"file_name": "b.png", "text": 7}, "the caption of b.png must be text or a list of texts, not 7"),
        ({"file_name": "b.png", "text": {"en": "a"}}, "the caption of b.png must be text"),
        ({"file_name": "b.png", "captions": ["a", 3.5]}, "not 3.5"),
        ({"file_name": "b.png", "title": "a"}, "no caption: looked for captions, caption, text"),
        ({"text": "a dog"}, "no picture: looked for file_name"),
        ({"file_name": 3, "text": "a dog"}, "the picture's name must be text, not 3"),
        (["b.png", "a dog"], "must be an object"),
        ('{"file_name": "b.png", "text": "a d', "not JSON"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, said):
    touch(tmp_path, "a.png", "b.png")
    jsonl(tmp_path, GOOD, "", row)
    message = refusal(tmp_path)
    assert f"{tmp_path / 'metadata.jsonl'} line 3: " in message and said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,text\na.png,a cat, asleep\n", "line 2: 3 cells under a header of 2: quote a caption with commas"),
        ("name,words\na.png,a cat\n", "line 2: no picture: looked for file_name"),
        (f'file_name,text\na.png,"{"a" * 200_000}', "not CSV"),
    ],
)
def test_a_csv_row_that_cannot_be_used_is_named(tmp_path, text, said):
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    message = refusal(tmp_path)
    assert str(tmp_path / "metadata.csv") in message and said in message


def test_captions_that_are_not_text(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "b.txt").write_bytes(b"ok \xff\xfe\x00")
    fault = "b.png: b.txt is not UTF-8 text: byte 3 is 0xff"
    assert refusal(tmp_path) == f"none of the captions of {tmp_path} can be read: {fault}"
    (tmp_path / "a.txt").write_text("a cat")
    assert list_pictures(tmp_path).captions == {"a.png": ("a cat",)}
    assert list_pictures(tmp_path).problems == [fault, "c.png: no caption in .txt files"]


@pytest.mark.skipif(sys.platform != "linux", reason="a file that nobody may read is Linux's")
def test_captions_that_cannot_be_read(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_text("a cat")
    (tmp_path / "b.txt").symlink_to("/proc/self/mem")
    assert list_pictures(tmp_path).captions == {"a.png": ("a cat",)}
    assert list_pictures(tmp_path).problems == ["b.png: b.txt cannot be read: Input/output error"]
    (tmp_path / "metadata.csv").symlink_to("/proc/self/mem")
    assert refusal(tmp_path) == f"{tmp_path / 'metadata.csv'} cannot be read: Input/output error"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("jsonl", '{"file_name": "a.png", "text": ["a cat", null]}\n{"file_name": "b.png", "text": null}'),
        ("csv", "file_name,text\na.png,a cat\nb.png"),
    ],
)
def test_a_row_without_a_caption_leaves_its_picture_out(tmp_path, kind, text):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / f"metadata.{kind}").write_text(text)
    listing = list_pictures(tmp_path)
    assert listing.captions == {"a.png": ("a cat",)}
    assert listing.problems == [f"b.png: no caption in metadata.{kind}"]
