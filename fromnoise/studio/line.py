"""The line before the network: what begins a drawing, waits its turn, and is told where nothing comes of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from fromnoise.core.needs import lacked

ONE = "network"  # what shares it waits in one line: two pictures at once would take twice as long each
AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private"}


class Begin(NamedTuple):
    """What begins a drawing, what stops it, and where it is said why there is none."""

    button: gr.Button
    stop: gr.Button
    said: gr.HTML


def begin(name: str, words: str) -> Begin:
    """Two buttons and an empty line below them."""
    with gr.Row():
        button = gr.Button(words, variant="primary", elem_id=f"{name}-go", scale=3)
        stop = gr.Button("Stop", elem_id=f"{name}-stop", scale=1, min_width=80)
    return Begin(button, stop, gr.HTML("", elem_id=f"{name}-said"))


class Line:
    """Everybody who waits for the network of the studio whose page is `page`, at most about `most` of them."""

    def __init__(self, page: gr.Blocks, most: int):
        self.page = page
        self.most = most

    def on(
        self, starts: list[Any], given: Begin, function: Callable[..., Any], inputs: list[Any], outputs: list[Any],
        api: str = "",
    ) -> Any:  # fmt: skip
        """Let the button and any of `starts` wait for the network and run `function`, and the other button end it.

        Where it raises ValueError or OSError, or memory is lacking, words of that stay below the buttons until the next
        drawing. Who finds the line full is told so beside the prompt, and waits for nothing.
        """
        prompt = next(i for i, one in enumerate(inputs) if isinstance(one, gr.Textbox))

        def room(*args: Any) -> list[Any]:
            waiting = len(self.page._queue)  # Gradio's own bound would refuse the rest of the page, too
            told = [None] * len(args)
            said = f"The line is full: {waiting} pictures are waited for. Press again in a minute."
            return [*told[:prompt], gr.validate(waiting < self.most, said), *told[prompt + 1 :]]

        visible: dict[str, Any] = {"api_name": api} if api else {"api_visibility": "private"}
        event = gr.on(
            [given.button.click, *starts], said_below(function, len(outputs)), inputs, [*outputs, given.said],
            concurrency_id=ONE, concurrency_limit=1, show_progress="full", show_progress_on=outputs[0],
            validator=room, **visible,
        )  # fmt: skip
        given.stop.click(None, cancels=[event], **AT_ONCE)
        return event


def said_below(function: Callable[..., Any], outputs: int) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """The same, step by step, with one more output: why there is no picture, or nothing."""

    @functools.wraps(function)
    def stepwise(*args: Any) -> Iterator[tuple[Any, ...]]:
        try:
            made = function(*args)
            steps: Any = made if inspect.isgenerator(made) else [made]
            for shown in steps:
                yield (*shown, "") if outputs > 1 else (shown, "")
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not lacked(error):
                raise
            said = f'<p class="refused" role="alert">Not possible: {escape(words(error))}</p>'
            yield (*[gr.skip()] * outputs, said)

    return stepwise


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, whose ValueErrors and OSErrors are shown over the page, in a line that stays until it is closed."""

    @functools.wraps(function)
    def once(*args: Any) -> Any:
        try:
            return function(*args)
        except (ValueError, OSError) as error:
            raise gr.Error(escape(words(error)), duration=None, title="Not possible", print_exception=False) from None

    return once


def words(error: Exception) -> str:
    """What `error` says, in one line."""
    return lacked(error) or " ".join(str(error).split())
