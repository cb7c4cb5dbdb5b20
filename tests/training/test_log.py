"""metrics.jsonl and the live line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fromnoise.training.log import KINDS, Live, Meter, Metrics, duration, read_metrics, status


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_after_the_checkpoint_are_dropped_on_resuming(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0, tensorboard=False)
    for step in (0, 5, 10, 15):
        metrics.write(step, {"loss": 1 / 3})
    metrics.close()
    with path.open("a") as file:
        file.write('{"step": 20, "lo')  # killed while writing
    again = Metrics(path, 10, tensorboard=False)
    assert steps(path) == [0, 5, 10]
    again.write(15, {"loss": 2 / 3})
    again.close()
    assert steps(path) == [0, 5, 10, 15]
    assert json.loads(path.read_text().splitlines()[-1])["loss"] == 2 / 3


def test_a_run_without_a_checkpoint_begins_its_lines_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "validation_raw": 1.0}\n{"step": 5, "loss": 1.0}\n')
    Metrics(path, 0, tensorboard=False).close()
    assert path.read_text() == ""


def test_lines_of_no_step_are_dropped_on_resuming(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": "a"}\n5\nnull\n{}\n{"step": null}\n{"step": 3}\n')
    Metrics(path, 10, tensorboard=False).close()
    assert path.read_text() == '{"step": 3}\n'


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_a_line_that_lacks_a_number_is_told(tmp_path: Path, kind: tuple[str, ...]) -> None:
    path, whole = tmp_path / "metrics.jsonl", {"step": 1} | dict.fromkeys(kind, float("nan"))
    path.write_text(f"{json.dumps(whole)}\n")
    assert [list(line) for line in read_metrics(path)] == [list(whole)]
    for name in ("step", *kind[1:]):
        for value in ("a", None):
            path.write_text(f"{json.dumps(whole)}\n{json.dumps(whole | {name: value})}\n")
            with pytest.raises(ValueError, match=rf"metrics.jsonl is damaged: line 2: {name} is {value!r}, no number$"):
                read_metrics(path)


def test_a_full_disk_is_told_in_one_line(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=False)
    metrics.write(1, {"loss": 1.0})
    with full_disk(30), pytest.raises(ValueError, match=r"cannot write .*metrics.jsonl: no space for a whole line"):
        metrics.write(2, {"loss": 2.0})
    metrics.close()
    again = Metrics(tmp_path / "metrics.jsonl", 5, tensorboard=False)
    again.write(2, {"loss": 2.0})
    again.close()
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


def test_tensorboard_writes_numbers_or_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError, match=r"training.tensorboard is on; it needs: pip install .fromnoise\[tensorboard\]"
    ):
        Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=True)
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    metrics = Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=True)
    metrics.write(1, {"loss": 0.5})
    metrics.sync()
    metrics.close()
    events = list((tmp_path / "tensorboard").iterdir())
    assert len(events) == 1 and b"loss" in events[0].read_bytes()


def test_speed_is_that_of_the_steps_since_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 0.5, 10.0, 10.0, 10.5, 20.0, 20.0, 21.0, 30.0])
    monkeypatch.setattr("fromnoise.training.log.time.perf_counter", lambda: next(clock))
    meter = Meter(flops=2e12, peak=8e12)
    speeds = []
    for step in meter.timed(iter(range(3))):  # each asks the clock when it begins, when its sample is there, at its end
        meter.end(pictures=32)
        if step:
            speeds.append(meter.reset())
    told = {"images_per_second": 64, "waiting_for_data": 0.1, "step_seconds": 0.5, "flop_utilisation": 0.5}
    assert speeds[0] == pytest.approx(told)
    assert speeds[1]["images_per_second"] == pytest.approx(32)


def test_the_line_tells_loss_speed_waiting_utilisation_and_time_left() -> None:
    speed = {"images_per_second": 182.4, "waiting_for_data": 0.01, "step_seconds": 0.5, "flop_utilisation": 0.41}
    line = status(1500, 2000, 0.02134, speed)
    told = ["step 1500/2000", "loss 0.0213", "182 images/s", "waiting for data 1%", "41% of peak FLOP/s", "left 4:10"]
    assert line.split("  ") == told
    del speed["flop_utilisation"]
    assert "FLOP" not in status(1500, 2000, 0.02134, speed)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_lines_are_few_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(100)
    speed = {"images_per_second": 1.0, "waiting_for_data": 0.0, "step_seconds": 1.0}
    for step in range(10, 101, 10):
        live.show(step, 1.0, speed)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 10/100", "step 100/100"]


def test_on_a_terminal_one_line_is_rewritten(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    live = Live(100)
    speed = {"images_per_second": 1.0, "waiting_for_data": 0.0, "step_seconds": 1.0}
    for step in range(10, 101, 10):
        live.show(step, 1.0, speed)
    live.say("saved")
    text = capsys.readouterr().err
    assert text.count("\r") == 12 and text.count("\n") == 1
    assert text.endswith("\rsaved\n")
