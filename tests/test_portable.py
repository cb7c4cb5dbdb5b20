"""What Windows and macOS would not bear: files read in whatever encoding is theirs, and calls that only POSIX has."""

from __future__ import annotations

import ast
import ctypes
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

import fromnoise
from fromnoise.core import files
from fromnoise.core.needs import MemoryStatus, physical_memory

PACKAGE = Path(fromnoise.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), PACKAGE.parent / "examples" / "one_file.py"])
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
CALLS = {"fork", "getloadavg", "getuid", "killpg", "mkfifo", "sched_getaffinity", "setsid", "sysconf", "wait4", "uname"}
SIGNALS = {"SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "setitimer"}
CLOSED = {"rename", "link"}  # os.replace alone takes the place of a file on every system
ENDS = {"terminate", "SO_REUSEADDR"}  # on Windows the one ends a process unsaved, the other takes another's port
TEXT = {"read_text", "write_text"}  # of pathlib; fromnoise's own write_text always writes UTF-8


def foreign(source: str) -> Iterator[tuple[int, str]]:
    """The line, and what is in it that another system has not, or reads otherwise."""
    tree = ast.parse(source)
    guarded = {id(inner) for node in ast.walk(tree) if is_guard(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (fault := unread(node)):
            yield node.lineno, fault
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name) for name in names if name in POSIX)
        if isinstance(node, ast.Attribute) and node.attr in ENDS:
            yield node.lineno, node.attr
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of = {"os": CALLS | CLOSED, "signal": SIGNALS}.get(node.value.id, set())
            if node.attr in of:
                yield node.lineno, f"{node.value.id}.{node.attr}"
        if isinstance(node, ast.Constant) and node.value in ("/tmp", "/dev/null"):
            yield node.lineno, str(node.value)


def is_guard(node: ast.AST) -> bool:
    """Whether what is inside runs only where the system has it: asked for by name, or given up quietly."""
    if isinstance(node, ast.If | ast.IfExp):
        asked = ast.unparse(node.test)
        return any(word in asked for word in ("hasattr", "sys.platform", "os.name", ".is_file()"))
    return isinstance(node, ast.Try) and any("ImportError" in ast.unparse(handler) for handler in node.handlers)


def unread(call: ast.Call) -> str:
    """What is wrong with a call that opens text and names no encoding; "" for any other."""
    named = {keyword.arg for keyword in call.keywords}
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [arg.value for arg in given if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    binary = any(set(mode) <= set("rwaxb+t") and "b" in mode for mode in modes)
    if isinstance(call.func, ast.Name) and call.func.id == "open" and not binary and "encoding" not in named:
        return "open() without an encoding"
    if isinstance(call.func, ast.Attribute) and call.func.attr in TEXT and "encoding" not in named:
        return f".{call.func.attr}() without an encoding"
    if "text" in named and "encoding" not in named:
        return "text of a process without an encoding"
    return ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE.parent).as_posix())
def test_every_system_bears_it(file: Path) -> None:
    assert not list(foreign(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "line",
    [
        "import resource",
        "from fcntl import flock",
        "os.sched_getaffinity(0)",
        "os.rename(a, b)",
        "signal.signal(signal.SIGHUP, f)",
        "open(p)",
        "open(p, 'w')",
        "Path(p).read_text()",
        "p.write_text(s)",
        "subprocess.run(c, text=True)",
        "Path('/tmp')",
        "process.terminate()",
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)",
        "if a:\n    import pwd",
        "if hasattr(os, 'sysconf'):\n    open(p)",
    ],
)
def test_what_is_foreign_is_seen(line: str) -> None:
    assert list(foreign(line))


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'rb')",
        "open(p, mode='xb')",
        "open(p, encoding='utf-8')",
        "p.read_text(encoding='utf-8')",
        "write_text(p, s)",
        "n = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1",
        "try:\n    import resource\nexcept ImportError:\n    pass",
        "os.replace(a, b)",
    ],
)
def test_what_is_guarded_passes(line: str) -> None:
    assert not list(foreign(line))


def test_files_are_written_where_no_directory_can_be_opened(tmp_path: Path) -> None:
    with patch.object(files.os, "name", "nt"), patch.object(files.os, "open", side_effect=PermissionError):
        files.sync_directory(tmp_path)


def test_a_path_is_seen_by_either_separator() -> None:
    assert files.names_path("runs/a")
    assert not files.names_path("a red circle")
    with patch.object(files.os, "sep", "\\"), patch.object(files.os, "altsep", "/"):
        assert files.names_path("runs/a") and files.names_path("runs\\a")
        assert not files.names_path("a red circle")


def test_memory_is_told() -> None:
    assert 2**28 < physical_memory() < 2**50
    assert ctypes.sizeof(MemoryStatus) == 64  # as Windows documents MEMORYSTATUSEX
    assert MemoryStatus.total.offset == 8  # type: ignore[attr-defined]
