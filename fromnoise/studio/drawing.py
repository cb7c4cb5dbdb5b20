"""What each page draws, as HTML that grows: generators, so that whoever waits sees how far it is, and can stop it.

A generator raises ValueError in one line, before its first picture, for whatever cannot be drawn as it is asked.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

from PIL import Image

from fromnoise.conditioning.config import LabelConfig
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.pictures import as_animation, as_png, drawn_by, save_png, stem
from fromnoise.plots import attention
from fromnoise.plots.subject import Ask, Subject, Wish
from fromnoise.plots.trace import way
from fromnoise.plots.trajectories import frames
from fromnoise.recipes import RECIPES, summary
from fromnoise.studio.asked import MOST, Asked, prompt_of
from fromnoise.studio.film import Frame, download, film, note, strip, table

EVERY = 0.08  # seconds between what is shown while a picture forms
LONGEST = 49  # frames of a film
LARGEST = 16  # times the pixels that a model is trained at: everybody else waits while more are drawn
SAMPLE, EXPECTED = "the sample x_t", "the picture it expects"
computing = Lock()
"""Held while a network is asked: one that is watched must not see another's picture."""
Shown = TypeVar("Shown")


def in_turns(steps: Iterator[Shown]) -> Iterator[Shown]:
    """The same steps; the network is free for others while the caller looks at one."""
    while True:
        with computing:
            step = next(steps, None)
        if step is None:
            return
        yield step


def ask_of(subject: Subject, prompt: str, guidance: float | None = None) -> Ask:
    """What to draw of `prompt`. A model of classes is asked by number, or by a text that names one class.

    Raises:
        ValueError: one line, when there is nothing in it that this model could draw.
    """
    prompt, conditioner = prompt_of(prompt), subject.config.conditioner
    if conditioner.type == "none":
        return Ask("", 0, "no prompt")
    if not prompt and guidance != 0:
        raise ValueError("no prompt is given; allowed: a few words, or none with guidance 0")
    if not isinstance(conditioner, LabelConfig):
        return Ask(prompt, 0, prompt)
    names = subject.class_names
    said = [i for i, name in enumerate(names) if re.search(rf"\b{re.escape(name)}\b", prompt, re.IGNORECASE)]
    number = str(said[0]) if len(said) == 1 else prompt or "0"
    (ask,) = subject.asks(Wish((number,)), 1)
    return ask


def examples(subject: Subject) -> list[str]:
    """What a model may be asked."""
    label = isinstance(subject.config.conditioner, LabelConfig)
    asks = subject.asks(Wish(), 10 if label else 4)
    return [str(ask.label) if label else ask.prompt for ask in asks if label or ask.prompt]


def about(subject: Subject) -> str:
    """What a model is, in a line."""
    config, count = subject.config, sum(p.numel() for p in subject.pipeline.parameters())
    size = f"{count / 1e6:.1f} million parameters"
    return (
        f"{kind(config)}; {size}; {config.size} × {config.size} pixels; checkpoint {subject.metadata['checkpoint'][:8]}"
    )


def kind(config: ModelConfig) -> str:
    """Backbone, path and target, in a line."""
    return f"{config.backbone.type}, {config.path.type} path, trained to tell {config.objective.target}"


def warm_up(subject: Subject) -> None:
    """Draw one step, so that the first who asks waits for nothing that is done once."""
    with computing:
        for ask in subject.asks(Wish(), 1):
            subject.pipeline(ask.prompt, 1, labels=[ask.label])


