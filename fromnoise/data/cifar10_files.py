"""The files that CIFAR-10 comes in, each to records of 3,073 bytes: the class, then the red, green and blue planes.

Legend: N pictures.
"""

from __future__ import annotations

import io
import pickletools
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fromnoise.data.published import read

MD5 = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Of the archives, as on the data set's page; of the python batches, as torchvision checks them."""

BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS
BATCH = 10_000  # records of a file
INTEGERS = frozenset(("INT", "BININT", "BININT1", "BININT2"))
LISTING = frozenset(("EMPTY_LIST", "MARK", "APPEND", "APPENDS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "FRAME"))


def read_batches(place: Path, split: str) -> np.ndarray | None:
    """Records (N, 3073) of "train" or "test" from binary or python batches, loose or in their archive; None without.

    Raises:
        ValueError: one line that names the file which is missing, damaged or cut short.
    """
    names = BATCHES[split]
    for inside in (place, place / "cifar-10-batches-bin", place / "cifar-10-batches-py"):
        for suffix, parse in ((".bin", binary_batch), ("", python_batch)):
            paths = [inside / f"{name}{suffix}" for name in names]
            if any(path.is_file() for path in paths):
                return np.concatenate([parse(read(path, MD5.get(path.name)), str(path)) for path in paths])
    for archive, inner, suffix, parse in (
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin", ".bin", binary_batch),
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", "", python_batch),
    ):
        if (place / archive).is_file():
            data = read(place / archive, MD5[archive])
            members = [f"{inner}/{name}{suffix}" for name in names]
            return np.concatenate([parse(held, f"{place / archive}: {name}") for name, held in unpack(data, members)])
    return None


def unpack(data: bytes, members: list[str]) -> list[tuple[str, bytes]]:
    """The named files of a .tar.gz, read in memory: nothing is written where an archive's names would have it."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for name in members:
            file = archive.extractfile(name)
            assert file is not None, f"{name} is no file"
            found.append((name, file.read()))
    return found


def binary_batch(data: bytes, where: str) -> np.ndarray:
    """Records (N, 3073) of a binary batch, which is nothing but records."""
    if len(data) != BATCH * RECORD:
        expected = f"{BATCH:,} records of {RECORD:,} are {BATCH * RECORD:,}"
        found = f"{len(data):,} bytes, crc32 {zlib.crc32(data):08x}"
        raise ValueError(f"{where} is damaged or cut short: {found}; {expected}; get the published file again")
    return np.frombuffer(data, np.uint8).reshape(-1, RECORD)


def python_batch(data: bytes, where: str) -> np.ndarray:
    """Records (N, 3073) of a python batch, which is a pickle, without unpickling it.

    To unpickle is to run what a file says. Here its instructions are only listed (`pickletools.genops` executes none):
    the pixels are its longest string, the labels are the integers of the list that follows the word "labels".

    Raises:
        ValueError: one line, when it is no pickle, or does not hold a label and 3,072 bytes for every picture.
    """
    labels: list[int] = []
    pixels: str | bytes = b""
    within = False
    try:
        for instruction, value, _ in pickletools.genops(data):
            if isinstance(value, str | bytes) and len(value) > len(pixels):
                pixels = value
            if within and instruction.name in INTEGERS:
                labels.append(value)  # type: ignore[arg-type]  # what these instructions carry are integers
            else:
                within = value == "labels" or (within and instruction.name in LISTING)
    except Exception as error:  # a damaged file can make it raise almost anything
        raise ValueError(f"{where} is not a pickle: {' '.join(str(error).split())}") from None
    planes = pixels.encode("latin-1", "replace") if isinstance(pixels, str) else pixels
    if not labels or len(planes) != len(labels) * PIXELS or not 0 <= min(labels) <= max(labels) <= 9:
        raise ValueError(
            f"{where} is no python batch of CIFAR-10: {len(labels):,} labels, {len(planes):,} bytes of pixels"
        )
    rows = np.frombuffer(planes, np.uint8).reshape(-1, PIXELS)
    return np.concatenate([np.array(labels, np.uint8)[:, None], rows], axis=1)


def find_parquet(place: Path, split: str) -> list[Path]:
    """The shards of a split, named as on the hub (`uoft-cs/cifar10`), in order."""
    return sorted(place.rglob(f"{split}-*.parquet"))


def read_parquet(shards: list[Path], report: Callable[[str], None]) -> np.ndarray:
    """Records (N, 3073) of parquet files with columns img (a struct with bytes) and label, or as datasets writes them.

    Raises:
        ValueError: one line: pyarrow is not installed, or the file that is damaged or holds something else.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ValueError("CIFAR-10 in parquet files needs pyarrow: pip install 'fromnoise[parquet]'") from None
    parts = []
    for shard in shards:
        try:
            table = parquet.read_table(shard, columns=["img", "label"])
            pictures = table["img"].combine_chunks().field("bytes").to_pylist()
            labels = table["label"].to_numpy()
        except (OSError, ArrowException, KeyError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{shard} is damaged, cut short or not CIFAR-10: {said}; get it again") from None
        report(f"decoding {len(pictures):,} pictures of {shard.name}")
        parts.append(decode(pictures, labels, str(shard)))
    return np.concatenate(parts)


def decode(pictures: list[bytes], labels: np.ndarray, where: str) -> np.ndarray:
    """Records (N, 3073) of encoded pictures; some 10,000 a second."""
    records = np.empty((len(pictures), RECORD), np.uint8)
    records[:, 0] = labels
    try:
        # One thread: so small a picture is decoded while Python is held, and eight threads took twice as long.
        for row, encoded in enumerate(pictures):
            with Image.open(io.BytesIO(encoded)) as image:
                records[row, 1:] = np.asarray(image.convert("RGB")).transpose(2, 0, 1).reshape(-1)
    except Exception as error:  # a damaged picture can make Pillow's decoders raise almost anything
        raise ValueError(f"{where} holds a picture that cannot be read: {' '.join(str(error).split())}") from None
    return records
