"""The prompts of public benchmarks, read as their authors publish them, each with what its judge wants to know."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fromnoise.core.config import hint

COMPBENCH = ("color", "shape", "texture", "spatial", "3d_spatial", "non_spatial", "numeracy", "complex")
"""Categories of T2I-CompBench++ (Huang et al. 2025); each has its own judge."""

Metadata = dict[str, Any]


class PromptSet(NamedTuple):
    """A benchmark: where its prompts lie among the published files, and how they are read."""

    about: str
    place: str  # of a file or directory, below the directory of all prompts
    read: Callable[[Path], list[Metadata]]


def read_lines(path: Path) -> list[Metadata]:
    """A prompt a line."""
    return [{"prompt": line.strip()} for _, line in _lines(path)]


def read_jsonl(path: Path) -> list[Metadata]:
    """A JSON object a line, with "prompt"; all of it is kept."""
    found = []
    for number, line in _lines(path):
        try:
            one = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(one, dict) or not isinstance(one.get("prompt"), str):
            raise ValueError(f'{path}, line {number} holds no "prompt"; allowed: one JSON object a line with it')
        found.append(one)
    return found


def read_parti(path: Path) -> list[Metadata]:
    """PartiPrompts' table: Prompt, Category, Challenge and Note, separated by tabs."""
    rows = list(csv.DictReader((line for _, line in _lines(path)), delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or "Prompt" not in rows[0]:
        raise ValueError(f"{path} has no column Prompt; allowed: PartiPrompts.tsv as it is published")
    return [{key.lower(): value for key, value in row.items() if key} for row in rows]


def read_compbench(path: Path) -> list[Metadata]:
    """The validation prompts of all categories, from CATEGORY_val.txt of each; a tab ends the prompt."""
    return [
        {"prompt": one["prompt"].partition("\t")[0], "tag": category}
        for category in COMPBENCH
        for one in read_lines(path / f"{category}_val.txt")
    ]


SETS: dict[str, PromptSet] = {
    "geneval": PromptSet("GenEval (Ghosh et al. 2023)", "geneval/evaluation_metadata.jsonl", read_jsonl),
    "partiprompts": PromptSet("PartiPrompts (Yu et al. 2022)", "PartiPrompts.tsv", read_parti),
    "drawbench": PromptSet("DrawBench (Saharia et al. 2022)", "drawbench.txt", read_lines),
    "dpg": PromptSet("DPG-Bench (Hu et al. 2024)", "dpg_bench.jsonl", read_jsonl),
    "t2i-compbench": PromptSet("T2I-CompBench++ (Huang et al. 2025)", "t2i_compbench", read_compbench),
}
"""The benchmarks by the name that `fromnoise draw --set` knows them by."""


def read_set(name: str, path: Path | None = None) -> list[Metadata]:
    """The prompts of a benchmark in the order of its authors, each {"prompt": ..., and what else is said of it}.

    path: its file or directory; left out, it is looked for in $FROMNOISE_DATA/prompts.

    Raises:
        ValueError: one line, for an unknown name, and for files that are missing or hold something else.
    """
    if name not in SETS:
        raise ValueError(f"set is {name!r}; {hint(name, SETS)}")
    one = SETS[name]
    if path is None:
        root = os.environ.get("FROMNOISE_DATA")
        if not root:
            raise ValueError(f"where are the prompts of {name}? Give --path, or set FROMNOISE_DATA")
        path = Path(root) / "prompts" / one.place
    if not path.exists():
        raise ValueError(f"nothing at {path}; allowed: {Path(one.place).name} of {one.about}, as it is published")
    found = one.read(path)
    if not found:
        raise ValueError(f"{path} holds no prompt")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, each with its number. `str.splitlines` would end one at U+2028, too."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"cannot read {path}: {reason}") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
