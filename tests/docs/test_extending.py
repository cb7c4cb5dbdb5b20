"""docs/extending.md as a reader follows it: its files written, its rows added, its commands run, at toy size."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

import fromnoise
from fromnoise.cli.main import main
from fromnoise.diffusion.path import PATHS, Linear
from fromnoise.diffusion.predict import predictor
from fromnoise.diffusion.sample import SAMPLERS, ddim
from fromnoise.diffusion.target import TARGETS, check, det
from fromnoise.diffusion.times import schedule
from fromnoise.models.config import BACKBONES
from fromnoise.training import validation

PACKAGE = Path(fromnoise.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(# \w+\.py\n.*?)^```$", PAGE, re.M | re.S)
FILES = {block.partition("\n")[0].removeprefix("# "): block for block in BLOCKS}
COMMANDS = [shlex.split(line)[2:] for line in re.findall(r"^python mine\.py .*$", PAGE, re.M)]
MNIST = Path(os.environ.get("FROMNOISE_DATA", "nowhere")) / "mnist"
TOY = (
    "--model.backbone.width 32 --model.backbone.depth 1 --model.sampling.steps 4 --training.steps 40"
    " --training.batch 16 --training.warmup 5 --training.validate_every 40 --training.preview_every 40"
    " --training.device cpu --training.precision float32 --training.compile off"
).split()


def fingerprint() -> str:
    """Of every file of the package."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's files, written and imported; the tables are as before afterwards."""
    place = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (place / name).write_text(text, encoding="utf-8")
    before = list(PATHS), list(BACKBONES)
    with ExitStack() as stack:
        stack.enter_context(patch.dict(TARGETS))
        stack.enter_context(patch.dict(SAMPLERS))
        stack.enter_context(patch("sys.path", [str(place), *sys.path]))
        importlib.import_module("mine")
        yield place
    PATHS[:], BACKBONES[:] = before
    for name in FILES:
        del sys.modules[name.removesuffix(".py")]


def test_the_page_holds_what_it_says() -> None:
    assert list(FILES) == ["edm.py", "unit.py", "plms.py", "convmixer.py", "mine.py"]
    assert [command[0] for command in COMMANDS] == ["train", "sample", "train"]
    assert len(FILES["edm.py"].splitlines()) == 4  # one line, and how to get there


@pytest.mark.skipif(not MNIST.is_dir(), reason="$FROMNOISE_DATA/mnist is absent")
def test_all_of_it_learns_and_draws(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(validation, "PER_BIN", 5)
    monkeypatch.setattr(validation, "COUNT", 5 * validation.BINS)
    before = fingerprint()
    train, sample, _ = COMMANDS
    assert main([*train, *TOY]) == 0
    told = [json.loads(line) for line in Path("runs/mine/metrics.jsonl").read_text().splitlines()]
    first, *_, last = [line["validation_raw"] for line in told if "validation_raw" in line]
    assert last < 0.8 * first
    assert main(sample) == 0
    for name in ("7_0", "3_1"):
        with Image.open(f"pictures/{name}.png") as picture:
            assert picture.size == (28, 28)
            assert np.asarray(picture).std() > 1
            assert picture.text["sampler"] == "plms"  # type: ignore[attr-defined]
    model = fromnoise.load("runs/mine", device="cpu")
    assert all(bool(step.x.isfinite().all()) for step in model.stream(["7", "3"]))
    assert fingerprint() == before, "no file of fromnoise changes"

    capsys.readouterr()
    row = BACKBONES.pop()
    try:
        assert main(sample) == 2  # whoever has not the rows is told so
    finally:
        BACKBONES.append(row)
    assert "backbone.type: given 'convmixer'; allowed: mmdit, dit" in capsys.readouterr().err


def test_help_lists_what_was_added(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(COMMANDS[2])
    text = capsys.readouterr().out
    for words in ("convmixer", "Side of a square patch, in pixels.", "flow,edm}", "sde,plms}", "unit_linear"):
        assert words in text


def test_the_target_is_edms(rows: Path) -> None:
    coefs = Linear()(torch.linspace(0.01, 0.99, 9, dtype=torch.float64))
    s = coefs.sigma / coefs.alpha
    skip, out = 0.25 / (s**2 + 0.25), 0.5 * s / (s**2 + 0.25).sqrt()  # Karras et al. 2022, Table 1
    a, b = TARGETS["edm"](coefs)
    torch.testing.assert_close(a, (1 - skip) / out)
    torch.testing.assert_close(b, -skip * s / out)
    torch.testing.assert_close(det(coefs, TARGETS["edm"]), -2 * (coefs.sigma**2 + coefs.alpha**2 / 4).sqrt())
    for path in PATHS:
        check(path(), TARGETS["edm"], 0, 1)  # type: ignore[call-arg]  # every path has defaults


def test_the_path_has_unit_variance_and_the_linear_paths_ratio(rows: Path) -> None:
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    path, linear = PATHS[-1](), Linear()(t)  # type: ignore[call-arg]
    coefs = path(t)
    torch.testing.assert_close(coefs.alpha**2 + coefs.sigma**2, torch.ones_like(t))
    torch.testing.assert_close(coefs.alpha / coefs.sigma, linear.alpha / linear.sigma)
    for i, slope in ((0, coefs.d_alpha), (1, coefs.d_sigma)):
        torch.testing.assert_close(slope, (path(t + 1e-6)[i] - path(t - 1e-6)[i]) / 2e-6, rtol=1e-6, atol=1e-8)


def test_the_sampler_is_of_second_order(rows: Path) -> None:
    """On a Gaussian of standard deviation 1/2 the ODE's end is known: noise / 2 (on the cosine path, exactly)."""
    path = Linear()

    def best(x, t, cond):  # the best answer for such data
        c = path(t)
        x0 = c.alpha * 0.25 / (c.alpha**2 * 0.25 + c.sigma**2) * x[:, 0]
        return x0[:, None]

    predict = predictor(best, None, path=path, target=TARGETS["x0"])  # type: ignore[arg-type]
    noise = torch.ones(1, 1, dtype=torch.float64)

    def error(sampler, steps: int) -> float:
        *_, last = sampler(predict, noise, schedule(steps).double(), path, lambda: noise)
        return abs(float(last.x) - 0.5)

    assert error(SAMPLERS["plms"], 40) < error(ddim(0.0), 40) / 3
    assert error(SAMPLERS["plms"], 20) / error(SAMPLERS["plms"], 40) > 3
