"""Every `fromnoise ...` that README, docs and recipes tell a reader to type: the commands, recipes and flags exist."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import fromnoise
from fromnoise.cli import (
    buckets,
    compare,
    diff,
    doctor,
    draw,
    evaluate,
    export,
    import_,
    plan,
    plot,
    prepare,
    push,
    sample,
    sweep,
    train,
)
from fromnoise.cli.flags import parse
from fromnoise.cli.main import COMMANDS
from fromnoise.evaluation.comparison.asked import SweepAsked
from fromnoise.recipes import RECIPES, VAE_RECIPES

ROOT = Path(fromnoise.__file__).parent.parent
EVERY = {**RECIPES, **VAE_RECIPES}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def written() -> Iterator[tuple[str, str]]:
    """Where a command stands, and the command: lines of code blocks, words in backticks, commands of recipes."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S):
            yield from ((page.name, line) for line in block.splitlines() if line.startswith("fromnoise "))
        yield from ((page.name, said) for said in re.findall(r"`(fromnoise [^`]+)`", text))
    for name, recipe in EVERY.items():
        text = inspect.getdoc(recipe) or ""
        yield from ((f"recipe {name}", line) for line in re.findall(r"^ *Command: +(fromnoise .*)$", text, re.M))


def words_of(line: str) -> list[str]:
    """The words of a command; a comment after it, and an ellipsis in it, are the reader's."""
    return [word for word in shlex.split(line, comments=True)[1:] if word != "..."]


def read(line: str) -> None:
    """Let the command line parse a command, and run nothing."""
    command, *args = words_of(line)
    assert command in COMMANDS
    if not args:
        return
    if "--help" in args:
        args.remove("--help")
    if command == "train" and args[0] in EVERY:
        _, words = parse(train.start(args[0])[0], args[1:], usage="", description="")
        assert not words
    elif command == "train" and is_run(args[0]):
        _, words = parse(train.Started(), args[1:], usage="", description="")
        assert not words
    elif command == "doctor" and args[0] in (*EVERY, "cifar10"):
        args = [arg for arg in args if arg != "--json"]
        begun, _ = doctor.data_at(args[0]) or train.start(args[0])
        _, words = parse(begun, args[1:], usage="", description="")
        assert not words
    elif command == "doctor":
        assert is_run(args[0]) or args[0].startswith(("prepared/", "RECIPE"))
    elif command == "plan" and args[0] in EVERY:
        args = ["--output=json" if arg == "--json" else arg for arg in args]
        begun = plan.PlannedVAE if args[0] in VAE_RECIPES else plan.Planned
        _, words = parse(begun(**dict(EVERY[args[0]]())), args[1:], usage="", description="")
        assert not words
    elif command == "plan" and is_run(args[0]):
        _, words = parse(
            plan.Planned(), ["--output=json" if arg == "--json" else arg for arg in args[1:]], usage="", description=""
        )
        assert not words
    elif command == "sample":
        _, words = parse(sample.Options(), args, usage="", description="")
        assert words
    elif command == "evaluate":
        args = ["--output=json" if arg == "--json" else arg for arg in args]
        _, words = parse(evaluate.Options(), args, usage="", description="")
        assert len(words) <= 1
    elif command == "buckets":
        _, words = parse(buckets.Options(), args, usage="", description="")
        assert len(words) == 1
    elif command == "prepare":
        _, words = parse(prepare.Options(), args, usage="", description="")
        assert len(words) == 1
    elif command == "compare":
        _, words = parse(compare.Options(), args, usage="", description="")
        assert words
        assert all(is_run(word) for word in words)
    elif command == "export":
        _, words = parse(export.Options(), args, usage="", description="")
        assert len(words) == 1 or (len(words) == 2 and is_run(words[0]))
    elif command == "import":
        options, words = parse(import_.Options(), args, usage="", description="")
        assert len(words) == 1
        assert options.out and is_run(str(options.out))
    elif command == "push":
        _, words = parse(push.Options(), args, usage="", description="")
        assert len(words) == 2
        assert is_run(words[0])
    elif command == "draw":
        _, words = parse(draw.Options(), args, usage="", description="")
        assert len(words) == 1 and is_run(words[0])
    elif command == "sweep":
        fields = "--field" in args
        options, words = parse(sweep.FieldsOptions() if fields else SweepAsked(), args, usage="", description="")
        assert len(words) == 1 and is_run(words[0])
        for field in getattr(options, "field", ()):
            sweep.field_of(field)
    elif command == "diff":
        _, words = parse(diff.Options(), args, usage="", description="")
        assert len(words) == 2 and all(is_run(word) for word in words)
    elif command == "report":
        assert len(args) == 1 and is_run(args[0])
    elif command == "plot":
        options, words = parse(plot.Options(), args, usage="", description="")
        assert plot.chosen(options.kinds) or not options.kinds
        assert all(is_run(word) for word in words)
    else:
        assert args[0] in ("RECIPE", "RUN.yaml"), f"{args[0]} is no recipe"


def is_run(word: str) -> bool:
    """Whether a word names a recipe, or stands for a run."""
    return word in RECIPES or word.startswith("runs/")


@pytest.mark.parametrize(("place", "line"), list(written()))
def test_a_command_that_is_told_can_be_typed(place: str, line: str) -> None:
    read(line)


def test_commands_are_found_everywhere() -> None:
    places = [place for place, _ in written()]
    assert {"README.md", "emoji.md", *(f"recipe {name}" for name in EVERY)} <= set(places)
    assert places.count("README.md") >= 8


@pytest.mark.parametrize(
    "line",
    [
        "fromnoise trian shapes",
        "fromnoise train shaps",
        "fromnoise train shapes --steps 3",
        "fromnoise train shapes extra",
        "fromnoise sample --cuont 2 a",
    ],
)
def test_a_command_that_is_none_is_seen(line: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        read(line)
