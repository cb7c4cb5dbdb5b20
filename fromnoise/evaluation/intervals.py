"""How sure a number is: of a share of pictures, of a mean of shares, and of what several seeds say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def estimate(
    values: Sequence[float],
    interval: Sequence[float] | None = None,
    within: tuple[float, float] = (-math.inf, math.inf),
    level: float = 0.95,
) -> dict[str, Any]:
    """The mean of one value a seed, with its interval at `level`, for JSON.

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
    half = float(t.ppf((1 + level) / 2, count - 1)) * deviation / math.sqrt(count)
    least, most = interval or (mean, mean)
    low, high = max(min(mean - half, least), within[0]), min(max(mean + half, most), within[1])
    return {"mean": mean, "low": low, "high": high, "seeds": count}


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share, `right` out of `count` (Wilson 1927): never outside 0 to 1, also where all are."""
    share, spare = right / count, z * z / count
    middle = share + spare / 2
    half = math.sqrt(share * (1 - share) * spare + spare**2 / 4)
    return (middle - half) / (1 + spare), (middle + half) / (1 + spare)


def below_one(right: int, count: int, others: int) -> tuple[float, float]:
    """The 95 % interval of a share: of `count` numbers `right` are less than a certain one of `others` others, and the
    chance of that one is in it, too. In 95 % of cases or more it holds what is to be expected of numbers like those.

    Of such numbers, those that are less than the k-th are beta-binomial with a = k and b = others + 1 - k (Gumbel and
    von Schelling 1950, "The distribution of the number of exceedances"). The ends are the shares a / (a + b) at which
    so many, or so few, come by chance in 2.5 % of cases, as in Clopper and Pearson 1934.
    """
    from scipy.optimize import root_scalar
    from scipy.stats import betabinom

    def end(tail: Callable[..., Any], at: int) -> float:
        def spare(share: float) -> float:
            return float(tail(at, count, share * (others + 1), (1 - share) * (others + 1))) - 0.025

        return float(root_scalar(spare, bracket=(1e-9, 1 - 1e-9)).root)

    return end(betabinom.sf, right - 1) if right else 0.0, end(betabinom.cdf, right) if right < count else 1.0


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


def share_difference(ours: tuple[int, int], theirs: tuple[int, int], z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of one share less another, each given as (right, of how many), of independent pictures.

    The distances of the ends of Wilson's intervals from the shares add up as squares (Newcombe 1998, "Interval
    estimation for the difference between independent proportions", method 10).
    """
    (share, (low, high)), (other, (least, most)) = ((right / n, wilson(right, n, z)) for right, n in (ours, theirs))
    below, above = math.hypot(share - low, most - other), math.hypot(high - share, other - least)
    return share - other - below, share - other + above
