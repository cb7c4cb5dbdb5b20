"""A frozen text encoder's folder as transformers saves it: where it is, what belongs to it, its hash. Free of torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

CONFIG, WEIGHTS = "config.json", ("model.safetensors", "model.safetensors.index.json")
FILES = (  # all that is read of a folder, and so all that is hashed; pickled weights are not among it
    CONFIG,
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)


class EncoderFault(ValueError):
    """A text encoder that a model needs is not there, cannot be read, or is another one: the model itself is sound."""


def is_hub_name(path: str) -> bool:
    """Whether `path` is no folder here, and could be a repository on the hub: "owner/name"."""
    return not Path(path).exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path) is not None


def check(path: str) -> None:
    """Find that there is an encoder at `path`, or that it may be on the hub; nothing is fetched or read.

    Raises:
        EncoderFault: one line, where there is neither.
    """
    if not is_hub_name(path):
        complete(Path(path))


def locate(path: str) -> Path:
    """The folder at `path`, or the copy of what the hub has under that name, fetched if it is not here yet.

    Raises:
        EncoderFault: one line, where there is no encoder, or the hub does not give it.
    """
    if not is_hub_name(path):
        return complete(Path(path))
    try:
        import huggingface_hub

        folder = huggingface_hub.snapshot_download(path, allow_patterns=list(FILES))
    except ImportError:
        raise EncoderFault(needs_library(path)) from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderFault(f"no folder at {path}, and the hub does not give it ({reason}); {WANTED}") from None
    return complete(Path(folder))


WANTED = (
    "path in model.conditioner.encoders is a folder as transformers saves it, with config.json, model.safetensors and "
    "the tokenizer's files, or the owner/name of one on the hub"
)


def needs_library(path: str) -> str:
    """What to do where transformers is not installed."""
    return f"the text encoder {path} needs transformers: pip install 'fromnoise[text]'"


def complete(folder: Path) -> Path:
    """`folder`, in which there is an encoder; EncoderFault where something of it is missing."""
    if not folder.is_dir():
        raise EncoderFault(f"no folder at {folder}; {WANTED}")
    if not (folder / CONFIG).is_file():
        raise EncoderFault(f"no file {folder / CONFIG}; {WANTED}")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise EncoderFault(f"no file {folder / WEIGHTS[0]} (pickled weights are never read); {WANTED}")
    if not any(path.name not in ("config.json", *WEIGHTS) for path in files_of(folder)):
        raise EncoderFault(f"no tokenizer in {folder}; {WANTED}")
    return folder


def files_of(folder: Path) -> list[Path]:
    """All files of an encoder in `folder`, by name."""
    return sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})


def sha256_of(folder: Path) -> str:
    """sha256 (hex) over the names and contents of config, weights and tokenizer: as `sha256sum` has its own lines."""
    lines = []
    for path in files_of(folder):
        with open(path, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
