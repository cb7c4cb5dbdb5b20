"""Settings that do nothing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from fromnoise.core.config import Config
from fromnoise.doctor.finding import Finding, judged
from fromnoise.doctor.subject import Subject, draw
from fromnoise.doctor.watch import fields_read
from fromnoise.training.run import Run, VAERun

NAMING = {"type", "recipe"}  # which config it is, read by pydantic; and where a run comes from, read by people


def unread_fields(subject: Subject) -> Finding:
    """Fields of the run that no code reads by name; and those of its model that were set, and that neither building nor
    training nor drawing reads."""
    run = subject.run
    assert run is not None
    unread = [
        f"{type(config).__name__}.{name}"
        for config in within(run)
        for name in type(config).model_fields
        if name not in read_by_name(config) | NAMING
    ]
    idle = [] if isinstance(run, VAERun) else idle_fields(subject, run)
    count = sum(len(type(config).model_fields) for config in within(run))
    faults = [*unread, *(name for name in idle if name not in unread)]
    first = f" ({', '.join(faults[:3])})" if faults else ""
    return judged(
        "config fields",
        not faults,
        f"{len(faults)} of {count} are never read{first}",
        "a setting that nothing reads does nothing, whatever is written there",
        "remove it, or read it where it should act",
    )


def within(config: Config) -> Iterator[Config]:
    """A config and all in it."""
    yield config
    for value in dict(config).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Config):
                yield from within(one)


@cache
def known(place: Path) -> frozenset[str]:
    """Every name that the Python file `place`, or any in the folder `place`, reads as an attribute."""
    files = place.rglob("*.py") if place.is_dir() else [place]
    trees = (ast.parse(one.read_text(encoding="utf-8")) for one in files)
    return frozenset(
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    )


def read_by_name(config: Config) -> frozenset[str]:
    """Every name that the package, and the module that defines the config, read as an attribute."""
    package, file = Path(__file__).parent.parent, sys.modules[type(config).__module__].__file__
    return known(package) | (known(Path(file)) if file and package not in Path(file).parents else frozenset())


def idle_fields(subject: Subject, run: Run) -> list[str]:
    """Fields of the run's model that differ from their default, and that nothing reads as it is built, trained a step
    and drawn from."""
    model = subject.model
    with fields_read() as seen:
        with torch.no_grad():
            model.loss(*draw(model, subject.batch))
        next(model.stream(subject.batch.captions[:1], labels=subject.batch.labels[:1].tolist(), precision="float32"))
    return [
        f"{type(config).__name__}.{name}"
        for config in within(run.model)
        for name, info in type(config).model_fields.items()
        if name not in NAMING
        and dict(config)[name] != info.default
        and (type(config), name) not in seen | subject.fields_read
    ]
