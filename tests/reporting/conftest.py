"""A run that trains in a second, as `fromnoise train` leaves it; and pages as readers and browsers see them."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fromnoise.cli.main import main

TOY = (
    "--model.backbone.patch 8 --model.backbone.width 16 --model.backbone.head_width 8 --model.backbone.depth 1"
    " --model.conditioner.vocabulary 280 --model.conditioner.width 16 --model.conditioner.depth 0"
    " --model.conditioner.heads 1 --model.sampling.steps 2 --training.batch 4 --training.device cpu"
    " --training.precision float32 --training.compile off --training.warmup 2 --training.log_every 1"
    " --training.validate_every 4 --training.preview_every 4 --training.save_every 4"
).split()
TOY_VAE = (
    "--data.type shapes --model.vae.width 8 --model.vae.multipliers 1 2 --model.vae.layers 1 --model.vae.groups 4"
    " --training.steps 4 --training.batch 4 --training.device cpu --training.precision float32 --training.compile off"
    " --training.log_every 1 --training.validate_every 2 --training.preview_every 2"
).split()


def trained(place: Path, *flags: str) -> Path:
    """The recipe shapes at toy size, trained for 8 steps in `place`."""
    command = ["train", "shapes", "--directory", str(place), *TOY, "--training.steps", "8", *flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fromnoise.training.drawing.CAPTIONS", 200)  # a vocabulary of many takes longer than the training
        assert main(command) == 0
    return place


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run; tests that write copy it."""
    return trained(tmp_path_factory.mktemp("runs") / "toy")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another seed and a stronger guidance."""
    return trained(tmp_path_factory.mktemp("runs") / "other", "--training.seed", "1", "--model.sampling.guidance", "5")


@pytest.fixture(scope="session")
def toy_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a VAE's run."""
    place = tmp_path_factory.mktemp("runs") / "toy-vae"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fromnoise.training.reconstruction.VALIDATED", 16)
        patch.setattr("fromnoise.training.reconstruction.MEASURED", 64)
        assert main(["train", "vae-small", "--directory", str(place), *TOY_VAE]) == 0
    return place


@pytest.fixture(scope="session")
def toy_flags() -> list[str]:
    """Flags that make the recipe shapes train in a second."""
    return list[str](TOY)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    " --disable-sync --disable-default-apps --disable-extensions --metrics-recording-only --no-pings"
    " --disable-domain-reliability --disable-client-side-phishing-detection --disable-breakpad"
    " --virtual-time-budget=4000"
).split()
ITS_MAKERS = re.compile(r"\b(google|googleapis|gvt1)\.com\b")  # whom Chromium calls by itself, whatever it shows


@contextmanager
def counting_proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy that refuses whatever it is asked for, and the list of what that was."""
    asked: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            if not ITS_MAKERS.search(self.path):
                asked.append(self.path)
            self.send_error(403)

        do_GET = do_POST = do_HEAD = do_CONNECT = refuse

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Browse = Callable[[str, int], tuple[int, int, int, list[str]]]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """`open_page` in this test's directory; skips the test where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    return lambda text, width: open_page(text, width, tmp_path)


def open_page(text: str, width: int, place: Path) -> tuple[int, int, int, list[str]]:
    """A page opened in a browser, in a frame `width` pixels wide: how wide and how high its content is, how many of its
    pictures cannot be shown, and every address that the browser asked the network for."""
    assert CHROMIUM
    frame = place / f"frame-{width}.html"
    measure = (
        "const f = document.getElementById('f'); f.onload = () => { const d = f.contentDocument;"
        " const broken = [...d.images].filter(i => !i.naturalWidth).length; const e = d.documentElement;"
        " document.getElementById('told').textContent = `${e.scrollWidth} ${e.scrollHeight} ${broken}`; }"
    )
    frame.write_text(
        f"<!DOCTYPE html><p id=told></p><iframe id=f style='width:{width}px;height:800px;border:0'></iframe>"
        f'<script>{measure}; f.srcdoc = document.getElementById("page").textContent;</script>'.replace(
            "<script>", f"<textarea id=page hidden>{escape(text)}</textarea><script>", 1
        ),
        encoding="utf-8",
    )
    with counting_proxy() as (address, asked):
        command = [CHROMIUM, *QUIET, f"--user-data-dir={place / 'profile'}", f"--proxy-server={address}"]
        done = subprocess.run(
            [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
    told = done.stdout.partition('<p id="told">')[2].partition("</p>")[0].split()
    wide, high, broken = map(int, told)
    return wide, high, broken, asked
