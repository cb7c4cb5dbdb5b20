"""Trainings begun from the page: where they may be, and what is refused. They run in test_browser.py."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fromnoise.cli.main import main
from fromnoise.studio import following
from fromnoise.studio.page import followed
from fromnoise.studio.trainings import Trainings, Under, split
from fromnoise.training.alone import Holder, trained_alone


@pytest.mark.parametrize(
    ("recipe", "name", "settings", "said"),
    [
        ("shaps", "new", "", "unknown recipe 'shaps'; .*nearest: shapes"),
        ("shapes", "../new", "", "run: given '../new'; allowed: up to 64 letters"),
        ("shapes", ".hidden", "", "run: given"),
        ("shapes", "", "", "run: given ''"),
        ("shapes", "a" * 65, "", "run: given"),
        ("shapes", "one", "", "one is there already"),
        ("shapes", "new", "--directory /tmp/x", "--directory is the run's name"),
        ("shapes", "new", "--directory=/tmp/x", "--directory is the run's name"),
        ("shapes", "new", '--a "b', "settings: given .*No closing quotation"),
    ],
)
def test_what_cannot_be_begun_is_refused(recipe: str, name: str, settings: str, said: str, runs: Path) -> None:
    trainings = Trainings(runs)
    with pytest.raises(ValueError, match=said):
        trainings.start(recipe, name, settings)
    assert not trainings.begun and not (runs / ".studio").exists()


def test_a_link_out_of_the_folder_is_not_gone_on_with(runs: Path) -> None:
    (runs / "one").rename(runs.parent / "away")
    (runs / "one").symlink_to(runs.parent / "away")
    with pytest.raises(ValueError, match="is outside the folder of runs"):
        Trainings(runs).resume("one")


@pytest.mark.parametrize("name", ["my run", "lr=1e-3_batch=64", ".hidden", "a" * 65])
def test_a_run_of_any_name_is_followed_and_gone_on_with(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / "one").rename(runs / name)
    trainings, begun = Trainings(runs), []
    assert name in trainings.names()
    assert f"{name}: recipe shapes" in followed(trainings, name, "")[1]
    monkeypatch.setattr(trainings, "_launch", lambda *given: begun.append(given))
    trainings.resume(name)
    assert begun == [(name, [str(runs / name / "run.yaml")])]


@pytest.mark.parametrize("name", ["", ".", "..", "one/", "one/../one", "one/checkpoints", "a\x00b"])
def test_a_run_has_one_name(name: str, runs: Path) -> None:
    trainings = Trainings(runs)
    for use in (trainings.directory, trainings.resume, lambda name: followed(trainings, name or "..", "")):
        with pytest.raises(ValueError, match=r"without folders|is outside the folder"):
            use(name)


def test_what_nobody_trains_is_not_stopped(runs: Path) -> None:
    trainings = Trainings(runs)
    with pytest.raises(ValueError, match="'one' is not being trained"):
        trainings.stop("one")
    with pytest.raises(ValueError, match="there is no run 'none' to go on with; allowed: "):
        trainings.resume("none")
    assert trainings.told("one") == "" and not trainings.alive("one")


TRAINS = """
import os, signal, sys
from pathlib import Path
from fromnoise.training.alone import trained_alone
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"asked"))
with trained_alone(Path(sys.argv[1])):
    os.write(1, b"begun\\n")
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="only the console that began it can ask it there")
def test_a_training_that_another_studio_began_is_told_and_stopped(runs: Path) -> None:
    trainings = Trainings(runs)
    last = trainings.names()[-1]
    command = [sys.executable, "-c", TRAINS, str(runs / last)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"begun\n"
        assert trainings.names()[0] == last and trainings.told(last) == f"it is trained by process {process.pid}"
        with pytest.raises(ValueError, match=f"{last} is being trained already, by process {process.pid}"):
            trainings.resume(last)
        trainings.stop(last)
        trainings.stop(last)  # asks no second time, which would end it unsaved
        assert trainings.told(last) == "it finishes its step and saves"
        assert process.communicate()[0] == b"asked"
    assert trainings.told(last) == "" and trainings.names()[-1] == last
    with trained_alone(runs / last):
        (runs / last / ".pid").write_text("1 elsewhere")
        with pytest.raises(ValueError, match=f"{last} is being trained by process 1 on elsewhere; there kill 1 stops"):
            trainings.stop(last)


def ended(trainings: Trainings, name: str, program: str) -> str:
    """What is told of a training called `name` that this program stands in for, after its end."""
    log = trainings.runs / f"{name}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import os; print('said', flush=True); {program}"], stdout=file
        )
    process.wait()
    trainings.begun[name] = Under(process, log)
    return trainings.told(name)


