"""The command line as a user meets it: quick help, and every fault told in one line with exit code 2."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fromnoise.cli.main import COMMANDS, main
from fromnoise.recipes import RECIPES, VAE_RECIPES

HELPS = [
    [],
    ["--help"],
    ["--version"],
    ["--complete", "train", "shapes", "--"],
    ["recipes"],
    *([command, "--help"] for command in COMMANDS),
]
HELPS += [["train", "shapes", "--help"]]
SCRIPT = """
import sys
from fromnoise.cli.main import main
for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as stopped:
        assert stopped.code == 0
for slow in ('torch', 'numpy', 'PIL', 'rich', 'safetensors', 'tokenizers'):
    assert slow not in sys.modules, slow
"""


@pytest.mark.parametrize("args", HELPS, ids=" ".join)
def test_help_never_imports_torch_and_is_quick(args: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    # Compiled once, as it is wherever Python may write; best of 5. Half a second, or on a slow machine five times what
    # pydantic takes to import, which every configuration needs: a help takes three (torch would be ten more).
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path_factory.getbasetemp() / "compiled")}
    seconds, yardstick = list[float](), list[float]()
    for _ in range(5):
        seconds.append(processor_time([sys.executable, "-c", SCRIPT, " ".join(args)], compiled))
        if seconds[-1] < 0.5:
            return
        yardstick.append(processor_time([sys.executable, "-c", "import pydantic.main"], compiled))
        if seconds[-1] < 5 * min(yardstick):
            return
    pytest.fail(
        f"fromnoise {' '.join(args)} took {min(seconds):.2f} s of processor time ({min(yardstick):.2f} pydantic)"
    )


def test_no_recipe_s_help_imports_torch() -> None:
    helps = [f"train {recipe} --help" for recipe in (*RECIPES, *VAE_RECIPES)]
    told = subprocess.run([sys.executable, "-c", SCRIPT, *helps], capture_output=True, text=True, check=True).stdout
    assert all(f"train {recipe}" in told for recipe in (*RECIPES, *VAE_RECIPES))


def processor_time(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of it, so that other work does not count, which a command takes that ends well."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | environment)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return used.ru_utime + used.ru_stime


def test_who_stops_reading_is_told_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "fromnoise", "recipes"]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert ended.stderr == b"" and ended.returncode == 141


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(command in told for command in COMMANDS)


def test_alone_it_says_what_to_begin_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    lines = [shlex.split(line)[:3] for line in told.splitlines() if line.startswith("  fromnoise ")]
    assert [words[1] for words in lines] == ["sample", "train", "recipes"]
    assert lines[1][2] in RECIPES
    assert "fromnoise --help" in told


def test_versions_are_those_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    names = [f"{name} {version(name)}" for name in ("fromnoise", "torch")]
    assert capsys.readouterr().out == f"{', '.join(names)}, python {platform.python_version()}\n"


def test_letters_that_the_terminal_has_not_are_no_fault(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fromnoise.cli.main", "train", "рецепт"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert rb"unknown recipe '\u0440" in done.stderr


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What `fromnoise ARGS` says when it refuses: exactly one line on stderr, and exit code 2."""
    assert main(args) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("fromnoise: ")
    return said.err.removeprefix("fromnoise: ").strip()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("trian shapes", ["unknown command 'trian'", "nearest: train"]),
        ("train", ["a recipe or a run.yaml must come first", "shapes, folder"]),
        ("train --directory x", ["must come first"]),
        ("train shaps", ["unknown recipe 'shaps'", "allowed: shapes, folder", "nearest: shapes"]),
        ("train none.yaml", ["cannot read none.yaml: No such file"]),
        ("train shapes --training.seed 9223372036854775808", ["training.seed: given", "less than 9223372036854775808"]),
        ("train shapes --training.lrr 3", ["unknown flag --training.lrr; nearest: --training.optimizer.lr"]),
        ("train shapes --training.stps 3", ["unknown flag --training.stps", "nearest: --training.steps"]),
        ("train shapes --training.steps many", ["training.steps: given 'many'", "integer"]),
        ("train shapes --training.steps -5", ["training.steps: given '-5'", "greater than 0"]),
        ("train shapes --training.optimizer.type sgd", ["training.optimizer.type: given 'sgd'", "adamw, muon"]),
        ("train shapes --model.sampling.sampler eular", ["given 'eular'", "nearest: euler"]),
        ("train shapes --data.size 8", ["data.size: given '8'", "32"]),
        ("train shapes extra", ["'extra' is not expected here"]),
        ("train folder --data.path none --directory new", ["none does not exist"]),
        ("sample", ["no prompt is given"]),
        ("sample .", ["no prompt is given"]),
        ("sample runs/none a", ["nothing at runs/none"]),
        ("sample none.safetensors a", ["nothing at none.safetensors"]),
        ("sample . a", ["no checkpoint in ."]),
        ("sample . a --size 3by4", ["size: given '3by4'", "64x96"]),
        ("sample . a --count 0", ["count: given '0'"]),
        ("sample . a --animate mp4", ["animate: given 'mp4'", "webp, gif"]),
        ("evaluate none", ["nothing at none"]),
        ("evaluate . b", ["'b' is not expected here"]),
        ("evaluate --jsn", ["unknown flag --jsn"]),
        ("recipes shapes", ["unrecognized arguments: shapes"]),
    ],
)
def test_faults_of_the_user(
    args: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *args.split())
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_the_process_ends_with_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "fromnoise.cli.main", "train", "shaps"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    allowed = ", ".join([*RECIPES, *VAE_RECIPES])
    assert done.stderr == f"fromnoise: unknown recipe 'shaps'; allowed: {allowed}; nearest: shapes\n"


def test_a_bad_run_yaml_is_named_with_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("training: {stepz: 3}\n")
    line = refused(capsys, "train", str(path))
    assert line.startswith(f"{path}: training.stepz: no such key; allowed: steps, ")
    assert line.endswith("nearest: steps")


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fromnoise.cli.recipes.main", interrupted)
    assert main(["recipes"]) == 130
    assert capsys.readouterr().err == "fromnoise: stopped\n"


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(args: object) -> None:
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("fromnoise.cli.recipes.main", full)
    assert refused(capsys, "recipes") == "runs/x: No space left on device"
