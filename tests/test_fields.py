"""No unread field: whatever a config asks for, some code reads."""

from __future__ import annotations

import ast
from pathlib import Path

import fromnoise
from fromnoise.core.config import Config
from fromnoise.training.fast import Choices
from fromnoise.training.run import Run

PACKAGE = Path(fromnoise.__file__).parent
NAMING = {"type", "recipe"}  # which config it is, read by pydantic; and where a run comes from, read by people


def attributes_read() -> set[str]:
    """Every name that the package reads as an attribute."""
    read = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    return read


def below(cls: type[Config]) -> set[type[Config]]:
    found = set()
    for child in cls.__subclasses__():
        found |= {child} | below(child)
    return found


def test_every_field_of_every_config_is_read() -> None:
    assert Run in below(Config) and Choices in below(Config)
    read = attributes_read()
    unread = {
        f"{cls.__name__}.{name}"
        for cls in below(Config)
        for name in cls.model_fields
        if cls.__module__.startswith("fromnoise.") and name not in read | NAMING
    }
    assert not unread
