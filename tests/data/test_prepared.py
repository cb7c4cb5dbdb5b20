"""Prepared data sets: written through kills to the same bytes, read as the same batches by any number of readers."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fromnoise
from fromnoise.core.types import Batch, Data
from fromnoise.data.manifest import MANIFEST, Layout, Statistics, read_manifest
from fromnoise.data.prepared import PreparedData, verify
from fromnoise.data.shards import pack, pack_texts
from fromnoise.data.split import chance, split
from fromnoise.data.writer import Latent, Sample, Writer
from fromnoise.training.prefetch import ahead

LAYOUT = Layout(encoders={"vae": "aa", "text": "bb"}, shape=(4, 3, 2), text_width=5, shard=8, flipped=True)
ROOT = Path(fromnoise.__file__).parent.parent
COUNT = 45  # samples: five shards, and a part of one


def sample(i: int, layout: Layout = LAYOUT) -> Sample:
    """Sample `i`: its mean is about `i`, its mirror image's about -1 - `i`; one caption is its own, one is shared."""
    generator = torch.Generator().manual_seed(i)

    def latent(at: int) -> Latent:
        mean = at + torch.rand(layout.shape, generator=generator) / 10
        return Latent(mean, torch.rand(layout.shape, generator=generator) / 20 if layout.std else None)

    captions = ([f"picture {i} été"] if i % 3 else []) + ["all of them" if i % 2 else "all but those on the left"]
    tokens = [tokens_of(caption, layout) for caption in captions] if layout.text_width else []
    return Sample(f"images/{i}.png", latent(i), captions, tokens, latent(-1 - i) if layout.flipped else None)


def tokens_of(caption: str, layout: Layout = LAYOUT) -> torch.Tensor:
    """(L, E), a token for each word, of whole numbers that the caption decides."""
    words = caption.split()
    return torch.tensor([[len(word) + at for at in range(layout.text_width)] for word in words]).float()


def prepare(directory: Path, samples: int = COUNT, layout: Layout = LAYOUT, pause: float = 0.0) -> Path:
    """Write the first `samples`, those that are not there yet."""
    with Writer(directory, layout) as writer:
        for i in range(samples):
            if f"images/{i}.png" not in writer.done:
                writer.add(sample(i, layout))
                time.sleep(pause)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != ".lock"}


def shown(batch: Batch) -> list[int]:
    """Which sample each row is, from its latent; the mirrored ones are negative minus one."""
    return [int(row.mean().floor()) for row in batch.images]


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and a.captions == b.captions
        and all(torch.equal(a.features[name], b.features[name]) for name in ("tokens", "mask"))
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    (tmp_path / "data").mkdir()
    for name, data in files(prepared).items():
        (tmp_path / "data" / name).write_bytes(data)
    return tmp_path / "data"


