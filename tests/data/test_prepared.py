"""Prepared data sets: written to the same bytes each time, read as the same batches by any number of readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.core.types import Batch
from fromnoise.data.manifest import MANIFEST, Layout, Statistics, read_manifest, refuse_another
from fromnoise.data.prepared import PreparedData, verify
from fromnoise.data.shards import Fault, Latent, Sample, Text, faults_of, finish, pack, pack_texts, write_shard
from fromnoise.data.split import chance, split
from fromnoise.training.prefetch import ahead

TEXT = '[{"sha256": "bb", "length": 5}]'
LAYOUT = Layout(
    encoders={"vae": "aa", "text": TEXT}, size=24, factor=8, latent=4, sizes=((3, 2),), texts=(5, 2), flipped=True
)
COUNT, SHARD = 45, 8  # samples: five shards, and a part of one


def sample(i: int, layout: Layout = LAYOUT) -> Sample:
    """Sample `i`: its mean is about `i`, its mirror image's about -1 - `i`; one caption is its own, one is shared."""
    generator = torch.Generator().manual_seed(i)
    shape = (layout.latent, *layout.sizes[i % len(layout.sizes)])

    def latent(at: int) -> Latent:
        mean = at + torch.rand(shape, generator=generator) / 10
        return Latent(mean, torch.rand(shape, generator=generator) / 20 if layout.std else None)

    shared = "all of them" if i % 2 else "all but those on the left"
    captions = [*([f"picture {i} été"] if i % 3 else []), shared]
    flipped = latent(-1 - i) if layout.flipped and i % 2 else None
    return Sample(f"images/{i}.png", latent(i), captions, i % layout.classes, flipped, picture=bytes([i % 40 + 1] * 32))


def text_of(caption: str, layout: Layout = LAYOUT) -> Text:
    """Of each encoder a token for each word, of whole numbers that the caption decides, and how many there are."""
    words = caption.split()
    tokens = tuple(torch.tensor([[len(word) + at for at in range(width)] for word in words]) for width in layout.texts)
    return Text(tuple(one.float() for one in tokens), tuple(torch.full((w,), len(words)).float() for w in layout.texts))


def write(
    directory: Path, at: int, samples: Sequence[Sample], layout: Layout = LAYOUT, faults: Sequence[Fault] = ()
) -> str:
    """Write a shard of these samples; its name."""
    directory.mkdir(exist_ok=True)
    texts = {caption: text_of(caption, layout) for one in samples for caption in one.captions}
    write_shard(directory / f"{at:06}.safetensors", layout, samples, texts, faults, cut=at)
    return f"{at:06}.safetensors"


def prepare(directory: Path, count: int = COUNT, layout: Layout = LAYOUT) -> Path:
    """A data set of the first `count` samples."""
    firsts = range(0, count, SHARD)
    names = [
        write(directory, at, [sample(i, layout) for i in range(first, min(first + SHARD, count))], layout)
        for at, first in enumerate(firsts)
    ]
    directory.mkdir(exist_ok=True)
    finish(directory, layout, names, "samples")
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def means(batch: Batch) -> torch.Tensor:
    """(B, C, h, w) of a batch that holds means and standard deviations."""
    return batch.images.chunk(2, 1)[0]


def shown(batch: Batch) -> list[int]:
    """Which sample each row is, from its latent; the mirrored ones are negative minus one."""
    return [int(row.mean().floor()) for row in (means(batch) if batch.encoded else batch.images)]


def same(a: Batch, b: Batch) -> bool:
    assert a.features.keys() == b.features.keys()
    features = all(torch.equal(a.features[name], b.features[name]) for name in a.features)
    return torch.equal(a.images, b.images) and a.captions == b.captions and features


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


