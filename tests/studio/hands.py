"""What a person does on the studio's page, and reads there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from playwright.sync_api import TimeoutError


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


def tab(page: Any, name: str) -> None:
    there = page.get_by_role("tab", name=name, exact=True)
    if there.count():
        there.click()
        return
    page.click(".overflow-menu > button")  # a narrow page folds the last ones away
    page.locator(".overflow-dropdown button", has_text=name).click()


def toast(page: Any) -> str:
    """What the page says went wrong; it is then closed."""
    said = page.locator("[data-testid=toast-text]").first
    said.wait_for()
    text = said.inner_text()
    page.locator("[data-testid=toast-close]").first.click()
    page.locator("[data-testid=toast-text]").first.wait_for(state="detached")
    return text


def unfold(page: Any, place: str) -> None:
    """Open what is folded away in `place`. While a page is still put together it may fold again: then once more."""
    field = page.locator(f"{place} input, {place} textarea").first
    for _ in range(6):
        if field.is_visible():
            return
        page.click(f"{place} button >> nth=0")
        with suppress(TimeoutError):
            field.wait_for(state="visible", timeout=5000)
    raise AssertionError(f"{place} stays folded")


def choose(page: Any, field: str, value: str) -> None:
    """Type a value into a list that takes others than its own, and go on to what stands behind; the list closes."""
    page.fill(field, value)
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    place = page.locator(field.removesuffix(" input"))
    until(lambda: place.get_by_role("option").count() == 0)
