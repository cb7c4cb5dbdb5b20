"""CIFAR-10: the same pictures, in the same order, from every kind of file; on the real ones."""

import functools
import hashlib
import io
import os
import pickle
import re
import struct
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.data import cifar10 as module
from fromnoise.data import cifar10_files
from fromnoise.data.cifar10 import CLASSES, cifar10, in_order
from fromnoise.data.cifar10_files import BATCHES, MD5, python_batch
from fromnoise.data.config import CIFAR10Config
from fromnoise.data.labelled import LabelledData, scaled

FILES = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "cifar10"
REAL = pytest.mark.skipif(not FILES.is_dir(), reason="$FROMNOISE_DATA/cifar10 is absent")


def load(path: Path, seed: int = 0, **settings: object) -> LabelledData:
    config = CIFAR10Config.model_validate({"path": path, **settings})
    return cifar10(config, seed, report=lambda line: None)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data() -> LabelledData:
    return load(FILES)


@pytest.fixture(scope="module")
def records(data) -> np.ndarray:
    """All training records (50000, 3073), in an order that is not the canonical one."""
    parts = [
        np.concatenate([split.labels[:, None], split.images.reshape(len(split.labels), -1)], axis=1)
        for split in (data.learned, data.held_out)
    ]
    return np.concatenate(parts)[::-1].copy()


