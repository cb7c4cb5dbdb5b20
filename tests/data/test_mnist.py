"""MNIST, on the published files."""

import functools
import os
import re
import shutil
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.data import mnist as module
from fromnoise.data.config import MNISTConfig
from fromnoise.data.labelled import LabelledData, scaled
from fromnoise.data.mnist import MD5, WORDS, mnist

FILES = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "mnist"
pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason="$FROMNOISE_DATA/mnist is absent")


def load(seed: int = 0, **settings: object) -> LabelledData:
    config = MNISTConfig.model_validate({"path": FILES, **settings})
    return mnist(config, seed, report=lambda line: None)


@pytest.fixture(scope="module")
def data() -> LabelledData:
    return load()


class TestFacts:
    def test_counts_and_first_labels(self, data):
        images, labels = data.pictures("train")
        held_out, their_labels = data.pictures("validation")
        assert labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert images.shape == (55_000, 1, 28, 28) and images.dtype == torch.uint8 and labels.dtype == torch.int64
        both = torch.cat([labels, their_labels])
        assert both.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        levels = torch.cat([images, held_out]).double() / 255
        assert round(levels.mean().item(), 4) == 0.1307 and round(levels.std().item(), 4) == 0.3081

    def test_the_test_digits(self, data):
        images, labels = data.pictures("test")
        assert images.shape == (10_000, 1, 28, 28) and labels[:5].tolist() == [7, 2, 1, 0, 4]
        assert labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]

    def test_padding_adds_black_on_every_side(self, data):
        padded = load(size=32)
        assert padded.image_shape == (1, 32, 32) and data.image_shape == (1, 28, 28)
        for split in ("train", "validation", "test"):
            images = padded.pictures(split)[0]
            assert torch.equal(images[:, :, 2:-2, 2:-2], data.pictures(split)[0])
            assert images.sum() == data.pictures(split)[0].sum()

    def test_another_split_is_refused(self, data):
        with pytest.raises(ValueError, match=r"^split 'dev'; allowed: train, validation, test$"):
            data.pictures("dev")

    @pytest.mark.parametrize("size", [24, 30, 36])
    def test_other_sizes_are_refused(self, size):
        with pytest.raises(ValueError, match="size"):
            MNISTConfig(size=size)


class TestBatches:
    def test_pictures_in_range_with_labels_and_captions_of_their_class(self, data):
        batch = data.train(3, 256)
        assert batch.images.shape == (256, 1, 28, 28) and batch.images.dtype == torch.float32
        assert batch.images.min() == -1 and batch.images.max() == 1
        assert batch.labels.dtype == torch.int64 and set(batch.labels.tolist()) == set(range(10))
        for caption, label in zip(batch.captions, batch.labels.tolist(), strict=True):
            assert [i for i, word in enumerate(WORDS) if re.search(rf"\b({word}|{i})\b", caption)] == [label]
        assert len({caption for caption in batch.captions if re.search(r"\b(seven|7)\b", caption)}) > 3

    def test_any_step_is_the_same_in_a_new_object_and_another_with_another_seed(self, data):
        again, other = load(), load(seed=1)
        straight = [data.train(step, 50) for step in range(5)]
        for step in (4, 0, 2):
            batch = again.train(step, 50)
            assert torch.equal(batch.images, straight[step].images) and batch.captions == straight[step].captions
            assert torch.equal(batch.labels, straight[step].labels)
        assert other.train(0, 50).captions != straight[0].captions

    def test_every_digit_once_an_epoch(self, data):
        batches = [data.train(step, 5000) for step in range(11)]
        seen = sorted(picture.tobytes() for batch in batches for picture in batch.images.numpy())
        expected = sorted(picture.tobytes() for picture in scaled(data.pictures("train")[0]).numpy())
        assert seen == expected
        assert data.train(11, 5000).captions != batches[0].captions

    def test_validation_is_fixed_and_never_trained_on(self, data):
        batch = data.validation(6000)
        assert torch.equal(batch.images, load(seed=7).validation(6000).images)
        assert batch.captions == load(seed=7).validation(6000).captions
        assert torch.equal(batch.images[:5000], scaled(data.pictures("validation")[0]))
        assert torch.equal(batch.images[5000:], batch.images[:1000])  # it goes round
        learned = {picture.numpy().tobytes() for picture in data.pictures("train")[0]}
        assert not any(picture.numpy().tobytes() in learned for picture in data.pictures("validation")[0])

    def test_captions_to_learn_from_are_all_there_are(self, data):
        captions = data.captions(1000)
        assert len(captions) == len(set(captions)) == 70
        some = data.captions(20)
        assert len(set(some)) == 20 and set(some) < set(captions) and some == load(seed=3).captions(20)
        assert set(data.train(0, 2000).captions) == set(captions)
        shares = Counter(data.train(0, 20_000).captions)
        assert max(shares.values()) < 2 * min(shares.values())


class TestFiles:
    def copy(self, folder: Path) -> Path:
        for name in MD5:
            shutil.copyfile(FILES / name, folder / name)
        return folder

    def test_damaged_and_partial_files_are_refused_by_name(self, tmp_path):
        labels = self.copy(tmp_path) / "train-labels-idx1-ubyte.gz"
        whole = labels.read_bytes()
        for damaged in (whole[:-100], whole[:500] + b"\0" + whole[501:], b""):
            labels.write_bytes(damaged)
            with pytest.raises(
                ValueError, match=rf"^{labels} is damaged or cut short: md5 \w+ over .*{MD5[labels.name]}"
            ):
                load(path=tmp_path)

    def test_damaged_test_digits_are_found_when_asked_for(self, tmp_path):
        (self.copy(tmp_path) / "t10k-images-idx3-ubyte.gz").write_bytes(b"\0")
        data = load(path=tmp_path)
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
            data.pictures("test")

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        (self.copy(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(
            ValueError, match=rf"^data folder {tmp_path} holds no t10k-labels-idx1-ubyte.gz; MNIST needs"
        ):
            load(path=tmp_path)

    def test_what_the_cache_lacks_is_downloaded(self, tmp_path, monkeypatch, data):
        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

        monkeypatch.delenv("FROMNOISE_DATA")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(FILES)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(module, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/",))
        lines: list[str] = []
        try:
            downloaded = mnist(MNISTConfig(), 0, lines.append)
        finally:
            server.shutdown()
            server.server_close()
        assert sum(line.startswith("downloading") for line in lines) == 4
        for name in MD5:
            assert (tmp_path / "fromnoise/mnist" / name).read_bytes() == (FILES / name).read_bytes()
        assert np.array_equal(downloaded.learned.images, data.learned.images)
        again: list[str] = []
        mnist(MNISTConfig(), 0, again.append)
        assert len(again) == 1 and "55,000 digits to train on, 5,000 to validate" in again[0]
