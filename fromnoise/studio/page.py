"""The page: what is where, and what happens when it is used. What it shows is made elsewhere."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache

from fromnoise.core.config import Name
from fromnoise.diffusion.sample import SAMPLERS
from fromnoise.pipeline.config import ModelConfig, sides
from fromnoise.pipeline.place import config_at
from fromnoise.recipes import all_recipes
from fromnoise.studio.asked import Asked, numbers, restored, seed_of
from fromnoise.studio.gallery import Gallery
from fromnoise.studio.line import AT_ONCE, Line, begin, told, words
from fromnoise.studio.shelf import Shelf
from fromnoise.studio.trainings import Trainings

SECONDS = 3.0  # between looks at a run in training
LARGEST_SEED = 2**31
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
READ = '<p class="empty">The run is being read.</p>'
FIRST = '<p class="empty">Say what to draw, and press Enter.</p>'


importing = threading.Lock()


def floor(name: str) -> Any:
    """The module of the studio called `name`, which needs torch: imported late, and by one thread at a time."""
    with importing:
        return import_module(f"fromnoise.studio.{name}")


def build(shelf: Shelf, trainings: Trainings, folder: Path, most: int) -> gr.Blocks:
    """The page of a studio that draws with the models on `shelf` into `folder`, and lets `most` people wait."""
    gallery = Gallery(folder)
    with gr.Blocks(title="fromnoise studio", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.HTML("<h1>fromnoise</h1><p>Pictures from noise, and how they come out of it.</p>", elem_id="title")
        line = Line(page, most)
        names, usual = shelf.names(), config_at(next(iter(shelf.given.values())))
        model = gr.Dropdown(names, value=names[0], label="Model", allow_custom_value=True, elem_id="model")
        about = gr.HTML("<p>It is being loaded.</p>", elem_classes="about")
        with gr.Tabs():
            with gr.Tab("Draw", id="draw") as first:
                drawn = draw_tab(line, shelf, gallery, model, usual)
            with gr.Tab("Words", id="words") as second:
                words_tab(line, shelf, model)
            with gr.Tab("Sweep", id="sweep") as third:
                sweep_tab(line, shelf, model)
            with gr.Tab("Two runs", id="two") as fourth:
                two_tab(line, shelf)
            with gr.Tab("Between", id="between") as fifth:
                between_tab(line, shelf, model)
            with gr.Tab("Train", id="train") as train:
                timer = train_tab(page, train, trainings)
        for tab in (first, second, third, fourth, fifth):  # a run is looked at only while somebody sees it
            tab.select(lambda: gr.Timer(active=False), outputs=timer, **AT_ONCE)

        @told
        def choose(name: str, before: tuple[Any, ...]) -> tuple[Any, ...]:
            found = settings_of(shelf.config(name))
            if (name, *found) == before:  # the page has them, or what somebody typed meanwhile
                return (*(gr.skip() for _ in found), before)
            return (*found, (name, *found))

        @told
        def describe(name: str) -> tuple[Any, ...]:
            drawing = floor("drawing")
            subject = shelf.subject(name)
            examples = [[one] for one in drawing.examples(subject)]
            return f"<p>{escape(drawing.about(subject))}</p>", gr.Dataset(samples=examples, visible=bool(examples))

        # a model takes its time: while one is waited for, the choice of the next must not be dropped
        last: dict[str, Any] = {"trigger_mode": "always_last"} | QUIET
        filled = gr.State((names[0], *settings_of(usual)))
        chosen = gr.on([page.load, model.change], choose, [model, filled], [*drawn[:-1], filled], **last)
        chosen.success(describe, model, [about, drawn[-1]], **last)
        offer(shelf.names, [model], page.load)
    return page


def settings_of(config: ModelConfig) -> tuple[int, float, str, str]:
    """What Draw's settings are filled with: steps, guidance, sampler and size."""
    return config.sampling.steps, config.sampling.guidance, config.sampling.sampler, str(config.size)


def offer(names: Callable[[], list[str]], lists: Sequence[gr.Dropdown], *events: Any) -> None:
    """Let `lists` have the `names` that there are by now, at these events and when they are opened; who has chosen none
    gets the first.

    Where nothing is new and one is chosen, nothing is sent: a list opens with what it gets, even if a choice was made
    meanwhile.
    """
    for one in lists:
        sent = gr.State(names())

        def renew(chosen: str | None, sent: list[str]) -> tuple[Any, Any]:
            now = names()
            if now == sent and (chosen or not now):
                return gr.skip(), gr.skip()
            return gr.Dropdown(choices=now) if chosen else gr.Dropdown(choices=now, value=next(iter(now), None)), now

        gr.on([*events, one.focus], renew, [one, sent], [one, sent], **AT_ONCE)


