"""What is told where a machine has too little."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fromnoise.core.needs import lacked


def test_a_lack_of_memory_is_told_and_nothing_else_is_taken_for_one() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**52, dtype=torch.uint8)
    assert (
        lacked(failed.value) == "there is no memory for 4,096 TiB more; choose a smaller size, batch, count or network"
    )
    cuda = (
        "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 is free."
    )
    assert "no memory for 20.50 GiB more" in str(lacked(torch.OutOfMemoryError(cuda)))
    with pytest.raises(MemoryError) as full:
        np.empty(2**52, np.uint8)
    assert "no memory for 4.00 PiB more" in str(lacked(full.value))
    assert str(lacked(MemoryError())).startswith("there is no memory; choose")
    with pytest.raises(RuntimeError) as failed:
        torch.dot(torch.ones(2), torch.ones(3))
    assert lacked(failed.value) is None
