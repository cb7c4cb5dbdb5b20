"""Buckets: which there are, which a picture goes to, what of it is cropped, and what is read from headers alone."""

import itertools
import json
import os
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fromnoise.core.types import Batch
from fromnoise.data import pictures
from fromnoise.data.bucketed import BucketData
from fromnoise.data.buckets import Buckets, Size, bucket_sizes, crop_box, default_multiple, kept, scale
from fromnoise.data.config import BucketsConfig
from fromnoise.data.pictures import measure, read_picture
from fromnoise.data.sheet import chosen, contact_sheet
from fromnoise.data.survey import Filled, Survey, survey

DATA = Path(os.environ.get("FROMNOISE_DATA", "nowhere"))
PHOTOS = DATA / "coco_mini_256"

SIDES = st.integers(1, 3000)
PICTURES = st.builds(Size, SIDES, SIDES)
ASPECTS = st.sampled_from([1.0, 1.3, 2.0, 4.0])


@st.composite
def plans(draw: st.DrawFn) -> Buckets:
    multiple = draw(st.sampled_from([1, 4, 8, 16, 64]))
    size = multiple * draw(st.integers(1, 24))
    return Buckets(size, multiple, draw(ASPECTS), draw(st.integers(1, 4)), draw(st.booleans()))


def turned(size: Size) -> Size:
    return Size(size.width, size.height)


