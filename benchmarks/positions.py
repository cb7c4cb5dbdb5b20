"""Five position codes trained alike, then measured and drawn at sizes that they were not trained on.

A larger size is a larger canvas: objects have as many pixels as in training, and more places to stand. Writes one
JSON record, one picture, and the table into docs/positions.md. The same command again goes on with what is trained.

Legend: H and W height and width.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from pydantic import PositiveInt
from rich.console import Console

from benchmarks.harness import describe_machine, run_main, training_of, write_record
from fromnoise.cli.flags import parse
from fromnoise.core.config import Config
from fromnoise.core.files import content_hash, write_bytes, write_text
from fromnoise.data.config import ShapesConfig
from fromnoise.data.scenes import Canvas
from fromnoise.data.shapes import ShapesData, pixels
from fromnoise.evaluation.judges.adherence import as_array, draw_prompts, shows
from fromnoise.evaluation.judges.detect import detect
from fromnoise.pipeline.load import weights
from fromnoise.pipeline.pipeline import Pipeline
from fromnoise.recipes.positions import CODES, positions
from fromnoise.training.loop import train
from fromnoise.training.run import Run
from fromnoise.training.validation import Validation

SIZES: dict[str, Canvas] = {
    "trained": (32, 32),
    "1.5x": (48, 48),
    "2x": (64, 64),
    "2:1 wide": (32, 64),
    "1:2 tall": (64, 32),
}
"""Canvases by what they are beside the one trained on."""
TASKS = ("single_object", "position")
PICTURED = ("a large red circle", "a black ring above a yellow star")
ROOT = Path(__file__).parent.parent
PAGE = Path("docs/positions.md")
BEGIN, END = "<!-- table: python -m benchmarks.positions -->", "<!-- end of table -->"
ENLARGED = 3  # pixels of the sheet for one of a picture
GAP, MARGIN, LETTERS = 6, 110, 18  # pixels between pictures, of the rows' names, and of a letter's height
USAGE = "python -m benchmarks.positions [--option VALUE ...]"
DESCRIPTION = """\
Trains the recipe positions with each of its codes, and measures each at the size trained on, at 1.5 and 2 times its
side, and at twice its width or height.
"""

Say = Callable[[str], None]


class Settings(Config):
    """How much is trained and measured."""

    steps: PositiveInt = 3500
    """Optimizer steps of each code."""
    batch: PositiveInt = 32
    """Pictures of an optimizer step."""
    width: PositiveInt = 128
    """Width of both streams."""
    depth: PositiveInt = 4
    """Blocks."""
    samples: PositiveInt = 200
    """Prompts of each task, of each code and size."""
    sampling_steps: PositiveInt = 24
    """Steps from noise to picture."""
    runs: Path = Path("runs/positions")
    """Directory of the run directories, one a code."""
    out: Path = ROOT
    """Directory in which benchmarks/results/positions.json, docs/images/positions.png and docs/positions.md are
    written."""


def run_of(code: str, settings: Settings) -> Run:
    """The recipe with `code`, as large and as long as asked for."""
    run = positions(code)
    backbone = run.model.backbone.model_copy(update={"width": settings.width, "depth": settings.depth})
    sampling = run.model.sampling.model_copy(update={"steps": settings.sampling_steps})
    model = run.model.model_copy(update={"backbone": backbone, "sampling": sampling})
    training = run.training.model_copy(update={"steps": settings.steps, "batch": settings.batch})
    return run.model_copy(update={"model": model, "training": training})


def measure(pipeline: Pipeline, canvas: Canvas, samples: int) -> dict[str, Any]:
    """Validation loss and adherence of a model on a canvas; `samples` prompts of each task.

    "objects": how many the checker finds, on average, where the prompt asks for one. Prompts and noise are the same
    for every model.
    """
    data = ShapesConfig()
    by_time = Validation(pipeline, ShapesData(data, 0, canvas)).by_time(pipeline, None)
    asked = draw_prompts(6 * samples, 0)
    prompts = [prompt for task in TASKS for prompt in asked[task]]
    drawn = pipeline([prompt.text for prompt in prompts], size=pixels(canvas, data.size))
    seen = [detect(as_array(picture), data.size) for picture in drawn]
    right = [shows(found, prompt) for found, prompt in zip(seen, prompts, strict=True)]
    return {
        "loss": statistics.fmean(by_time),
        "loss_by_time": by_time,
        "adherence": {task: statistics.fmean(right[k * samples : (k + 1) * samples]) for k, task in enumerate(TASKS)},
        "objects": statistics.fmean(len(found.things) for found in seen[:samples]),
    }


def sheet(drawn: Mapping[str, Mapping[str, Sequence[Image.Image]]]) -> Image.Image:
    """Pictures of each code (a row) at each size (a column), in one scale, with the names of both."""
    font = ImageFont.load_default(LETTERS)
    line = LETTERS + GAP
    rows = [list(sizes.values()) for sizes in drawn.values()]
    widths = [sum(ENLARGED * picture.width + GAP for picture in cell) + 2 * GAP for cell in rows[0]]
    height = max(ENLARGED * picture.height for cell in rows[0] for picture in cell) + 2 * GAP
    image = Image.new("RGB", (MARGIN + sum(widths), 3 * line + height * len(rows)), "white")
    pen = ImageDraw.Draw(image)
    said = "   ".join(f"{k + 1}. {prompt!r}, seed {k}" for k, prompt in enumerate(PICTURED))
    pen.text((MARGIN, GAP), f"Each cell: {said}", fill="black", font=font)
    starts = [MARGIN + sum(widths[:k]) for k in range(len(widths))]
    for x, (name, canvas) in zip(starts, SIZES.items(), strict=True):
        pen.text((x, GAP + line), heading(name, canvas), fill="black", font=font)
    for row, (code, cells) in enumerate(zip(drawn, rows, strict=True)):
        top = 3 * line + row * height
        pen.text((GAP, top), code, fill="black", font=font)
        for x, cell in zip(starts, cells, strict=True):
            for picture in cell:
                size = ENLARGED * picture.width, ENLARGED * picture.height
                image.paste(picture.resize(size, Image.Resampling.NEAREST), (x, top))
                pen.rectangle((x - 1, top - 1, x + size[0], top + size[1]), outline="silver")
                x += size[0] + GAP
    return image


def heading(name: str, canvas: Canvas) -> str:
    return f"{canvas[0]}x{canvas[1]}, {name}"


def table(record: Mapping[str, Any]) -> str:
    """What was measured, as a Markdown table and a line on how; from the record alone."""
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "validation loss": lambda found: f"{found['loss']:.4f}",
        "single object right": lambda found: f"{100 * found['adherence']['single_object']:.0f} %",
        "relation right": lambda found: f"{100 * found['adherence']['position']:.0f} %",
        "objects where one is asked for": lambda found: f"{found['objects']:.2f}",
    }
    lines = [
        "| | code | " + " | ".join(heading(name, canvas) for name, canvas in SIZES.items()) + " |",
        "|---|---|" + "---|" * len(SIZES),
    ]
    for what, shown in rows.items():
        for code, told in record["codes"].items():
            cells = " | ".join(shown(told["sizes"][name]) for name in SIZES)
            lines.append(f"| {what} | {code} | {cells} |")
    settings = record["settings"]
    error = 50 / settings["samples"] ** 0.5
    seconds = [told["training"]["seconds"] for told in record["codes"].values()]
    lines += [
        "",
        f"*Sizes are height x width in pixels. Each code: {settings['steps']:,} steps of {settings['batch']} pictures, "
        f"one seed, {min(seconds)} to {max(seconds)} s; {settings['samples']} prompts of each task at each size, "
        f"so that a share's standard error is at most {error:.1f} points. `{record['command']}`*",
    ]
    return "\n".join(lines)


def put(page: str, table: str) -> str:
    """`page` with `table` between its two marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def write(record: dict[str, Any], picture: Image.Image, out: Path) -> None:
    """The record, the picture and the page, in their places under `out`."""
    write_record(out / "benchmarks/results/positions.json", record)
    images, buffer = out / "docs/images", io.BytesIO()
    images.mkdir(parents=True, exist_ok=True)
    picture.save(buffer, "PNG")
    write_bytes(images / "positions.png", buffer.getvalue())
    write_text(out / PAGE, put((ROOT / PAGE).read_text(encoding="utf-8"), table(record)))