def python2_pickle(records: np.ndarray) -> bytes:
    """A batch as Python 2's cPickle wrote it: protocol 2, byte strings, the array's recipe as an object to build."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text

    integers = [b"K" + bytes([label]) for label in records[:, 0]]
    labels = b"]q\x02" + b"".join(b"(" + b"".join(integers[i : i + 1000]) + b"e" for i in range(0, len(integers), 1000))
    shape = b"M" + struct.pack("<H", len(records)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85" + string(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array += b"(K\x01" + shape + dtype + b"\x89" + string(records[:, 1:].tobytes()) + b"tb"
    names = b"](" + b"".join(string(b"leptodactylus_%06d.png" % i) for i in range(len(records))) + b"e"
    items = [(b"batch_label", string(b"training batch 1 of 5")), (b"labels", labels)]
    items += [(b"data", array), (b"filenames", names)]
    body = b"".join(string(key) + b"q\x01" + value for key, value in items)
    return b"\x80\x02}q\x00(" + body + b"u."


def batches(records: np.ndarray, split: str) -> dict[str, np.ndarray]:
    return {name: records[10_000 * k : 10_000 * (k + 1)] for k, name in enumerate(BATCHES[split])}


def same(ours: LabelledData, theirs: LabelledData) -> bool:
    splits = ("train", "validation")
    return all(torch.equal(a, b) for s in splits for a, b in zip(ours.pictures(s), theirs.pictures(s), strict=True))


@REAL
class TestFacts:
    def test_counts_and_levels(self, data):
        images = torch.cat([data.pictures(split)[0] for split in ("train", "validation")])
        labels = torch.cat([data.pictures(split)[1] for split in ("train", "validation")])
        assert images.shape == (50_000, 3, 32, 32) and labels.bincount().tolist() == [5000] * 10
        assert len(data.pictures("validation")[1]) == 5000 and data.pictures("validation")[1].bincount().min() > 430
        levels = images.numpy().transpose(1, 0, 2, 3).reshape(3, -1)
        assert [round(float(plane.mean() / 255), 4) for plane in levels] == [0.4914, 0.4822, 0.4465]
        assert [round(float(plane.std() / 255), 4) for plane in levels] == [0.2470, 0.2435, 0.2616]

    def test_the_first_pictures_are_those_of_the_first_batch(self):
        shards = cifar10_files.find_parquet(FILES, "train")
        parquet = pytest.importorskip("pyarrow.parquet")
        labels = parquet.read_table(shards[0], columns=["label"])["label"].to_pylist()
        assert labels[:10] == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]

    def test_test_pictures_that_are_not_there_are_asked_for_in_vain(self, data):
        with pytest.raises(ValueError, match=rf"^data folder {FILES} holds no test pictures of CIFAR-10: looked for"):
            data.pictures("test")


@REAL
class TestBatches:
    def test_pictures_in_range_with_labels_and_captions_of_their_class(self, data):
        batch = data.train(3, 256)
        assert batch.images.shape == (256, *data.image_shape) and batch.images.dtype == torch.float32
        assert batch.images.min() == -1 and batch.images.max() == 1 and batch.labels.dtype == torch.int64
        for caption, label in zip(batch.captions, batch.labels.tolist(), strict=True):
            assert [i for i, word in enumerate(CLASSES) if re.search(rf"\b{word}$", caption)] == [label]
        captions = data.captions(1000)
        assert len(set(captions)) == 50 and {"a photo of an airplane", "a picture of a dog", "ship"} <= set(captions)

    def test_any_step_is_the_same_in_a_new_object_and_another_with_another_seed(self, data):
        again, other = load(FILES), load(FILES, seed=1)
        straight = [data.train(step, 50) for step in range(5)]
        for step in (4, 0, 2):
            batch = again.train(step, 50)
            assert torch.equal(batch.images, straight[step].images) and batch.captions == straight[step].captions
        assert other.train(0, 50).captions != straight[0].captions
        assert torch.equal(data.validation(200).images, other.validation(200).images)

    def test_every_picture_once_an_epoch_and_none_of_the_validation(self, data):
        plain = load(FILES, flip=False)
        seen = {
            hashlib.blake2b(picture.tobytes()).digest()
            for step in range(18)
            for picture in plain.train(step, 2500).images.numpy()
        }
        assert len(seen) == 45_000
        held_out = scaled(data.pictures("validation")[0]).numpy()
        assert not any(hashlib.blake2b(picture.tobytes()).digest() in seen for picture in held_out)

    def test_half_is_mirrored(self, data):
        plain = load(FILES, flip=False).train(0, 500).images
        mirrored = data.train(0, 500).images
        flips = [not torch.equal(a, b) for a, b in zip(plain, mirrored, strict=True)]
        assert 200 < sum(flips) < 300
        assert all(torch.equal(a.flip(-1), b) for a, b, f in zip(plain, mirrored, flips, strict=True) if f)


@REAL
class TestFiles:
    @pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
    def test_binary_batches(self, tmp_path, data, records, inside):
        (tmp_path / inside).mkdir(exist_ok=True)
        for name, part in {**batches(records, "train"), **batches(records, "test")}.items():
            (tmp_path / inside / f"{name}.bin").write_bytes(part.tobytes())
        assert same(load(tmp_path), data)

    def test_python_batches_as_python_2_wrote_them(self, tmp_path, data, records, monkeypatch):
        for name, part in batches(records, "train").items():
            (tmp_path / name).write_bytes(python2_pickle(part))
        with pytest.raises(ValueError, match=rf"data_batch_1 is damaged or cut short: .*{MD5['data_batch_1']}"):
            load(tmp_path)  # these are not the published bytes
        for name in BATCHES["train"]:
            monkeypatch.setitem(MD5, name, hashlib.md5((tmp_path / name).read_bytes()).hexdigest())
        assert same(load(tmp_path), data)

    @pytest.mark.parametrize("kind", ["binary", "python"])
    def test_archives_and_their_download(self, tmp_path, data, records, monkeypatch, kind):
        archive = f"cifar-10-{kind}.tar.gz"
        with tarfile.open(tmp_path / archive, "w:gz", compresslevel=0) as file:
            for name, part in batches(records, "train").items():
                content = part.tobytes() if kind == "binary" else python2_pickle(part)
                inner = f"cifar-10-batches-bin/{name}.bin" if kind == "binary" else f"cifar-10-batches-py/{name}"
                member = tarfile.TarInfo(inner)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        with pytest.raises(ValueError, match=rf"{archive} is damaged or cut short: .*{MD5[archive]}"):
            load(tmp_path)
        monkeypatch.setitem(MD5, archive, hashlib.md5((tmp_path / archive).read_bytes()).hexdigest())
        assert same(load(tmp_path), data)
        if kind == "python":
            return

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

        monkeypatch.delenv("FROMNOISE_DATA")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(module, "ADDRESSES", (f"http://127.0.0.1:{server.server_port}/{archive}",))
        try:
            downloaded = cifar10(CIFAR10Config(), 0, report=lambda line: None)
        finally:
            server.shutdown()
            server.server_close()
        assert same(downloaded, data) and (tmp_path / "cache/fromnoise/cifar10" / archive).is_file()

    def test_parquet_in_any_order_and_the_cache_of_it(self, tmp_path, records, monkeypatch):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        few = np.concatenate([records[records[:, 0] == label][:20] for label in range(10)])  # (200, 3073)
        digests = sorted(hashlib.blake2b(record, digest_size=16).digest() for record in few)
        monkeypatch.setitem(module.COUNTS, "train", 200)
        monkeypatch.setattr(module, "TRAIN_SHA256", hashlib.sha256(b"".join(digests)).hexdigest())
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        rows = []
        for record in few:
            encoded = io.BytesIO()
            picture = np.ascontiguousarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0))
            Image.fromarray(picture).save(encoded, "png")
            rows.append({"bytes": encoded.getvalue(), "path": None})
        (tmp_path / "plain_text").mkdir()
        shard = tmp_path / "plain_text/train-00000-of-00001.parquet"
        parquet.write_table(pyarrow.table({"img": rows, "label": few[:, 0].astype(np.int64)}), shard)

        def read() -> tuple[np.ndarray, list[str]]:
            lines: list[str] = []
            images, labels = module.read_pictures(tmp_path, "train", lines.append)
            return np.concatenate([labels[:, None], images.reshape(200, -1)], axis=1), lines

        expected = in_order(few[::-1], tmp_path, "train")
        first, lines = read()
        assert np.array_equal(first, expected) and lines == ["decoding 200 pictures of train-00000-of-00001.parquet"]
        second, lines = read()
        assert np.array_equal(second, expected) and lines == []
        (kept,) = (tmp_path / "cache/fromnoise/cifar10").iterdir()
        whole = kept.read_bytes()
        kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        third, lines = read()
        assert np.array_equal(third, expected) and "altered" in lines[0] and kept.read_bytes() == whole
        kept.unlink()
        kept.mkdir()  # where nothing can be written
        fourth, lines = read()
        assert np.array_equal(fourth, expected) and "are not kept: cannot write" in lines[-1]

    def test_damaged_files_are_named(self, tmp_path, records):
        for name, part in batches(records, "train").items():
            (tmp_path / f"{name}.bin").write_bytes(part.tobytes())
        last = tmp_path / "data_batch_5.bin"
        last.write_bytes(last.read_bytes()[:-1])
        with pytest.raises(ValueError, match=rf"^{last} is damaged or cut short: 30,729,999 bytes, crc32 \w+; 10,000"):
            load(tmp_path)
        last.unlink()
        with pytest.raises(ValueError, match=f"^cannot read {last}: No such file"):
            load(tmp_path)
        changed = batches(records, "train")["data_batch_5"].copy()
        changed[7, 100] ^= 1
        last.write_bytes(changed.tobytes())
        message = rf"^the train pictures in {tmp_path} are not CIFAR-10's: sha256 \w+ .* has {module.TRAIN_SHA256}; get"
        with pytest.raises(ValueError, match=message):
            load(tmp_path)

    def test_a_partial_parquet_and_a_missing_one(self, tmp_path):
        pytest.importorskip("pyarrow")
        shards = cifar10_files.find_parquet(FILES, "train")
        (tmp_path / shards[0].name).write_bytes(shards[0].read_bytes()[:-1000])
        with pytest.raises(ValueError, match=rf"^{tmp_path / shards[0].name} is damaged, cut short or not CIFAR-10: "):
            load(tmp_path)
        (tmp_path / shards[0].name).write_bytes(shards[0].read_bytes())
        with pytest.raises(ValueError, match=rf"^{tmp_path} holds 10,000 train pictures; CIFAR-10 has 50,000$"):
            load(tmp_path)


def some(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate(
        [rng.integers(0, 10, (count, 1), np.uint8), rng.integers(0, 256, (count, 3072), np.uint8)], axis=1
    )


class TestPickles:
    def test_as_python_2_wrote_them(self):
        assert np.array_equal(python_batch(python2_pickle(some(300)), "a"), some(300))
        assert pickle.loads(python2_pickle(some(300)), encoding="bytes")[b"labels"] == some(300)[:, 0].tolist()

    @pytest.mark.parametrize("protocol", range(1, 5))
    def test_as_python_3_writes_them(self, protocol):
        held = {"labels": some(300)[:, 0].tolist(), "data": some(300)[:, 1:].copy(), "filenames": ["a.png"] * 300}
        assert np.array_equal(python_batch(pickle.dumps(held, protocol), "a"), some(300))

    def test_nothing_in_them_is_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return Path.touch, (tmp_path / "sprung",)

        held = {"trap": Trap(), "labels": some(30)[:, 0].tolist(), "data": some(30)[:, 1:].copy()}
        assert np.array_equal(python_batch(pickle.dumps(held, 2), "a"), some(30))
        assert not (tmp_path / "sprung").exists()
        pickle.loads(pickle.dumps(held, 2))
        assert (tmp_path / "sprung").exists()  # it was a trap

    @pytest.mark.parametrize(
        "damaged", [b"", b"no pickle", python2_pickle(some(30))[:-5000], pickle.dumps({"labels": [1, 2]})]
    )
    def test_what_is_none_is_refused_in_one_line(self, damaged):
        with pytest.raises(ValueError, match=r"^a is (not a pickle: .+|no python batch of CIFAR-10: 2 labels, .*)$"):
            python_batch(damaged, "a")


def test_empty_and_wrong_places(tmp_path):
    with pytest.raises(ValueError, match="holds no train pictures of CIFAR-10: looked for cifar-10-batches-bin"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"^there holds \[\d+, .* test pictures of each class; CIFAR-10 has as many"):
        in_order(np.resize(some(300), (10_000, 3073)), Path("there"), "test")


def test_parquet_without_pyarrow_is_told_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow: pip install 'fromnoise\[parquet\]'$"):
        load(tmp_path)