class TestSizes:
    def test_those_of_64_pixels(self):
        assert list(map(str, bucket_sizes(64, 8, 2.0))) == ["80x48", "72x56", "64x64", "56x72", "48x80"]

    def test_sdxl_s(self):
        """Of the sizes of SDXL's appendix I at short sides from 512, all that keep to the budget of 1024 x 1024."""
        ours = set(bucket_sizes(1024, 64, 4.0))
        published = {(1024, 1024), (960, 1088), (896, 1152), (832, 1216), (768, 1344), (704, 1472), (576, 1792)}
        assert published | {(512, 2048)} <= ours
        assert default_multiple(1024) == 64 and default_multiple(256) == 16 and default_multiple(64) == 8

    @given(multiple=st.sampled_from([1, 4, 8, 16, 64]), times=st.integers(1, 24), aspect=ASPECTS)
    def test_they_fill_the_budget_and_keep_to_it(self, multiple, times, aspect):
        size = multiple * times
        sizes = bucket_sizes(size, multiple, aspect)
        assert Size(size, size) in sizes and len(set(sizes)) == len(sizes)
        assert {turned(s) for s in sizes} == set(sizes)
        assert [s.width / s.height for s in sizes] == sorted(s.width / s.height for s in sizes)
        for short, long in map(sorted, sizes):
            assert short % multiple == long % multiple == 0 and long <= aspect * short
            assert short * long <= size * size < short * (long + multiple)
        missing = [short for short in range(multiple, size, multiple) if not any(min(s) == short for s in sizes)]
        assert all(size * size // short // multiple * multiple > aspect * short for short in missing)

    @pytest.mark.parametrize(
        ("size", "multiple", "aspect", "line"),
        [
            (60, 8, 2.0, "size is 60; allowed: multiples of 8, as the sides of its buckets are"),
            (8, 16, 2.0, "size is 8; allowed: multiples of 16"),
            (64, 8, 0.5, "largest_aspect is 0.5; allowed: 1 or more"),
            (64, 8, float("nan"), "largest_aspect is nan"),
        ],
    )
    def test_what_cannot_be(self, size, multiple, aspect, line):
        with pytest.raises(ValueError, match=line):
            bucket_sizes(size, multiple, aspect)

    def test_lower_tiers_are_halves_rounded_down_and_none_where_small_ones_are_enlarged(self):
        squares = [[s for s in tier if s.height == s.width] for tier in Buckets(80, 16, 2.0, 4, False).tiers]
        assert squares == [[(80, 80)], [(32, 32)], [(16, 16)]]  # of 10 pixels, the last, nothing is left
        assert len(Buckets(80, 16, 2.0, 4, True).tiers) == 1


class TestChoice:
    @given(plan=plans(), picture=PICTURES)
    def test_the_first_tier_that_can_be_filled_and_there_the_least_loss(self, plan, picture):
        bucket = plan.choose(picture)
        fitting = [[b for b in tier if plan.upscale or picture.holds(b)] for tier in plan.tiers]
        if bucket is None:
            assert not any(fitting)
            return
        tier = next(filter(None, fitting))
        assert bucket in tier

        def lost(b: Size) -> Fraction:  # of the picture, scaled until it just fills the bucket
            factor = max(Fraction(b.height, picture.height), Fraction(b.width, picture.width))
            return 1 - b.area / (factor * picture.height * factor * picture.width)

        assert lost(bucket) == min(map(lost, tier))
        assert kept(picture, bucket) == pytest.approx(float(1 - lost(bucket)))

    def test_of_two_that_lose_as_much_the_one_of_more_pixels_however_it_lies(self):
        plan = Buckets(64, 8, 4.0, 1, upscale=False)
        assert kept(Size(128, 64), Size(96, 40)) == kept(Size(128, 64), Size(80, 48)) > 0.8
        assert plan.choose(Size(128, 64)) == Size(80, 48)
        assert plan.choose(Size(64, 128)) == Size(48, 80)

    @given(plan=plans(), picture=PICTURES)
    def test_a_picture_on_its_side_gets_the_bucket_on_its_side(self, plan, picture):
        bucket = plan.choose(picture)
        assert plan.choose(turned(picture)) == (bucket and turned(bucket))

    @given(plan=plans(), picture=PICTURES)
    def test_nothing_is_enlarged_unless_asked_for(self, plan, picture):
        bucket = plan.choose(picture)
        if not plan.upscale and bucket:
            assert scale(picture, bucket) <= 1
        assert not plan.upscale or bucket is not None

    @pytest.mark.parametrize(
        ("picture", "bucket"),
        [
            ((480, 640), (56, 72)),
            ((640, 480), (72, 56)),
            ((64, 64), (64, 64)),
            ((63, 64), (32, 32)),  # it fills no bucket of 64 pixels, so one of half that side
            ((63, 72), (56, 72)),
            ((32, 1000), (24, 40)),
            ((31, 31), None),
            ((23, 1000), None),
        ],
    )
    def test_known_ones(self, picture, bucket):
        plan = Buckets(64, 8, 2.0, 2, False)
        assert plan.choose(Size(*picture)) == bucket


class TestCrop:
    @given(picture=PICTURES, bucket=st.builds(Size, st.integers(1, 2048), st.integers(1, 2048)))
    def test_the_box_is_inside_centred_of_the_bucket_s_shape_and_as_large_as_can_be(self, picture, bucket):
        left, top, right, bottom = crop_box(picture, bucket)
        assert 0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height
        assert left == pytest.approx(picture.width - right, abs=1e-9)
        assert top == pytest.approx(picture.height - bottom, abs=1e-9)
        assert (right - left) / (bottom - top) == pytest.approx(bucket.width / bucket.height)
        assert (left, right) == (0, picture.width) or (top, bottom) == (0, picture.height)
        assert (right - left) * (bottom - top) == pytest.approx(kept(picture, bucket) * picture.area)
        assert (right - left) * scale(picture, bucket) == pytest.approx(bucket.width)

    @given(plan=plans(), picture=PICTURES)
    def test_it_is_at_least_as_large_as_the_bucket_where_nothing_is_enlarged(self, plan, picture):
        bucket = plan.choose(picture)
        if bucket and not plan.upscale:
            left, top, right, bottom = crop_box(picture, bucket)
            assert right - left >= bucket.width - 1e-9 and bottom - top >= bucket.height - 1e-9

    def test_known_ones(self):
        assert crop_box(Size(480, 640), Size(64, 64)) == (80, 0, 560, 480)
        assert crop_box(Size(640, 480), Size(64, 64)) == (0, 80, 480, 560)
        assert crop_box(Size(300, 400), Size(30, 40)) == (0, 0, 400, 300)


def gradient(height: int, width: int) -> Image.Image:
    """Red says the row and green the column, from 0 to 250; blue is 0."""
    levels = np.zeros((height, width, 3), np.uint8)
    levels[..., 0] = np.linspace(0, 250, height)[:, None]
    levels[..., 1] = np.linspace(0, 250, width)[None]
    return Image.fromarray(levels)


ORIENTATIONS = range(1, 9)


class TestFiles:
    @pytest.mark.parametrize("kind", ["jpg", "tiff", "webp", "png"])
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_headers_tell_the_upright_size_and_pictures_are_cut_upright(self, tmp_path, kind, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        gradient(100, 60).save(tmp_path / f"a.{kind}", exif=exif)
        upright = Size(60, 100) if orientation in (5, 6, 7, 8) else Size(100, 60)
        assert measure(tmp_path / f"a.{kind}") == upright
        cut = read_picture(tmp_path / f"a.{kind}", Size(40, 16) if upright.height == 100 else Size(16, 40), 255)
        assert cut.shape[1:] == ((40, 16) if upright.height == 100 else (16, 40))
        # All of the long side is seen, of the short side two thirds; whatever the turn, in one of red and green each.
        ranges = sorted(np.ptp(cut[channel].astype(int)) for channel in (0, 1))
        assert ranges[0] == pytest.approx(167, abs=12) and ranges[1] == pytest.approx(245, abs=8)

    def test_the_pixels_of_a_picture_are_not_read(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
        for kind in ("png", "jpg", "tiff"):
            Image.fromarray(noise).save(tmp_path / f"a.{kind}")
            whole = (tmp_path / f"a.{kind}").read_bytes()
            if kind != "tiff":  # whose directory of tags is behind the pixels
                (tmp_path / f"a.{kind}").write_bytes(whole[: len(whole) // 2])
            assert measure(tmp_path / f"a.{kind}") == (64, 96)

    def test_an_animation_is_its_first_frame_and_a_bomb_is_refused(self, tmp_path, monkeypatch):
        frames = [Image.new("RGB", (40, 20), color) for color in ("red", "lime", "blue")]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert measure(tmp_path / "a.gif") == (20, 40)
        assert read_picture(tmp_path / "a.gif", Size(8, 16), 255)[:, 4, 8].tolist() == [255, 0, 0]
        monkeypatch.setattr(pictures.Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(Image.DecompressionBombError):
            measure(tmp_path / "a.gif")

    def test_white_that_is_not_known_is_refused_at_the_header(self, tmp_path):
        Image.fromarray(np.ones((16, 16), np.float32)).save(tmp_path / "a.tiff")
        with pytest.raises(ValueError, match="floating-point"):
            measure(tmp_path / "a.tiff")


MADE = {"wide": (480, 640), "tall": (640, 480), "square": (100, 100), "strip": (100, 1000), "low": (40, 40)}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Pictures of known sizes, one too small, one empty file and one of text."""
    folder = tmp_path / "made"
    folder.mkdir()
    for name, (height, width) in MADE.items():
        gradient(height, width).save(folder / f"{name}.png")
    gradient(12, 9).save(folder / "tiny.png")
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("not a picture")
    return folder


def sort_made(folder: Path, **changes: Any) -> Survey:
    names = sorted(path.name for path in folder.iterdir())
    plan: dict[str, Any] = {"size": 64, "multiple": 8, "largest_aspect": 2.0, "tiers": 2, "upscale": False} | changes
    return survey(folder, names, Buckets(**plan), lambda done, total: None)


class TestSurvey:
    def test_every_picture_is_in_a_bucket_or_left_out_for_a_reason(self, made):
        found = sort_made(made)
        places = {name: bucket.size for bucket in found.filled for name in bucket.pictures}
        assert places == {
            "tall.png": (72, 56),
            "square.png": (64, 64),
            "wide.png": (56, 72),
            "strip.png": (48, 80),
            "low.png": (32, 32),
        }
        assert found.small == {"tiny.png": (12, 9)}
        assert list(found.unreadable) == ["empty.jpg", "text.png"] and "cannot identify" in found.unreadable["text.png"]
        assert found.problems[-1] == "tiny.png: 12x9, smaller than every bucket" and len(found.problems) == 3
        assert found.empty == [(80, 48), (40, 24), (24, 40)]
        wide, strip = (next(b for b in found.filled if b.size == size) for size in ((56, 72), (48, 80)))
        assert wide.crops["wide.png"] == pytest.approx(1 - (72 / 56) / (4 / 3)) and wide.enlarged == 0
        assert strip.crops["strip.png"] == pytest.approx(1 - (80 / 48) / 10)

    def test_small_ones_are_dropped_or_enlarged_as_set(self, made):
        assert set(sort_made(made, tiers=1).small) == {"tiny.png", "low.png"}
        found = sort_made(made, upscale=True)
        assert not found.small and sum(bucket.enlarged for bucket in found.filled) == 2

    def test_when_nothing_is_left_it_says_why(self, made):
        with pytest.raises(
            ValueError, match=r"all 6 pictures of .* are smaller than every bucket: the largest is 640x480"
        ):
            sort_made(made, size=1024, multiple=512, tiers=1)
        for name in [*MADE, "tiny"]:
            (made / f"{name}.png").unlink()
        with pytest.raises(ValueError, match=r"none of the 2 pictures of .* can be read: empty\.jpg: cannot identify"):
            sort_made(made)

    @pytest.mark.skipif(not PHOTOS.is_dir(), reason="no coco_mini_256 in $FROMNOISE_DATA")
    def test_photos(self):
        told = {}
        for line in (PHOTOS / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            told[row["file_name"]] = (row["height"], row["width"])
        found = survey(PHOTOS, list(told), Buckets(256, 16, 2.0, 2, False), lambda done, total: None)
        assert {name: size for b in found.filled for name, size in b.pictures.items()} == told
        assert {b.size: len(b.pictures) for b in found.filled}[Size(208, 304)] == 30
        crops = [crop for b in found.filled for crop in b.crops.values()]
        square = [1 - min(size) / max(size) for size in told.values()]
        assert np.mean(crops) < 0.04 < 0.25 < np.mean(square)  # what buckets are for
        assert not any(b.enlarged for b in found.filled)


class TestSheet:
    def test_the_chosen_go_from_the_least_to_the_most_cropped(self):
        sizes = {f"{width}": Size(100, width) for width in random.Random(0).sample(range(100, 200), 50)}
        shown = chosen(Filled(size=Size(64, 64), pictures=sizes), 5)
        crops = list(shown.values())
        every = [1 - 100 / size.width for size in sizes.values()]
        assert len(shown) == 5 and crops == sorted(crops)
        assert (crops[0], crops[-1]) == pytest.approx((min(every), max(every)))
        assert list(chosen(Filled(size=Size(8, 8), pictures={"a": Size(9, 9)}), 5)) == ["a"]

    def test_pictures_are_drawn_as_the_model_sees_them(self, made):
        found = sort_made(made)
        rows = []
        sheet = contact_sheet(made.joinpath, found.filled, 3, 255, lambda done, total: rows.append((done, total)))
        assert rows == [(k, 5) for k in range(1, 6)]
        colours = np.asarray(sheet).transpose(2, 0, 1)
        tall = read_picture(made / "tall.png", Size(72, 56), 255).repeat(2, 1).repeat(2, 2)  # 144 of at least 128
        windows = (colours[:, y : y + 144, x : x + 112] for y, x in itertools.product(range(60), range(20)))
        assert any(np.array_equal(window, tall) for window in windows)

    def test_a_picture_that_cannot_be_decoded_is_a_grey_tile(self, made):
        whole = (made / "wide.png").read_bytes()
        (made / "wide.png").write_bytes(whole[: len(whole) // 2])
        found = sort_made(made)
        bucket = next(b for b in found.filled if "wide.png" in b.pictures)
        sheet = contact_sheet(made.joinpath, [bucket], 1, 255, lambda done, total: None)
        assert (np.asarray(sheet) == 128).all(2).sum() == 112 * 144


SHAPES = {(32, 64): 23, (64, 32): 14, (48, 48): 9, (20, 20): 3}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """49 pictures of four shapes, whose left half has the grey level that captions name, and an unreadable one."""
    folder = tmp_path_factory.mktemp("mixed")
    sizes = [size for size, count in SHAPES.items() for _ in range(count)]
    random.Random(0).shuffle(sizes)
    for i, (height, width) in enumerate(sizes):
        levels = np.full((height, width, 3), i, np.uint8)
        levels[:, width // 2 :] = 255
        Image.fromarray(levels).save(folder / f"{i:03}.png")
        (folder / f"{i:03}.txt").write_text(f"picture {i}\npicture {i} again")
    (folder / "bad.png").write_text("not a picture")
    (folder / "bad.txt").write_text("picture 99")
    return folder


def load(folder: Path, seed: int = 0, said: list[str] | None = None, **settings: object) -> BucketData:
    config = {"path": folder, "size": 32, "multiple": 8, **settings}
    return BucketData(BucketsConfig.model_validate(config), seed, ([] if said is None else said).append)


def shown(batch: Batch) -> list[int]:
    """Which picture each row is, from its pixels."""
    return ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


class TestData:
    def test_batches_are_of_one_bucket_with_their_own_captions(self, mixed):
        data = load(mixed)
        seen = set()
        for step in range(40):
            batch = data.train(step, 8)
            assert batch.images.shape[:2] == (8, 3) and tuple(batch.images.shape[2:]) in data.sizes
            assert batch.images.dtype == torch.float32 and batch.images.max() == 1
            assert shown(batch) == [int(caption.split()[1]) for caption in batch.captions]
            seen.add(tuple(batch.images.shape[2:]))
        assert seen == set(data.sizes) >= {(24, 40), (40, 24), (32, 32)}

    def test_any_step_is_the_same_in_a_new_object_and_another_with_another_seed(self, mixed):
        first, again, other = load(mixed), load(mixed), load(mixed, seed=1)
        straight = [first.train(step, 7) for step in range(60)]
        for step in (59, 31, 0):  # as after a resume, in any order
            batch = again.train(step, 7)
            assert torch.equal(batch.images, straight[step].images) and batch.captions == straight[step].captions
        assert [other.train(step, 7).captions for step in range(9)] != [batch.captions for batch in straight[:9]]

    def test_in_a_turn_every_picture_is_drawn_as_often_as_a_batch_has_rows(self, mixed):
        data = load(mixed)
        turn = len(data.learned)
        drawn = Counter(row for step in range(turn, 2 * turn) for row in shown(data.train(step, 6)))
        assert drawn == {int(data.names[place].removesuffix(".png")): 6 for place in data.learned}

    def test_none_held_out_is_trained_on_and_all_are_validated_in_squares(self, mixed):
        data = load(mixed)
        trained = {row for step in range(200) for row in shown(data.train(step, 4))}
        batch = data.validation(90)
        assert batch.images.shape == (90, *data.image_shape)
        held_out = {int(data.names[place].removesuffix(".png")) for place in data.held_out}
        assert set(shown(batch)) == held_out and not held_out & trained and len(held_out | trained) == 49
        assert {caption.endswith("again") for caption in batch.captions} == {True, False}

    def test_it_says_what_it_holds_and_what_it_leaves_out(self, mixed):
        said: list[str] = []
        data = load(mixed, said=said, tiers=1)
        assert data.problems == [
            "bad.png: cannot identify image file",
            *(f"{name}: 20x20, smaller than every bucket" for name in sorted(data_small(mixed))),
        ]
        assert said[0].startswith("46 pictures, 92 captions from .txt files, ")
        counts = ", ".join(f"{size} ({len(rows)})" for size, rows in data.rows.items())
        assert said[1] == f"3 buckets (height x width, pictures to train on): {counts}" and "24x40" in counts
        assert said[2].startswith("4 pictures left out: bad.png: cannot identify image file; ") and len(said) == 3

    def test_mirrored_when_asked(self, mixed):
        levels = [row for step in range(20) for row in shown(load_flipped(mixed).train(step, 8))]
        assert 0.35 < sum(level == 255 for level in levels) / len(levels) < 0.65

    def test_a_picture_that_only_its_pixels_fail_is_left_out(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        for name in "ab":
            Image.fromarray(noise).save(tmp_path / f"{name}.jpg")
            (tmp_path / f"{name}.txt").write_text(name)
        whole = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
        data = load(tmp_path)
        assert data.names == ["b.jpg"] and data.problems[0].startswith("a.jpg: image file is truncated")
        (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"none of the 2 pictures of .* can be read: a\.jpg: image file is trunc"):
            load(tmp_path)


def data_small(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("0*.png") if measure(path) == (20, 20)]


def load_flipped(folder: Path) -> BucketData:
    return load(folder, flip=True)
