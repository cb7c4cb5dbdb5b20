"""Picture files of any kind to upright RGB pictures of one size. Legend: H, W of what is wanted; h, w of the file."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

from fromnoise.data.buckets import Size, crop_box

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"))
RESIZING = "cut at whole pixels, Lanczos"
"""What prepared pictures are told apart by from those resized in another way."""
TURNED = (5, 6, 7, 8)  # EXIF orientations in which rows of the file are columns of the upright picture


class Loaded(NamedTuple):
    """The pixels of a file, perhaps fewer than it has."""

    pixels: np.ndarray  # (h, w, 3) uint8, as the file has it: maybe lying
    size: tuple[float, float]  # height and width; of a draft, a fraction of its last row or column is padding
    orientation: int  # by which it is turned upright, of EXIF
    profile: bytes | None  # ICC's, of what colours its numbers are


def measure(file: Path | BinaryIO) -> Size:
    """Height and width of the upright picture of a file, from its header alone; see `upright`."""
    with Image.open(file) as image:
        return upright(image)


def upright(image: Image.Image) -> Size:
    """Height and width that a picture just opened has upright.

    A PNG that tells its orientation only after its pixels counts as upright.

    Raises:
        Exception: OSError, SyntaxError, ValueError or whatever else Pillow raises for a file that it cannot read.
    """
    _refuse_unknown_white(image)
    exif = Image.Image.getexif(image)  # PNG's own would decode the picture to look behind it
    # Pillow tells the size of a TIFF as it turns it, upright.
    turned = image.format != "TIFF" and exif.get(ExifTags.Base.Orientation, 1) in TURNED
    return Size(image.width, image.height) if turned else Size(image.height, image.width)


def read_picture(file: Path | BinaryIO, size: int | Size, background: int) -> np.ndarray:
    """The picture of a file, upright, centre-cropped to a shape and resized, in sRGB: (3, H, W) uint8.

    `size` is a square's side in pixels, or height and width. Transparent pictures are laid on the grey level
    `background`. Of an animation, the first frame.

    Raises:
        Exception: OSError, SyntaxError, ValueError or whatever else Pillow raises for a file that it cannot read.
    """
    wanted = Size(size, size) if isinstance(size, int) else size
    with Image.open(file) as image:
        return fit(load(image, wanted, background), wanted)  # (3, H, W)


def load(image: Image.Image, wanted: Size, background: int) -> Loaded:
    """Decode a picture just opened, of which `wanted` pixels are going to be made; see `read_picture`."""
    # A JPEG decodes several times faster at 1/2, 1/4 or 1/8 of its size; twice the target is left for the filter.
    own = image.size
    drafted = image.draft(None, (2 * max(wanted), 2 * max(wanted)))
    width, height = drafted[1][2:] if drafted else own
    pixels = whole_jpeg(image) if own == image.size else None
    if pixels is None:
        image.load()
        pixels = np.asarray(to_rgb(image, background))
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return Loaded(pixels, (height, width), orientation, image.info.get("icc_profile"))


def whole_jpeg(image: Image.Image) -> np.ndarray | None:
    """The pixels of a coloured JPEG just opened, (h, w, 3) uint8, or None for Pillow to decode it, or to say why not.

    By the same libjpeg-turbo and to the same numbers, but no thread waits for it: Pillow holds Python's lock while it
    copies pixels out.
    """
    import simplejpeg

    file = getattr(image, "fp", None)
    if file is None or (image.format, image.mode) != ("JPEG", "RGB"):
        return None
    file.seek(0)
    try:
        return simplejpeg.decode_jpeg(file.read())
    except ValueError:
        return None


def fit(loaded: Loaded, wanted: Size) -> np.ndarray:
    """The largest centred part of a picture that has the wanted shape, resized and upright: (3, H, W) uint8."""
    lying = Size(wanted.width, wanted.height) if loaded.orientation in TURNED else wanted  # as the file has it
    small = _shrunk(loaded, lying)  # (lying H, lying W, 3)
    if loaded.profile:
        small = to_srgb(small, loaded.profile)
    if loaded.orientation != 1:
        # Turning the small cut is the same as turning the whole picture, as the cut is its centre.
        image = Image.fromarray(small)
        image.getexif()[ExifTags.Base.Orientation] = loaded.orientation
        small = np.asarray(ImageOps.exif_transpose(image))  # (H, W, 3)
    return small.transpose(2, 0, 1)  # (3, H, W)


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of the colours that an ICC profile says, as sRGB has them: many phones write Display P3,
    which is duller where it is taken for sRGB. As they are where the profile is sRGB's, damaged, or not of RGB."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return pixels
        turned = ImageCms.profileToProfile(Image.fromarray(pixels), own, ImageCms.createProfile("sRGB"))
    except (OSError, ImageCms.PyCMSError):  # the latter, too, where the profile is not of RGB
        return pixels
    return np.asarray(turned)


def _shrunk(loaded: Loaded, lying: Size) -> np.ndarray:
    """The part of a picture that has a shape, cut at whole pixels, and resized: (H, W, 3) uint8, as the file has it.

    By Lanczos' filter of three lobes, which widens as pictures shrink. PyTorch's takes a quarter of the time of
    Pillow's and differs by a level or two (70 dB or more); it came with 2.12. Of a draft that ends in a fraction of a
    pixel Pillow can cut that off.
    """
    import torch
    import torch.nn.functional as F

    box, shape = crop_box(loaded.size, lying), (lying.width, lying.height)
    if any(side % 1 for side in loaded.size):
        return np.asarray(Image.fromarray(loaded.pixels).resize(shape, Image.Resampling.LANCZOS, box=box))
    left, top = int(box.left + 0.5), int(box.top + 0.5)
    width, height = max(1, round(box.right - box.left)), max(1, round(box.bottom - box.top))
    cut = loaded.pixels[top : top + height, left : left + width].copy()  # (h, w, 3)
    if not torch_has_lanczos():
        return np.asarray(Image.fromarray(cut).resize(shape, Image.Resampling.LANCZOS))
    pixels = torch.from_numpy(cut).permute(2, 0, 1)[None]  # (1, 3, h, w)
    return F.interpolate(pixels, lying, mode="lanczos", antialias=True)[0].permute(1, 2, 0).numpy()  # (H, W, 3)


@cache
def torch_has_lanczos() -> bool:
    """Whether PyTorch can resize by Lanczos' filter. Asked once: it takes its version apart for each comparison."""
    import torch

    return torch.__version__ >= "2.12"


def to_rgb(image: Image.Image, background: int) -> Image.Image:
    """A picture of any mode as RGB: 16 bits become 8, and what is transparent shows the grey level `background`.

    Raises:
        ValueError: for floating-point pictures: their white may be 1 or 255 or anything.
    """
    _refuse_unknown_white(image)
    if image.mode.startswith("I"):
        levels = np.asarray(image).clip(0, 65535)  # (h, w) of 16 bits, also where Pillow holds them in 32
        return Image.fromarray((levels / 257).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*[background] * 3, 255)), image).convert("RGB")
    return image.convert("RGB")


def _refuse_unknown_white(image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError("floating-point pictures have no known white")
