"""Names and captions as text that UTF-8 can keep."""

from __future__ import annotations


def shown(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are written as \\udcff."""
    return name.encode("utf-8", "backslashreplace").decode()


def cleaned(caption: str) -> str:
    """A caption as it is kept: stripped, without NUL characters; half a surrogate pair, which JSON can hold, is "?"."""
    return caption.replace("\0", "").encode("utf-8", "replace").decode().strip()


def not_utf8(error: UnicodeDecodeError) -> str:
    """What to tell of a file whose bytes are no UTF-8."""
    return f"is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
