"""Published files: where they lie on this machine, that they are what was published, and how to get them."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.request import urlopen

from fromnoise.core.files import write_bytes

CHUNK = 2**20  # bytes read between two looks at the clock
PATIENCE = 30.0  # seconds without an answer after which an address is given up
TOLD_EVERY = 2.0  # seconds


def cache(name: str) -> Path:
    """Where the data set `name` is kept when the user names no place: ~/.cache/fromnoise/NAME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fromnoise" / name


def folder(path: Path | None, name: str) -> Path:
    """The directory of the data set `name`: `path`, else $FROMNOISE_DATA/NAME where there is one, else the cache.

    Raises:
        ValueError: one line, when `path` is no directory.
    """
    if path is not None:
        if not path.is_dir():
            raise ValueError(f"data folder {path} {'is not a directory' if path.exists() else 'does not exist'}")
        return path
    root = os.environ.get("FROMNOISE_DATA")
    return Path(root) / name if root and (Path(root) / name).is_dir() else cache(name)


def read(path: Path, md5: str | None) -> bytes:
    """The bytes of a file whose published checksum is `md5` (None: none was published).

    Raises:
        ValueError: one line, when it cannot be read or is not what was published.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if md5 and (found := _md5(data)) != md5:
        again = "start again to download it" if path.is_relative_to(cache("")) else "put the published file there"
        what = f"md5 {found} over {len(data):,} bytes, published {md5}"
        raise ValueError(f"{path} is damaged or cut short: {what}; delete it and {again}")
    return data


def fetch(addresses: Sequence[str], path: Path, md5: str, report: Callable[[str], None]) -> None:
    """Download a file to `path`, whole and as published or not at all, from the first address that has it.

    `report` is told how far it is, a line every few seconds.

    Raises:
        ValueError: one line: what each address answered, and what to do; or that `path` cannot be written.
    """
    refused = []
    for address in addresses:
        try:
            data = _download(address, report)
        except (OSError, http.client.HTTPException) as error:  # no network, no such file, a broken connection
            refused.append(f"{address}: {' '.join(str(error).split()) or type(error).__name__}")
            continue
        if (found := _md5(data)) != md5:
            refused.append(f"{address}: md5 {found} over {len(data):,} bytes, published {md5}")
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot make {path.parent}: {error.strerror}") from None
        write_bytes(path, data)
        return
    raise ValueError(
        f"cannot download {path.name} ({'; '.join(refused)}); get it elsewhere and put it in {path.parent}"
    )


def _download(address: str, report: Callable[[str], None]) -> bytes:
    data, told = bytearray(), time.monotonic()
    with urlopen(address, timeout=PATIENCE) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        size = f" of {total / 2**20:,.1f}" if total else ""
        report(f"downloading {address}" + (f", {total / 2**20:,.1f} MiB" if total else ""))
        while chunk := answer.read(CHUNK):
            data += chunk
            if time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                report(f"downloaded {len(data) / 2**20:,.1f}{size} MiB")
    return bytes(data)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
