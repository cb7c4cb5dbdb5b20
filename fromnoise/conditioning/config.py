"""The conditioners by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from fromnoise.conditioning.folder import check
from fromnoise.core.config import Config, hint
from fromnoise.core.files import elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from fromnoise.conditioning.frozen import FrozenTextConditioner
    from fromnoise.conditioning.label import LabelConditioner
    from fromnoise.conditioning.none import NoConditioner
    from fromnoise.conditioning.text import TextConditioner


class ConditionerConfig(Config, ABC):
    """What is said of a picture, as a condition."""

    type: str

    @abstractmethod
    def build(self, captions: Iterable[str]) -> nn.Module:
        """A fresh conditioner; what it has to learn of texts it learns from `captions`."""

    @abstractmethod
    def restore(self, state: dict[str, str]) -> nn.Module:
        """The conditioner that a checkpoint's `state` was taken from, without its weights."""

    def check(self) -> None:
        """Find that all that it needs is there, before anything slow is done; ValueError, one line, where it is not."""

    def moved(self, run: Path) -> ConditionerConfig:
        """This, with what is gone from its path read where the directory `run`, of its own run, leads (`elsewhere`)."""
        return self

    def notice(self, dropout: float) -> str:
        """What a user is told of it as a training begins that drops a prompt with chance `dropout`, or ""."""
        return ""


class NoConditionConfig(ConditionerConfig):
    """Unconditional: every picture gets the same learned token."""

    type: Literal["none"] = "none"
    width: PositiveInt = 192
    """Width of the token."""

    def build(self, captions: Iterable[str]) -> NoConditioner:
        from fromnoise.conditioning.none import NoConditioner

        return NoConditioner(self)

    def restore(self, state: dict[str, str]) -> NoConditioner:
        from fromnoise.conditioning.none import NoConditioner

        return NoConditioner(self)


class LabelConfig(ConditionerConfig):
    """One learned token per class."""

    type: Literal["label"] = "label"
    classes: PositiveInt = 10
    """Number of classes."""
    width: PositiveInt = 192
    """Width of a class token."""
    names: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers (derived from the data)."""

    def find(self, prompt: str) -> int | None:
        """The class that a prompt asks for by its number, as in "7", or by its name; None where there is none."""
        asked = prompt.strip()
        if asked.isdecimal() and int(asked) < self.classes:
            return int(asked)
        return self.names.index(asked) if asked in self.names else None

    def number(self, prompt: str) -> int:
        """As `find`.

        Raises:
            ValueError: one line, when the prompt asks for no class.
        """
        found = self.find(prompt)
        if found is None:
            allowed = hint(prompt, [f"a number, 0 to {self.classes - 1}", *self.names])
            raise ValueError(f"prompt {prompt!r} is no class of this model; {allowed}")
        return found

    def build(self, captions: Iterable[str]) -> LabelConditioner:
        from fromnoise.conditioning.label import LabelConditioner

        return LabelConditioner(self)

    def restore(self, state: dict[str, str]) -> LabelConditioner:
        from fromnoise.conditioning.label import LabelConditioner

        return LabelConditioner(self)


class TextConfig(ConditionerConfig):
    """A text encoder trained along with the backbone: BPE learned from the captions, then a small transformer."""

    type: Literal["text"] = "text"
    vocabulary: Annotated[int, Field(ge=260)] = 1024
    """Most BPE tokens to learn (256 bytes and 2 special tokens are always there)."""
    length: PositiveInt = 32
    """Most tokens of a caption the model reads, start token included; what is longer is cut, and the share cut told."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 192
    """Width of the encoder and of its tokens."""
    depth: Annotated[int, Field(ge=0)] = 2
    """Transformer layers."""
    heads: PositiveInt = 3
    """Attention heads of a layer."""

    def build(self, captions: Iterable[str]) -> TextConditioner:
        """A fresh encoder whose BPE is learned from `captions`."""
        from fromnoise.conditioning.text import TextConditioner

        return TextConditioner.learn(self, captions)

    def restore(self, state: dict[str, str]) -> TextConditioner:
        """The encoder that a checkpoint's `state` was taken from, without its weights."""
        from fromnoise.conditioning.text import TextConditioner

        return TextConditioner.restore(self, state)


class EncoderConfig(Config):
    """One frozen encoder. On a command line: its path, or "path,length=77,layer=penultimate,dropout=0.4"."""

    path: str
    """Folder as transformers saves it (or diffusers: text_encoder beside tokenizer), or its owner/name[@revision] on
    the hub; only safetensors are read."""
    length: PositiveInt = 77
    """Most tokens of a caption that it reads, special ones included; what is longer is cut, and the share cut told."""
    layer: Literal["last", "penultimate"] = "last"
    """Whose hidden state is read: the last layer's after the final norm, or the last but one's as it is (SDXL, SD3)."""
    padding: Literal["masked", "read"] = "masked"
    """Whether the backbone sees the padding up to `length`: it does not, or it does (Stable Diffusion)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance in training that it reads nothing, apart from the others' and on top of model.objective.dropout."""

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        path, *settings = given.split(",")
        pairs = [setting.partition("=") for setting in settings]
        return {"path": path.removeprefix("path=")} | {key.strip(): value for key, _, value in pairs}


class FrozenTextConfig(ConditionerConfig):
    """Frozen text encoders (CLIP, T5, any AutoModel of transformers), side by side, each under a trained linear map."""

    type: Literal["frozen_text"] = "frozen_text"
    encoders: Annotated[tuple[EncoderConfig, ...], Field(min_length=1)]
    """The encoders, one or more: PATH or PATH,length=77,layer=penultimate,dropout=0.4 each."""
    width: PositiveInt = 192
    """Width of the tokens that the backbone is given."""

    def check(self) -> None:
        """Find that there is a folder for each, or that the hub may have it; EncoderFault, one line, where not."""
        for encoder in self.encoders:
            check(encoder.path)

    def moved(self, run: Path) -> FrozenTextConfig:
        """This, with encoders found in `run`, or from above it, where there is none at their path."""
        found = [(one, elsewhere(Path(one.path), run)) for one in self.encoders]
        encoders = [one.model_copy(update={"path": str(place)}) if place else one for one, place in found]
        return self.model_copy(update={"encoders": tuple(encoders)})

    def notice(self, dropout: float) -> str:
        """How often each encoder reads nothing, and how often all do at once."""
        rates = [encoder.dropout for encoder in self.encoders]
        alone = ", ".join(f"{encoder.path} {rate:.3g}" for encoder, rate in zip(self.encoders, rates, strict=True))
        joint = dropout + (1 - dropout) * math.prod(rates)
        return f"text dropped: whole prompts {dropout:.3g}, and apart from that {alone}; nothing is read of {joint:.3%}"

    def build(self, captions: Iterable[str]) -> FrozenTextConditioner:
        """A fresh conditioner; EncoderFault, one line, where an encoder cannot be read."""
        from fromnoise.conditioning.frozen import FrozenTextConditioner

        return FrozenTextConditioner(self)

    def restore(self, state: dict[str, str]) -> FrozenTextConditioner:
        """The conditioner that `state` was taken from; EncoderFault, one line, where an encoder is another one."""
        from fromnoise.conditioning.frozen import FrozenTextConditioner

        return FrozenTextConditioner.restore(self, state)


CONDITIONERS: list[type[ConditionerConfig]] = [NoConditionConfig, LabelConfig, TextConfig, FrozenTextConfig]