def seed_row(name: str, **more: Any) -> gr.Number:
    """A seed, and a button that throws another one."""
    with gr.Row(elem_classes="beside"):
        seed = gr.Number(0, label="Seed", precision=0, elem_id=f"{name}-seed", min_width=90, **more)
        new = gr.Button("New seed", elem_id=f"{name}-new-seed", min_width=90)
    new.click(lambda: random.randrange(LARGEST_SEED), outputs=seed, **AT_ONCE)
    return seed


def prompt_box(name: str, **more: Any) -> gr.Textbox:
    """Where a prompt is typed; Enter draws."""
    more = {"label": "Prompt", "value": "a red circle left of a blue square"} | more
    return gr.Textbox(lines=1, max_lines=3, elem_id=f"{name}-prompt", **more)


def draw_tab(line: Line, shelf: Shelf, gallery: Gallery, model: gr.Dropdown, usual: ModelConfig) -> list[Any]:
    """Drawing, settings, the gallery; the components that depend on the model."""
    prompt = prompt_box("draw", autofocus=True)
    examples = gr.Dataset(components=[prompt], samples=[["a red circle"]], label="Examples", show_label=False)
    given = begin("draw", "Draw")
    canvas = gr.HTML(FIRST, elem_id="draw-canvas")
    origin = gr.HTML("", elem_classes="about", elem_id="draw-origin")
    with gr.Accordion("Settings", open=False, elem_id="draw-settings"):
        seed = seed_row("draw")
        with gr.Row():
            steps = gr.Number(usual.sampling.steps, label="Steps", precision=0, elem_id="draw-steps", min_width=90)
            guidance = gr.Number(
                usual.sampling.guidance,
                label="Guidance",
                info="0 ignores the prompt",
                elem_id="draw-guidance",
                min_width=90,
            )
            sampler = gr.Dropdown(
                list(SAMPLERS), value=usual.sampling.sampler, label="Sampler", elem_id="draw-sampler", min_width=110
            )
            size = gr.Textbox(str(usual.size), label="Size", info="64, or 64x96", elem_id="draw-size", min_width=90)
        dropped = gr.File(
            label="Drop a picture made here to restore its settings", file_types=[".png"], elem_id="draw-restore",
            height=110,
        )  # fmt: skip
    shown = gr.Gallery(
        label="Drawn so far", columns=8, height="auto", elem_id="draw-gallery", interactive=False,
        buttons=["download"], object_fit="contain",
        fit_columns=False,
    )  # fmt: skip

    def draw(name: str, text: str, seed: float, steps: float, guidance: float, sampler: str, size: str) -> Iterator:
        drawing, size = floor("drawing"), (size or "").strip()
        wanted = Asked(
            text or "",  # others than the page may send null
            seed_of(seed),
            None if steps is None else int(steps),
            None if guidance is None else float(guidance),
            sampler or None,
            sides(size) if size else None,
        )
        yield from drawing.draw(shelf.subject(name), wanted, gallery.folder)

    def pictures() -> tuple[list[tuple[str, str]], dict[str, str]]:
        said, names = [], {}
        for one in gallery.newest():
            with suppress(OSError):  # deleted meanwhile
                # a copy of Gradio's own: it shows no other file that is outside of the working directory
                copy = save_file_to_cache(one.file, shown.GRADIO_CACHE)
                said.append((copy, one.drawn.asked.prompt))
                names[copy] = one.file.name  # which may have letters that a copy's name has not
        return said, names

    inputs = [model, prompt, seed, steps, guidance, sampler, size]
    starts = [prompt.submit, seed.submit, steps.submit, guidance.submit, size.submit]
    event = line.on(starts, given, draw, inputs, [canvas], api="draw")
    listed = gr.State({})
    event.success(pictures, outputs=[shown, listed], **QUIET)
    line.page.load(pictures, outputs=[shown, listed], **QUIET)
    examples.click(lambda one: one[0], examples, prompt, **AT_ONCE)

    @told
    def restore(file: str) -> tuple[Any, ...]:
        return _restored(Path(file))

    @told
    def pick(choice: gr.SelectData, listed: dict[str, str]) -> tuple[Any, ...]:
        return _restored(gallery.folder / listed[choice.value["image"]["path"]])

    settings = [prompt, seed, steps, guidance, sampler, size, origin]
    dropped.upload(restore, dropped, settings, **QUIET)
    shown.select(pick, listed, settings, **QUIET)
    return [steps, guidance, sampler, size, examples]


def _restored(file: Path) -> tuple[Any, ...]:
    """What the settings are to be filled with."""
    asked, checkpoint = restored(file)
    assert asked.size, "a picture has a size"
    Name(SAMPLERS).known(asked.sampler or "")
    height, width = asked.size
    line = (
        f"<p>Settings of a picture by checkpoint {escape(checkpoint[:8]) or 'unknown'}: another one draws another.</p>"
    )
    side = str(height) if height == width else f"{height}x{width}"
    return asked.prompt, asked.seed, asked.steps, asked.guidance, asked.sampler, side, line


