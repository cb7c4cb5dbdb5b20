"""Samples in tar files: grouped as webdataset groups them, each portion read from its own place."""

import io
import json
import tarfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from datasets import load_dataset

from fromnoise.preparation.sources import tar as module
from fromnoise.preparation.sources.source import Fault, Picture


def write(path: Path, files: Sequence[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pairs(made, start: int, end: int) -> list[tuple[str, bytes]]:
    files = []
    for i in range(start, end):
        prompt = json.dumps({"prompt": f"grey {i}", "width": 8})
        files += [(f"{i:04}.jpg", made.png(i)), (f"{i:04}.json", prompt.encode())]
    return files


def test_portions_across_files_are_read_from_their_own_places(made, tmp_path, monkeypatch):
    for part, (start, end) in enumerate(((0, 7), (7, 8), (8, 23))):
        write(tmp_path / "all" / f"{part:02}.tar", pairs(made, start, end))
    write(tmp_path / "all" / "03.tar", [])
    source = made.source(tmp_path / "all", shard=5)
    assert len(source.portions) == 5 and json.loads(json.dumps(source.portions)) == source.portions
    found = list(made.pictures(source).values())
    assert [(entry.captions, entry.content) for entry in found] == [((f"grey {i}",), made.png(i)) for i in range(23)]
    assert [entry.key for entry in found[6:9]] == ["00.tar/0006.jpg", "01.tar/0007.jpg", "02.tar/0008.jpg"]
    assert source.about == "23 samples in 4 tar files"
    pattern = made.source(tmp_path / "all" / "{01..02}.tar")
    assert [entry.captions for entry in made.pictures(pattern).values()] == [(f"grey {i}",) for i in range(7, 23)]
    write(tmp_path / ".hidden" / "00.tar", pairs(made, 0, 7))
    everywhere = made.pictures(made.source(tmp_path / "{all,.hidden,all}" / "0?.tar"))
    assert list(everywhere)[-1] == ".hidden/00.tar/0006.jpg" and len(everywhere) == 23 + 7
    assert made.source(tmp_path).entries == 23

    looked = []
    members = module._members
    monkeypatch.setattr(module, "_members", lambda *where: (looked.append(one[0]) or one for one in members(*where)))
    list(source.read(source.portions[4]))
    assert len(looked) <= 2 * 3 + 1  # the last three samples, and none before them


def test_a_directory_of_files_in_capitals(made, tmp_path):
    write(tmp_path / "A.TAR", pairs(made, 0, 2))
    assert list(made.pictures(made.source(tmp_path))) == ["A.TAR/0000.jpg", "A.TAR/0001.jpg"]


def test_samples_are_those_of_the_hubs_library(made, tmp_path):
    path = write(
        tmp_path / "a.tar", [*pairs(made, 0, 3), ("./in/v1.0/x.jpg", made.png(9)), ("./in/v1.0/x.json", b"{}")]
    )
    peer = load_dataset("webdataset", data_files=str(path), split="train", streaming=True).decode(False)
    ours = made.pictures(made.source(path)).values()
    assert [entry.key.removesuffix(".jpg") for entry in ours] == [
        f"a.tar/{row['__key__'].removeprefix('./')}" for row in peer
    ]
    assert [entry.content for entry in ours] == [row["jpg"]["bytes"] for row in peer]
    assert [" ".join(entry.captions) for entry in ours] == [row["json"].get("prompt") or "" for row in peer]


def test_every_kind_of_file(made, tmp_path):
    files = [
        ("a.txt", b"\xef\xbb\xbf a cat\nasleep "),
        ("a.cls", b"3\n"),
        ("a.PNG", made.png(1)),
        ("a.json", b'{"caption": "not this one", "kind": "cat"}'),
        ("a.depth.png", made.png(2)),
        ("b.json", json.dumps({"captions": ["one", "two\0"], "prompt": "not this one", "kind": "bat"}).encode()),
        ("b.webp", made.png(3)),
        ("b.cls", b"1"),
        ("__info__", b"no sample"),
        ("._b.webp", b"no sample"),
        ("c.v1.jpg", made.png(4)),
        ("c.v1.txt", b"not known"),
        ("d" * 150 + ".jpg", made.png(5)),
        ("d" * 150 + ".cls", b"0"),
    ]
    wanted = [
        Picture("a.tar/a.PNG", made.png(1), ("a cat\nasleep",), 3),
        Picture("a.tar/b.webp", made.png(3), ("one", "two"), 1),
        Fault("a.tar/c.v1.jpg", "no class, where others have one"),
        Picture(f"a.tar/{'d' * 150}.jpg", made.png(5), (), 0),
    ]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        source = made.source(write(tmp_path / "a.tar", files, form), shard=1)
        assert made.entries(source) == wanted and source.classes == 4
    asked = made.source(tmp_path / "a.tar", caption_columns=["prompt", "caption"], label_column="kind")
    found = made.pictures(asked)
    assert found["a.tar/a.PNG"].captions == found["a.tar/b.webp"].captions == ("not this one",)
    assert [one.label for one in found.values()] == [1, 0] and asked.class_names == ("bat", "cat")


def test_what_is_said_of_pictures_whose_names_have_dots(made, tmp_path):
    png = made.png()
    files = [
        *(("5.0.JPG", png), ("5.1.txt", b"of another"), ("5.0.txt", b"a cat"), ("5.0.cls", b"1")),
        *(("6.v2.jpg", png), ("6.v2.json", b'{"prompt": "a dog"}'), ("6.cls", b"0")),
        *(("7.jpg", png), ("7.v2.txt", b"of no picture"), ("7.json", b'{"prompt": "a bat"}'), ("7.cls", b"2")),
        *(("8.0.jpg", png), ("8.txt", b"a fox"), ("8.0.cls", b"1"), ("8.1.jpg", png)),
    ]
    source = made.source(write(tmp_path / "x.tar", files))
    found = [(one.key, one.captions, one.label) for one in made.pictures(source).values()]
    assert found == [
        ("x.tar/5.0.JPG", ("a cat",), 1),
        ("x.tar/6.v2.jpg", ("a dog",), 0),
        ("x.tar/7.jpg", ("a bat",), 2),
        ("x.tar/8.0.jpg", ("a fox",), 1),
    ]
    assert made.told(source) == [("x.tar/8.1.jpg", "a second picture of one sample; 8.0.jpg is kept")]


def test_two_of_one_name_are_told_and_the_first_is_kept(made, tmp_path):
    files = [
        ("a.jpg", made.png(0)),
        ("a.png", made.png(1)),
        ("a.txt", b"first"),
        ("b.jpg", made.png(2)),
        ("b.jpg", made.png(3)),
        ("a.jpg", made.png(4)),
        ("a.txt", b"again"),
        ("c.jpg", made.png(5)),
    ]
    source = made.source(write(tmp_path / "x.tar", files), shard=2)
    assert made.entries(source) == [
        Picture("x.tar/a.jpg", made.png(0), ("first",)),
        Fault("x.tar/a.png", "a second picture of one sample; a.jpg is kept"),
        Picture("x.tar/b.jpg", made.png(2), ()),
        Fault("x.tar/b at byte 4096", "a second sample of this name in x.tar; the first is kept"),
        Fault("x.tar/a at byte 5120", "a second sample of this name in x.tar; the first is kept"),
        Picture("x.tar/c.jpg", made.png(5), ()),
    ]


def test_samples_that_cannot_be_used_are_faults(made, tmp_path):
    png = made.png()
    files = [
        *(("a.txt", b"a"), ("a.npy", b"")),
        *(("b.jpg", png), ("b.txt", b"caf\xe9")),
        *(("c.jpg", png), ("c.json", b"{")),
        *(("d.jpg", png), ("d.json", b"[]")),
        *(("e.jpg", png), ("e.json", b'{"prompt": 7}')),
        *(("h.jpg", png), ("h.json", b'{"caption": null, "text": "second"}')),
        *(("f.jpg", png), ("f.cls", b"\xff")),
        *(("g.jpg", b""), ("g.txt", b"g")),
    ]
    source = made.source(write(tmp_path / "x.tar", files))
    told = dict(made.told(source))
    assert told.pop("x.tar/c.jpg").startswith("c.json is not JSON (")
    assert told == {
        "x.tar/a": "no picture among .txt, .npy",
        "x.tar/b.jpg": "b.txt is not UTF-8 text: byte 3 is 0xe9",
        "x.tar/d.jpg": "d.json must hold an object, not []",
        "x.tar/e.jpg": "a caption must be text or a list of texts, not 7",
        "x.tar/f.jpg": "f.cls is not UTF-8 text: byte 0 is 0xff",
    }
    assert made.pictures(source)["x.tar/h.jpg"].captions == ("second",)
    assert made.pictures(source)["x.tar/g.jpg"].content == b""  # for decoding to refuse


def test_damaged_files_are_named(made, tmp_path):
    path = write(tmp_path / "x.tar", pairs(made, 0, 3))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    damaged = {
        "empty": b"",
        "text": b"no tar at all" * 100,
        "compressed": b"\x1f\x8b" + whole[2:],
        "cut in a picture": whole[: last.offset - 600],
        "cut in a header": whole[: last.offset + 200],
        "a broken header": whole[: last.offset] + b"?" * 512 + whole[last.offset + 512 :],
        "cut in the last file": whole[: last.offset_data + 3],
    }
    for how, content in damaged.items():
        path.write_bytes(content)
        refusal = made.refusal(lambda: made.entries(made.source(path)))
        assert refusal.startswith(f"{path} is damaged, cut short, compressed or no tar file: "), how
    path.write_bytes(whole[: last.offset_data + 512])  # some writers leave the last blocks out
    assert len(made.pictures(made.source(path))) == 3
    path.write_bytes(bytes(1024))
    assert "holds no samples" in made.refusal(lambda: made.source(path))
    path.with_suffix(".gz").write_bytes(b"")
    assert "is no source; allowed: a directory" in made.refusal(lambda: made.source(path.with_suffix(".gz")))


def test_a_file_that_changes_is_named(made, tmp_path):
    path = write(tmp_path / "x.tar", pairs(made, 0, 3))
    source = made.source(path)
    write(path, pairs(made, 0, 40))
    assert made.refusal(lambda: list(source.read(source.portions[0]))).startswith(f"{path} changed since it was listed")
    assert made.source(path).identity != source.identity


@pytest.mark.parametrize("label", ["-1", "cat"])
def test_classes_that_are_words_or_hidden(made, tmp_path, label):
    path = write(tmp_path / "x.tar", [("a.jpg", made.png()), ("a.cls", label.encode())])
    if label == "cat":
        assert made.source(path).classes == 1
    else:
        assert "class -1; allowed: whole numbers" in made.refusal(lambda: made.source(path))


def test_memory_does_not_grow_with_the_file(made, tmp_path):
    """2,000 samples of 20 KB: 40 MB, of which a few samples are held at a time."""
    path = write(tmp_path / "x.tar", [(f"{i}.jpg", bytes(20_000)) for i in range(2000)])
    tracemalloc.start()
    source = made.source(path, shard=100)
    most_to_list = tracemalloc.get_traced_memory()[1]
    entries = sum(1 for portion in source.portions for _ in source.read(portion))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert entries == 2000
    assert held < 100_000 and most < 500_000 and most_to_list < 500_000
