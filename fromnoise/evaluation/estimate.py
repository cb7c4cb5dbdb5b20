"""What several seeds say together: a mean, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fromnoise.evaluation.protocol import wilson


def estimate(
    values: Sequence[float],
    interval: Sequence[float] | None = None,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, Any]:
    """The mean of one value a seed, with its 95 % interval, for JSON.

    Two or more: Student's t over the seeds, never narrower than `interval`, and cut to what is possible, `within`. One:
    `interval`, or none. (Two seeds that agree by chance would have no interval at all.)
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        low, high = interval or (None, None)
        return {"mean": mean, "low": low, "high": high, "seeds": 1}
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    least, most = interval or (mean, mean)
    low, high = max(min(mean - half, least), within[0]), min(max(mean + half, most), within[1])
    return {"mean": mean, "low": low, "high": high, "seeds": count}


def mean_share(counts: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The 95 % interval of the mean of several shares, each given as (right, of how many), all weighing alike.

    Each share's own interval is Wilson's; the distances of its ends from the share add up as squares, as those of
    independent shares do (Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function
    of binomial proportions", Eq. 4).
    """
    least = most = middle = 0.0
    for right, count in counts:
        share, (low, high) = right / count, wilson(right, count)
        middle, least, most = middle + share, least + (share - low) ** 2, most + (high - share) ** 2
    return (middle - math.sqrt(least)) / len(counts), (middle + math.sqrt(most)) / len(counts)
