"""Work done ahead."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from fromnoise.training.prefetch import ahead


@pytest.mark.parametrize("workers", [1, 4])
def test_results_come_in_order_and_once(workers: int) -> None:
    made: list[int] = []

    def make(step: int) -> int:
        time.sleep(0.002 * (step % 3))
        made.append(step)
        return step * step

    assert list(ahead(make, range(3, 40), workers)) == [k * k for k in range(3, 40)]
    assert sorted(made) == list(range(3, 40))


def test_the_next_ones_are_made_while_one_is_used() -> None:
    second = threading.Event()
    results = ahead(lambda step: second.set() if step == 1 else None, range(5), 1)
    next(results)
    assert second.wait(10)  # which nobody has asked for yet
    results.close()


def test_a_fault_is_raised_at_its_own_step() -> None:
    def make(step: int) -> int:
        if step == 3:
            raise ValueError("step 3 is bad")
        return step

    results = ahead(make, range(10), 1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="step 3 is bad"):
        next(results)


def test_closing_ends_the_threads_and_leaves_torch_its_cores() -> None:
    threads = torch.get_num_threads()
    results = ahead(lambda step: step, range(1000), 2)
    next(results)
    results.close()
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())
    assert torch.get_num_threads() == threads
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [threads]
