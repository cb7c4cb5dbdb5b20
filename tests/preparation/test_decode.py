"""Bytes to pixels, whatever the bytes are: one line for what cannot be read, the same each time."""

import io
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from fromnoise.data.buckets import Size
from fromnoise.data.pictures import fit, read_picture, whole_jpeg
from fromnoise.preparation import decode as module


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims to be that large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def decode(content: bytes, size: int | Size, background: int) -> np.ndarray:
    """The pixels, where the size does not depend on the picture's own."""
    wanted = Size(size, size) if isinstance(size, int) else size
    return fit(*module.decode(content, lambda own: wanted, background)[:2])


def size_of(content: bytes) -> Size:
    """The picture's own size, as it is told before it is decoded."""
    seen = []

    def choose(own: Size) -> Size:
        seen.append(own)
        return Size(8, 8)

    module.decode(content, choose, 0)
    return seen[0]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8))


@pytest.mark.parametrize("size", [16, Size(24, 16)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_as_from_a_file(tmp_path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(NOISE, "jpeg", exif=exif)
    (tmp_path / "a.jpg").write_bytes(content)
    found = decode(content, size, 255)
    wanted = Size(size, size) if isinstance(size, int) else size
    assert found.shape == (3, *wanted) and found.dtype == np.uint8
    assert (found == read_picture(tmp_path / "a.jpg", size, 255)).all()
    assert size_of(content) == (Size(64, 48) if orientation == 1 else Size(48, 64))


@pytest.mark.parametrize(
    "options",
    [
        *({"quality": 80, "subsampling": kind} for kind in ("4:4:4", "4:2:2", "4:2:0")),
        {"progressive": True, "optimize": True},
        {"keep_rgb": True},
        {"restart_marker_rows": 1},
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (63, 47), (7, 200), (1, 1)])
def test_a_whole_jpeg_as_pillow_decodes_it(options, size):
    content = encoded(NOISE.resize(size), "jpeg", **options)
    with Image.open(io.BytesIO(content)) as image:
        pillows = np.asarray(image)
    with Image.open(io.BytesIO(content)) as image:
        found = whole_jpeg(image)
    assert found is not None and (found == pillows).all()


def test_what_is_no_sound_jpeg_of_colours_is_left_to_pillow():
    sound = encoded(NOISE, "jpeg")
    marked = sound[:-500] + b"\xff\xd0" + sound[-498:]  # libjpeg warns, and goes on
    grey, cmyk = encoded(NOISE.convert("L"), "jpeg"), encoded(NOISE.convert("CMYK"), "jpeg")
    for content in (grey, cmyk, encoded(NOISE, "png"), marked):
        with Image.open(io.BytesIO(content)) as image:
            assert whole_jpeg(image) is None
            assert np.asarray(image).shape[:2] == (64, 48)
    with Image.open(io.BytesIO(sound[:-500])) as image:
        assert whole_jpeg(image) is None
        with pytest.raises(OSError, match="truncated"):
            image.load()


@pytest.mark.parametrize("sides", [(10_000, 10_000), (60_000, 60_000)])  # over Pillow's limit, and over twice that
@pytest.mark.parametrize("read", [lambda content: decode(content, 16, 0), size_of])
def test_a_decompression_bomb_is_told_with_its_pixels(made, sides, read):
    pixels = sides[0] * sides[1]
    told = f"{pixels:,} pixels, more than the {Image.MAX_IMAGE_PIXELS:,} that are opened"
    assert made.refusal(lambda: read(claiming(*sides))) == told


@pytest.mark.filterwarnings("default")  # as outside of tests
def test_a_bomb_among_threads(made):
    told = []
    work = lambda: told.append(made.refusal(lambda: decode(claiming(10_000, 10_000), 16, 0)))  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 8 and len(set(told)) == 1 and told[0].startswith("100,000,000 pixels")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"not a picture", "cannot identify image file"),
        (encoded(NOISE, "jpeg")[:700], "truncated"),
        (encoded(NOISE, "png")[:-900], "truncated"),
        (encoded(NOISE, "png").replace(b"IDAT", b"IDAX"), "."),
        (encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "tiff"), "floating-point pictures have no known white"),
    ],
)
def test_what_cannot_be_read_is_told_the_same_each_time(made, content, said):
    first, again = (made.refusal(lambda: decode(content, 16, 0)) for _ in range(2))
    assert first == again and first
    assert said == "." or said in first
    assert "0x" not in first


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "webp" else {}
    moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert module.decode(moving, lambda own: own, 0).animated
    assert not module.decode(encoded(frames[0], kind, **options), lambda own: own, 0).animated
    found = decode(moving, 16, 0)
    assert np.abs(found.transpose(1, 2, 0).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("kind", ["mpo", "tiff"])
def test_several_pictures_that_do_not_move_are_no_animation(kind):
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime")]
    found = module.decode(encoded(pictures[0], kind, save_all=True, append_images=pictures[1:]), lambda own: own, 0)
    assert not found.animated
    assert np.abs(fit(*found[:2]).transpose(1, 2, 0).astype(int) - (255, 0, 0)).max() <= 2