def main(args: Sequence[str]) -> None:
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    say: Say = Console(stderr=True).print
    codes: dict[str, Any] = {}
    drawn: dict[str, dict[str, list[Image.Image]]] = {}
    machine = describe_machine()
    for code in CODES:
        place = settings.runs / code
        pipeline = train(run_of(code, settings), place)
        codes[code] = {
            "backbone": CODES[code],
            "parameters": sum(p.numel() for p in pipeline.parameters()),
            "sha256": content_hash(weights(place)),
            "training": training_of(place) | {"choices": (place / "measured.yaml").read_text()},
            "sizes": {},
        }
        drawn[code] = {}
        for name, canvas in SIZES.items():
            found = codes[code]["sizes"][name] = measure(pipeline, canvas, settings.samples)
            drawn[code][name] = pipeline(PICTURED, size=pixels(canvas, ShapesConfig().size))
            say(f"{code} at {heading(name, canvas)}: loss {found['loss']:.4f}, right {found['adherence']}")
    record = {
        "command": " ".join(["python -m benchmarks.positions", *args]),
        "machine": machine,
        "settings": settings.model_dump(mode="json", exclude={"out", "runs"}),
        "codes": codes,
    }
    write(record, sheet(drawn), settings.out)
    print(table(record))


if __name__ == "__main__":
    run_main(main)
