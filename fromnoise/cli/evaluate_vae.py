"""`fromnoise evaluate` of a VAE's run: how well it reconstructs pictures, and what its latents are like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from fromnoise.cli.flags import parse
from fromnoise.cli.progress import progress
from fromnoise.core.config import Config
from fromnoise.training.run import VAERun, read_run

USAGE = "fromnoise evaluate RUN [--option VALUE ...]"
DESCRIPTION = """\
Of a VAE's run: reconstructs pictures that were not trained on, from the mean of what the encoder says, and tells how
near they come (squared error of a pixel value in [-1, 1], PSNR, SSIM), the KL divergence, and mean, standard deviation
and kurtosis of latents, by channel.
"""


class Options(Config):
    """What to measure."""

    samples: PositiveInt = 1000
    """Held-out pictures, at most."""
    raw: bool = False
    """Measure the weights as trained, in place of their average."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    output: Literal["table", "json"] = "table"
    """How results are printed; --json is short for --output json."""


def find(args: Sequence[str]) -> str | None:
    """The first of `args` that is the directory of a VAE's run."""
    records = {arg: Path(arg) / "run.yaml" for arg in args if not arg.startswith("-")}
    return next((arg for arg, file in records.items() if file.is_file() and isinstance(read_run(file), VAERun)), None)


def main(args: Sequence[str]) -> None:
    options, words = parse(Options(), args, usage=USAGE, description=DESCRIPTION)
    if len(words) > 1:
        raise ValueError(f"{words[1]!r} is not expected here; usage: {USAGE}")
    directory = Path(words[0])
    run = read_run(directory / "run.yaml")
    assert isinstance(run, VAERun)
    from fromnoise.evaluation.reconstruction import evaluate

    with progress("reconstructing") as advance:
        results = evaluate(run, directory, n=options.samples, raw=options.raw, device=options.device, progress=advance)
    print(json.dumps(results) if options.output == "json" else table(results))


def table(results: dict[str, Any]) -> str:
    """What was measured, a line each."""
    lines = [
        f"{'pictures':<16}{results['pictures']:8}",
        f"{'squared error':<16}{results['squared_error']:8.4f} a pixel value in [-1, 1]",
        f"{'PSNR':<16}{results['psnr']:8.2f} dB",
        f"{'SSIM':<16}{results['ssim']:8.4f}",
        f"{'KL':<16}{results['kl']:8.3f} nats a latent value",
    ]
    for key in ("latent_mean", "latent_std", "latent_kurtosis"):
        lines.append(f"{key.replace('_', ' '):<16}" + "".join(f"{value:8.2f}" for value in results[key]))
    return "\n".join(lines)
