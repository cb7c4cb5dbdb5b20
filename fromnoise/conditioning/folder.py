"""Where a frozen text encoder's files are, as transformers or diffusers saves them; their hash. Free of torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from fromnoise.core.files import file_hash

CONFIG, WEIGHTS = "config.json", ("model.safetensors", "model.safetensors.index.json")
MODEL = (CONFIG, *WEIGHTS, "model-*.safetensors")
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
HUB = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(/(?P<folder>text_encoder\w*))?(@(?P<revision>\w[\w./-]*))?")
WANTED = (
    "path in model.conditioner.encoders is a folder with config.json, model.safetensors and the tokenizer's files, or "
    "diffusers' text_encoder beside tokenizer, or the owner/name of one on the hub"
)


class EncoderFault(ValueError):
    """A text encoder that a model needs is not there, cannot be read, or is another one: the model itself is sound."""


class Encoder(NamedTuple):
    """The folders of an encoder: one and the same, unless diffusers saved it."""

    model: Path
    tokenizer: Path

    @property
    def files(self) -> list[Path]:
        """All that is read, by name; neither pickled weights nor anything else that lies there."""
        parts = (self.model, MODEL), (self.tokenizer, TOKENIZER)
        found = {path for folder, patterns in parts for one in patterns for path in folder.glob(one) if path.is_file()}
        return sorted(found, key=lambda path: path.name)

    @property
    def sha256(self) -> str:
        """sha256 (hex) over the names and contents of config, weights and tokenizer, wherever they lie: that of
        `sha256sum`'s lines."""
        lines = []
        for path in self.files:
            lines.append(f"{file_hash(path)}  {path.name}\n")
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def hub_name(path: str) -> re.Match[str] | None:
    """The parts of `path`, "owner/name", "owner/name/text_encoder_2" or one of them and "@revision", where it is no
    folder here and could be on the hub."""
    return None if Path(path).exists() else HUB.fullmatch(path)


def check(path: str) -> None:
    """Find that there is an encoder at `path`, or that it may be on the hub; nothing is fetched or read.

    Raises:
        EncoderFault: one line, where there is neither.
    """
    if not hub_name(path):
        complete(Path(path))


def locate(path: str) -> Encoder:
    """The encoder in the folder `path`, or the copy of what the hub has under that name, fetched if it is not here yet.

    Raises:
        EncoderFault: one line, where there is no encoder, or the hub does not give it.
    """
    parts = hub_name(path)
    if not parts:
        return complete(Path(path))
    name, folder, revision = parts["name"], parts["folder"], parts["revision"]
    patterns = [*MODEL, *TOKENIZER]
    if folder:
        tokenizer = _tokenizer_of(folder)
        patterns = [*(f"{folder}/{one}" for one in MODEL), *(f"{tokenizer}/{one}" for one in TOKENIZER)]
    try:
        import huggingface_hub

        copy = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns)
    except ImportError:
        raise EncoderFault(needs_library(path)) from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderFault(f"no folder at {path}, and the hub does not give it ({reason}); {WANTED}") from None
    return complete(Path(copy, folder or ""))


def needs_library(path: str) -> str:
    """What to do where transformers is not installed."""
    return f"the text encoder {path} needs transformers: pip install 'fromnoise[text]'"


def complete(folder: Path) -> Encoder:
    """The encoder in `folder`; EncoderFault where something of it is missing."""
    if not folder.is_dir():
        raise EncoderFault(f"no folder at {folder}; {WANTED}")
    if not (folder / CONFIG).is_file():
        raise EncoderFault(f"no file {folder / CONFIG}; {WANTED}")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise EncoderFault(f"no file {folder / WEIGHTS[0]} (pickled weights are never read); {WANTED}")
    for tokenizer in (folder, folder.parent / _tokenizer_of(folder.name)):
        if any(path.is_file() for one in TOKENIZER for path in tokenizer.glob(one)):
            return Encoder(folder, tokenizer)
    raise EncoderFault(f"no tokenizer in {folder}; {WANTED}")


def _tokenizer_of(name: str) -> str:
    """Name of the folder that diffusers gives the tokenizer of the encoder in the folder `name`."""
    return name.replace("text_encoder", "tokenizer")