def words_tab(line: Line, shelf: Shelf, model: gr.Dropdown) -> None:
    """Which part of the picture looks at which word."""
    prompt, seed = prompt_box("words"), seed_row("words")
    given = begin("words", "Draw and watch")
    canvas = gr.HTML(
        '<p class="empty">Each word over the parts of the picture that look at it.</p>', elem_id="words-canvas"
    )
    choice = gr.Radio([], label="Look closer, through time", visible=False, elem_id="words-choice")
    closer = gr.HTML("", elem_id="words-closer")
    state = gr.State()

    def watch(name: str, text: str, seed: float) -> tuple[Any, ...]:
        drawing = floor("drawing")
        found = drawing.words(shelf.subject(name), text, seed_of(seed))
        radio = gr.Radio(found.words, value=found.first, visible=True)
        return found.overview, radio, drawing.word(found.seen, found.first), found.seen

    def look(number: int, seen: Any) -> str:
        drawing = floor("drawing")
        return drawing.word(seen, number)

    line.on([prompt.submit], given, watch, [model, prompt, seed], [canvas, choice, closer, state])
    choice.input(told(look), [choice, state], closer, **QUIET)


def sweep_tab(line: Line, shelf: Shelf, model: gr.Dropdown) -> None:
    """Guidance by steps, from one noise."""
    prompt, seed = prompt_box("sweep"), seed_row("sweep")
    with gr.Row():
        guidances = gr.Textbox("0 1 2 3 5 8", label="Guidance", elem_id="sweep-guidances", min_width=120)
        steps = gr.Textbox("2 4 8 24", label="Steps", elem_id="sweep-steps", min_width=120)
    given = begin("sweep", "Draw them all")
    canvas = gr.HTML('<p class="empty">The same noise under more guidance, in more steps.</p>', elem_id="sweep-canvas")

    def sweep(name: str, text: str, seed: float, guidances: str, steps: str) -> Iterator:
        drawing = floor("drawing")
        scales, counts = numbers(guidances, "guidance"), numbers(steps, "steps")
        yield from drawing.sweep(shelf.subject(name), text, seed_of(seed), scales, counts)

    inputs = [model, prompt, seed, guidances, steps]
    line.on([prompt.submit, guidances.submit, steps.submit], given, sweep, inputs, [canvas])


def two_tab(line: Line, shelf: Shelf) -> None:
    """Two models from the same noise, told or to be guessed."""
    names = shelf.names()
    with gr.Row():
        first = gr.Dropdown(names, value=names[0], label="One", allow_custom_value=True, elem_id="two-first")
        second = gr.Dropdown(names, value=names[-1], label="Other", allow_custom_value=True, elem_id="two-second")
    offer(shelf.names, [first, second], line.page.load)
    prompt, seed = prompt_box("two"), seed_row("two")
    blind = gr.Checkbox(label="Blind: guess which is which", elem_id="two-blind")
    given = begin("two", "Draw both")
    canvas = gr.HTML('<p class="empty">The same prompt and noise, two models.</p>', elem_id="two-canvas")
    guess = gr.Radio([], label="Which one drew the left picture?", visible=False, elem_id="two-guess")
    verdict = gr.HTML("", elem_id="two-verdict", elem_classes="about")
    state, score = gr.State(), gr.State((0, 0))

    def draw(one: str, other: str, text: str, seed: float, blind: bool) -> tuple[Any, ...]:
        drawing = floor("drawing")
        if blind and one == other:
            raise ValueError("both are the same model; allowed: two to tell apart")
        made = drawing.two((shelf.subject(one), shelf.subject(other)), (one, other), text, seed_of(seed), blind)
        choices = gr.Radio([one, other], value=None, visible=blind, interactive=True)
        return drawing.pair(made, not blind), choices, "", made

    @told
    def see(name: str, made: Any, score: tuple[int, int]) -> tuple[Any, ...]:
        drawing = floor("drawing")
        right, of = score[0] + (name == made.names[0]), score[1] + 1
        line = f"<p>{'Right' if name == made.names[0] else 'No'}: {right} of {of} so far.</p>"
        return drawing.pair(made, True), gr.Radio(interactive=False), line, (right, of)

    inputs = [first, second, prompt, seed, blind]
    line.on([prompt.submit], given, draw, inputs, [canvas, guess, verdict, state])
    outputs = [canvas, guess, verdict, score]
    guess.input(see, [guess, state, score], outputs, **QUIET)