class TestWriting:
    def test_the_same_samples_give_the_same_bytes_in_whatever_order_shards_are_written(
        self, prepared: Path, tmp_path: Path
    ) -> None:
        firsts = range(0, COUNT, SHARD)
        shards = [[sample(i) for i in range(first, min(first + SHARD, COUNT))] for first in firsts]
        names = [write(tmp_path / "data", at, shards[at]) for at in reversed(range(len(shards)))]
        finish(tmp_path / "data", LAYOUT, sorted(names), "samples")
        assert files(tmp_path / "data") == files(prepared)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_statistics_are_those_of_all_latents(self, tmp_path: Path, dtype: str) -> None:
        layout = LAYOUT.model_copy(update={"dtype": dtype})
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
        x = 1e6 + np.random.default_rng(0).standard_normal((1, 256))
        merged = Statistics.none(1)
        for first in range(0, 256, 9):
            merged = merged.merged(Statistics.of(x[:, first : first + 9], 0 * x[:, first : first + 9]))
        assert merged.count == 256 and merged.std == pytest.approx([x.std()], rel=1e-9)

    def test_what_there_is_is_counted(self, prepared: Path) -> None:
        manifest = read_manifest(prepared)
        first = manifest.shards[0].counts
        assert first.captions == 13  # of samples 0 to 7: five with two, three with one
        assert first.texts == 7 and first.tokens == 2 * (5 * 3 + 3 + 6)  # equal captions are stored once a shard
        assert manifest.counts.samples == COUNT and manifest.counts.cut == 0 + 1 + 2 + 3 + 4 + 5
        assert manifest.duplicates == 5  # samples 40 to 44 are those of files 0 to 4

    def test_a_shard_in_which_nothing_could_be_read(self, tmp_path: Path) -> None:
        lost = [Fault("a.png", "no picture"), Fault("b.png", "zero bytes")]
        names = [write(tmp_path / "data", 0, [], faults=lost), write(tmp_path / "data", 1, [sample(3), sample(4)])]
        assert finish(tmp_path / "data", LAYOUT, names, "").counts.faults == 2
        assert faults_of(tmp_path / "data" / names[0]) == lost and faults_of(tmp_path / "data" / names[1]) == []
        assert sorted(max(i, -1 - i) for i in shown(PreparedData(tmp_path / "data", 0).train(0, 2))) == [3, 4]

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
    def test_texts_come_back_from_their_bytes(self, texts: list[str]) -> None:
        packed = pack_texts(texts)
        assert [packed.row(i).tobytes().decode() for i in range(len(texts))] == texts
        assert len(packed.values) == sum(len(text.encode()) for text in texts)

    @given(st.lists(st.integers(0, 6)), st.integers(1, 4))
    def test_tokens_come_back_however_many_there_are(self, lengths: list[int], width: int) -> None:
        rows = [np.full((length, width), at, np.int16) for at, length in enumerate(lengths)]
        packed = pack(rows, np.empty((0, width), np.int16))
        assert packed.values.shape == (sum(lengths), width) and packed.values.dtype == np.int16
        assert all(np.array_equal(packed.row(at), row) for at, row in enumerate(rows))


class TestRefusalsOfTheWriter:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"encoders": {"vae": "zz", "text": TEXT}}, "encoders.vae 'aa', not 'zz'"),
            ({"encoders": {"vae": "aa"}}, "encoders.text.1.sha256 'bb', not None"),
            ({"encoders": {"vae": "aa", "text": TEXT.replace(": 5", ": 7")}}, "encoders.text.1.length 5, not 7"),
            ({"dtype": "bfloat16"}, "dtype 'float16', not 'bfloat16'"),
            ({"sizes": ((2, 3),)}, r"sizes \(\(3, 2\),\), not \(\(2, 3\),\)"),
        ],
    )
    def test_what_was_prepared_otherwise(self, prepared: Path, change: dict[str, object], said: str) -> None:
        other = LAYOUT.model_copy(update=change)
        with pytest.raises(ValueError, match=f"^{prepared} was prepared with {said}; choose another directory$"):
            refuse_another(prepared, read_manifest(prepared).layout, other)
        with pytest.raises(ValueError, match=r"000000.safetensors was prepared with other settings"):
            finish(prepared, other, ["000000.safetensors"], "")

    def test_numbers_that_half_precision_does_not_hold(self, tmp_path: Path) -> None:
        one = sample(1)
        large = one._replace(latent=one.latent._replace(mean=one.latent.mean + 7e4))
        with pytest.raises(
            ValueError, match=r"^sample 'images/1.png' has numbers that are not finite in float16, whic"
        ):
            write(tmp_path, 0, [large])
        texts = {
            caption: Text((torch.zeros(1, 5), torch.zeros(1, 2)), (torch.zeros(5), torch.zeros(2) / 0))
            for caption in one.captions
        }
        with pytest.raises(ValueError, match=r"^caption 'picture 1 été' has numbers that are not finite"):
            write_shard(tmp_path / "a.safetensors", LAYOUT, [one], texts, [], 0)
        assert not files(tmp_path)


