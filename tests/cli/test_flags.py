"""Flags: every field has one, choices between configs can be switched, and what is wrong is told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from fromnoise.cli.flags import parse
from fromnoise.core.config import Config, Kind, Name
from fromnoise.training.run import AdamW, Muon, Run, Training


class Point(Config):
    """A point."""

    type: Literal["point"] = "point"
    at: tuple[float, float] = (0.0, 0.0)
    """Where."""


class Circle(Config):
    """A circle. Round."""

    type: Literal["circle"] = "circle"
    around: Annotated[Point, Field()] = Point()
    radius: float
    """How far; 100 % is all."""


COLORS = {"red": 1, "green": 2}


class Pen(Config):
    """What it is drawn with."""

    width: float = 1.0
    """How wide."""


class Options(Config):
    """What there is to choose."""

    shape: Annotated[Point | Circle, Kind([Point, Circle])] = Point()
    color: Annotated[str, Name(COLORS)] = "red"
    """Which colour."""
    pen: Pen = Pen()
    line: Annotated[str, Name(COLORS)] | None = None
    """Which colour around it."""
    count: int | None = None
    """How many."""
    loud: bool = False
    """Whether to shout."""
    names: tuple[str, ...] = ()
    """Who."""
    out_dir: Path = Path("out")
    """Where to."""


def read(*args: str) -> tuple[Options, list[str]]:
    return parse(Options(), args, usage="x", description="y")


def test_nothing_given_changes_nothing() -> None:
    assert read() == (Options(), [])


def test_values_take_the_type_of_their_field() -> None:
    options, words = read("--count", "3", "--names", "a", "b c", "--out_dir", "d", "--shape.at", "-1", "2e1", "--loud")
    assert options == Options(count=3, names=("a", "b c"), out_dir=Path("d"), shape=Point(at=(-1, 20)), loud=True)
    assert words == []


def test_hyphens_and_equals_signs_are_the_same_flags() -> None:
    assert read("--out-dir=a-b")[0] == read("--out_dir", "a-b")[0] == Options(out_dir=Path("a-b"))


def test_a_switch_swallows_no_word() -> None:
    assert read("one", "--loud", "two") == (Options(loud=True), ["one", "two"])
    assert read("--loud", "false", "two") == (Options(loud=False), ["two"])
    assert read("--loud=true")[0].loud


def test_two_hyphens_end_the_flags() -> None:
    assert read("a", "--loud", "--", "--odd", "-n", "--", "false") == (
        Options(loud=True),
        ["a", "--odd", "-n", "--", "false"],
    )
    assert read("--names", "a", "--", "b") == (Options(names=("a",)), ["b"])


def test_a_word_may_begin_with_a_hyphen() -> None:
    assert read("-3", "-a red circle-", "-")[1] == ["-3", "-a red circle-", "-"]


def test_words_may_stand_anywhere() -> None:
    assert read("a", "--count", "2", "b", "--loud", "c")[1] == ["a", "b", "c"]


def test_a_type_is_switched_wherever_it_stands() -> None:
    want = Options(shape=Circle(radius=2, around=Point(at=(1, 1))))
    assert read("--shape.type", "circle", "--shape.radius", "2", "--shape.around.at", "1", "1")[0] == want
    assert read("--shape.radius=2", "--shape.around.at", "1", "1", "--shape.type=circle")[0] == want


def test_a_type_given_again_keeps_what_there_is() -> None:
    default = Options(shape=Point(at=(3, 4)))
    assert parse(default, ["--shape.type", "point"], usage="", description="")[0] == default


def test_a_switched_optimizer_starts_from_its_own_defaults() -> None:
    run = Run(training=Training(optimizer=Muon(lr=0.5)))
    switched, _ = parse(run, ["--training.optimizer.type", "adamw"], usage="", description="")
    assert switched.training.optimizer == AdamW()
    kept, _ = parse(run, ["--training.optimizer.momentum", "0.9"], usage="", description="")
    assert kept.training.optimizer == Muon(lr=0.5, momentum=0.9)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--cuont", "3"], "unknown flag --cuont; nearest: --count"),
        (["--zzzzzz", "3"], "unknown flag --zzzzzz; --help lists all flags"),
        (["--at", "3"], "unknown flag --at; nearest: --shape.at"),
        (["--shape.radius", "3"], "--shape.radius belongs to --shape.type circle, not to point"),
        (["--pen.radiuss", "3"], "unknown flag --pen.radiuss; --help lists all flags"),
        (["--pen.type", "quill"], "unknown flag --pen.type; nearest: --shape.type"),
        (["--pen.type=quill"], "unknown flag --pen.type; nearest: --shape.type"),
        (["a", "-q", "4"], "unknown flag -q; --help lists all flags"),
        (["-count=4"], "unknown flag -count; nearest: --count"),
        (["--loud", "No"], "--loud No: allowed: true|false, or other words before --loud"),
        (["a", "--loud", "1"], "--loud 1: allowed: true|false, or other words before --loud"),
        (["--count"], "--count: expected one argument"),
        (["--shape.at", "1"], "--shape.at: expected 2 arguments"),
    ],
)
def test_a_flag_out_of_place_is_one_line(args: list[str], line: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read(*args)
    assert str(caught.value) == line


@pytest.mark.parametrize("args", [["--count", "many"], ["--shape.type", "blob"], ["--shape.type", "circle"]])
def test_values_out_of_place_do_not_validate(args: list[str]) -> None:
    with pytest.raises(ValidationError):
        read(*args)


def leaves(cls: type[Config], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Every field of a config with its default types in force, and its docstring."""
    default = cls()
    for name, info in cls.model_fields.items():
        held = getattr(default, name)
        if isinstance(held, Config):
            yield from leaves(type(held), f"{prefix}{name}.")
        else:
            yield prefix + name, info.description


def test_help_lists_every_field_of_a_run_with_its_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(Run(), ["--help"], usage="usage of it", description="what it does")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert "usage of it" in text
    assert "what it does" in text
    for key, meaning in leaves(Run):
        assert f"--{key} " in text
        assert " ".join((meaning or "").split()) in words
    assert "--training.steps INT Optimizer steps planned. (default: 2000)" in words


def test_help_shows_the_flags_of_the_type_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--shape.type", "circle", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--shape.radius NUMBER How far; 100 % is all. (must be given)" in text
    assert "--shape.type {circle,point} point: A point. (default: circle)" in text


def test_help_lists_the_names_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--color {red,green} Which colour. (default: red)" in text
    assert "--line {red,green} Which colour around it." in text
