"""Every field of a config as a flag of the same name as its key in YAML, built from the config itself.

A config is held here as plain nested values, so that flags, YAML and Python meet in the same validation and a fault
is told in the same words. Of several kinds of config only the type in force has flags; `--some.key.type NAME` puts
another in force, with its own defaults. (A generator of parsers would import for longer than `--help` may take.)
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic_core import PydanticUndefined

from fromnoise.core.config import Config, Kind, Name, name_of

Record = TypeVar("Record", bound=Config)
MEANT = ("yes", "no", "on", "off", "1", "0")  # by whoever writes it after a switch: for true or false
METAVARS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Flag:
    """One field: its dotted key, its type without None, its default (None: not known before the run), its meaning."""

    key: str
    type: Any
    default: object
    required: bool
    help: str


@dataclass
class Group:
    """The flags of one config in the tree, and the other configs that could stand in its place."""

    key: str
    cls: type[Config]
    others: list[type[Config]]
    flags: list[Flag] = field(default_factory=list)


class Parser(argparse.ArgumentParser):
    """argparse, whose complaints are ValueErrors."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))


def parse(
    default: Record, args: Sequence[str], *, usage: str, description: str, epilog: str = ""
) -> tuple[Record, list[str]]:
    """`default` with the flags in `args` applied, and the words among them that are no flags nor their values.

    `--help` prints all flags and exits. What comes after a `--` alone is words, whatever it looks like.

    Raises:
        ValueError: one line, for an unknown flag (the nearest is named) or a value out of place.
        ValidationError: when the values do not make a config.
    """
    end = args.index("--") if "--" in args else len(args)
    args, after = args[:end], args[end + 1 :]
    values = default.model_dump()
    _switch(type(default), values, args)
    groups = list(_groups(type(default), values, "", []))
    flags = {flag.key: flag for group in groups for flag in group.flags}
    given, words = _parser(groups, usage, description, epilog).parse_known_args(_normal(args, flags))
    for word in words:
        if word.startswith("--") or re.fullmatch(r"-[A-Za-z]\S*", word):
            raise ValueError(_unknown(word, groups))
    for key in flags:
        if hasattr(given, key):
            _assign(values, key, getattr(given, key))
    return type(default).model_validate(values), [*words, *after]


def _switch(cls: type[Config], values: dict[str, Any], args: Sequence[str]) -> None:
    """Put in force the types that `--key.type NAME` asks for, outer ones first, each with its own defaults."""
    pairs = [arg[2:].split("=", 1) if "=" in arg else [arg[2:], *args[i + 1 : i + 2]] for i, arg in enumerate(args)]
    wanted = {pair[0].removesuffix(".type"): pair[1] for pair in pairs if pair[0].endswith(".type") and len(pair) == 2}
    for key in sorted(wanted, key=lambda key: key.count(".")):
        parts, node, owner = key.replace("-", "_").split("."), values, cls
        for part in parts[:-1]:
            options = _configs(owner, part)
            if not options:
                break
            owner = _in_force(options, node[part])
            node = node[part]
        for option in _configs(owner, parts[-1]):
            if "type" in option.model_fields and name_of(option) == wanted[key] != node[parts[-1]]["type"]:
                node[parts[-1]] = {"type": wanted[key]}


def _groups(cls: type[Config], values: dict[str, Any], key: str, others: list[type[Config]]) -> Iterator[Group]:
    """The config at `key` and, depth first, those within it."""
    group, within = Group(key, cls, others), []
    for name, info in cls.model_fields.items():
        path = f"{key}.{name}".lstrip(".")
        default = values.get(name, info.get_default(call_default_factory=False))
        options = _configs(cls, name)
        if options:
            held = default.model_dump() if isinstance(default, Config) else default
            values[name] = held
            chosen = _in_force(options, held)
            rest = [option for option in options if option is not chosen]
            within += list(_groups(chosen, held, path, rest))
            continue
        kind, about = info.annotation, info.description or ""
        if name == "type" and not others:
            continue  # there is nothing to choose
        if name == "type":
            kind = Literal[tuple(map(name_of, (cls, *others)))]
            about = " ".join(f"{name_of(option)}: {_summary(option)}" for option in others)
        elif NoneType in get_args(kind):
            kind = next(option for option in get_args(kind) if option is not NoneType)
        for note in (*info.metadata, *getattr(kind, "__metadata__", ())):
            if isinstance(note, Name):
                kind = Literal[tuple(note.table)]
        required = default is PydanticUndefined
        group.flags.append(Flag(path, kind, None if required else default, required, about))
    yield group
    yield from within


