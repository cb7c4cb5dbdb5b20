"""The command `fromnoise`: finds the command asked for, and tells a fault of the user's in one line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from keyword import iskeyword

from fromnoise.core.needs import lacked
from fromnoise.core.ranks import let_first_speak

COMMANDS = {
    "recipes": "list the recipes",
    "prepare": "encode pictures and captions once, as shards to train from",
    "plan": "tell what a training will need: memory, time, disk and money",
    "doctor": "examine a run or data before it is trained on: what is wrong, why it matters, what to do",
    "train": "train a model by a recipe or a run.yaml, or go on with a training that was stopped",
    "sample": "draw pictures of prompts",
    "buckets": "show how the pictures of a source fall into buckets of one shape each",
    "evaluate": "measure a model: what was asked for, distance from real pictures, copies, whether it listens",
    "report": "write what a run is and how it went, as an HTML page and a model card",
    "diff": "show how two runs differ: settings, curves, pictures from the same noise, metrics",
    "compare": "train recipes alike, or take finished runs, and report on them side by side",
    "export": "write a run as a folder that diffusers opens, and its backbone as ONNX",
    "import": "make a run of a folder that diffusers saved",
    "push": "upload a run, with its model card, to the hub",
    "sweep": "find how a finished run draws best, or what fields of a recipe do",
    "draw": "draw the prompts of a public benchmark, for its own judges to score",
    "studio": "draw, look inside, compare and train in a browser",
    "plot": "draw pictures of how a model works: schedules, weights, trajectories, attention, ...",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run `fromnoise ARGS` and return its exit code: 0 done, 1 where something was found wrong, 2 for a fault of
    the user's, told in one line."""
    args = sys.argv[1:] if args is None else list(args)
    for stream in (sys.stdout, sys.stderr):  # a prompt may hold letters that the terminal's encoding has not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as of `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is it told when Python ends
        return 141
    except (ValueError, OSError) as error:
        let_first_speak()
        print(f"fromnoise: {_line(error)}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not (said := lacked(error)):
            raise
        let_first_speak()
        print(f"fromnoise: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fromnoise: stopped", file=sys.stderr)
        return 130


def _run(args: list[str]) -> int:
    first, rest = (args[0], args[1:]) if args else ("", [])
    if first in TOLD:
        print(TOLD[first](rest))
        return 0
    return _command(first)(rest) or 0


def _command(name: str) -> Callable[[Sequence[str]], int | None]:
    if name not in COMMANDS:
        from fromnoise.core.config import hint

        raise ValueError(f"unknown command {name!r}; {hint(name, COMMANDS)}")
    return import_module(f"fromnoise.cli.{name}{'_' * iskeyword(name)}").main


def _welcome(rest: list[str]) -> str:
    return """\
fromnoise trains text-to-image models from nothing, and draws with them. To begin with:

  fromnoise sample "a red circle left of a blue square"   a picture now, by the model that comes along
  fromnoise train shapes                                  a model of your own, in minutes on two cores
  fromnoise recipes                                       what else there is to train

fromnoise --help lists all commands."""


def _version(rest: list[str]) -> str:
    from fromnoise.core.machine import versions

    told = versions()
    return ", ".join(f"{name} {told[name]}" for name in ("fromnoise", "torch", "python") if name in told)


def _complete(words: list[str]) -> str:
    from fromnoise.cli.completion import candidates

    return "\n".join(candidates(words))


def _print_completion(rest: list[str]) -> str:
    from fromnoise.cli.completion import script

    return script(rest)


def _help(rest: list[str]) -> str:
    lines = [f"  {name:<10}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fromnoise COMMAND ...",
            "",
            "Trains text-to-image models from nothing, and draws with them.",
            "",
            *lines,
            "",
            "fromnoise COMMAND --help lists what a command takes; fromnoise train RECIPE --help lists every",
            "field of a run. fromnoise --version tells versions; fromnoise --print-completion bash (or zsh, fish)",
            "prints what makes a shell complete commands, recipes and fields.",
        ]
    )


TOLD: dict[str, Callable[[list[str]], str]] = {
    "": _welcome,
    "-h": _help,
    "--help": _help,
    "--version": _version,
    "--print-completion": _print_completion,
    "--complete": _complete,
}
"""What is told without a command, by the first word; what a completion script asks is the last."""


def _line(error: ValueError | OSError) -> str:
    """The fault in one line."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        from fromnoise.core.config import explain

        return explain(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
