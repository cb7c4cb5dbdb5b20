"""How soon the studio's page and its pictures come, with eight people at once, and what it holds: one JSON record.

python -m benchmarks.studio
python -m benchmarks.studio --seconds 10 --pictures 10 --rounds 2 --out /tmp/studio.json
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from gradio_client import Client

from benchmarks.harness import describe_machine, put, write_record
from fromnoise.cli.studio import SHIPPED

ROOT = Path(__file__).parent.parent
PEOPLE = 8
STEPS, GUIDANCE = 28, 3.0
WAIT = 120.0  # seconds after which the page is not expected any more
PROMPTS = ("a red circle left of a blue square", "two green triangles", "a large yellow star", "three black crosses")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="starts that are measured")
    parser.add_argument("--seconds", type=float, default=120.0, help="for which people draw at once")
    parser.add_argument("--pictures", type=int, default=200, help="over which memory is measured")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/studio.json")
    asked = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        starts = [started(place) for _ in range(asked.rounds)]
        with serving(place) as (address, process, _):
            client = connected(address)
            alone = [drawn(client, seed)[0] for seed in range(-3, 20)][3:]  # the first three wait for what is done once
            crowd = together(address, place, asked.seconds)
            memory = held(client, process.pid, asked.pictures)
    record: dict[str, Any] = {
        "command": "python -m benchmarks.studio",
        "machine": machine,
        "first_page_seconds": spread(starts),
        "picture": {"steps": STEPS, "guidance": GUIDANCE, "seconds": spread(alone)},
        "together": {"people": PEOPLE, **crowd},
        "memory": memory,
    }
    write_record(asked.out, record)
    if asked.out.is_relative_to(ROOT):
        put(told(record), ROOT / "docs/studio.md")


@contextmanager
def serving(place: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """A studio of its own: its address, its process, and the seconds until its page was there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, began = f"http://127.0.0.1:{port}/", time.perf_counter()
    command = [sys.executable, "-m", "fromnoise.cli.main", "studio", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL) as process:
        while True:
            try:
                with urlopen(address) as page:
                    page.read()
                break
            except (URLError, ConnectionError):
                if process.poll() is not None or time.perf_counter() - began > WAIT:
                    raise RuntimeError("the studio did not come up") from None
                time.sleep(0.02)
        seconds = time.perf_counter() - began
        try:
            yield address, process, seconds
        finally:
            process.send_signal(signal.SIGTERM)


def started(place: Path) -> float:
    """Seconds from the command to the page."""
    with serving(place) as (_, _, seconds):
        return seconds


def connected(address: str) -> Client:
    """Somebody who has the page open."""
    return Client(address, verbose=False, analytics_enabled=False)


def drawn(client: Client, seed: int) -> tuple[float, bool]:
    """Seconds until a picture is finished, and whether it came."""
    began = time.perf_counter()
    seed = abs(seed)
    asked = (SHIPPED, PROMPTS[seed % len(PROMPTS)], seed, STEPS, GUIDANCE, "ddim", "32")
    shown, _ = client.predict(*asked, api_name="/draw")
    return time.perf_counter() - began, "Save PNG" in shown


def together(address: str, place: Path, seconds: float) -> dict[str, Any]:
    """Eight people who draw one picture after the other: what they waited, what went wrong, what was lost."""
    waited: list[float] = []
    errors: list[str] = []
    lost, seeds = count(), count(10_000)
    before, end = len(list((place / "pictures").glob("*.png"))), time.perf_counter() + seconds

    def person() -> None:
        client = connected(address)
        while time.perf_counter() < end:
            try:
                took, came = drawn(client, next(seeds))
                waited.append(took)
                if not came:
                    next(lost)
            except Exception as error:  # whatever goes wrong is what is counted
                errors.append(str(error))

    people = [threading.Thread(target=person) for _ in range(PEOPLE)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    kept = len(list((place / "pictures").glob("*.png"))) - before
    return {
        "asked_for_seconds": seconds,
        "pictures": len(waited),
        "errors": len(errors),
        "first_errors": errors[:3],
        "lost": len(waited) - kept + next(lost),
        "waited_seconds": spread(waited),
    }


def held(client: Client, pid: int, pictures: int) -> dict[str, Any]:
    """MiB that the server has before and after so many pictures, and along the way."""
    marks = [resident(pid)]
    for i in range(1, pictures + 1):
        drawn(client, i)
        if i % max(1, pictures // 10) == 0:
            marks.append(resident(pid))
    return {"pictures": pictures, "mib_before": marks[0], "mib_after": marks[-1], "mib_along_the_way": marks}


def resident(pid: int) -> float:
    """MiB of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def told(record: dict[str, Any]) -> str:
    """What the page on the studio says of the record, with where each number is from."""
    page, picture, crowd, memory = (record[key] for key in ("first_page_seconds", "picture", "together", "memory"))
    keys = ["first_page_seconds.median", "picture.seconds.median", "together.waited_seconds.median"]
    keys += ["memory.mib_before", "memory.mib_after"]
    sources = "; ".join(f"studio:{key}" for key in keys)
    waited, asked = crowd["waited_seconds"]["median"], picture["steps"]
    lines = [
        f"<!-- from: {sources} -->",
        f"The page is there {page['median']:.1f} s after the command; a picture of {asked} guided steps takes",
        f"{picture['seconds']['median']:.2f} s. {crowd['people']} people who drew {crowd['pictures']:,} pictures at",
        f"once waited {waited:.2f} s for one, with {crowd['errors']} errors and {crowd['lost']} lost.",
        f"The server held {memory['mib_before']:.0f} MiB before {memory['pictures']} pictures more, and",
        f"{memory['mib_after']:.0f} MiB after them.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
