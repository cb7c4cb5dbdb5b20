"""A folder of small runs, and one studio in a process of its own for all that is done in a browser."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from fromnoise.conditioning.config import LabelConfig, TextConfig
from fromnoise.core.config import write_yaml
from fromnoise.data.config import MNISTConfig
from fromnoise.models.config import DiTConfig, MMDiTConfig
from fromnoise.pipeline.config import ModelConfig, Sampling
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.training.run import Run, Training
from tests.conftest import stirred

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    " --disable-sync --disable-default-apps --disable-extensions --disable-breakpad"
).split()
WAITING = 2  # how many may wait in the studio of the tests
WAIT = 60.0  # seconds until a busy machine has done something
CAPTIONS = ["a red circle", "a blue square", "two green triangles"]
TEXT = ModelConfig(
    backbone=MMDiTConfig(patch=8, width=16, depth=1, head_width=8),
    conditioner=TextConfig(vocabulary=280, width=16, depth=1, heads=1),
    sampling=Sampling(steps=3, guidance=2),
)
DIGITS = ModelConfig(
    backbone=DiTConfig(patch=7, width=16, depth=1, head_width=8),
    conditioner=LabelConfig(classes=10, width=16),
    sampling=Sampling(steps=2, guidance=2),
    channels=1,
    size=28,
)


def make_run(place: Path, model: ModelConfig, seed: int, **more: Any) -> Path:
    """A run's directory with weights in its checkpoint that are far from zero."""
    checkpoint = place / "checkpoints" / "step-00000005"
    checkpoint.mkdir(parents=True)
    pipeline = stirred(Pipeline.build(model, CAPTIONS, seed), 0.2, seed)
    for name in ("model", "ema"):
        pipeline.save(checkpoint / f"{name}.safetensors", {})
    write_yaml(Run(model=model, **more), place / "run.yaml")
    return place


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of texts and one of classes."""
    folder = tmp_path / "runs"
    make_run(folder / "one", TEXT, 0, recipe="shapes")
    make_run(folder / "other", TEXT, 1)
    make_run(folder / "digits", DIGITS, 0, recipe="dit", data=MNISTConfig())
    return folder


class Studio:
    """`fromnoise studio` in a process of its own. Its runs and pictures are in a folder of its own, which is neither
    within the working directory nor within that of temporary files."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Serve, and wait until the page is there."""
        options = ["--port", str(self.port), "--queue", str(WAITING), "--runs", "../runs", "--out", "../pictures"]
        command = [sys.executable, "-m", "fromnoise.cli.main", "studio", *options]
        here = self.folder / "here"
        here.mkdir(exist_ok=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=here, env=os.environ | {"TMPDIR": str(here)}, stdout=log, stderr=log
            )
        until = time.monotonic() + WAIT
        while time.monotonic() < until and self.process.poll() is None:
            try:
                urlopen(self.address).close()
                return
            except (URLError, ConnectionError):
                time.sleep(0.1)
        pytest.fail(f"the studio did not come up: {self.log()}")

    def stop(self) -> int:
        """End it as `kill` does; its exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)

    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One studio for all tests in a browser."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    folder = tmp_path_factory.mktemp("studio")
    make_run(folder / "runs" / "one", TEXT, 0, recipe="shapes")
    make_run(folder / "runs" / "other", TEXT, 1)
    quick = {"batch": 2, "precision": "float32", "compile": "off", "device": "cpu", "log_every": 5}
    every = {"save_every": 10**6, "validate_every": 10**6, "preview_every": 10**6, "previews": ("a red circle",)}
    long = Run(model=TEXT, training=Training.model_validate({"steps": 10**6} | quick | every))
    (folder / "runs" / "long").mkdir()
    write_yaml(long, folder / "runs" / "long" / "run.yaml")
    running = Studio(folder)
    running.start()
    yield running
    running.stop()
    assert "Traceback" not in running.log()


@pytest.fixture(scope="session")
def browser(studio: Studio) -> Iterator[Any]:
    """A real browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def page(studio: Studio, browser: Any) -> Iterator[Any]:
    """The studio's page, just opened; nothing on it may ask anybody else for anything, or break."""
    opened = browser.new_page(viewport={"width": 1000, "height": 900})
    opened.set_default_timeout(1000 * WAIT)
    asked: list[str] = []
    broken: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: broken.append(str(error)))
    opened.goto(studio.address)
    opened.wait_for_selector("#draw-prompt textarea")
    yield opened
    opened.close()
    assert asked and all(url.startswith((studio.address, "data:", "blob:")) for url in asked)
    assert not broken
