"""Pictures as files: PNGs that say how they were drawn, grids, and animations. No file is ever overwritten."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fromnoise.pipeline.config import Sampling

SHOWN = 128  # least side, in pixels, of a picture in a grid or an animation
GAP = 4  # pixels between the pictures of a grid
TEXT = 12  # height of a label's letters, in pixels


def as_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pixels (B, C, H, W) in [-1, 1] as 8-bit pictures: grey of one channel, colours of three."""
    levels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu()
    arrays = levels.permute(0, 2, 3, 1).numpy()  # (B, H, W, C)
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]


def stem(prompt: str, seed: int) -> str:
    """A file name, less its ending, that tells the prompt and the seed."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:48].rstrip("-")
    return f"{words or 'picture'}_{seed}"


def save_png(image: Image.Image, directory: str | Path, stem: str, metadata: Mapping[str, str]) -> Path:
    """Write `image` with `metadata` as PNG text into `directory` (made if need be), under a name not taken yet.

    Raises:
        ValueError: one line, when it cannot be written there.
    """
    return _create(Path(directory), stem, ".png", as_png(image, metadata))


def as_png(image: Image.Image, metadata: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """`image` with `metadata` as PNG text."""
    info = PngInfo()
    for key, value in metadata.items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def drawn_by(sampling: Sampling, checkpoint: str) -> dict[str, str]:
    """What a picture says of how it was drawn, beside its prompt and its seed. checkpoint: hash of the weights."""
    how = {"steps": str(sampling.steps), "guidance": str(sampling.guidance), "sampler": sampling.sampler}
    return how | {"checkpoint": checkpoint}


def save_animation(
    frames: Sequence[Image.Image], directory: str | Path, stem: str, kind: Literal["webp", "gif"]
) -> Path:
    """Write `frames` as an endless animation, else as `save_png`: 12 frames a second, the last rests for 1.5 s."""
    return _create(Path(directory), stem, f".{kind}", as_animation(frames, kind))


def as_animation(frames: Sequence[Image.Image], kind: Literal["webp", "gif"]) -> bytes:
    """`frames` as an endless animation."""
    shown = [_enlarged(frame) for frame in frames]
    durations = [80] * (len(shown) - 1) + [1500]  # ms
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "webp" else {}
    shown[0].save(buffer, kind, save_all=True, append_images=shown[1:], duration=durations, loop=0, **options)
    return buffer.getvalue()


def grid(images: Sequence[Image.Image], columns: int, labels: Sequence[str] | None = None) -> Image.Image:
    """The pictures row by row, small ones enlarged without smoothing, each over its label."""
    assert labels is None or len(labels) == len(images), "one label for each picture"
    shown = [_enlarged(image) for image in images]
    width, height = max(image.width for image in shown), max(image.height for image in shown)
    texts = ["\n".join(_wrapped(label, width)) for label in labels or []]
    under = max((text.count("\n") + 1 for text in texts), default=0) * (TEXT + 4)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + under + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(shown):
        x, y = GAP + i % columns * (width + GAP), GAP + i // columns * (height + under + GAP)
        sheet.paste(image, (x, y))
        if texts:
            draw.text((x, y + height + 2), texts[i], fill="black", font=ImageFont.load_default(TEXT))
    return sheet


def _enlarged(image: Image.Image) -> Image.Image:
    """The picture in RGB, each pixel made as many pixels as bring its longer side to `SHOWN`."""
    times = max(1, -(-SHOWN // max(image.size)))
    return image.convert("RGB").resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _wrapped(text: str, width: int) -> list[str]:
    """The words of `text` in lines of at most `width` pixels."""
    font = ImageFont.load_default(TEXT)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width or not lines[-1] else [*lines, word]
    return lines


def _create(directory: Path, stem: str, suffix: str, data: bytes) -> Path:
    """Write `data` to the first of stem, stem-2, stem-3 ... that no process has taken."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for n in itertools.count(1):
            path = directory / (f"{stem}{suffix}" if n == 1 else f"{stem}-{n}{suffix}")
            with contextlib.suppress(FileExistsError), open(path, "xb") as file:
                try:
                    file.write(data)
                    file.flush()
                except BaseException:
                    path.unlink()
                    raise
                return path
    except OSError as error:
        raise ValueError(f"cannot write pictures into {directory}: {error.strerror}") from None
    raise AssertionError("there is always a next name")
