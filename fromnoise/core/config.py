"""The base of every config: frozen, strict, documented by attribute docstrings; and its record in YAML."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Of chance: what a generator of torch's takes."""


class Config(BaseModel):
    """A frozen record of settings that refuses unknown keys and names the nearest known one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: object) -> object:
        # Pydantic's own error does not say which keys there are; here the class is still known.
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    context = {"key": str(key), "hint": hint(str(key), cls.model_fields)}
                    raise PydanticCustomError("unknown_key", "no such key; {hint}", context)
        return data


Record = TypeVar("Record", bound=Config)


@dataclass(frozen=True, eq=False)
class Name:
    """For `Annotated[str, Name(TABLE)]`: a key of `table`, looked up each time, so that a row added later counts."""

    table: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.known, core_schema.str_schema())

    def known(self, name: str) -> str:
        """`name`, if it is in the table."""
        if name not in self.table:
            raise ValueError(f"given {name!r}; {hint(name, self.table)}")
        return name


@dataclass(frozen=True, eq=False)
class Kind:
    """For `Annotated[Base, Kind(ROWS)]`: a config of one of the classes in `rows`, told apart by their `type`.

    Unlike pydantic's unions it reads `rows` anew each time, so that a row added later counts.
    """

    rows: Sequence[type[Config]]

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def read(self, given: object) -> Config:
        """The config that is `given`, or that its mapping describes."""
        if isinstance(given, tuple(self.rows)):
            return given
        if not isinstance(given, dict):
            raise ValueError(f"given {_shown(given)}; allowed: a mapping with a type")
        if "type" not in given:
            raise ValidationError.from_exception_data("", [{"type": "missing", "loc": ("type",), "input": given}])
        for row in self.rows:
            if name_of(row) == given["type"]:
                return row.model_validate(given)
        allowed = hint(str(given["type"]), map(name_of, self.rows))
        unknown = PydanticCustomError("unknown_type", "{hint}", {"hint": allowed})
        raise ValidationError.from_exception_data("", [{"type": unknown, "loc": ("type",), "input": given["type"]}])


def name_of(kind: type[Config]) -> str:
    """What `type` says of a config of this class."""
    return kind.model_fields["type"].default


def hint(given: str, allowed: Iterable[str]) -> str:
    """What is allowed in place of `given`, and the nearest of it: "allowed: a, b; nearest: a"."""
    names = list(allowed)
    near = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    listed = f"allowed: {', '.join(names)}"
    return f"{listed}; nearest: {near[0]}" if near else listed


def read_yaml(cls: type[Record], path: str | Path) -> Record:
    """The `cls` recorded in the YAML file `path`.

    Raises:
        ValueError: one line naming the file and what in it is wrong.
    """
    try:
        return cls.model_validate(read_mapping(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping in the YAML file `path`; errors as in `read_yaml`."""
    import yaml

    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_loader())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"cannot read {path}: {reason}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a mapping of keys to values, but holds {_shown(data)}")
    return data


def write_yaml(config: Config, path: str | os.PathLike[str]) -> None:
    """Record every field of `config`, defaults too, in the YAML file `path` (atomic)."""
    from fromnoise.core.files import write_text

    write_text(path, as_yaml(config))


def as_yaml(config: Config) -> str:
    """Every field of `config`, defaults too, as YAML."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def explain(error: ValidationError) -> str:
    """One line: where the first fault is, what was given, what is allowed, and how many other faults there are."""
    details = error.errors(include_url=False)
    line = _line(details[0], [str(key) for key in details[0]["loc"]])
    others = len(details) - 1
    return f"{line} (and {others} more)" if others else line


def _line(detail: ErrorDetails, keys: list[str]) -> str:
    """One fault as "key: given x; what is allowed"."""
    kind, given, context = detail["type"], _shown(detail["input"]), detail.get("ctx", {})
    if kind == "unknown_key":
        return f"{'.'.join([*keys, context['key']])}: {detail['msg']}"
    if kind == "missing":
        return f"{'.'.join(keys)}: must be given"
    where = ".".join(keys)
    if kind == "unknown_type":
        return f"{where}: given {given}; {context['hint']}"
    if kind == "literal_error":
        words = re.findall("'([^']*)'", context["expected"])
        return f"{where}: given {given}; {hint(str(detail['input']), words)}"
    message = detail["msg"].removeprefix("Value error, ")
    if kind in ("value_error", "assertion_error"):  # a validator of ours, whose words say what was given
        return f"{where}: {message}" if where else message
    return f"{where}: given {given}; {message[0].lower()}{message[1:]}"


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _loader() -> type:
    """PyYAML's safe loader, less YAML 1.1's words for booleans: `compile: on` is text, and so is `no`."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    resolvers = {first: list(pairs) for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()}
    for first, pairs in resolvers.items():
        resolvers[first] = [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool"]
    Loader.yaml_implicit_resolvers = resolvers
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
    return Loader
