"""Code of fromnoise that stands alone: what an object needs of the package, cut out into one file.

A folder for diffusers must open without fromnoise. What no class of diffusers can do is therefore carried as code: the
very definitions that trained and drew, so that nothing is written twice. Configs are cut down to plain objects, since
what checks them (pydantic) has done its work.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fromnoise.core.config import Config

PACKAGE = "fromnoise"


def standalone(root: Any, given: Mapping[str, Any], about: str) -> str:
    """The source of a module that has `root`, a class or function, and all that it needs, and imports no fromnoise.

    given: what names that the root's module leaves open mean here: classes, functions, or plain data. about: the
    module's docstring.

    Raises:
        ValueError: one line, when something has no name in its module, as a lambda has not, or when two things that are
            needed have one name.
    """
    cut = Cut(given)
    cut.take(root.__module__, name_of(root))
    imports = sorted(cut.imports, key=lambda line: (line.startswith("from "), line.lower()))
    header = f'"""{about}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(imports)
    return "\n\n\n".join([header, *cut.pieces]) + "\n"


class Cut:
    """Definitions in an order in which each finds what it needs, and the imports of them all."""

    def __init__(self, given: Mapping[str, Any]):
        self.given = dict(given)
        self.imports: set[str] = set()
        self.pieces: list[str] = []
        self.origin: dict[str, str] = {}  # the module of every name taken

    def take(self, module: str, name: str) -> None:
        """Take the definition of `name` in `module`, behind all that it needs."""
        there = self.origin.get(name)
        if there is not None and there != module:
            raise ValueError(f"cannot be written as one file: {name} is defined in {there} and in {module}")
        if there:
            return
        self.origin[name] = module
        node = definitions(module).get(name)
        if node is None:
            raise ValueError(f"{name} is not defined by a statement of {module}; write it as a function there")
        value = getattr(importlib.import_module(module), name, None)
        text = plain(value) if isinstance(value, type) and issubclass(value, Config) else _segment(module, node)
        for needed in _names(ast.parse(text)):
            self.need(module, needed)
        self.pieces.append(text)

    def need(self, module: str, name: str) -> None:
        """Take what `name` means in `module`, unless it is Python's own, or local to a function."""
        if name in self.given:
            self.bind(name, self.given.pop(name))
            return
        node = definitions(module).get(name)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            self.take(node.module or "", next(one.name for one in node.names if (one.asname or one.name) == name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            (one,) = (one for one in node.names if (one.asname or one.name.partition(".")[0]) == name)
            what = f"import {one.name} as {one.asname}" if one.asname else f"import {one.name}"
            self.imports.add(f"from {node.module} {what}" if isinstance(node, ast.ImportFrom) else what)
        elif node is not None:
            self.take(module, name)

    def bind(self, name: str, value: Any) -> None:
        """Let `name` mean `value`."""
        self.origin[name] = "given"
        if not callable(value):
            self.pieces.append(f"{name} = {value!r}")
            return
        self.take(value.__module__, name_of(value))
        if name != name_of(value):
            self.pieces.append(f"{name} = {name_of(value)}")


def name_of(value: Any) -> str:
    """The name of a class or function in its module; ValueError, one line, where it has none."""
    name: str = value.__qualname__
    if not name.isidentifier():
        raise ValueError(f"{name} of {value.__module__} has no name in its module; write it as a function there")
    return name


def plain(config: type[Config]) -> str:
    """A config's class as a plain one: settings as attributes, and what it can be asked."""
    kept = dict[str, str]()
    asked = ["__call__", *(name for name, value in config.__dict__.items() if isinstance(value, property))]
    while asked:
        name = asked.pop(0)
        value = config.__dict__.get(name)
        function = value.fget if isinstance(value, property) else value
        if name not in kept and inspect.isfunction(function) and not getattr(value, "__isabstractmethod__", False):
            kept[name] = inspect.getsource(function).rstrip()
            asked += re.findall(r"\bself\.(\w+)", kept[name])
    head = [
        f"class {config.__name__}:",
        f'    """{(inspect.getdoc(config) or "").splitlines()[0]}"""',
        "",
        "    def __init__(self, **settings):",
        "        self.__dict__.update(settings)",
    ]
    return "\n\n".join(["\n".join(head), *kept.values()])


@cache
def definitions(module: str) -> dict[str, ast.stmt]:
    """The statements of a module, and of every `if` in it, by the names that they give a meaning."""
    return dict(_defined(ast.parse(_source(module)).body))


def _defined(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, ast.If):
            yield from _defined(node.body)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((one.asname or one.name.partition(".")[0], node) for one in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
            yield from ((name.id, node) for name in names if isinstance(name.ctx, ast.Store))


@cache
def _source(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


def _segment(module: str, node: ast.stmt) -> str:
    """The text of a statement, decorators included."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return "\n".join(_source(module).splitlines()[first - 1 : node.end_lineno])


def _names(tree: ast.AST) -> list[str]:
    """All names that are read, in order, each once."""
    read = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return list(dict.fromkeys(node.id for node in sorted(read, key=lambda node: (node.lineno, node.col_offset))))
