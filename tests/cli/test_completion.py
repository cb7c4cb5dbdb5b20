"""Completion as a shell asks for it: commands, recipes, fields and values; and the script, read by a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fromnoise.cli.completion import candidates
from fromnoise.cli.main import COMMANDS, main
from fromnoise.recipes import RECIPES, VAE_RECIPES

EVERY = [*RECIPES, *VAE_RECIPES]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["sa"], ["sample"]),
        (["--v"], ["--version"]),
        (["--print-completion", "z"], ["zsh"]),
        (["train", ""], EVERY),
        (["compare", "sd1", "sd"], ["sd1", "sd2", "sd3"]),
        (["train", "shapes", "--training.bat"], ["--training.batch"]),
        (["train", "--training.bat"], []),
        (["train", "shapes", "--model.path.type", ""], ["linear", "cosine", "vp"]),
        (["train", "shapes", "--model.path.beta"], []),
        (
            ["train", "shapes", "--model.path.type", "vp", "--model.path.beta"],
            ["--model.path.beta_start", "--model.path.beta_end"],
        ),
        (["train", "shapes", "--model.path.type", "="], ["linear", "cosine", "vp"]),
        (["sample", "--sampler", "dp"], ["dpmpp_2m"]),
        (["sample", "a red"], []),
        (["sweep", "x0", "--gu"], ["--guidances"]),
        (["sweep", "x0", "--field", "training.batch=32,64", "--o"], ["--out"]),
        (["doctor", "phase5-"], ["phase5-classes"]),
        (["none", ""], []),
    ],
)
def test_what_may_come_next(words: list[str], wanted: list[str]) -> None:
    assert candidates(words) == wanted


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_flags(command: str) -> None:
    found = candidates([command, *(["shapes"] if command in ("train", "plan", "doctor") else []), "--"])
    assert found[0] == "--help"
    assert len(found) > 1 or command in ("recipes", "report")


LINES = [["swe"], ["train", "pha"], ["train", "x0", "--model.objective.ta"]]
ANSWERS = ["sweep", "phase1 phase2 phase3 phase4 phase5 phase5-classes", "--model.objective.target"]


def said(place: Path, shell: str, run: str) -> list[str]:
    """The lines that a shell prints, with the command `fromnoise` on its path; skips the test where it is not here."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    command = place / "fromnoise"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fromnoise.cli.main "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    env = os.environ | {"PATH": f"{place}{os.pathsep}{os.environ['PATH']}", "HOME": str(place)}
    bare = {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[shell]
    done = subprocess.run([program, bare, "-c", run], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_completes(tmp_path: Path) -> None:
    asked = "; ".join(
        f"COMP_WORDS=(fromnoise {' '.join(words)}); COMP_CWORD={len(words)}; _fromnoise; echo ${{COMPREPLY[@]}}"
        for words in LINES
    )
    told = said(tmp_path, "bash", f"source <(fromnoise --print-completion bash); {asked}; complete -p fromnoise")
    assert told == [*ANSWERS, "complete -o default -F _fromnoise fromnoise"]


def test_zsh_completes(tmp_path: Path) -> None:
    asked = "; ".join(f"words=(fromnoise {' '.join(words)}); CURRENT=$#words; _fromnoise" for words in LINES)
    stubs = "compdef() { :; }; compadd() { echo ${(P)2}; }; _files() { echo files; }"  # there is no line to be edited
    told = said(tmp_path, "zsh", f"{stubs}; source <(fromnoise --print-completion zsh); {asked}")
    assert told == ANSWERS


def test_fish_completes(tmp_path: Path) -> None:
    asked = "; ".join(f"string join -- ' ' (complete -C 'fromnoise {' '.join(words)}')" for words in LINES)
    assert said(tmp_path, "fish", f"fromnoise --print-completion fish | source; {asked}") == ANSWERS


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "bsh"]) == 2
    told = capsys.readouterr().err
    assert "given 'bsh'; allowed: bash, zsh, fish; nearest: bash" in told
    assert main(["--print-completion"]) == 2