def _configs(cls: type[Config], name: str) -> list[type[Config]]:
    """The config classes that the field `name` may hold; none where it holds a plain value."""
    if name not in cls.model_fields:
        return []
    info = cls.model_fields[name]
    for note in info.metadata:
        if isinstance(note, Kind):
            return list(note.rows)
    alone = isinstance(info.annotation, type) and issubclass(info.annotation, Config)
    return [info.annotation] if alone else []  # type: ignore[list-item]


def _in_force(options: list[type[Config]], values: dict[str, Any]) -> type[Config]:
    if len(options) == 1:
        return options[0]
    return next(option for option in options if name_of(option) == values["type"])


def _parser(groups: list[Group], usage: str, description: str, epilog: str) -> Parser:
    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=110)

    parser = Parser(
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=formatter,
        allow_abbrev=False,
        add_help=False,
    )
    for group in groups:
        about = inspect.getdoc(group.cls) if group.key else None
        section = parser.add_argument_group(group.key or "options", about)
        if not group.key:
            section.add_argument("-h", "--help", action="help", help="Show this help and exit.")
        for flag in group.flags:
            note = "must be given" if flag.required else f"default: {_text(flag.default)}"
            text = flag.help if flag.default is None and not flag.required else f"{flag.help} ({note})"
            name, shape = f"--{flag.key}", _shape(flag.type)
            section.add_argument(
                name, dest=flag.key, default=argparse.SUPPRESS, help=text.strip().replace("%", "%%"), **shape
            )
    return parser


def _shape(kind: Any) -> dict[str, Any]:
    """How argparse reads and shows a value of this type; values stay text, which the config then reads."""
    if get_origin(kind) is Literal:
        return {"metavar": "{" + ",".join(map(str, get_args(kind))) + "}"}
    if kind is bool:
        return {"nargs": "?", "const": "true", "metavar": "true|false"}
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if inner[-1] is Ellipsis:
            return {"nargs": "*", "action": "extend", "metavar": METAVARS.get(_bare(inner[0]), "TEXT")}
        return {"nargs": len(inner), "metavar": tuple(METAVARS[_bare(part)] for part in inner)}
    return {"metavar": METAVARS[_bare(kind)]}


def _bare(kind: Any) -> Any:
    """The type itself, of an Annotated one."""
    return getattr(kind, "__origin__", kind)


def _normal(args: Sequence[str], flags: dict[str, Flag]) -> list[str]:
    """Flags spelt with underscores; a switch with no value after it is "=true", so that it swallows no other word.

    Raises:
        ValueError: one line, where the word after a switch is `MEANT` as its value, and is none.
    """
    normal = []
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
            known = flags.get(name[2:])
            follows = args[i + 1].lower() if i + 1 < len(args) else ""
            if known and known.type is bool and not equals and follows not in ("true", "false"):
                if follows in MEANT:
                    raise ValueError(f"{name} {args[i + 1]}: allowed: true|false, or other words before {name}")
                equals, value = "=", "true"
        normal.append(name + equals + value)
    return normal


def _unknown(arg: str, groups: list[Group]) -> str:
    """What to do about a flag that is not there."""
    key = arg.partition("=")[0]
    for group in groups:
        name = key.removeprefix(f"--{group.key}.")
        if owners := [name_of(other) for other in group.others if name in other.model_fields]:
            return f"{key} belongs to --{group.key}.type {' or '.join(owners)}, not to {name_of(group.cls)}"
    known = [f"--{flag.key}" for group in groups for flag in group.flags]
    alike = {flag: _alike(*(re.split("[-.]+", word)[-1] for word in (key, flag))) for flag in known}
    near = max(known, key=lambda flag: alike[flag] + _alike(key, flag))
    return f"unknown flag {key}; " + (f"nearest: {near}" if alike[near] >= 0.6 else "--help lists all flags")


def _alike(a: str, b: str) -> float:
    """How much of two words is the same, 0 to 1."""
    return difflib.SequenceMatcher(None, a, b).ratio()


def _summary(cls: type[Config]) -> str:
    """The first sentence about a config."""
    return " ".join((inspect.getdoc(cls) or "").split()).partition(". ")[0].rstrip(".") + "."


def _assign(values: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for part in parents:
        values = values[part]
    values[last] = value


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
