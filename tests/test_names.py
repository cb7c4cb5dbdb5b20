"""No branch on a name inside the mathematics: objects are chosen from tables at the edge, and then only called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fromnoise

PACKAGE = Path(fromnoise.__file__).parent
FILES = [file for place in ("diffusion", "models") for file in sorted((PACKAGE / place).glob("*.py"))]
ALLOWED = {"models/sd3.py:import_sd3", "models/sd3.py:export_sd3"}
"""Functions that go through the keys of another library's weights."""


def is_name(node: ast.AST) -> bool:
    """Whether this is text, or holds some where a name could be looked for."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(is_name, node.elts))
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def comparisons(source: str) -> Iterator[tuple[str, int]]:
    """The function, and the line in it, of every comparison with text."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Compare | ast.MatchValue):
                compared = [node.value] if isinstance(node, ast.MatchValue) else [node.left, *node.comparators]
                if any(map(is_name, compared)):
                    yield getattr(function, "name", "lambda"), node.lineno


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_name_is_compared(file: Path) -> None:
    place = f"{file.parent.name}/{file.name}"
    found = comparisons(file.read_text(encoding="utf-8"))
    branches = [f"{place}:{line} in {name}" for name, line in found if f"{place}:{name}" not in ALLOWED]
    assert not branches, "compares with a name: make it a row of a table"


@pytest.mark.parametrize(
    "branch",
    [
        "if target == 'eps': pass",
        "if 'eps' != target: pass",
        "if target in ('eps', 'v'): pass",
        "x = 1 if kind.startswith('a') and target in {'v'} else 2",
        "if key == f'{target}.weight': pass",
        "[k for k in kinds if k == 'v']",
        "return lambda k: k == 'v'",
        "match target:\n        case 'v' | 'eps': pass",
    ],
)
def test_every_way_to_compare_is_seen(branch: str) -> None:
    assert next(comparisons(f"def f(target, kind, kinds):\n    {branch}"))[0] == "f"


@pytest.mark.parametrize("plain", ["x = TABLE[target]", "if t == 0: pass", "raise ValueError('eps' + target)"])
def test_what_is_no_comparison_passes(plain: str) -> None:
    assert not list(comparisons(f"def f(target, t):\n    {plain}"))
