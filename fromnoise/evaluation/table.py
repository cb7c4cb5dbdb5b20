"""What an evaluation found, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fromnoise.evaluation.adherence_table import adherence_lines, drawing_line
from fromnoise.evaluation.judges.classifier import Domain

Tree = dict[str, Any]


def table(results: Tree, domain: Domain | None) -> str:
    """A line for each number, by measure; `domain` names the classes."""
    parts = {
        "adherence": adherence_lines,
        "features": feature_lines,
        "clipscore": clipscore_lines,
        "neighbours": neighbour_lines,
        "listening": listening_lines,
        "floor": floor_lines,
    }
    lines = list(class_lines(results, domain)) if domain and "samples" in results else []
    for name, part in parts.items():
        if name in results:
            lines += [*([""] if lines else []), *part(results)]
    if "drawing" in results and "adherence" not in results:
        lines += ["", f"drawn by {drawing_line(results['drawing'])}"]
    if results["left_out"]:
        lines += ["", *(f"no {name}: {why}" for name, why in results["left_out"].items())]
    return "\n".join(lines)


def class_lines(results: Tree, domain: Domain) -> Iterator[str]:
    yield f"{'samples':<16}{results['samples']:6}"
    if results["accuracy"] is not None:
        low, high = results["accuracy_interval"]
        yield f"{'accuracy':<16}{100 * results['accuracy']:6.2f} % ({100 * low:.2f} to {100 * high:.2f}, at 95 %)"
        by_class = zip(domain.classes, results["by_class"], strict=False)  # of fewer pictures than classes: of some
        yield from (f"  {name:<14}{100 * share:6.1f} %" for name, share in by_class)
    if "features" not in results:  # which tell it, too
        floor = f"as many real {domain.name}: {results['frechet_floor']:.3f}"
        yield f"{'frechet':<16}{results['frechet']:6.3f} ({floor})"
    if results["diversity"] is not None:
        yield f"{'diversity':<16}{100 * results['diversity']:6.1f} % of that of real {domain.name}"
    yield f"{'speed':<16}{results['images_per_second']:6.1f} images/s"


def feature_lines(results: Tree) -> Iterator[str]:
    for record in results["features"]:
        yield f"{record['extractor']} features of {record['samples']:,} pictures beside {record['reference']:,} real"
        for name in ("frechet", "kernel", "precision", "recall", "density", "coverage"):
            if name in record:
                spread = f" +- {record['kernel_deviation']:.4f}" if name == "kernel" else ""
                yield f"  {name:<14}{record[name]:9.4f}{spread} (as many real ones: {record[name + '_floor']:.4f})"
        yield from (f"  note: {note}" for note in record["notes"])


def clipscore_lines(results: Tree) -> Iterator[str]:
    for record in results["clipscore"]:
        told = f"real pictures {record['real']:.3f}, with another's prompt {record['shuffled']:.3f}"
        yield f"{'clipscore':<16}{record['clipscore']:6.3f} ({told})"


def neighbour_lines(results: Tree) -> Iterator[str]:
    found = results["neighbours"]
    low, high = (100 * share for share in found["near_interval"])
    yield f"nearest of {found['training_pictures']:,} training pictures, of {found['of']:,}"
    others = f"of {found['held_out']:,} held-out: {found['distance_held_out']:.2f}"
    yield f"  {'distance':<14}{found['distance']:6.2f} ({others})"
    expected = f"{100 * found['near_expected']:.2g} % is to be expected"
    yield f"  {'near':<14}{100 * found['near']:6.1f} % ({low:.1f} to {high:.1f}, at 95 %; {expected})"
    yield f"  {'copies':<14}{100 * found['copies']:6.1f} % (of held-out: {100 * found['copies_held_out']:.1f} %)"


def listening_lines(results: Tree) -> Iterator[str]:
    found = results["listening"]
    low, high = (1 + share for share in found["gap_interval"])
    yield f"under another's caption {1 + found['gap']:.2f} times the loss ({low:.2f} to {high:.2f}, at 95 %)"
    if found.get("distinct", found["pictures"]) < found["pictures"]:  # records of before do not tell it
        yield f"  note: {found['pictures']} samples of {found['distinct']} pictures, which come several times"
    yield row("t", found["times"], "8.2f")
    for key, name in (("loss", "loss"), ("loss_shuffled", "another's"), ("loss_null", "none"), ("moved", "moved v")):
        yield row(name, found[key], "8.4f")


def floor_lines(results: Tree) -> Iterator[str]:
    found = results["floor"]
    yield f"error of the expected picture, and that of {found['training_pictures']:,} training pictures by heart"
    yield row("t", found["times"], "8.2f")
    for key, name in (
        ("training", "training"),
        ("training_best", "  by heart"),
        ("validation", "held out"),
        ("validation_best", "  by heart"),
    ):
        if key in found:
            yield row(name, found[key], "8.4f")


def row(name: str, values: list[float], form: str) -> str:
    return f"  {name:<12}" + "".join(format(value, form) for value in values)
