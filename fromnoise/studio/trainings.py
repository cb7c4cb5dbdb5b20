"""Trainings that are started from the studio: commands in processes of their own, whose directories lie in one folder.

They are asked to stop by a signal, upon which a training finishes its step and saves; the same command goes on. When
the studio ends, so do they, saved. Where it is killed they go on, and the next one finds them as it finds those that
were begun in a terminal: by the process that each directory names.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fromnoise.core.config import hint
from fromnoise.recipes import all_recipes
from fromnoise.studio.shelf import inside, runs_in, shown
from fromnoise.training.alone import Holder, holder

MOST = 2  # at once
LOGS = ".studio"  # in the folder of runs: what each training printed
TOLD = 4000  # bytes of that which are looked at
# On Windows SIGTERM ends a process at once, and asks nothing; only a group of its own can be asked.
ASK = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
OWN_GROUP = subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0
STOPPED = (143, 149)  # exit codes of a training that was asked, and saved: 128 and SIGTERM, or Windows' SIGBREAK


class Under(NamedTuple):
    """A training that was started here."""

    process: subprocess.Popen[bytes]
    log: Path
    stopping: bool = False


class Trainings:
    """Those in the folder `runs`, by their names, and the processes that this one started."""

    def __init__(self, runs: Path):
        self.runs = runs
        self.begun: dict[str, Under] = {}
        self.asked: set[Holder] = set()  # to stop, of those that others began
        self.lock = threading.Lock()  # two people press at once

    def names(self) -> list[str]:
        """All runs in the folder, and those that are only just being made: those in training first, then the latest."""
        there = [path.name for path in runs_in(self.runs)]
        begun = list(self.begun)  # somebody may begin another one meanwhile
        new = [name for name in begun if name not in there and self.alive(name)]
        return [*new, *sorted(there, key=lambda name: not self.alive(name) and holder(self.runs / name) is None)]

    def directory(self, name: str) -> Path:
        """The directory of the run called `name`; ValueError where that is no name of one in the folder."""
        if not name or name != Path(name).name:  # another path to the same directory would be trained in twice
            raise ValueError(f"run: given {shown(name)}; allowed: the name of a run, without folders")
        return inside(self.runs, name)

    def start(self, recipe: str, name: str, settings: str) -> None:
        """Train `recipe` in the run called `name`, with `settings` as on the command line, "--training.steps 500".

        Raises:
            ValueError: one line, when that cannot be begun.
        """
        if recipe not in all_recipes():
            raise ValueError(f"unknown recipe {shown(recipe)}; {hint(recipe, all_recipes())}")
        if not re.fullmatch(r"\w[\w.+-]{0,63}", name):
            raise ValueError(f"run: given {shown(name)}; allowed: up to 64 letters, digits, - _ . +, without folders")
        directory = self.directory(name)
        if directory.exists():
            raise ValueError(f"{directory} is there already; resume it, or choose another name")
        try:
            words = split(settings)
        except ValueError as error:
            raise ValueError(f"settings: given {shown(settings)}: {error}; allowed: --training.steps 500") from None
        for word in words:
            if word.replace("_", "-").startswith("--directory"):
                raise ValueError(f"settings: --directory is the run's name; allowed: other fields of {recipe}")
        self._launch(name, [recipe, *words])

    def resume(self, name: str) -> None:
        """Go on with the run called `name`; ValueError where there is none, or it is being trained."""
        record = self.directory(name) / "run.yaml"
        if not record.is_file():
            raise ValueError(f"there is no run {shown(name)} to go on with; {hint(name, self.names())}")
        if by := holder(record.parent):
            raise ValueError(f"{name} is being trained already, by {_process(by)}")
        self._launch(name, [str(record)])

    def stop(self, name: str) -> None:
        """Ask the training to finish its step, save, and end. ValueError where there is none on this machine."""
        with self.lock:
            if not self.alive(name):
                self._stop_other(name)
                return
            under = self.begun[name]
            if not under.stopping:  # a second signal would end it unsaved
                under.process.send_signal(ASK)
                self.begun[name] = under._replace(stopping=True)

    def _stop_other(self, name: str) -> None:
        by = holder(self.directory(name))
        if by is None:
            raise ValueError(f"{shown(name)} is not being trained")
        if not by.here:
            raise ValueError(f"{name} is being trained by {_process(by)}; there kill {by.pid} stops it, saved")
        if sys.platform == "win32":  # asks a process of its own console alone, and would end any other unsaved
            raise ValueError(f"{name} is being trained by {_process(by)}; there Ctrl-C stops it, saved")
        if by not in self.asked:
            os.kill(by.pid, ASK)
            self.asked.add(by)

    def alive(self, name: str) -> bool:
        """Whether it is being trained from here."""
        return name in self.begun and self.begun[name].process.poll() is None

    def told(self, name: str) -> str:
        """What is to be said of the training called `name`, in a line; "" where there is none, and none was begun
        here."""
        if not self.alive(name) and (by := holder(self.directory(name))):
            return "it finishes its step and saves" if by in self.asked else f"it is trained by {_process(by)}"
        if name not in self.begun:
            return ""
        under, code = self.begun[name], self.begun[name].process.poll()
        last = _last(under.log)
        if code is None:
            return "it finishes its step and saves" if under.stopping else last or "it begins"
        if code < 0:  # as one that was asked before its first step
            return f"it was ended by signal {-code}: nothing more was saved"
        if code == 0 and not (self.runs / name).is_dir():  # as after --help
            return f"there is no run {shown(name)}; what was printed is in {under.log}"
        saved = dict.fromkeys(STOPPED, "it was stopped, and saved")
        return ({0: "it is trained to its end"} | saved).get(code, last or f"ended: {code}")

    def close(self) -> None:
        """Stop all, and wait until they have saved."""
        for name in list(self.begun):
            with suppress(ValueError):  # it has ended by itself
                self.stop(name)
        for under in self.begun.values():
            under.process.wait()

    def _launch(self, name: str, words: Sequence[str]) -> None:
        with self.lock:
            running = [other for other in self.begun if self.alive(other)]
            if name in running:
                raise ValueError(f"{name} is being trained already")
            if len(running) >= MOST:
                raise ValueError(f"{' and '.join(running)} are being trained; allowed: {MOST} at once: stop one first")
            logs = self.runs / LOGS
            logs.mkdir(parents=True, exist_ok=True)
            log = logs / f"{name}.log"
            command = [
                sys.executable,
                "-m",
                "fromnoise.cli.main",
                "train",
                *words,
                "--directory",
                str(self.runs / name),
            ]
            with open(log, "wb") as file:
                # In a session of its own, so that Ctrl-C in the studio's terminal asks it once, by `close`.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    creationflags=OWN_GROUP,
                )
            self.begun[name] = Under(process, log)


def split(line: str) -> list[str]:
    """The words of a command line, as a POSIX shell has them; on Windows a backslash is a folder's. ValueError for a
    quote without its other."""
    words = shlex.shlex(line, posix=True)
    words.whitespace_split, words.commenters = True, ""
    if sys.platform == "win32":
        words.escape = ""
    return list(words)


def _process(by: Holder) -> str:
    return f"process {by.pid}" if by.here else f"process {by.pid} on {by.host}"


def _last(log: Path) -> str:
    """The last line that was printed; "" where that was deleted."""
    if not log.is_file():
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TOLD))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