def test_the_end_of_a_training_is_told_as_it_was(runs: Path) -> None:
    trainings = Trainings(runs)
    assert ended(trainings, "one", "") == "it is trained to its end"
    assert ended(trainings, "none", "") == f"there is no run 'none'; what was printed is in {runs / 'none.log'}"
    assert ended(trainings, "one", "os._exit(143)") == "it was stopped, and saved"
    assert ended(trainings, "one", "os._exit(2)") == "said"
    (runs / "one.log").unlink()
    assert trainings.told("one") == "ended: 2"


@pytest.mark.skipif(sys.platform == "win32", reason="no signal ends a process there")
def test_a_training_that_a_signal_ended_is_not_told_as_going_on(runs: Path) -> None:
    said = ended(Trainings(runs), "one", "os.kill(os.getpid(), 15)")
    assert said == "it was ended by signal 15: nothing more was saved"


class Standing:
    """A process that is asked how it is: what stands in for one."""

    def __init__(self, *codes: int | None, then: Callable[[], object] = lambda: None):
        self.codes, self.then, self.asked = list(codes), then, 0

    def poll(self) -> int | None:
        self.then()
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]

    def send_signal(self, number: int) -> None:
        self.asked += 1

    def wait(self) -> None:
        pass


def test_all_are_stopped_where_one_ends_by_itself(runs: Path) -> None:
    trainings, log = Trainings(runs), runs / "log"
    ending: Any = Standing(None, 0)
    going: Any = Standing(None)
    trainings.begun = {"ended": Under(ending, log), "going": Under(going, log)}
    trainings.close()
    assert going.asked == 1


def test_runs_are_listed_while_somebody_begins_one(runs: Path) -> None:
    trainings = Trainings(runs)
    process: Any = Standing(None, then=lambda: trainings.begun.setdefault("second", Under(process, runs / "log")))
    trainings.begun = {"first": Under(process, runs / "log")}
    assert set(trainings.names()) == {"first", "one", "other", "digits"}


def test_a_run_in_training_is_told_as_far_as_it_is(runs: Path) -> None:
    from fromnoise.reporting.record import read

    one = runs / "one"
    assert "nothing was told yet" in following.facts(read(one)) and following.curves(read(one)) == ""
    mark = following.mark(one)
    line = '{"step": 20, "loss": 0.5, "images_per_second": 123.4, "step_seconds": 2.0, "learning_rate": 0.1,'
    (one / "metrics.jsonl").write_text(line + ' "gradient_norm": 1.0, "waiting_for_data": 0.0, "seconds": 40.0}\n{"ste')
    told = following.facts(read(one))
    assert "20 <small>of 2,000</small>" in told and "<b>123</b>images/s" in told and "<b>1:06:00</b>time left" in told
    assert "<svg" in following.curves(read(one)) and following.mark(one) != mark


def test_a_preview_that_cannot_be_read_hides_nothing_else(runs: Path) -> None:
    previews = runs / "one" / "previews"
    previews.mkdir()
    for name in ("step-00000005.png", "step-00000005 copy.png", "step-00000010.png"):
        Image.new("RGB", (256, 32), "red").save(previews / name)
    cut = previews / "step-00000010.png"
    cut.write_bytes(cut.read_bytes()[:70])
    (previews / "step-00000015.png").symlink_to("deleted")
    _, facts, _, shown, _ = followed(Trainings(runs), "one", "")
    assert "one: recipe shapes" in facts and "after 5 steps" in shown and "after 10 steps" not in shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["none"], "nothing at none; allowed: a run directory"),
        (["--port", "0"], "port is 0; allowed: 1 to 65535"),
        (["--queue", "0"], "queue is 0; allowed: 1 or more"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1:7860"),
        (["--prot", "1"], "unknown flag --prot; nearest: --port"),
    ],
)
def test_faults_of_the_command_are_one_line(
    args: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["studio", *args]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and said in told.err and not told.out


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["studio", "--port", str(port)]) == 2
    said = f"cannot listen on 127.0.0.1:{port}: address already in use; choose another --host or --port"
    assert said in capsys.readouterr().err


def test_settings_are_words_as_in_a_shell_and_on_windows_folders_keep_their_backslashes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = r"""--data.path 'C:\my pictures' --model.size 32 # 1"""
    assert split(line) == ["--data.path", r"C:\my pictures", "--model.size", "32", "#", "1"]
    assert split(r"a\b 'c d'") == ["ab", "c d"]
    with pytest.raises(ValueError, match="closing quotation"):
        split("'a")
    monkeypatch.setattr(sys, "platform", "win32")
    assert split(r'--data.path C:\me\pictures "D:\my pictures"') == [
        "--data.path",
        r"C:\me\pictures",
        r"D:\my pictures",
    ]


def test_on_windows_a_training_of_another_console_is_not_ended(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = Trainings(runs)
    last = trainings.names()[-1]
    monkeypatch.setattr("fromnoise.studio.trainings.holder", lambda directory: Holder(os.getpid(), platform.node()))
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ValueError, match=r"; there Ctrl-C stops it, saved$"):
        trainings.stop(last)
