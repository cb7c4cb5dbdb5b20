"""Every number with a unit that README and docs quote stands in a record of benchmarks/results, or is told to be none.

A block (what stands between empty lines) that quotes any begins with a comment that says, in their order, where each is
from; it is checked with the digits that are shown:

    <!-- from: shapes:training.seconds; shapes:adherence.*; -; ? -->

`file:key` is a number of benchmarks/results/file.json, `file:key.*` all there are below the key, in order, `a + b` a
sum; `-` is no measurement (a setting, a definition, a number of somebody else's); `?` was measured once and left no
record. Code and what stands in backticks are not looked at; what a benchmark writes into a page must stand there to the
letter. `doctor by check` is the table of docs/doctor.md: every number of its last column, with a unit or without,
stands in what doctor.json tells of the checks that the row names; the other columns say from where on something is
wrong, which tests/doctor holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks import adherence, costs, mnist, optimizers_page, planning, positions, scaling, shapes_judge, sweep

ROOT = Path(mnist.__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
UNITS: dict[str, tuple[float, ...]] = {  # what a record's number may be multiplied by, to be one of the unit
    "%": (100,),
    "s": (1, 60),
    "min": (1 / 60, 1),
    "minutes": (1 / 60, 1),
    "hours": (1 / 3600, 1 / 60, 1),
    "ms": (1000,),
    "MiB": (1, 1 / 2**20),
    "GiB": (1 / 2**30,),
    "GB": (1e-9,),
    "dB": (1,),
    "images/s": (1,),
    "pictures/s": (1,),
    "samples/s": (1,),
    "times as fast": (1,),
    "million parameters": (1e-6,),
    "M parameters": (1e-6,),
}
QUOTED = re.compile(
    rf"(?P<minutes>{NUMBER}) min (?P<seconds>\d+) s\b|(?P<number>{NUMBER})(?:M | )?(?P<unit>%|(?:"
    + "|".join(unit for unit in UNITS if unit not in ("%", "M parameters"))
    + r")\b)"
)
UNRECORDED = {"emoji.md": 1, "latents.md": 2}
"""How many numbers of a page were measured once and left no record: none is to be added."""
WRITTEN: dict[str, list[Callable[[], str]]] = {
    "judging.md": [lambda: adherence.told(record("shapes")), lambda: shapes_judge.table(record("shapes_judge"))],
    "mnist.md": [lambda: mnist.table(RESULTS)],
    "optimizers.md": [
        lambda: optimizers_page.table(record("optimizers")),
        lambda: optimizers_page.shared_table(record("optimizers")),
    ],
    "plan.md": [lambda: costs.table(record("costs")), lambda: planning.table(record("planning"))],
    "positions.md": [lambda: positions.table(record("positions"))],
    "scaling.md": [
        lambda: scaling.table_of_paper(record("scaling")),
        lambda: scaling.table_of_rest(record("scaling")),
        lambda: scaling.table(record("scaling")),
    ],
    "sweep.md": [lambda: sweep.table(record("sweep_shapes"))],
}
"""What benchmarks write into pages, made anew from the records."""


def blocks(page: Path) -> Iterator[str]:
    """What stands between empty lines, less code and what benchmarks write."""
    text = page.read_text(encoding="utf-8")
    for write in WRITTEN.get(page.name, []):
        text = text.replace(write(), "")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    yield from (block for block in re.split(r"\n\s*\n", text) if block.strip())


def quoted(block: str) -> list[re.Match[str]]:
    """The numbers with a unit, in order."""
    return list(QUOTED.finditer(re.sub(r"<!--.*?-->|`[^`]*`|\]\([^)]*\)", "", block, flags=re.S)))


def sources(block: str) -> list[str]:
    """Where they are said to be from, in order."""
    told = re.search(r"<!-- from:(.*?)-->", block, re.S)
    return [one.strip() for one in told[1].split(";")] if told else []


@cache
def record(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def leaves(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in leaves(branch)]
    return [tree]


def recorded(source: str) -> list[float]:
    """The numbers that a source stands for."""
    if " + " in source:
        return [sum(value for one in source.split(" + ") for value in recorded(one))]
    name, _, key = source.partition(":")
    tree = record(name)
    for part in key.removesuffix(".*").split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    values = leaves(tree) if key.endswith(".*") else [tree]
    assert all(isinstance(value, int | float) for value in values), f"{source} is no number"
    return values


def agrees(said: re.Match[str], value: float) -> bool:
    """Whether the number is what is quoted of it, rounded to as many digits."""
    if said["minutes"]:
        shown = 60 * int(said["minutes"]) + int(said["seconds"])
        return any(abs(shown - factor * value) <= 0.5 + 0.01 * factor for factor in UNITS["s"])
    digits = said["number"].replace(",", "")
    shown = float(digits)
    whole = re.search(r"0*$", digits)
    assert whole, "an empty match is one"
    places = -len(whole[0]) if "." not in digits and shown >= 1000 else len(digits.partition(".")[2])
    return any(abs(shown - factor * value) <= 0.5000001 * 10.0**-places for factor in UNITS[said["unit"]])


def faults(block: str) -> list[str]:
    """What is wrong with what a block quotes."""
    said, told = quoted(block), sources(block)
    if told == ["doctor by check"]:
        return faults_by_check(block)
    values: list[tuple[str, float | None]] = []
    for source in told:
        marked = source in ("-", "?")
        values += [(source, None)] if marked else [(source, value) for value in recorded(source)]
    if len(values) != len(said):
        return [f"{len(said)} numbers ({', '.join(one[0] for one in said)}) and {len(values)} sources: {block[:80]!r}"]
    return [
        f"{one[0]} is {value} in {source}"
        for one, (source, value) in zip(said, values, strict=True)
        if value is not None and not agrees(one, value)
    ]


def faults_by_check(block: str) -> list[str]:
    """What stands in the last column of the doctor's table and in nothing that was told of the checks of its row."""
    found = []
    for line in block.splitlines():
        if not line.startswith("|") or line.startswith("|---"):
            continue
        _, checks, *_, here = (cell.strip() for cell in line.strip("|").split("|"))
        told = {number for text in told_by(checks.split(", ")) for number in bare(text)}
        found += [f"{number:g} is in nothing that {checks} told" for number in bare(here) if number not in told]
    return found