def draw(subject: Subject, asked: Asked, folder: Path) -> Iterator[str]:
    """The picture while it forms, then its film; kept in `folder` as a PNG that says how it was drawn."""
    ask = ask_of(subject, asked.prompt, asked.guidance)
    pipeline, usual = subject.pipeline, subject.config.size
    if asked.size and asked.size[0] * asked.size[1] > LARGEST * usual**2:
        given = f"{asked.size[0]}x{asked.size[1]} (height x width)"
        raise ValueError(f"size is {given}; allowed here: up to {LARGEST} times the pixels of {usual}x{usual}")
    sampling = pipeline.sampling(asked.sampler, asked.steps, asked.guidance)
    places = way(
        pipeline,
        [ask],
        asked.seed,
        sampling.steps,
        guidance=asked.guidance,
        sampler=asked.sampler,
        size=asked.size,
        precision="auto",
    )
    wanted, kept, told = set(frames(sampling.steps, LONGEST)), [], 0.0
    for i, place in enumerate(in_turns(places)):
        due = time.monotonic() - told > EVERY
        if not due and i not in wanted:
            continue
        (sample,), (expected,) = pipeline.pictures(place.x), pipeline.pictures(place.x0)
        frame = Frame((sample, expected), f"t = {place.time:.2f}, step {i} of {sampling.steps}")
        kept += [frame] if i in wanted else []
        if due and i < sampling.steps:
            yield film([frame], (SAMPLE, EXPECTED), "")
            told = time.monotonic()
    picture, prompt = kept[-1].pictures[0], asked_as(subject, ask)
    metadata = {"prompt": prompt, "seed": str(asked.seed)} | drawn_by(sampling, subject.metadata["checkpoint"])
    file = save_png(picture, folder, stem(prompt, asked.seed), metadata)
    save = download(as_png(picture, metadata), "image/png", file.name, "Save PNG")
    told_of = pipeline.conditioner.notice([ask.prompt]) if ask.prompt else ""
    yield film(kept, (SAMPLE, EXPECTED), "Time, from noise to picture") + save + note(told_of)


def asked_as(subject: Subject, ask: Ask) -> str:
    """The prompt by which the same picture is asked for again."""
    return str(ask.label) if isinstance(subject.config.conditioner, LabelConfig) else ask.prompt


class Words(NamedTuple):
    """Where a picture looked, to be shown word by word."""

    seen: attention.Attention
    overview: str
    words: list[tuple[str, int]]  # each as it is read, and its number
    first: int  # the one that a place looks at most


def words(subject: Subject, prompt: str, seed: int) -> Words:
    """Draw `prompt` and show which parts of the picture look at which word.

    Raises:
        ValueError: one line, when it cannot be drawn, or the model does not look at words.
    """
    ask = ask_of(subject, prompt)
    if reason := attention.refusal(subject, Wish((ask.prompt,))):
        raise ValueError(f"no attention to show of {subject.name}: {reason}")
    with computing:
        seen = attention.attended(subject.pipeline, ask.prompt, seed)
    means = seen.maps.mean(0)  # (E, h, w)
    shown = [attention.overlay(seen.picture, one, float(means.max())) for one in means]
    overview = strip([seen.picture, *shown], ["picture", *seen.words])
    return Words(seen, overview, [(word, i) for i, word in enumerate(seen.words)], int(means.amax((1, 2)).argmax()))


