"""Serving the page: the address first, then Gradio, then the page, and the model while it comes up."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.core.config import Config

if TYPE_CHECKING:
    from fromnoise.studio.shelf import Shelf

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST_UPLOAD = 8 * 2**20  # bytes of a picture that is dropped


class Served(Config):
    """Where the studio is reached, and where things are."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets others in, who can then draw and train here."""
    port: int = 7860
    """Port, 1 to 65535."""
    runs: Path = Path("runs")
    """Folder of the runs that can be drawn with, followed, begun and gone on with."""
    out: Path = Path("pictures")
    """Folder of the pictures that are drawn, and of the gallery; no file in it is ever overwritten."""
    queue: int = 32
    """How many may wait for their picture; the next one is told to come back."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""


def serve(served: Served, given: Mapping[str, Path]) -> None:
    """Serve the studio until Ctrl-C or SIGTERM; trainings that it began are then stopped, and saved.

    given: models by name, the first one chosen at first.

    Raises:
        ValueError: one line, when the address is taken or is none, or Gradio is not installed.
    """
    refuse_taken(served.host, served.port)
    if served.queue < 1:
        raise ValueError(f"queue is {served.queue}; allowed: 1 or more")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    gc.disable()  # what is imported stays: to look for garbage in it takes a sixth of the time
    try:
        from fromnoise.studio import look, page
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "gradio_client"):
            raise
        raise ValueError('the studio needs: pip install "fromnoise[studio]"') from None
    finally:
        gc.freeze()
        gc.enable()
    from fromnoise.studio.shelf import Shelf
    from fromnoise.studio.trainings import Trainings

    shelf, trainings = Shelf(given, served.runs, served.device), Trainings(served.runs)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    blocks = page.build(shelf, trainings, served.out, served.queue).queue(default_concurrency_limit=8)
    blocks.launch(
        server_name=served.host,
        server_port=served.port,
        quiet=True,
        share=False,
        prevent_thread_lock=True,
        theme=look.theme(),
        css_paths=Path(__file__).with_name("look.css"),
        head=look.HEAD,
        footer_links=[],
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
    )
    print(f"fromnoise studio: http://{served.host}:{served.port} (Ctrl-C ends it)", flush=True)
    if served.host not in LOOPBACK:
        print("note: whoever can reach this address can draw and train here", file=sys.stderr, flush=True)
    threading.Thread(target=_ready, args=(shelf, next(iter(given)), page.floor), daemon=True).start()
    while not ended.wait(1.0):  # Windows hears of Ctrl-C only between two waits
        pass
    blocks.close(verbose=False)
    trainings.close()


def refuse_taken(host: str, port: int) -> None:
    """Find that `host` and `port` can be listened on.

    Raises:
        ValueError: one line, when they cannot.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"port is {port}; allowed: 1 to 65535")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as tried:
            if os.name == "posix":  # elsewhere it would take an address that another process listens on
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from None


def _ready(shelf: Shelf, name: str, floor: Callable[[str], Any]) -> None:
    """Load torch and the first model while the page comes up."""
    try:
        floor("drawing").warm_up(shelf.subject(name))
    except (ValueError, OSError) as error:
        print(f"fromnoise: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
