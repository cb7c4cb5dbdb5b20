"""The site as `make docs` builds it: nothing in it is fetched from elsewhere, and its references tell all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import docs.build as docs
import fromnoise
from fromnoise.cli.completion import candidates
from fromnoise.cli.main import COMMANDS
from fromnoise.recipes import all_recipes

LOADING = {
    "audio", "embed", "iframe", "img", "input", "link", "object", "script", "source", "track", "video", "use", "image",
}  # fmt: skip


class Page(HTMLParser):
    """The addresses in a page: those that a browser loads by itself, and those that a reader may follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.followed: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.names.add(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action") and value:
                (self.loaded if tag in LOADING else self.followed).append(value)


def faults(site: Path) -> Iterator[str]:
    """What is loaded from elsewhere, and addresses in the site at which nothing lies."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    for file, page in pages.items():
        for address in page.loaded + page.followed:
            place, _, name = address.partition("#")
            if re.match(r"(\w+:)?//|mailto:", place):
                if address in page.loaded:
                    yield f"{file.name} loads {address}"
            elif not place.startswith("data:"):
                there = site / place[1:] if place.startswith("/") else file.parent / place if place else file
                there = there / "index.html" if there.is_dir() else Path(os.path.normpath(there))
                if not there.is_file():
                    yield f"{file.name}: nothing lies at {address}"
                elif name and there in pages and name not in pages[there].names:
                    yield f"{file.name}: {place} has no place called {name}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"url\(['\"]?([^'\")]+)", sheet.read_text(encoding="utf-8")):
            if not address.startswith("data:") and not (sheet.parent / address).is_file():
                yield f"{sheet.name} loads {address}"


def test_the_site(tmp_path: Path, visit: Callable[[str, Path], tuple[str, list[str]]] | None) -> None:
    site = docs.build(tmp_path)
    assert not list(faults(site))
    pages = {file.relative_to(site).as_posix(): file.read_text(encoding="utf-8") for file in site.rglob("*.html")}
    assert {"index.html", "concepts.html", "troubleshooting.html", "extending.html"} <= set(pages)
    assert {f"commands/{command}.html" for command in COMMANDS} <= set(pages)
    for command in set(COMMANDS) - {"train", "plan", "doctor", "recipes", "report"}:
        assert all(flag in pages[f"commands/{command}.html"] for flag in candidates([command, "--"]))
    told = pages["reference/settings.html"]
    for flags in (
        [],
        ["--model.path.type", "vp"],
        ["--model.conditioner.type", "frozen_text"],
        ["--data.type", "folder"],
    ):
        fields = [flag for flag in candidates(["train", "folder", *flags, "--"]) if "." in flag]
        assert len(fields) > 50
        assert all(field in told for field in fields)
    assert all(
        f'id="{name}"' in pages["reference/recipes.html"] for name in all_recipes() if not name.startswith("vae")
    )
    for name in fromnoise.__all__:
        assert f'id="fromnoise.{name}"' in pages["reference/python.html"]
    for lesson in docs.ROOT.glob("lessons/*.ipynb"):
        told = pages[f"lessons/{lesson.stem}.html"]
        shown = lesson.read_text(encoding="utf-8").count('"image/png"')
        assert told.count('alt="What the code above shows"') == shown > 3
        assert "Exercise 1: write your answer" in told and f'href="lessons/{lesson.stem}.html"' in pages["lessons.html"]
    equations = pages["concepts.html"].count('class="arithmatex"')
    assert equations > 40

    if visit is None:
        pytest.skip("no Chromium here: the pages were read, and not shown")
    dom, asked = visit((site / "concepts.html").as_uri(), tmp_path)
    assert not asked
    assert dom.count('class="katex"') == equations


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("[a](../README.md) and [b](mnist.md#c)", "[a](index.md) and [b](mnist.md#c)"),
        ("[r](../benchmarks/results/a.json)", "[r](results/a.json)"),
        ("[p](../fromnoise/diffusion/path.py)", "[p](reference/fromnoise.diffusion.md#fromnoise.diffusion.path)"),
        ("[1](../lessons/1_a.ipynb)", "[1](lessons/1_a.md)"),
        ("[one](../examples/one_file.py).", "one (`examples/one_file.py`)."),
        ("a\n<!-- from: x:y;\n  z -->\n- b", "a\n\n- b"),
    ],
)
def test_links_hold_in_the_site(there: str, here: str) -> None:
    assert docs.page(there) == here


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('<script src="https://cdn.example/a.js"></script>', "a.html loads https://cdn.example/a.js"),
        ('<link href="//fonts.example/f.css">', "a.html loads //fonts.example/f.css"),
        ('<img src="b.png">', "a.html: nothing lies at b.png"),
        ('<a href="a.html#none">', "a.html: a.html has no place called none"),
        ('<a href="https://example.org">', ""),
        ('<a href="#there"><p id="there">', ""),
    ],
)
def test_what_is_loaded_from_elsewhere_is_seen(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(text, encoding="utf-8")
    assert list(faults(tmp_path)) == [fault] * bool(fault)


def test_a_style_that_loads_from_elsewhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@font-face { src: url(https://fonts.example/f.woff2) }", encoding="utf-8")
    assert list(faults(tmp_path)) == ["a.css loads https://fonts.example/f.woff2"]