class TestReading:
    def test_rows_are_samples_with_their_own_captions_and_tokens(self, prepared: Path) -> None:
        data = PreparedData(prepared, 0)
        for step in range(8):
            batch = data.train(step, 11)
            assert batch.encoded and batch.images.shape == (11, 8, 3, 2) and batch.images.dtype == torch.float32
            longest = max(len(caption.split()) for caption in batch.captions)
            for i, width in enumerate(LAYOUT.texts):
                tokens, mask = batch.features[f"tokens_{i}"], batch.features[f"mask_{i}"]  # (B, L, W), (B, L)
                assert tokens.shape == (11, longest, width) and not tokens[~mask].any()
                for row, caption in enumerate(batch.captions):
                    assert torch.equal(tokens[row][mask[row]], text_of(caption).tokens[i])
                    assert torch.equal(batch.features[f"vector_{i}"][row], text_of(caption).vectors[i])
            for row, which in enumerate(shown(batch)):
                one = sample(max(which, -1 - which))
                assert batch.captions[row] in one.captions
                latent = one.latent if which >= 0 else one.flipped
                assert latent and latent.std is not None
                assert torch.equal(batch.images[row], torch.cat([latent.mean, latent.std]).half().float())

    def test_half_are_mirrored_where_the_mirror_image_was_encoded(self, prepared: Path) -> None:
        which = shown(PreparedData(prepared, 0).train(0, 600))
        assert all(i >= 0 for i in which if max(i, -1 - i) % 2 == 0)
        others = [i < 0 for i in which if max(i, -1 - i) % 2]
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

    def test_labels_and_latents_of_several_sizes(self, tmp_path: Path) -> None:
        layout = LAYOUT.model_copy(update={"sizes": ((3, 2), (2, 3)), "classes": 4})
        data = PreparedData(prepare(tmp_path / "data", layout=layout), 0)
        for i in range(COUNT):
            shard, at = data._find(i)
            latent = sample(i, layout).latent
            assert latent.std is not None and shard.label[at] == i % 4
            assert torch.equal(shard.stored(at, False), torch.cat([latent.mean, latent.std]).half().float())

    def test_a_batch_is_of_one_size_and_each_size_has_passes_of_its_own(self, tmp_path: Path) -> None:
        layout = LAYOUT.model_copy(update={"sizes": ((3, 2), (2, 3), (1, 1))})
        data = PreparedData(prepare(tmp_path / "data", layout=layout), 0)
        assert sorted(data.sizes) == [(8, 8), (16, 24), (24, 16)]
        counts = [len(rows) for rows in data.buckets]
        seen: dict[tuple[int, ...], list[int]] = {}
        for step in range(sum(counts)):
            batch = data.train(step, 4)
            rows = [max(which, -1 - which) for which in shown(batch)]
            seen.setdefault(tuple(batch.images.shape[2:]), []).extend(rows)
        for rows, (height, width) in zip(data.buckets, data.sizes, strict=True):
            drawn = np.array(seen[height // 8, width // 8]).reshape(4, -1)  # as many passes as a batch has rows
            assert all(sorted(one) == rows.tolist() for one in drawn.tolist())
        assert len({tuple(batch.shape) for batch in data.validation(30).images}) == 1

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
                real = torch.cat([part.features["tokens_0"][part.features["mask_0"]] for part in parts])
                assert torch.equal(real, whole.features["tokens_0"][whole.features["mask_0"]])
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
        assert shown(data.validation(2 * len(held_out))) == 2 * held_out.tolist()

    def test_captions_are_those_of_training_samples(self, prepared: Path) -> None:
        data = PreparedData(prepared, 0)
        every = sorted(caption for i in data.learned.tolist() for caption in sample(i).captions)
        assert sorted(data.captions(1000)) == every
        assert data.captions(9) == PreparedData(prepared, 1).captions(9) == data.captions(1000)[:9]

    def test_pixels_without_features_are_read_as_they_are(self, tmp_path: Path) -> None:
        layout = Layout(channels=1, size=4, latent=1, sizes=((4, 4),), dtype="bfloat16", std=False)
        data = PreparedData(prepare(tmp_path / "data", 12, layout), 0)
        batch = data.train(0, 12)
        assert shown(batch) != sorted(shown(batch)) == list(range(12)) and not batch.features and not batch.encoded
        for row, which in enumerate(shown(batch)):
            assert torch.equal(batch.images[row], sample(which, layout).latent.mean.bfloat16().float())

    def test_memory_given_back_is_there_again_when_asked_for(self, prepared: Path) -> None:
        data = PreparedData(prepared, 0)
        batch = data.train(0, 30)
        for shard in data.shards:
            shard.release()
        assert same(data.train(0, 30), batch)

    def test_shards_are_mapped_not_copied(self, prepared: Path) -> None:
        for array in PreparedData(prepared, 0).shards[0].arrays.values():
            assert not array.flags.owndata and not array.flags.writeable


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


class TestRefusalsOfTheReader:
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (Path.unlink, r"^shard .*/000001.safetensors is missing$"),
            (cut, r"^shard .*/000001.safetensors has [\d,]+ bytes; the manifest says [\d,]+$"),
            (
                lambda path: path.write_bytes(bytes(path.stat().st_size)),
                r"000001.safetensors is cut short or",
            ),
        ],
    )
    def test_a_damaged_shard(self, copied: Path, damage: Callable[[Path], None], said: str) -> None:
        damage(copied / "000001.safetensors")
        for read in (verify, lambda path: PreparedData(path, 0)):
            with pytest.raises(ValueError, match=said):
                read(copied)

    def test_a_changed_byte_is_found_by_verify(self, copied: Path) -> None:
        verify(copied)
        spoil(copied / "000002.safetensors")
        PreparedData(copied, 0)
        with pytest.raises(ValueError, match=r"000002.safetensors was altered after it was written"):
            verify(copied)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda told: told["counts"].update(samples=46), r"counts.samples is 46, but its shards have 45$"),
            (lambda told: told["shards"].pop(1), "manifest.json: counts.samples is 45, but its shards have 37$"),
            (lambda told: told["shards"][0].update(sha256="00"), "is another one than the manifest tells of"),
            (lambda told: told["layout"].update(latent=3), "was prepared with another layout than the manifest"),
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
