"""What several seeds say together: a mean, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def estimate(values: Sequence[float], interval: Sequence[float] | None = None) -> dict[str, Any]:
    """The mean of one value a seed, with its 95 % interval, for JSON.

    Two or more: Student's t over the seeds. One: `interval`, that of the one value, where it has one, else none.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        low, high = interval or (None, None)
        return {"mean": mean, "low": low, "high": high, "seeds": 1}
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": count}
