"""What a second process brings, measured here; and what many GPUs would, by `fromnoise plan`. One JSON record."""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which torch's optimizers import: part of the program, not of what a model adds to it
from pydantic import PositiveInt
from rich.console import Console

from benchmarks.harness import describe_machine, put, run_main, write_record
from fromnoise.autoencoder.autoencoder import Autoencoder
from fromnoise.autoencoder.config import AutoencoderConfig
from fromnoise.cli.flags import parse
from fromnoise.conditioning.config import EncoderConfig, FrozenTextConfig
from fromnoise.core.config import Config
from fromnoise.core.device import keep_freed_memory
from fromnoise.core.flops import count_flops
from fromnoise.core.line import quiet
from fromnoise.core.needs import memory_of, used_memory
from fromnoise.core.ranks import joined
from fromnoise.models.config import MMDiTConfig, VAEConfig
from fromnoise.planning.place import crew_at, where
from fromnoise.planning.plan import make_plan
from fromnoise.plots.style import BLUE, GREY, ORANGE, image, sheet, styled
from fromnoise.recipes import shapes
from fromnoise.recipes.qwen import qwen_258m
from fromnoise.training.drawing import Drawing
from fromnoise.training.ema import Ema
from fromnoise.training.hollow import hollow
from fromnoise.training.optim import Optimizer
from fromnoise.training.parallel import split
from fromnoise.training.run import Run
from fromnoise.training.step import accumulate_gradients, clip_gradients

ROOT = Path(__file__).parent.parent
RECORD = Path(__file__).parent / "results" / "scaling.json"
PAGE, PICTURE = ROOT / "docs" / "scaling.md", ROOT / "docs" / "images" / "scaling.png"
GB, MIB = 1e9, 2**20
USAGE = "python -m benchmarks.scaling [--paper] [--option VALUE ...]"
DESCRIPTION = """\
Trains two models for some steps: by one process with one thread, by one with two, and by two that talk by gloo, with a
thread each (ddp, fsdp), by turns; and a model of more and more tokens. Images a second, and memory of each process,
beside what `fromnoise plan` tells. With --paper nothing is trained: plans of large models on many H100 and of
the preparation of a billion pairs are made. Each writes its part of the record and of docs/scaling.md.
"""
WAYS: dict[str, tuple[int, int, str]] = {  # processes, threads of each, parallel
    "1 process, 1 thread": (1, 1, "ddp"),
    "1 process, 2 threads": (1, 2, "ddp"),
    "2 processes, ddp": (2, 1, "ddp"),
    "2 processes, fsdp": (2, 1, "fsdp"),
}
CHIP, MACHINE = "h100", 8  # GPUs of a machine
UTILISATION = 0.35
PAIRS = 10**9
CORES = 64  # of a machine that prepares
NUMBERS = 4 * 32 * 32  # of the latents of a picture of 256 pixels, mean and deviation each
HALF = 2  # bytes of a number that is stored


class Settings(Config):
    """What is measured, or reckoned."""

    paper: bool = False
    """Reckon what many GPUs would do, and train nothing."""
    steps: PositiveInt = 12
    """Steps of a training that count; two before do not."""
    rounds: PositiveInt = 2
    """Times that each is trained, by turns."""
    width: PositiveInt = 384
    """Width of the larger model."""
    depth: PositiveInt = 8
    """Blocks of the larger model."""
    sides: tuple[PositiveInt, ...] = (32, 48, 64, 96)
    """Sides of pictures, in pixels, whose tokens are more and more."""
    gpus: tuple[PositiveInt, ...] = (1, 8, 1024)
    """GPUs that are reckoned with, eight to a machine."""
    models: tuple[str, ...] = ("qwen-258m", "qwen-20b")
    """Models that are reckoned with."""
    out: Path = RECORD
    """File of the record."""
    page: Path = PAGE
    """Where its tables go."""
    picture: Path = PICTURE
    """Where its plot goes."""


def contestants(settings: Settings) -> dict[str, Run]:
    """The quickstart's model and a larger one, in float32 and not compiled, so that all ways do the same work."""
    run = _changed(shapes(), device="cpu", precision="float32", compile="off")
    backbone = run.model.backbone.model_copy(update={"width": settings.width, "depth": settings.depth})
    larger = run.model_copy(update={"model": run.model.model_copy(update={"backbone": backbone})})
    return {"shapes": run, f"{settings.width} wide, {settings.depth} deep": larger}


def _changed(run: Run, **training: Any) -> Run:
    return run.model_copy(update={"training": run.training.model_copy(update=training)})