def told_by(checks: list[str]) -> list[str]:
    """What these checks told of every recipe."""
    examined = record("doctor")["examined"].values()
    return [one["numbers"][check] for one in examined for check in checks if check in one["numbers"]]


def bare(text: str) -> list[float]:
    """All numbers, but for those that belong to a name."""
    found = re.findall(rf"(?<![\w.-])-?{NUMBER}(?:e-\d+)?", text)
    return [float(number.replace(",", "")) for number in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_stand_in_a_record(page: Path) -> None:
    assert not [fault for block in blocks(page) for fault in faults(block)]
    unrecorded = sum(sources(block).count("?") for block in blocks(page))
    assert unrecorded == UNRECORDED.get(page.name, 0)


RECORDS = {
    "quickstart": {"minutes": 10.32},
    "shapes": {"training": {"seconds": 1743}, "parameters": 3924880, "adherence": {"overall": 0.95007}},
    "reading": {"sizes": [{"samples_per_second": 22605.4}]},
    "doctor": {
        "examined": {
            "shapes": {"numbers": {"guidance": "2.91 for 3.00; 0.0% is left", "gradients": "0 get none"}},
            "mnist": {"numbers": {"guidance": "3.02 for 3.00; 0.0% is left", "gradients": "0 get none; 5.8% choose"}},
        }
    },
}
"""Of the kind that benchmarks write, for pages that are not theirs."""


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("It takes 29 min.", "1 numbers"),
        ("<!-- from: shapes:training.seconds -->\nIt takes 29 min.", ""),
        ("<!-- from: shapes:training.seconds -->\nIt takes 30 min.", "30 min is 1743"),
        ("<!-- from: quickstart:minutes -->\nIt takes 10 min 19 s, as `1 %` says.", ""),
        ("<!-- from: quickstart:minutes -->\nIt takes 10 min 23 s.", "10 min 23 s is 10.32"),
        ("<!-- from: shapes:adherence.overall; - -->\n95 % at 5 %", ""),
        ("<!-- from: shapes:adherence.overall -->\n95.1 %", "95.1 % is 0.95"),
        ("<!-- from: shapes:adherence.overall -->\n95 % and 3 dB", "2 numbers"),
        ("<!-- from: reading:sizes.0.samples_per_second -->\n22,600 samples/s", ""),
        ("<!-- from: reading:sizes.0.samples_per_second -->\n22,700 samples/s", "22,700 samples/s is"),
        ("<!-- from: shapes:parameters -->\n3.9 million parameters", ""),
        ("<!-- from: doctor by check -->\n| | guidance | 10 % off | 2.91 to 3.02; 0.0 % |", ""),
        ("<!-- from: doctor by check -->\n| | guidance | 10 % off | 2.81 to 3.02; 0.0 % |", "2.81 is in nothing"),
        ("<!-- from: doctor by check -->\n| | guidance, gradients | | 0; mnist: 5.8 % |", ""),
        ("<!-- from: doctor by check -->\n| | guidance | | 5.8 % |", "5.8 is in nothing"),
        ("```\nnothing\n```", ""),
    ],
)
def test_a_number_that_is_not_there_is_seen(block: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "record", RECORDS.__getitem__)
    found = faults(block)
    assert found[0].startswith(fault) if fault else not found


def test_a_source_that_is_not_there_is_seen() -> None:
    with pytest.raises((KeyError, FileNotFoundError)):
        faults("<!-- from: shapes:adherence.none -->\n95 %")


@pytest.mark.parametrize("page", WRITTEN)
def test_what_benchmarks_write_is_what_they_would_write(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert all(write() in text for write in WRITTEN[page])


def test_the_example_of_the_doctor_is_on_record() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    told = re.search(r"^\$ fromnoise doctor (.*)\n((?:.+\n)*?)```$", text, re.M)
    assert told
    known = record("doctor")["examined"][told[1]]
    lines = re.findall(r"^(?:ok   |WRONG) (.{23}) (.*\n(?: {30}(?!why:|do:)\S.*\n)*)", told[2], re.M)
    assert len(lines) >= 8
    for check, said in lines:
        (number,) = [known[kind].get(check.strip()) for kind in ("numbers", "findings") if check.strip() in known[kind]]
        assert " ".join(said.split()) == number
