"""Trains the second judge of shapes that comes with fromnoise, and records what it can: weights, and one JSON record.

python -m benchmarks.shapes_judge

Legend: B batch, h and w rows and columns of cells.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.harness import describe_machine, put, write_record
from benchmarks.spoiled import SPOILS, examples, spoil
from fromnoise.core.device import autocast, fast_bfloat16, keep_freed_memory
from fromnoise.core.files import content_hash, save_tensors
from fromnoise.data.scenes import COLOURS, GRID, MIDDLE_RADIUS, SHAPES, SIDE, Prompt, Thing
from fromnoise.data.shapes import draw_scene, render
from fromnoise.evaluation.intervals import wilson
from fromnoise.evaluation.judges.adherence import shows
from fromnoise.evaluation.judges.detect import detect
from fromnoise.evaluation.judges.fit import rate
from fromnoise.evaluation.judges.second import ASSET, Maps, ShapesNetwork
from fromnoise.pipeline.pictures import grid

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs/judging.md"
CELLS = SIDE // GRID + 1
HELD = 2000  # true pictures judged at the end, and as many of each way to spoil them
TRIES = 10_000  # pictures spoiled in one way, at most, to find some for the sheet
POSITIVE = 10.0  # weight of the few cells that hold a centre


def targets(scenes: Sequence[Sequence[Thing]]) -> dict[str, Tensor]:
    """Where the centres are, and what stands there; cells beside a centre are told neither way.

    object, known: (B, h, w) float; shape, colour: (B, h, w) int64; radius: (B, h, w); offset: (B, 2, h, w).
    """
    fields = {name: torch.zeros(len(scenes), CELLS, CELLS) for name in ("object", "radius")}
    fields |= {name: torch.zeros(len(scenes), CELLS, CELLS, dtype=torch.int64) for name in ("shape", "colour")}
    fields |= {"known": torch.ones(len(scenes), CELLS, CELLS), "offset": torch.zeros(len(scenes), 2, CELLS, CELLS)}
    for b, things in enumerate(scenes):
        for thing in things:
            i, j = (min(max(round(place / GRID), 0), CELLS - 1) for place in (thing.y, thing.x))
            fields["known"][b, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = 0
            fields["object"][b, i, j] = 1
            fields["shape"][b, i, j] = SHAPES.index(thing.shape)
            fields["colour"][b, i, j] = list(COLOURS).index(thing.colour)
            fields["radius"][b, i, j] = thing.radius - MIDDLE_RADIUS
            fields["offset"][b, :, i, j] = torch.tensor([thing.x / GRID - j, thing.y / GRID - i])
    return fields


def loss_of(maps: Maps, wanted: dict[str, Tensor], clean: Tensor) -> Tensor:
    """One number. clean: (B,) bool; what stands in a spoiled picture is not asked."""
    spoiled = F.binary_cross_entropy_with_logits(maps.spoiled().float(), (~clean).float())
    here = wanted["object"].bool() & clean[:, None, None]  # (B, h, w)
    cells = ((wanted["known"] + wanted["object"]) * clean[:, None, None]).float()  # (B, h, w)
    weight = cells * (1 + (POSITIVE - 1) * wanted["object"])
    object = F.binary_cross_entropy_with_logits(maps.object[:, 0].float(), wanted["object"], weight, reduction="sum")
    shape = F.cross_entropy(maps.shape.float().movedim(1, -1)[here], wanted["shape"][here])
    colour = F.cross_entropy(maps.colour.float().movedim(1, -1)[here], wanted["colour"][here])
    radius = F.smooth_l1_loss(maps.radius[:, 0].float()[here], wanted["radius"][here])
    offset = F.smooth_l1_loss(maps.offset.float().movedim(1, -1)[here], wanted["offset"].movedim(1, -1)[here])
    return spoiled + object / weight.sum() * 4 + shape + colour + radius + 4 * offset


def train(seed: int, steps: int, batch: int, report: bool = True) -> ShapesNetwork:
    """A network trained on `steps` batches of fresh pictures; the same arguments give the same one on one machine."""
    dtype = torch.bfloat16 if fast_bfloat16(torch.device("cpu")) else None
    keep_freed_memory()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the layers draw their first weights from the global generator
        network = ShapesNetwork().train()
    highest = 3e-3
    optimizer = torch.optim.AdamW(network.parameters(), highest, weight_decay=0.02, fused=True)
    start, total = time.perf_counter(), 0.0
    for step in range(steps):
        pictures, scenes, names = examples(batch, f"judge/{seed}/{step}")
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1  # (B, 3, 32, 32), channels last in memory
        with autocast(images.device, dtype):
            maps = network(images)
        loss = loss_of(maps, targets(scenes), torch.tensor([not name for name in names]))
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = highest * rate(step / steps, 0.1)
        optimizer.step()
        total += loss.item()
        if report and (step + 1) % 100 == 0:
            print(
                f"step {step + 1} of {steps}: loss {total / 100:.4f}, {time.perf_counter() - start:.0f} s", flush=True
            )
            total = 0.0
    return network.eval()


def share(right: int, count: int) -> dict[str, object]:
    return {"share": right / count, "interval": list(wilson(right, count)), "pictures": count}


def judged(network: ShapesNetwork) -> dict[str, object]:
    """What both judges say of pictures neither saw: true renders of training's scenes and of any scene, true renders
    under another picture's prompt, and spoiled ones. Shares that pass."""
    rng = Random("shapes_judge/held")
    prompts, scenes = zip(*(draw_scene(rng) for _ in range(HELD)), strict=True)
    pictures = render(list(scenes), SIDE)
    other: list[Prompt] = [prompts[(k + 1) % HELD] for k in range(HELD)]
    untrue = [k for k in range(HELD) if not other[k].holds(list(scenes[k]))]
    seen, glances = [detect(picture) for picture in pictures], network.look(pictures)
    pairs = [(shows(a, p), b.shows(p)) for a, b, p in zip(seen, glances, prompts, strict=True)]
    found: dict[str, object] = {
        "true": {
            "checker": share(sum(a for a, _ in pairs), HELD),
            "network": share(sum(b for _, b in pairs), HELD),
            "agree": share(sum(a == b for a, b in pairs), HELD),
        },
        "untrue_caption": {
            "checker": share(sum(shows(seen[k], other[k]) for k in untrue), len(untrue)),
            "network": share(sum(glances[k].shows(other[k]) for k in untrue), len(untrue)),
        },
    }
    chance = np.random.default_rng(7)
    spoiled: dict[str, object] = {}
    for name in SPOILS:
        kept = [(k, spoil(name, pictures[k], list(scenes[k]), rng, chance)) for k in range(HELD // 2)]
        shown = [(k, picture) for k, picture in kept if picture is not None]
        seen_by_network = network.look(np.stack([picture for _, picture in shown]))
        checker = sum(shows(detect(picture), prompts[k]) for k, picture in shown)
        passed = sum(glance.shows(prompts[k]) for (k, _), glance in zip(shown, seen_by_network, strict=True))
        spoiled[name] = {"checker": share(checker, len(shown)), "network": share(passed, len(shown))}
    return found | {"spoiled": spoiled}


def table(record: dict[str, Any]) -> str:
    """What both judges let pass, as Markdown."""
    true, untrue = record["true"], record["untrue_caption"]
    rows = [
        ("true renders", true["checker"], true["network"]),
        ("true renders, another caption", untrue["checker"], untrue["network"]),
        *((name, one["checker"], one["network"]) for name, one in record["spoiled"].items()),
    ]
    lines = ["| pictures | checker lets pass | network lets pass |", "|---|---|---|"]
    lines += [f"| {name} | {100 * a['share']:.1f} % | {100 * b['share']:.1f} % |" for name, a, b in rows]
    return "\n".join(lines)


def sheet(network: ShapesNetwork, columns: int = 4) -> Image.Image:
    """Pictures that please the checker and not the network: `columns` of each way to spoil them, the first found."""
    rng, chance, images, labels = Random("shapes_judge/sheet"), np.random.default_rng(8), [], []
    for name in SPOILS:
        found = 0
        for _ in range(TRIES):
            prompt, things = draw_scene(rng)
            picture = spoil(name, render([things], SIDE)[0], things, rng, chance)
            if picture is None or not shows(detect(picture), prompt) or network.look(picture[None])[0].shows(prompt):
                continue
            images.append(Image.fromarray((picture * 255).round().astype(np.uint8)))
            labels.append(f"{prompt.text} [{name}]")
            found += 1
            if found == columns:
                break
    return grid(images, 2 * columns, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--weights", type=Path, default=ASSET)
    parser.add_argument("--result", type=Path, default=RESULTS / "shapes_judge.json")
    parser.add_argument("--sheet", type=Path, default=RESULTS.parent.parent / "docs/images/shapes_judge.png")
    given = parser.parse_args()
    command = f"python -m benchmarks.shapes_judge --seed {given.seed} --steps {given.steps} --batch {given.batch}"
    machine, started, busy = describe_machine(), time.perf_counter(), time.process_time()
    network = train(given.seed, given.steps, given.batch)
    seconds, processor = time.perf_counter() - started, time.process_time() - busy
    known = {"command": command, "seed": str(given.seed), "torch": torch.__version__}
    save_tensors(given.weights, network.state_dict(), known)
    record = {
        "command": command,
        "machine": machine,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": given.weights.stat().st_size,
        "sha256": content_hash(given.weights),
        **judged(network),
    }
    write_record(given.result, record)
    put(table(record), PAGE, "judge")
    sheet(network).save(given.sheet)
    print(given.result.read_text())


if __name__ == "__main__":
    main()