def killed(directory: Path, delay: float, die: Callable[[int, bool], bool], pause: float) -> bool:
    """Whether a child of this process that prepares was killed: by its own hand before (False) or after (True) its
    n-th rename, where `die` says so, or by ours after `delay` seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        renames, replace = count(), os.replace

        def rename(old: Path, new: Path) -> None:
            at = next(renames)
            if die(at, False):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(old, new)
            if die(at, True):
                os.kill(os.getpid(), signal.SIGKILL)

        with patch("os.replace", rename):
            os.write(writing, b"!")
            prepare(directory, pause=pause)
        os._exit(0)
    os.read(reading, 1)  # the child begins
    os.close(reading)
    os.close(writing)
    time.sleep(delay)
    if delay:
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def survive(directory: Path) -> tuple[int, int]:
    """Prepare twice: killed before and after renames, and killed at random moments; how often, each."""
    at_renames = at_random = known = 0
    for moment in [(at, late) for at in range(4) for late in (False, True)]:
        at_renames += killed(directory / "renames", 0, lambda at, late, moment=moment: (at, late) == moment, 0)
        known = unharmed(directory / "renames", known)
    prepare(directory / "renames")
    known, rng = 0, random.Random(0)
    while killed(directory / "moments", rng.uniform(0.001, 0.04 * 1.2**at_random), lambda at, late: False, 0.002):
        known, at_random = unharmed(directory / "moments", known), at_random + 1
    return at_renames, at_random


def unharmed(directory: Path, known: int) -> int:
    """How many samples are there, all sound and none of the `known` lost."""
    if not (directory / MANIFEST).exists():
        return known
    verify(directory)
    samples = read_manifest(directory).samples
    assert samples >= known and (samples % LAYOUT.shard == 0 or samples == COUNT)
    return samples


class TestWriting:
    def test_killed_at_any_moment_it_ends_in_the_same_bytes(self, prepared: Path, tmp_path: Path) -> None:
        # In a process of its own, which has no threads that a fork would leave behind.
        code = "import sys, runpy, pathlib; print(*runpy.run_path(sys.argv[1])['survive'](pathlib.Path(sys.argv[2])))"
        command = [sys.executable, "-c", code, __file__, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        at_renames, at_random = map(int, done.stdout.split())
        assert at_renames == 8 and at_random >= 2
        assert files(tmp_path / "renames") == files(tmp_path / "moments") == files(prepared)

    def test_a_last_shard_is_filled_up_to_the_same_bytes(self, prepared: Path, tmp_path: Path) -> None:
        for samples in (3, 3, 8, 21, 22, COUNT):
            prepare(tmp_path / "data", samples)
            verify(tmp_path / "data")
            assert read_manifest(tmp_path / "data").samples == samples
        assert files(tmp_path / "data") == files(prepared)

    def test_an_exception_loses_the_shard_in_progress_only(self, prepared: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "data", LAYOUT) as writer:
            for i in range(20):
                writer.add(sample(i))
            raise KeyboardInterrupt
        assert read_manifest(tmp_path / "data").samples == 16
        assert files(prepare(tmp_path / "data")) == files(prepared)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_statistics_are_those_of_all_latents(self, tmp_path: Path, dtype: str) -> None:
        layout = LAYOUT.model_copy(update={"dtype": dtype, "shard": 7})
        told = read_manifest(prepare(tmp_path / "data", layout=layout)).statistics
        latents = [sample(i).latent for i in range(COUNT)]
        mean = torch.stack([one.mean for one in latents]).to(getattr(torch, dtype)).double()  # (N, C, h, w)
        std = torch.stack([one.std for one in latents if one.std is not None]).to(getattr(torch, dtype)).double()
        assert told.count == COUNT * 6
        assert told.mean == pytest.approx(mean.mean((0, 2, 3)).tolist(), rel=1e-12)
        assert told.m2 == pytest.approx((mean.var((0, 2, 3), correction=0) * told.count).tolist(), rel=1e-12)
        drawn = mean.var((0, 2, 3), correction=0) + (std**2).mean((0, 2, 3))  # law of total variance
        assert told.std == pytest.approx(drawn.sqrt().tolist(), rel=1e-12)

    def test_statistics_merge_without_losing_what_is_small_beside_the_mean(self) -> None:
        x = 1e6 + np.random.default_rng(0).standard_normal((64, 1, 2, 2))
        merged = Statistics.of(x[:5], 0 * x[:5])
        for first in range(5, 64, 9):
            merged = merged.merged(Statistics.of(x[first : first + 9], 0 * x[first : first + 9]))
        assert merged.count == 256 and merged.std == pytest.approx([x.std()], rel=1e-9)

    def test_equal_captions_are_stored_once_a_shard(self, prepared: Path) -> None:
        first = read_manifest(prepared).shards[0]
        assert first.captions == 13  # of samples 0 to 7: five with two, three with one
        assert first.texts == 7 and first.tokens == 5 * 3 + 3 + 6

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
    def test_texts_come_back_from_their_bytes(self, texts: list[str]) -> None:
        packed = pack_texts(texts)
        assert [packed.row(i).tobytes().decode() for i in range(len(texts))] == texts
        assert len(packed.values) == sum(len(text.encode()) for text in texts)

    @given(st.lists(st.integers(0, 6), min_size=1), st.integers(1, 4))
    def test_tokens_come_back_however_many_there_are(self, lengths: list[int], width: int) -> None:
        rows = [np.full((length, width), at, np.int16) for at, length in enumerate(lengths)]
        packed = pack(rows)
        assert packed.values.shape == (sum(lengths), width) and packed.values.dtype == np.int16
        assert all(np.array_equal(packed.row(at), row) for at, row in enumerate(rows))


class TestRefusalsOfTheWriter:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"encoders": {"vae": "zz", "text": "bb"}}, "encoders.vae 'aa', not 'zz'"),
            ({"encoders": {"vae": "aa"}}, "encoders.text 'bb', not None"),
            ({"dtype": "bfloat16"}, "dtype 'float16', not 'bfloat16'"),
            ({"shape": (4, 2, 3)}, r"shape \(4, 3, 2\), not \(4, 2, 3\)"),
            ({"shard": 9}, "shard 8, not 9"),
        ],
    )
    def test_what_was_prepared_otherwise(self, prepared: Path, change: dict[str, object], said: str) -> None:
        before = files(prepared)
        with pytest.raises(ValueError, match=f"^{prepared} was prepared with {said}; choose another directory$"):
            Writer(prepared, LAYOUT.model_copy(update=change))
        assert files(prepared) == before

    def test_samples_that_do_not_fit(self, tmp_path: Path) -> None:
        one = sample(1)
        wrong: list[tuple[Sample, str]] = [
            (one._replace(latent=Latent(torch.zeros(4, 2, 3), torch.ones(4, 3, 2))), r"mean of shape \(4, 2, 3\)"),
            (one._replace(latent=Latent(one.latent.mean)), "has mean, flipped_mean, flipped_std; allowed: mean, std,"),
            (one._replace(flipped=None), "has mean, std; allowed: mean, std, flipped_mean, flipped_std"),
            (
                one._replace(latent=Latent(one.latent.mean + 7e4, one.latent.std)),
                "not finite in float16, which goes",
            ),
            (one._replace(captions=[], tokens=[]), "has no caption"),
            (one._replace(tokens=one.tokens[:1]), "has tokens of 1 captions; allowed: of 2"),
            (one._replace(tokens=[torch.zeros(0, 5), one.tokens[1]]), r"tokens of shape \(0, 5\); allowed: \(1, 5\)"),
            (one._replace(tokens=[torch.zeros(3, 4), one.tokens[1]]), r"tokens of shape \(3, 4\); allowed: \(3, 5\)"),
        ]
        with Writer(tmp_path / "data", LAYOUT) as writer:
            for given_one, said in wrong:
                with pytest.raises(ValueError, match=rf"^sample 'images/1.png' .*{said}"):
                    writer.add(given_one)
            writer.add(one)
            with pytest.raises(ValueError, match=r"^sample 'images/1.png' is there already"):
                writer.add(one)
        with Writer(tmp_path / "data", LAYOUT) as writer:
            assert writer.done == {"images/1.png"}
            with pytest.raises(ValueError, match="is there already"):
                writer.add(one)

    def test_a_second_writer_and_a_directory_of_something_else(self, tmp_path: Path) -> None:
        with (
            Writer(tmp_path / "data", LAYOUT),
            pytest.raises(ValueError, match=r"^another process writes in .*; stop it, or choose another directory$"),
        ):
            Writer(tmp_path / "data", LAYOUT)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        with pytest.raises(ValueError, match=r"holds files \(letter.txt\) but no manifest.json"):
            Writer(tmp_path / "mine", LAYOUT)


class TestReading:
    def test_rows_are_samples_with_their_own_captions_and_tokens(self, prepared: Path) -> None:
        data = PreparedData(prepared, 0)
        for step in range(8):
            batch = data.train(step, 11)
            assert batch.images.shape == (11, *data.image_shape) and batch.images.dtype == torch.float32
            tokens, mask = batch.features["tokens"], batch.features["mask"]  # (B, L, E), (B, L)
            longest = max(len(caption.split()) for caption in batch.captions)
            assert tokens.shape == (11, longest, 5) and not tokens[~mask].any()
            for row, caption in enumerate(batch.captions):
                which = shown(batch)[row]
                assert caption in sample(max(which, -1 - which)).captions
                assert torch.equal(tokens[row][mask[row]], tokens_of(caption))

    def test_half_are_mirrored_but_where_the_caption_names_a_side(self, prepared: Path) -> None:
        batch = PreparedData(prepared, 0).train(0, 600)
        pairs = list(zip(shown(batch), batch.captions, strict=True))
        assert all(which >= 0 for which, caption in pairs if "left" in caption)
        others = [which < 0 for which, caption in pairs if "left" not in caption]
        assert 0.4 < sum(others) / len(others) < 0.6
        assert all(which >= 0 for which in shown(PreparedData(prepared, 0).validation(50)))

    def test_a_pass_shows_each_sample_once_and_the_next_draws_anew(self, prepared: Path) -> None:
        data = PreparedData(prepared, 3)
        passes = [data.train(epoch, len(data.learned)) for epoch in range(40)]
        for batch in passes:
            assert sorted(max(which, -1 - which) for which in shown(batch)) == data.learned.tolist()
        own = int(data.learned[data.learned % 6 == 5][0])  # one with two captions, none of which names a side
        seen = [(batch, row) for batch in passes for row, which in enumerate(shown(batch)) if which == own]
        assert {batch.captions[row] for batch, row in seen} == set(sample(own).captions)
        drawn = torch.stack([batch.images[row] for batch, row in seen])  # (K, C, h, w)
        mean, std = sample(own).latent
        assert std is not None and len(drawn.unique(dim=0)) == len(drawn) > 10
        z = (drawn - mean) / std.clamp(min=0.01)  # (K, C, h, w)
        assert abs(z.mean()) < 0.25 and 0.75 < z.std() < 1.25

    def test_a_batch_is_the_same_for_any_ranks_workers_and_starts(self, prepared: Path) -> None:
        data = PreparedData(prepared, 0)
        straight = [data.train(step, 12) for step in range(9)]  # more than two passes of the training samples
        for workers in (1, 3):
            batches = ahead(lambda step: PreparedData(prepared, 0).train(step, 12), range(4, 9), workers)
            assert all(same(a, b) for a, b in zip(batches, straight[4:], strict=True))
        for ranks in (2, 4):
            for step, whole in enumerate(straight):
                parts = [data.train(step, 12, rank, ranks) for rank in range(ranks)]
                assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
                assert [caption for part in parts for caption in part.captions] == whole.captions
                real = torch.cat([part.features["tokens"][part.features["mask"]] for part in parts])
                assert torch.equal(real, whole.features["tokens"][whole.features["mask"]])
        assert not same(PreparedData(prepared, 1).train(0, 12), straight[0])
        with pytest.raises(ValueError, match=r"^a batch of 12 for 5 processes; allowed: multiples of 5$"):
            data.train(0, 12, 0, 5)

    def test_what_is_drawn_does_not_depend_on_the_size_of_the_batch(self, prepared: Path) -> None:
        data = PreparedData(prepared, 0)
        small, large = [data.train(step, 5) for step in range(6)], data.train(0, 30)
        assert torch.equal(torch.cat([batch.images for batch in small]), large.images)
        assert [caption for batch in small for caption in batch.captions] == large.captions

    def test_validation_is_fixed_and_never_trained_on(self, prepared: Path) -> None:
        data, other = PreparedData(prepared, 0), PreparedData(prepared, 1)
        learned, held_out = split(np.array([chance(f"images/{i}.png") for i in range(COUNT)]))
        assert data.learned.tolist() == learned.tolist() and len(held_out) > 0
        assert same(data.validation(7), other.validation(7))
        assert shown(data.validation(len(held_out))) == held_out.tolist()
        again = data.validation(2 * len(held_out)).images
        assert not torch.equal(again[: len(held_out)], again[len(held_out) :])

    def test_captions_are_those_of_training_samples(self, prepared: Path) -> None:
        data = PreparedData(prepared, 0)
        every = sorted(caption for i in data.learned.tolist() for caption in sample(i).captions)
        assert sorted(data.captions(1000)) == every
        assert data.captions(9) == PreparedData(prepared, 1).captions(9) == data.captions(1000)[:9]

    def test_pixels_without_features_are_read_as_they_are(self, tmp_path: Path) -> None:
        layout = Layout(encoders={}, shape=(1, 4, 4), dtype="bfloat16", std=False, shard=5)
        data = PreparedData(prepare(tmp_path / "data", 12, layout), 0)
        batch = data.train(0, 12)
        assert shown(batch) != sorted(shown(batch)) == list(range(12)) and not batch.features
        for row, which in enumerate(shown(batch)):
            assert torch.equal(batch.images[row], sample(which, layout).latent.mean.bfloat16().float())

    def test_shards_are_mapped_not_copied(self, prepared: Path) -> None:
        for array in PreparedData(prepared, 0).shards[0].arrays.values():
            assert not array.flags.owndata and not array.flags.writeable


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_page_on_prepared_data_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "prepared.md").read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S):
        exec(block, scope)
    data: Data = PreparedData(Path("prepared"), 0)
    assert same(data.train(0, 4), scope["batch"]) and len(scope["std"]) == 4


class TestRefusalsOfTheReader:
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (Path.unlink, r"^shard .*/000001-00008.safetensors is missing$"),
            (cut, r"^shard .*/000001-00008.safetensors has [\d,]+ bytes; the manifest says [\d,]+$"),
            (
                lambda path: path.write_bytes(bytes(path.stat().st_size)),
                r"000001-00008.safetensors is cut short or",
            ),
        ],
    )
    def test_a_damaged_shard(self, copied: Path, damage: Callable[[Path], None], said: str) -> None:
        damage(copied / "000001-00008.safetensors")
        for read in (verify, lambda path: PreparedData(path, 0), lambda path: Writer(path, LAYOUT)):
            with pytest.raises(ValueError, match=said):
                read(copied)

    def test_a_changed_byte_is_found_by_verify(self, copied: Path) -> None:
        verify(copied)
        spoil(copied / "000002-00008.safetensors")
        PreparedData(copied, 0)
        with pytest.raises(ValueError, match=r"000002-00008.safetensors was altered after it was written"):
            verify(copied)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda told: told.update(samples=46), "manifest.json: samples is 46, but its shards have 45$"),
            (lambda told: told["shards"].pop(1), "manifest.json: samples is 45, but its shards have 37$"),
            (
                lambda told: told["shards"][0].update(tokens=9),
                r"has tokens.values of shape .*; the manifest says \(9,",
            ),
            (
                lambda told: told["shards"][0].update(texts=9),
                r"has text.offsets of shape \(8,\); the manifest says",
            ),
            (lambda told: told["shards"][0].update(sha256="00"), "is another one than the manifest tells of"),
            (
                lambda told: told["layout"].update(shape=[4, 2, 3]),
                r"has mean of shape \(8, 4, 3, 2\); the manifest",
            ),
            (
                lambda told: told.update(format="fromnoise shards 9"),
                "format: given 'fromnoise shards 9'; allowed: ",
            ),
            (lambda told: told["layout"].update(dtyp="float16"), "layout.dtyp: no such key; allowed: .*nearest: dtype"),
        ],
    )
    def test_a_manifest_that_says_otherwise(self, copied: Path, change: Callable[[dict], object], said: str) -> None:
        told = json.loads((copied / MANIFEST).read_text())
        change(told)
        (copied / MANIFEST).write_text(json.dumps(told))
        with pytest.raises(ValueError, match=said):
            PreparedData(copied, 0)

    def test_what_is_no_prepared_data_set(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"^no prepared data set at .*: it holds no manifest.json$"):
            PreparedData(tmp_path, 0)
        (tmp_path / MANIFEST).write_text("{")
        with pytest.raises(ValueError, match=r"manifest.json is not JSON: "):
            verify(tmp_path)
        with pytest.raises(ValueError, match=r"^the prepared data set at .* holds no samples$"):
            PreparedData(prepare(tmp_path / "data", 0), 0)
