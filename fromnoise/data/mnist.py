"""MNIST: 70,000 handwritten digits of 28 x 28 grey pixels (LeCun, Cortes, Burges 1998). Legend: N pictures, S side."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fromnoise.data.config import MNISTConfig
from fromnoise.data.labelled import Labelled, LabelledData
from fromnoise.data.published import cache, fetch, folder, read
from fromnoise.data.report import to_stderr

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""As published with the files."""

VALIDATION = 5000  # the last of the 60,000 training digits, so that the test digits stay for the end
NATIVE = 28
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a handwritten {word}",
    "a handwritten {digit}",
    "the digit {digit}",
    "the number {word}",
    "a picture of the digit {word}",
    "{word}",
    "{digit}",
)


def mnist(config: MNISTConfig, seed: int, report: Callable[[str], None] = to_stderr) -> LabelledData:
    """The data set, from the four published files; what the cache lacks is downloaded.

    Raises:
        ValueError: one line, when a file is missing, cannot be had, or is not what was published.
    """
    place = folder(config.path, "mnist")
    for name, md5 in MD5.items():
        if not (place / name).is_file():
            if place != cache("mnist"):
                raise ValueError(f"data folder {place} holds no {name}; MNIST needs {', '.join(MD5)}")
            fetch([mirror + name for mirror in MIRRORS], place / name, md5, report)
    images, labels = read_pictures(place, "train", config.size)
    report(f"MNIST from {place}: {len(labels) - VALIDATION:,} digits to train on, {VALIDATION:,} to validate")
    return LabelledData(
        train=Labelled(images[:-VALIDATION], labels[:-VALIDATION]),
        validation=Labelled(images[-VALIDATION:], labels[-VALIDATION:]),
        test=lambda: read_pictures(place, "t10k", config.size),
        said=[[template.format(word=word, digit=i) for template in TEMPLATES] for i, word in enumerate(WORDS)],
        seed=seed,
        flip=False,  # a mirrored digit is none
    )


def read_pictures(place: Path, split: str, size: int) -> Labelled:
    """The digits of "train" or "t10k", laid in the middle of a black square of side S; errors as in `mnist`."""
    images = read_idx(place / f"{split}-images-idx3-ubyte.gz")  # (N, 28, 28)
    border = (size - NATIVE) // 2
    padded = np.zeros((len(images), 1, size, size), np.uint8)  # (N, 1, S, S)
    padded[:, 0, border : border + NATIVE, border : border + NATIVE] = images
    return Labelled(padded, read_idx(place / f"{split}-labels-idx1-ubyte.gz"))


def read_idx(path: Path) -> np.ndarray:
    """The array in a file of MNIST's own format: 0, 0, 8 for bytes, the number of axes, their lengths, the data."""
    data = gzip.decompress(read(path, MD5[path.name]))
    axes = data[3]
    shape = np.frombuffer(data, ">u4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
