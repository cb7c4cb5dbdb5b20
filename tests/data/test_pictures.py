"""Picture files of every kind, written by Pillow, read as upright RGB squares."""

import numpy as np
import pytest
from PIL import Image, ImageCms, features
from torch.torch_version import TorchVersion

from fromnoise.data import pictures
from fromnoise.data.buckets import Size, crop_box
from fromnoise.data.pictures import read_picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)


def quarters(side: int = 32) -> Image.Image:
    """Red and green above blue and white."""
    return Image.fromarray(CORNERS.repeat(side // 2, 0).repeat(side // 2, 1))


def corners(path, size: int = 16, background: int = 255) -> np.ndarray:
    """Colours near the four corners: (2, 2, 3)."""
    picture = read_picture(path, size, background)
    assert picture.shape == (3, size, size) and picture.dtype == np.uint8
    inner = [2, size - 3]
    return picture[:, inner][:, :, inner].transpose(1, 2, 0)


def mode_of(path) -> str:
    with Image.open(path) as image:
        return image.mode


def assert_near(found, wanted, tolerance=2):
    assert np.abs(np.asarray(found).astype(int) - np.asarray(wanted)).max() <= tolerance, found


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp", "jpg", "gif"])
def test_plain_files_of_each_kind(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "webp" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(kind, {})
    quarters().save(path, **options)
    assert_near(corners(path), CORNERS, 6 if kind == "jpg" else 2)


def profile(red: bytes = b"gXYZ", green: bytes = b"rXYZ", name: str = "swapped") -> bytes:
    """sRGB's ICC profile with other primaries under another name: those of red and green exchanged."""
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    own = own.replace("sRGB".encode("utf-16-be"), name[:4].encode("utf-16-be"))
    return own.replace(b"rXYZ", b"....", 1).replace(b"gXYZ", green, 1).replace(b"....", red, 1)


@pytest.mark.parametrize("kind", ["png", "jpg", "tiff", "webp"])
def test_colours_are_those_of_the_profile(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(kind, {})
    quarters().save(path, icc_profile=profile(), **options)
    assert_near(corners(path), CORNERS[..., [1, 0, 2]], 6 if kind == "jpg" else 2)


@pytest.mark.parametrize("useless", [b"no profile", profile()[:200], profile(name="sRGB"), profile(b"rXYZ", b"gXYZ")])
def test_colours_are_left_by_a_profile_that_says_nothing_else(tmp_path, useless):
    quarters().save(tmp_path / "a.png", icc_profile=useless)
    assert_near(corners(tmp_path / "a.png"), CORNERS)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_other_colours_than_the_file_s_is_left(tmp_path, mode):
    path = tmp_path / "a.tiff"
    quarters().convert(mode).save(path)
    plain = corners(path)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    quarters().convert(mode).save(path, icc_profile=lab)
    assert np.array_equal(corners(path), plain)


# What a viewer must do for each EXIF orientation (EXIF 2.3, tag 0x0112), undone before the picture is written.
UNDO = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],  # shown turned clockwise
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


@pytest.mark.parametrize("orientation", UNDO)
def test_exif_rotation_is_applied(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    stored = quarters(64)
    for move in UNDO[orientation]:
        stored = stored.transpose(move)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, quality=95, subsampling=0, exif=exif)
    with Image.open(path) as image:
        assert_near(np.asarray(image)[8::48, 8::48], np.asarray(stored)[8::48, 8::48], 6)  # and it is stored turned
    assert_near(corners(path), CORNERS, 6)


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    quarters().convert("CMYK").save(path, quality=95, subsampling=0)
    assert mode_of(path) == "CMYK"
    assert_near(corners(path), CORNERS, 8)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16", "I"])
def test_grey_of_any_depth(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "I" else "a.png")
    grey = np.array([[0, 255], [255, 0]], np.uint8).repeat(16, 0).repeat(16, 1)
    if mode.startswith("I"):
        wide = grey.astype(np.uint16 if mode == "I;16" else np.int32) * 257
        wide[:16, :16] = 100 * 257
        Image.fromarray(wide).save(path)
        assert mode_of(path) == mode
        wanted = [[[100] * 3, [255] * 3], [[255] * 3, [0] * 3]]
    else:
        Image.fromarray(grey).convert(mode).save(path)
        wanted = [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]
    assert_near(corners(path), wanted)


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.ones((16, 16), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="floating-point"):
        read_picture(tmp_path / "a.tiff", 16, 0)


@pytest.mark.parametrize("background", [0, 128, 255])
def test_transparency_shows_the_background(tmp_path, background):
    see_through = quarters().convert("RGBA")
    see_through.paste((9, 9, 9, 0), (0, 0, 16, 16))
    see_through.paste((255, 0, 0, 128), (16, 16, 32, 32))
    see_through.save(tmp_path / "rgba.png")
    half = (255 * 128 + background * 127) / 255
    faint = (background * 127) / 255
    wanted = [[[background] * 3, GREEN], [BLUE, [half, faint, faint]]]
    assert_near(corners(tmp_path / "rgba.png", background=background), wanted)

    grey = Image.new("LA", (32, 32), (40, 255))
    grey.paste((200, 0), (0, 0, 16, 32))
    grey.save(tmp_path / "la.png")
    assert_near(corners(tmp_path / "la.png", background=background), [[[background] * 3, [40] * 3]] * 2)

    palette = quarters().quantize(4)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert mode_of(tmp_path / "p.png") == "P"
    assert_near(corners(tmp_path / "p.png", background=background), [[[background] * 3, GREEN], [BLUE, WHITE]])

    quarters().save(tmp_path / "rgb.png", transparency=BLUE)  # one colour stands for nothing
    assert_near(corners(tmp_path / "rgb.png", background=background), [[RED, GREEN], [[background] * 3, WHITE]])


@pytest.mark.parametrize("shape", [(96, 32), (32, 96)])
def test_the_centre_is_kept(tmp_path, shape):
    image = Image.new("RGB", shape, RED)
    image.paste(quarters(), ((shape[0] - 32) // 2, (shape[1] - 32) // 2))
    image.save(tmp_path / "a.png")
    assert_near(corners(tmp_path / "a.png"), CORNERS)


def test_shrinking_averages_and_keeps_the_mean(tmp_path):
    dots = np.indices((256, 256)).sum(0) % 2 * 255  # a checkerboard of single pixels: without a filter it aliases
    Image.fromarray(dots.astype(np.uint8)).save(tmp_path / "a.png")
    inside = read_picture(tmp_path / "a.png", 32, 0)[:, 2:-2, 2:-2]
    assert_near(inside, 127)


@pytest.mark.parametrize("size", [Size(32, 32), Size(40, 24), Size(130, 130)])
def test_it_is_lanczos_filter_to_a_level_or_two(tmp_path, size):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 121, 3), np.uint8))
    noise.save(tmp_path / "a.png")
    box = crop_box((90, 121), size)
    left, top = int(box.left + 0.5), int(box.top + 0.5)
    cut = noise.crop((left, top, left + round(box.right - box.left), top + round(box.bottom - box.top)))
    wanted = np.asarray(cut.resize((size.width, size.height), Image.Resampling.LANCZOS))
    found = read_picture(tmp_path / "a.png", size, 0).transpose(1, 2, 0)
    assert_near(found, wanted, 2)
    assert 10 * np.log10(255**2 / np.square(found.astype(float) - wanted).mean()) > 66


def test_a_square_of_a_picture_with_an_odd_margin_is_not_stretched(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (101, 102, 3), np.uint8))
    noise.save(tmp_path / "a.png")
    assert_near(read_picture(tmp_path / "a.png", 101, 0).transpose(1, 2, 0), np.asarray(noise)[:, 1:], 0)


def test_an_older_torch_leaves_the_resizing_to_pillow(tmp_path, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 121, 3), np.uint8))
    noise.save(tmp_path / "a.png")
    newer = read_picture(tmp_path / "a.png", 32, 0)
    monkeypatch.setattr("torch.__version__", TorchVersion("2.9.1+cpu"))
    monkeypatch.setattr(pictures, "torch_has_lanczos", pictures.torch_has_lanczos.__wrapped__)
    older = read_picture(tmp_path / "a.png", 32, 0)
    assert_near(older, newer, 2)
    assert (older != newer).any()


@pytest.mark.parametrize("orientation", [1, 6, 7])
@pytest.mark.parametrize("sides", [(700, 700), (701, 517)])
def test_a_large_jpeg_is_read_as_its_full_decoding_would_be(tmp_path, orientation, sides):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).resize(sides, Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    for move in UNDO[orientation]:
        smooth = smooth.transpose(move)
    smooth.save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert_near(read_picture(tmp_path / "a.jpg", 32, 0), read_picture(tmp_path / "a.png", 32, 0), 6)


def test_a_truncated_file_and_a_text_file_raise(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="truncated"):
        read_picture(tmp_path / "a.jpg", 16, 0)
    (tmp_path / "b.png").write_text("not a picture")
    with pytest.raises(OSError, match="cannot identify"):
        read_picture(tmp_path / "b.png", 16, 0)