def between_tab(line: Line, shelf: Shelf, model: gr.Dropdown) -> None:
    """From one prompt and seed to another."""
    with gr.Row():
        with gr.Column(min_width=200):
            first, seed_a = prompt_box("from", label="From"), seed_row("from")
        with gr.Column(min_width=200):
            second, seed_b = prompt_box("to", label="To", value="two green triangles"), seed_row("to")
    count = gr.Number(9, label="Pictures", precision=0, elem_id="between-count")
    given = begin("between", "Draw the way")
    canvas = gr.HTML('<p class="empty">Noise turns, words blend.</p>', elem_id="between-canvas")

    def between(name: str, a: str, b: str, seed_a: float, seed_b: float, count: float) -> Iterator:
        drawing = floor("drawing")
        seeds = (seed_of(seed_a), seed_of(seed_b))
        yield from drawing.between(shelf.subject(name), (a, b), seeds, int(count or 0))

    inputs = [model, first, second, seed_a, seed_b, count]
    line.on([first.submit, second.submit, count.submit], given, between, inputs, [canvas])


def train_tab(page: gr.Blocks, tab: gr.Tab, trainings: Trainings) -> gr.Timer:
    """A run in training: followed, begun, stopped, gone on with; what looks at it every few seconds."""
    names = trainings.names()
    with gr.Row(elem_classes="beside"):
        # which one is chosen at first is found when a page opens: others may be in training than when the studio began
        run = gr.Dropdown(names, value=None, label="Run", allow_custom_value=True, elem_id="train-run", scale=3)
        stop = gr.Button("Stop, save", elem_id="train-stop", min_width=90)
        resume = gr.Button("Resume", elem_id="train-resume", min_width=90)
    line = gr.HTML("", elem_id="train-line", elem_classes="about")
    facts, charts, previews = (
        gr.HTML(READ, elem_id="facts"),
        gr.HTML("", elem_id="charts"),
        gr.HTML("", elem_id="previews"),
    )
    with gr.Accordion("Begin a training", open=not names, elem_id="train-begin"):
        with gr.Row():
            recipe = gr.Dropdown(list(all_recipes()), value="shapes", label="Recipe", elem_id="train-recipe")
            name = gr.Textbox("", label="Name of the run", elem_id="train-name")
        settings = gr.Textbox(
            "", label="Settings", placeholder="--training.steps 500", elem_id="train-settings",
            info="As on the command line; left out, as the recipe has them",
        )  # fmt: skip
        start = gr.Button("Start", variant="primary", elem_id="train-start")
    seen, timer = gr.State(""), gr.Timer(SECONDS, active=False)

    def look(name: str | None, seen: str) -> tuple[Any, ...]:
        try:
            return followed(trainings, name, seen)
        except (ValueError, OSError) as error:  # told where it stands, not anew every few seconds
            return f"<p>{escape(words(error))}</p>", "", "", "", ""

    @told
    def begin(recipe: str, name: str, settings: str) -> Any:
        trainings.start(recipe, name.strip(), settings)
        return gr.Dropdown(choices=trainings.names(), value=name.strip())

    @told
    def go_on(name: str | None) -> str:
        trainings.resume(name or "")
        return "<p>it begins</p>"

    @told
    def end(name: str | None) -> str:
        trainings.stop(name or "")
        return f"<p>{escape(trainings.told(name or ''))}</p>"

    shown = [line, facts, charts, previews, seen]
    latest: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_limit": 4} | QUIET
    gr.on([tab.select, timer.tick, run.input], look, [run, seen], shown, **latest)
    begun = gr.on([start.click, name.submit, settings.submit], begin, [recipe, name, settings], run, **QUIET)
    begun.success(look, [run, seen], shown, **latest)
    resume.click(go_on, run, line, **QUIET)
    stop.click(end, run, line, **QUIET)
    offer(trainings.names, [run], page.load, tab.select)
    tab.select(lambda: gr.Timer(active=True), outputs=timer, **AT_ONCE)
    return timer


def followed(trainings: Trainings, name: str | None, seen: str) -> tuple[Any, ...]:
    """What is told of a training begun here, of the run, its charts and its previews, and the mark of all that.

    Raises:
        ValueError: one line, when there is no such run (any more), or it cannot be read.
    """
    if not name:
        return "", READ if trainings.names() else '<p class="empty">No run yet: begin one below.</p>', "", "", ""
    said = f"<p>{escape(trainings.told(name))}</p>"
    directory = trainings.directory(name)
    if name in trainings.begun and not (directory / "run.yaml").is_file():
        return said, "", "", "", ""  # it is only just being made, or nothing came of it
    following = floor("following")
    from fromnoise.reporting.record import read  # with torch, which is here by now

    mark, record = following.mark(directory), read(directory)
    if mark == seen:
        return said, following.facts(record), gr.skip(), gr.skip(), seen
    return said, following.facts(record), following.curves(record), following.previews(record), mark
