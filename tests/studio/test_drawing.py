"""What the pages draw, without a page."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image

from fromnoise.core.files import content_hash
from fromnoise.pipeline.load import weights
from fromnoise.studio import drawing
from fromnoise.studio.asked import Asked, restored
from fromnoise.studio.drawing import ask_of
from fromnoise.studio.film import Frame, film, source
from fromnoise.studio.line import said_below
from fromnoise.studio.shelf import Shelf


def pictures(shown: str) -> list[Image.Image]:
    """The pictures in HTML, less those of a film's other frames."""
    found = re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)"', shown)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_a_picture_forms_and_is_what_the_pipeline_draws(runs: Path, tmp_path: Path) -> None:
    subject = Shelf({}, runs).subject("one")
    asked = Asked("a red circle", 3, 4, 1.5, "euler", (32, 48))
    *forming, last = drawing.draw(subject, asked, tmp_path / "out")
    assert forming and all('type="range"' not in one for one in forming)
    reel = json.loads(html.unescape(re.findall(r'data-reel="([^"]+)"', last)[0]))
    assert reel[0][-1] == "t = 1.00, step 0 of 4" and len(reel) == 5
    (file,) = (tmp_path / "out").iterdir()
    assert restored(file) == (asked, content_hash(weights(runs / "one")))
    (again,) = subject.pipeline("a red circle", 4, 1.5, 3, (32, 48), sampler="euler")
    with Image.open(file) as kept:
        assert kept.tobytes() == again.tobytes() == pictures(last)[0].tobytes()
    assert base64.b64encode(file.read_bytes()).decode() in last


@pytest.mark.parametrize(
    ("name", "prompt", "label"),
    [("digits", "7", 7), ("digits", "a handwritten Seven", 7), ("digits", "", 0), ("one", "7", 0)],
)
def test_a_class_is_asked_for_by_number_or_by_name(name: str, prompt: str, label: int, runs: Path) -> None:
    assert ask_of(Shelf({}, runs).subject(name), prompt, 0.0).label == label


@pytest.mark.parametrize(
    ("name", "prompt", "said"),
    [
        ("one", " ", "no prompt is given"),
        ("digits", "", "no prompt is given"),
        ("digits", "12", "is no class of this model; allowed: a number, 0 to 9"),
        ("digits", "one or two", "is no class"),
    ],
)
def test_what_a_model_cannot_draw_is_refused(name: str, prompt: str, said: str, runs: Path) -> None:
    with pytest.raises(ValueError, match=said):
        ask_of(Shelf({}, runs).subject(name), prompt)


def test_words_are_those_that_are_read(runs: Path) -> None:
    shelf = Shelf({}, runs)
    found = drawing.words(shelf.subject("one"), "a red circle", 0)
    assert found.words == [("a", 0), ("red", 1), ("circle", 2)] and len(pictures(found.overview)) == 4
    assert "looks at “red”" in drawing.word(found.seen, 1)
    with pytest.raises(ValueError, match="no attention to show of digits: it reads no words"):
        drawing.words(shelf.subject("digits"), "7", 0)


def test_a_sweep_is_of_one_noise(runs: Path) -> None:
    subject = Shelf({}, runs).subject("one")
    *_, last = drawing.sweep(subject, "a red circle", 5, [0.0, 2.0], [1.0, 3.0])
    drawn = [one.tobytes() for one in pictures(last)]
    wanted = [subject.pipeline("a red circle", steps, scale, 5)[0].tobytes() for steps in (1, 3) for scale in (0, 2)]
    assert drawn == wanted and len(set(drawn)) == 4
    with pytest.raises(ValueError, match="9 scales and 8 numbers of steps are 72 pictures; allowed: up to 64"):
        next(drawing.sweep(subject, "a", 0, [*range(9)], [*range(1, 9)]))
    with pytest.raises(ValueError, match=r"steps: given 1\.5"):
        next(drawing.sweep(subject, "a", 0, [1.0], [1.5]))


def test_a_blind_pair_names_nobody_and_is_in_either_order(runs: Path) -> None:
    shelf = Shelf({}, runs)
    names = ("one", "other")
    subjects = (shelf.subject("one"), shelf.subject("other"))
    made = [drawing.two(subjects, names, "a red circle", 2, True) for _ in range(20)]
    assert {one.names for one in made} == {("one", "other"), ("other", "one")}
    for one in made[:3]:
        shown = dict(zip(one.names, one.pictures, strict=True))
        assert shown["one"].tobytes() == subjects[0].pipeline("a red circle", seed=2)[0].tobytes()
        blind, told = drawing.pair(one, False), drawing.pair(one, True)
        assert "other" not in re.sub(r'"data:[^"]*"', "", blind) and "Coloured shapes" not in blind
        assert "other: mmdit, linear path" in told and "one: Coloured shapes by prompt" in told
    unlike = drawing.two((subjects[0], shelf.subject("digits")), ("one", "digits"), "7", 0, False)
    assert "different shapes" in unlike.note


def test_the_way_between_ends_where_the_pictures_are(runs: Path) -> None:
    subject = Shelf({}, runs).subject("digits")
    *_, last = drawing.between(subject, ("3", "8"), (1, 1), 3)
    first, *_, end = pictures(last)[1:]
    for made, prompt in ((first, "3"), (end, "8")):
        (alone,) = subject.pipeline(prompt, seed=1)
        assert max(abs(a - b) for a, b in zip(made.tobytes(), alone.tobytes(), strict=True)) <= 2


def test_what_a_drawing_lacks_is_said_below_the_buttons_and_other_faults_are_raised() -> None:
    def draws(wanted: int) -> Iterator[str]:
        yield "half a picture"
        yield f"<p>{torch.empty(wanted).add(torch.ones(2))}"

    first, (kept, said) = said_below(draws, 1)(2**52)
    assert first == ("half a picture", "") and kept == gr.skip()
    assert "Not possible: there is no memory for 16,384 TiB more" in said
    with pytest.raises(RuntimeError, match="must match the size"):
        list(said_below(draws, 1)(3))


def test_a_film_escapes_what_it_is_told() -> None:
    frames: Any = [Frame((Image.new("L", (4, 4)),), f'<b> "{i}"') for i in range(2)]
    shown = film(frames, ("<script>",), 'x" onload="')
    assert "<script>" not in shown and "<b>" not in shown and 'x" onload' not in shown


def test_a_large_noisy_picture_is_sent_small() -> None:
    noise = Image.effect_noise((256, 256), 100)
    assert source(noise).startswith("data:image/jpeg") and source(noise.resize((32, 32))).startswith("data:image/png")
