"""What a signal does to a training; that all of it is saved then is tested where trainings are killed."""

from __future__ import annotations

import os
import signal

import pytest

from fromnoise.training import stop
from fromnoise.training.stop import Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_together_are_one(number: signal.Signals) -> None:
    with Stop() as asked:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # as torchrun passes on what has reached all
        assert asked.signal == number


def test_a_later_signal_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended, Stop():
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(stop, "AT_ONCE", 0.0)
        os.kill(os.getpid(), signal.SIGINT)
    assert ended.value.code == 130
