"""`fromnoise report`: what a run is and how it went, as a page and a model card; and the same when `train` ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fromnoise.cli.flags import Parser
from fromnoise.recipes import all_recipes

USAGE = "fromnoise report RUN"
DESCRIPTION = """\
Writes RUN/report.html, one page that needs no network, and RUN/README.md, a model card, from what the directory of the
run holds. `fromnoise train` does so when it ends; in between, and after `fromnoise evaluate`, this does it anew. A card
that was changed by hand stays.
"""


def main(args: Sequence[str]) -> None:
    parser = Parser(usage=USAGE, description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", type=Path, help="the directory of a run, finished or in training")
    print(write(parser.parse_args(args).run))


def write(directory: Path) -> Path:
    """Write the page and the card of the run in `directory`; the path of the page.

    Raises:
        ValueError: one line, when it is no run, or cannot be read or written.
    """
    from fromnoise.core.files import write_text
    from fromnoise.reporting.card import CARD, card, own
    from fromnoise.reporting.record import read
    from fromnoise.reporting.report import report

    record = read(directory)
    recipe = all_recipes().get(record.run.recipe)
    page = directory / "report.html"
    write_text(page, report(record, recipe() if recipe else None))
    if own(directory / CARD):
        write_text(directory / CARD, card(record))
    else:
        print(f"{directory / CARD} was changed by hand, and stays as it is", file=sys.stderr)
    return page


@contextmanager
def reported(directory: Path) -> Iterator[None]:
    """Inside, a run is trained in `directory`: what it came to is reported, stopped or broken down as well.

    A report that cannot be written is told of, and takes nothing away from the training.
    """
    log = directory / "metrics.jsonl"
    before = log.stat().st_mtime_ns if log.is_file() else 0
    try:
        yield
    finally:
        if log.is_file() and log.stat().st_mtime_ns > before:  # else nothing came of it that was not told of before
            try:
                print(f"report: {write(directory)}", file=sys.stderr)
            except Exception as error:  # whatever it is, a training of days is not to end in it
                print(f"no report: {error}; once that is mended: fromnoise report {directory}", file=sys.stderr)