def word(seen: attention.Attention, number: int) -> str:
    """One word while the picture formed: where it was looked at, over the picture expected then."""
    maps, places = seen.maps[:, number], frames(len(seen.times) - 1, LONGEST)  # (S, h, w)
    top = float(maps.max())
    told = [
        Frame(
            (attention.overlay(seen.expected[i], maps[i], top), seen.expected[i]),
            f"t = {seen.times[i]:.2f}, at most {float(maps[i].max()):.1%} of what a place looks at",
        )
        for i in places
    ]
    return film(told, (f"looks at “{seen.words[number]}”", EXPECTED), "Time, from noise to picture", len(told) // 2)


def sweep(
    subject: Subject, prompt: str, seed: int, guidances: Sequence[float], steps: Sequence[float]
) -> Iterator[str]:
    """A grid of guidance and steps from one noise, which fills row by row."""
    ask, pipeline = ask_of(subject, prompt), subject.pipeline
    if len(guidances) * len(steps) > MOST:
        asked = f"{len(guidances)} scales and {len(steps)} numbers of steps are {len(guidances) * len(steps)} pictures"
        raise ValueError(f"{asked}; allowed: up to {MOST}")
    for count in steps:
        if count != int(count):
            raise ValueError(f"steps: given {count:g}; allowed: whole numbers")
    jobs = [pipeline.sampling(steps=int(count), guidance=scale) for count in steps for scale in guidances]
    drawn: list[Image.Image | None] = [None] * len(jobs)
    columns, rows = [f"{scale:g}" for scale in guidances], [f"{count:g}" for count in steps]
    told = 0.0
    for i, job in enumerate(jobs):
        if time.monotonic() - told > EVERY:
            yield table("steps \\ guidance", columns, rows, drawn)
            told = time.monotonic()
        with computing:
            (drawn[i],) = pipeline(ask.prompt, job.steps, job.guidance, seed, labels=[ask.label])
    yield table("steps \\ guidance", columns, rows, drawn)


class Pair(NamedTuple):
    """Two pictures whose makers are told, or are still to be guessed."""

    names: tuple[str, str]  # left and right
    what: tuple[str, str]  # of each, what it is
    pictures: tuple[Image.Image, Image.Image]
    note: str


def two(subjects: tuple[Subject, Subject], names: tuple[str, str], prompt: str, seed: int, blind: bool) -> Pair:
    """The same prompt from the same noise by two models; in an order that chance decides where it is `blind`."""
    asks = [ask_of(subject, prompt) for subject in subjects]
    with computing:
        drawn = [
            subject.pipeline(ask.prompt, seed=seed, labels=[ask.label])[0]
            for subject, ask in zip(subjects, asks, strict=True)
        ]
    shapes = [s.pipeline.latent_shape(s.config.size, s.config.size) for s in subjects]
    alike = shapes[0] == shapes[1]
    said = "" if alike else "Their pictures have different shapes, and so different noise."
    what = [lineage(subject) for subject in subjects]
    order = random.sample((0, 1), 2) if blind else (0, 1)
    (a, b) = order
    return Pair((names[a], names[b]), (what[a], what[b]), (drawn[a], drawn[b]), said)


def lineage(subject: Subject) -> str:
    """What a model is in the history of the field: the first line of its recipe, and how it draws."""
    run = subject.run
    recipe = summary(RECIPES[run.recipe]) if run and run.recipe in RECIPES else f"{kind(subject.config)}."
    return f"{recipe} Draws by {subject.pipeline.config.sampling.words()}."


def pair(shown: Pair, told: bool) -> str:
    """Both pictures; who made them only where that is `told`."""
    captions = shown.names if told else ("left", "right")
    figures = film([Frame(shown.pictures, "")], captions, "")
    who = "".join(note(f"{name}: {what}") for name, what in zip(shown.names, shown.what, strict=True)) if told else ""
    return figures + who + note(shown.note)


def between(subject: Subject, prompts: tuple[str, str], seeds: tuple[int, int], count: int) -> Iterator[str]:
    """Pictures on the way from one prompt and seed to another: a film, and a strip."""
    asks = [ask_of(subject, prompt) for prompt in prompts]
    pipeline = subject.pipeline
    steps = pipeline.between((asks[0].prompt, asks[1].prompt), seeds, count, labels=(asks[0].label, asks[1].label))
    last, told = None, 0.0
    for last in in_turns(steps):
        if time.monotonic() - told > 3 * EVERY:
            yield strip(pipeline.pictures(last.x0), [""] * count)
            told = time.monotonic()
    assert last is not None, "a sampler takes at least one step"
    pictures = pipeline.pictures(last.x)
    shares = [f"{i / (count - 1):.0%}" for i in range(count)]
    ends = [f"“{ask.name}”, seed {seed}" for ask, seed in zip(asks, seeds, strict=True)]
    moving = [Frame((picture,), f"{share} of the way") for picture, share in zip(pictures, shares, strict=True)]
    there_and_back = [*pictures, *pictures[-2:0:-1]]
    save = download(as_animation(there_and_back, "webp"), "image/webp", "between.webp", "Save animation")
    shown = film(moving, (" → ".join(ends),), "Place on the way", count // 2)
    yield shown + strip(pictures, shares) + save
