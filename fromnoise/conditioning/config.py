"""The conditioners by name: one row each. Kept free of torch, so that `--help` stays quick."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

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


CONDITIONERS: list[type[ConditionerConfig]] = [NoConditionConfig, LabelConfig, TextConfig]