def trained(rank: int, size: int, port: int, threads: int, run: Run, steps: int, place: Path) -> None:
    """Steps as the loop takes them, by process `rank` of `size`: seconds of each, bytes that it held at most, and those
    that it grew by since before its model was made."""
    told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ |= {key: str(value) for key, value in (told | {"MASTER_PORT": port}).items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(threads)
    with joined("cpu") as ranks:
        training = run.training
        trainee = Drawing(run, run.data.build(0), quiet, ranks)
        trainee.data.train(0, training.batch, rank, size)
        before, model, parallel = used_memory(), trainee.build(), split(ranks, training)
        keep_freed_memory(parallel.largest_kept)
        parallel.place(model, torch.device("cpu"))
        optimizer, ema = Optimizer(model, training.optimizer, parallel), Ema(model, 10.0, parallel)
        learner = parallel.learner(model, lambda: trainee.trial(model, training.batch // size), None)
        seconds = []
        for step in range(steps + 2):
            sample = trainee.draw(model, step, training.batch)
            ranks.every()
            start = time.perf_counter()
            accumulate_gradients(learner, sample, training.accumulate, None, learner.synced)
            clip_gradients(model, training.clip, parallel)
            optimizer.step(1.0)
            model.zero_grad()
            ema.update(step)
            ranks.every()
            seconds.append(time.perf_counter() - start)
        peak = memory_of("VmHWM")
        found = {"seconds": statistics.median(seconds[2:]), "peak": peak, "grown": peak - before}
    place.with_name(f"{place.name}-{rank}").write_text(json.dumps(found), encoding="utf-8")


def together(size: int, threads: int, run: Run, steps: int) -> dict[str, float]:
    """What `trained` finds in so many fresh processes: the slowest's seconds, the most that one held and grew by."""
    context = get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "found"
        asked = [(rank, size, port, threads, run, steps, place) for rank in range(size)]
        processes = [context.Process(target=trained, args=one) for one in asked]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise ValueError("a process failed; it has told why")
        found = [json.loads(file.read_text(encoding="utf-8")) for file in Path(folder).iterdir()]
    return {key: max(one[key] for one in found) for key in found[0]}


def planned(run: Run, size: int) -> dict[str, Any]:
    """The plan of as many processes here."""
    place = where("cpu")
    return make_plan(run, None, place, None, UTILISATION, crew_at(place, size, 1, None, None))


def compared(settings: Settings, say: Any) -> dict[str, Any]:
    """Of each model each way's images a second, and its memory and growth in MiB beside what was planned."""
    found: dict[str, Any] = {}
    for model, run in contestants(settings).items():
        told: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(settings.rounds):
            for way, (size, threads, kind) in WAYS.items():
                told[way].append(together(size, threads, _changed(run, parallel=kind), settings.steps))
        found[model] = {}
        for way, (size, _, kind) in WAYS.items():
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # one that keeps no memory of an earlier plan
                plan = fresh.submit(planned, _changed(run, parallel=kind), size).result()
            peak = plan["memory"]["total"] - (plan["together"]["host"]["saving"] if size > 1 else 0)  # nothing is saved
            found[model][way] = {
                "images_per_second": run.training.batch / min(one["seconds"] for one in told[way]),
                "peak_mib": max(one["peak"] for one in told[way]) / MIB,
                "planned_peak_mib": peak / MIB,
                "grown_mib": max(one["grown"] for one in told[way]) / MIB,
                "planned_mib": (peak - plan["memory"]["program"]) / MIB,
            }
            say(model, way, found[model][way])
        pace = {way: one["images_per_second"] for way, one in found[model].items()}
        for kind in ("ddp", "fsdp"):
            found[model][f"2 processes, {kind}"]["of_two_threads"] = (
                pace[f"2 processes, {kind}"] / pace["1 process, 2 threads"]
            )
    return found


def by_tokens(settings: Settings, say: Any) -> list[dict[str, float]]:
    """Seconds of a step of the quickstart's model with two threads, at each side."""
    (run, *_), found = contestants(settings).values(), []
    for side in settings.sides:
        larger = _changed(run.model_copy(update={"data": run.data.model_copy(update={"size": side})}), batch=8)
        patch = getattr(run.model.backbone, "patch", 1)
        took = together(1, 2, larger, max(2, settings.steps // 2))
        found.append({"side": side, "tokens": (side // patch) ** 2, "milliseconds": 1000 * took["seconds"] / 8})
        say(found[-1])
    return found


def qwen_20b() -> Run:
    """Qwen-Image's transformer at its published size (Wu et al. 2025), on pictures of 256 pixels; activations are
    computed again."""
    run = qwen_258m(clip="Qwen/Qwen2.5-VL-7B")
    encoder = EncoderConfig(path="Qwen/Qwen2.5-VL-7B", length=256)
    model = run.model.model_copy(
        update={
            "backbone": MMDiTConfig(patch=2, width=3072, depth=60, head_width=128, rope_theta=10000.0),
            "conditioner": FrozenTextConfig(encoders=(encoder,), width=3584),
        }
    )
    return _changed(run.model_copy(update={"recipe": "qwen-20b", "model": model}), recompute=True)


LARGE = {"qwen-258m": (qwen_258m, 128), "qwen-20b": (qwen_20b, 8)}
"""Models that are reckoned with, and pictures of a step for each GPU."""


def on_gpus(name: str, gpus: int) -> dict[str, Any]:
    """The plan of one large model on as many GPUs, in each way to train together."""
    recipe, rows = LARGE[name]
    place, machines = where(CHIP), max(1, gpus // MACHINE)
    run = _changed(recipe(), batch=rows * gpus, parallel="fsdp")
    plan = make_plan(run, None, place, None, UTILISATION, crew_at(place, gpus, machines, None, None))
    memory, speed = plan["memory"], plan["speed"]
    alone = {"memory": memory["total"], "fits": memory["fits"], "sent": 0, "communication_seconds": 0.0, **speed}
    told = plan.get("together", {"kinds": {"alone": alone}, "advice": memory["remedy"], "gathered": {"looks": 0}})
    return {
        "parameters": sum(plan["parameters"]["trained"].values()),
        "batch": rows * gpus,
        "kinds": {
            kind: {key: value for key, value in one.items() if not isinstance(value, str)}
            for kind, one in told["kinds"].items()
        },
        "advice": told["advice"],
        "looks": told["gathered"]["looks"],
        "checkpoint": plan["disk"]["checkpoints"] / (run.training.keep + 1),
        "host": told.get("host"),
        "reads": told.get("reads"),
    }


def prepared() -> dict[str, float]:
    """What a billion pairs take: cores as measured with tiny encoders, GPUs by the operations of a VAE."""
    measured = json.loads((RECORD.parent / "preparation.json").read_text(encoding="utf-8"))
    pictures, width = (measured["settings"][key] for key in ("pictures", "width"))
    one = measured["found"]["fromnoise"]
    with hollow():
        vae = Autoencoder.build(AutoencoderConfig(vae=VAEConfig()), 0).vae
        encoded = count_flops(lambda: vae.encode(torch.empty(1, 3, 256, 256)))
    chip = where(CHIP).chip
    assert chip is not None, "it is in the table"
    text = one["text_bytes"] / pictures / width * 768  # of CLIP, which is as much wider
    latents = 2 * NUMBERS * HALF
    return {
        "core_hours": PAIRS * one["processor_seconds"] / pictures / 3600,
        "gpu_hours": PAIRS * encoded / (UTILISATION * chip.flops) / 3600,
        "flops_of_a_picture": encoded,
        "latent_bytes": latents,
        "text_bytes": text,
        "terabytes": PAIRS * (latents + text) / 1e12,
    }


def table_of_paper(record: Mapping[str, Any]) -> str:
    """What was reckoned, in Markdown."""
    head = ("model", "GPUs", "", "a GPU holds", "sent a step", "telling, ms", "images/s", "hours a billion")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, counts in record["paper"]["models"].items():
        for gpus, told in counts.items():
            for kind, one in told["kinds"].items():
                pace = one["images_per_second"]
                cells = [name, gpus, kind, f"{one['memory'] / GB:,.1f} GB{'' if one['fits'] else ' (too much)'}"]
                cells += [f"{one['sent'] / GB:.2f} GB", f"{1000 * one['communication_seconds']:,.0f}", f"{pace:,.0f}"]
                cells += [f"{PAIRS / pace / 3600:,.1f}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table_of_rest(record: Mapping[str, Any]) -> str:
    """What each model reads and writes, and what a billion pairs take to be prepared."""
    head = (
        "model",
        "GPUs",
        "checkpoint",
        "gathered to look",
        "main memory of the first at the start",
        "of each other",
        "of the first to save",
        "read a second",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, counts in record["paper"]["models"].items():
        for gpus, told in counts.items():
            if told["reads"]:
                host = [told["host"][key] for key in ("start", "others", "saving")]
                sizes = [told["checkpoint"], told["looks"], *host, told["reads"]["second"]]
                lines.append(f"| {' | '.join([name, gpus, *(f'{size / GB:,.2f} GB' for size in sizes)])} |")
    pairs = record["paper"]["preparation"]
    hours = pairs["core_hours"] / CORES
    said = (
        f"A billion pairs: {pairs['core_hours']:,.0f} hours of a core to read, resize and pack ({hours:,.0f} of a "
        f"machine of {CORES} cores), {pairs['gpu_hours']:,.0f} hours of an H100 to encode, "
        f"{pairs['terabytes']:,.0f} TB: "
        f"{pairs['latent_bytes']:,} bytes of latents and {pairs['text_bytes']:,.0f} of text each."
    )
    return "\n".join([*lines, "", said])


def table(record: Mapping[str, Any]) -> str:
    """What was measured, in Markdown."""
    if "measured" not in record:
        return "Not measured yet."
    head = ("model", "", "images/s", "of one process with two threads", "memory, MiB", "planned", "growth", "planned")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for model, ways in record["measured"]["models"].items():
        for way, one in ways.items():
            share = f"{one['of_two_threads']:.2f}" if "of_two_threads" in one else ""
            cells = [model, way, f"{one['images_per_second']:.1f}", share]
            cells += [f"{one[key]:,.0f}" for key in ("peak_mib", "planned_peak_mib", "grown_mib", "planned_mib")]
            lines.append(f"| {' | '.join(cells)} |")
    tokens = ", ".join(f"{one['tokens']}: {one['milliseconds']:.1f}" for one in record["measured"]["tokens"])
    said = f"Milliseconds a picture of a step of `shapes`, by tokens of the picture: {tokens}."
    return "\n".join([*lines, "", said, "", f"![Two processes beside one](images/{PICTURE.name})"])


@styled
def plot(record: Mapping[str, Any], path: Path) -> None:
    """Images a second of each way, and milliseconds by tokens."""
    measured = record["measured"]
    figure = sheet(
        9, 3.6, "Two processes beside one with two threads", "Float32, not compiled. Right: eight pictures a step."
    )
    left, right = figure.subplots(1, 2)
    for at, (model, ways) in enumerate(measured["models"].items()):
        paces = [one["images_per_second"] for one in ways.values()]
        best = max(paces)
        places = [row + 0.38 * at for row in range(len(ways))]
        left.barh(places, [pace / best for pace in paces], 0.36, color=(BLUE, ORANGE)[at % 2], label=model)
    left.set(
        yticks=[row + 0.19 for row in range(len(WAYS))], yticklabels=list(WAYS), title="images/s over the best way's"
    )
    left.invert_yaxis()
    figure.legend(loc="outside upper right", ncols=len(measured["models"]))
    tokens = measured["tokens"]
    right.plot([one["tokens"] for one in tokens], [one["milliseconds"] for one in tokens], "o-", color=GREY)
    right.set(xlabel="tokens of a picture", title="milliseconds a picture of a step", ylim=(0, None))
    image(figure, 150).save(path)


def reckon(settings: Settings, record: dict[str, Any], say: Any) -> None:
    """The part of the record that is on paper, written after each model."""
    models = record.get("paper", {}).get("models", {})
    record["paper"] = {"chip": CHIP, "utilisation": UTILISATION, "preparation": prepared(), "models": models}
    for name in settings.models:
        models[name] = {}
        for gpus in settings.gpus:
            models[name][str(gpus)] = told = on_gpus(name, gpus)
            say(name, gpus, told["advice"])
        write_record(settings.out, record)


def main(args: Sequence[str]) -> None:
    args = ["--paper=true" if arg == "--paper" else arg for arg in args]
    settings, words = parse(Settings(), args, usage=USAGE, description=DESCRIPTION)
    if words:
        raise ValueError(f"{words[0]!r} is not expected here; usage: {USAGE}")
    say = Console(stderr=True).print
    before = json.loads(settings.out.read_text(encoding="utf-8")) if settings.out.is_file() else {}
    record: dict[str, Any] = {"command": "python -m benchmarks.scaling [--paper]"}
    record |= {key: before[key] for key in ("measured", "paper") if key in before}
    if settings.paper:
        reckon(settings, record, say)
        put(table_of_paper(record), settings.page, "paper")
        put(table_of_rest(record), settings.page, "rest")
    else:
        told = {"machine": describe_machine(), "settings": settings.model_dump(include={"steps", "rounds"})}
        record["measured"] = told | {"models": compared(settings, say), "tokens": by_tokens(settings, say)}
        write_record(settings.out, record)
        plot(record, settings.picture)
        put(table(record), settings.page)


if __name__ == "__main__":
    run_main(main)
