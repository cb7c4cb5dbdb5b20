"""What `fromnoise evaluate` prints of shapes: shares with intervals, what was drawn instead, and the second judge."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]


def adherence_lines(results: Tree) -> list[str]:
    """What `adherence.evaluate` found, a line each."""
    intervals = results["intervals"]
    lines = [
        f"{task.replace('_', ' '):<16}{100 * share:6.1f} %   ({_range(intervals[task])})"
        for task, share in results["adherence"].items()
    ]
    return [*lines, *_instead(results["instead"]), *_second(results["second"]), drawing_line(results["drawing"])]


def drawing_line(drawing: Tree) -> str:
    """How the pictures were drawn: "sampler euler, steps 28, guidance 4, interval 0 to 1"."""
    return ", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in drawing.items())


def _said(value: str | float | list[float]) -> str:
    if isinstance(value, list):
        return " to ".join(map(_said, value))
    return value if isinstance(value, str) else f"{value:g}"


def _range(interval: list[float]) -> str:
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f}, at 95 %"


def _instead(found: Tree) -> list[str]:
    """Why pictures are wrong, and each property as asked against seen: only what differs, the most frequent first."""
    if not found["wrong"]:
        return ["no picture is wrong"]
    lines = [f"{found['wrong']} pictures are wrong, some for several reasons:"]
    by_reason = sorted(found["reasons"].items(), key=lambda item: -item[1])
    lines += [f"  {reason:<18}{count:4}" for reason, count in by_reason if count]
    for name, rows in found["confusion"].items():
        mistakes = [
            (count, f"{asked} > {seen} {count}")
            for asked, row in rows.items()
            for seen, count in row.items()
            if asked != seen
        ]
        if mistakes:
            total = sum(sum(row.values()) for row in rows.values())
            worst = [said for _, said in sorted(mistakes, key=lambda one: -one[0])]
            more = f", and {len(worst) - 6} other mistakes" if len(worst) > 6 else ""
            lines.append(f"  {name + ' asked > seen':<22}(of {total}) {', '.join(worst[:6])}{more}")
    return lines


def _second(found: Tree) -> list[str]:
    """What the second judge makes of it."""
    real = found["true_renders"]
    lines = [
        f"second judge: {100 * found['overall']:.1f} % overall ({_range(found['overall_interval'])}); it agrees with "
        f"the checker on {100 * found['agree']:.1f} % of the pictures, and on {100 * real['agree']:.1f} % of "
        f"{real['pictures']} true renders",
        f"  right by the checker alone: {found['only_checker']} of {found['pictures']} "
        f"(true renders: {real['only_checker']} of {real['pictures']}); by the second alone: {found['only_network']}",
    ]
    if found["pleases_checker"]:
        lines.append("  this model pleases the checker: look at disputed.png (--sheets DIR) before you trust its score")
    return lines
