"""Two runs side by side."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fromnoise.cli.main import main

Read = Callable[[str], Any]
Browse = Callable[[str, int], tuple[int, int, int, list[str]]]


@pytest.fixture(scope="module")
def page(toy: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("diff") / "sub" / "page.html"
    assert main(["diff", str(toy), str(other), "--out", str(out), "--device", "cpu"]) == 0
    return out.read_text()


def last(place: Path, key: str) -> float:
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line][-1]


def test_it_shows_what_differs_and_what_came_of_it(page: str, toy: Path, other: Path, read_page: Read) -> None:
    seen = read_page(page)
    settings = page.partition("Settings that differ")[2].partition("</table>")[0]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", settings)]
    assert [row for row in cells if row] == [["model.sampling.guidance", "3.0", "5.0"], ["training.seed", "0", "1"]]
    for place in (toy, other):
        for key in ("loss", "validation_raw", "validation_ema"):
            assert last(place, key) in seen.values
    assert seen.fetches_nothing() and seen.tags.count("svg") == 5
    charts = ("training loss", "validation loss", "learning rate", "norm of the gradient", "t (0 data, 1 noise)")
    assert all(words in seen.words for words in charts)
    first, second = re.findall(r'<img alt="made by (?:toy|other)" src="data:image/png;base64,([^"]*)"', page)
    assert first != second
    assert "losses can be compared" in seen.words


def test_pictures_are_from_the_same_noise(toy: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(toy, tmp_path / "twin")
    out = tmp_path / "page.html"
    sheets = []
    for seed in ("0", "1"):
        assert main(["diff", str(toy), str(twin), "--out", str(out), "--seed", seed]) == 0
        text = out.read_text()
        assert "No setting differs" in text
        sheets.append(re.findall(r'base64,([^"]*)"', text))
        assert len(sheets[-1]) == 2 and sheets[-1][0] == sheets[-1][1]
    assert sheets[0] != sheets[1]


def test_the_terminal_has_a_short_table(
    toy: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine, theirs = shutil.copytree(toy, tmp_path / "mine"), shutil.copytree(other, tmp_path / "theirs")
    (mine / "evaluation.json").write_text(json.dumps({"seed": 0, "adherence": {"overall": 0.5}}))
    shutil.rmtree(theirs / "checkpoints")
    assert main(["diff", "mine", "theirs"]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = [re.split(r"  +", line) for line in said]
    assert rows[0] == ["", "mine", "theirs"] and rows[1] == ["model.sampling.guidance", "3.0", "5.0"]
    assert ["adherence: overall", "0.5", "–"] in rows and ["pictures seen", "32", "32"] in rows
    assert max(map(len, said)) <= 120 and said[-1] == "diff/mine-theirs.html"
    assert "theirs draws nothing: no checkpoint in theirs" in Path("diff/mine-theirs.html").read_text()


def test_a_page_of_other_runs_of_the_same_names_is_kept(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x/one", "y/one", "one"):
        shutil.copytree(toy, name, ignore=shutil.ignore_patterns("checkpoints"))  # without them nothing is drawn

    def diff(first: str, second: str) -> str:
        assert main(["diff", first, second]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    assert diff("x/one", "y/one") == "diff/one-one.html"
    page = Path("diff/one-one.html").read_text()
    other = diff("one", "y/one")
    assert re.fullmatch(r"diff/one-one-\w{12}\.html", other) and Path("diff/one-one.html").read_text() == page
    assert diff("one", "../" + tmp_path.name + "/y/one") == other, "their own page is written anew"


def test_who_stops_reading_loses_no_page(
    toy: Path, other: Path, tmp_path: Path, unread: Callable[[], AbstractContextManager[None]]
) -> None:
    with unread():
        assert main(["diff", str(toy), str(other), "--out", str(tmp_path / "page.html"), "--device", "cpu"]) == 141
    assert "Settings that differ" in (tmp_path / "page.html").read_text()


def test_a_browser_asks_for_nothing(page: str, browse: Browse) -> None:
    wide, high, broken, asked = browse(page, 360)
    assert (asked, broken) == ([], 0) and wide <= 360 and high > 2000


def test_vaes_reconstruct_the_same_pictures(
    toy: Path, toy_vae: Path, read_page: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["diff", str(toy_vae), str(toy_vae), "--out", str(out)]) == 0
    first, second = re.findall(r'base64,([^"]*)"', out.read_text())
    assert first == second and "PSNR, dB" in read_page(out.read_text()).words
    capsys.readouterr()
    for runs, words in (([toy, toy_vae], "is the run of a VAE"), ([toy], "two runs are wanted, not 1")):
        assert main(["diff", *map(str, runs)]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
