"""`fromnoise compare`: what words stand for, and faults in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from fromnoise.cli.main import main

RUN = """\
data: {{type: folder, path: {folder}, size: 16}}
model:
  backbone: {{type: dit, patch: 8, width: 16, head_width: 8, depth: 1}}
  conditioner: {{type: text, vocabulary: 280, width: 16, depth: 0, heads: 1}}
  objective: {{target: {target}}}
  sampling: {{steps: 2}}
training: {{steps: 2, batch: 4, device: cpu, precision: float32, compile: "off", optimizer: {{type: adamw}}}}
"""


def test_faults_are_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    faults = {
        "no recipe is given": [],
        "unknown recipe 'sd4'": ["sd3", "sd4"],
        "data.type is 'mnist' in sd3, 'shapes' in shapes; compare recipes on the same data": ["sd3", "shapes"],
        "allowed: parameters, compute, none": ["sd3", "dit", "--match", "size"],
        "run.yaml: No such file": ["sd3", str(tmp_path)],
        "unknown flag --sample; nearest: --samples": ["sd3", "dit", "--sample", "3"],
        "speeds.0: given '0'": ["sd3", "dit", "--speeds", "0"],
        f"seed: given '{2**63}'; input should be less than {2**63}": ["sd3", "dit", "--seed", str(2**63)],
    }
    for told, words in faults.items():
        assert main(["compare", *words]) == 2
        said = capsys.readouterr().err
        assert told in said and said.count("\n") == 1, said


def test_a_report_of_other_runs_of_the_same_names_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, target in (("a", "x0"), ("b", "flow")):
        Path(f"{name}.yaml").write_text(RUN.format(folder=folder, target=target))
        assert main(["train", f"{name}.yaml", "--directory", f"p/{name}"]) == 0
    shutil.copytree("p", "q")

    def compare(first: str, second: str) -> str:
        tiny = ["--sweep", "10", "--speeds", "1", "--guidances", "1", "--device", "cpu"]
        assert main(["compare", first, second, *tiny]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    assert compare("p/a", "p/b") == "compare/a-b/report.html"
    page = Path("compare/a-b/report.html").read_text()
    other = compare("q/a", "q/b")
    assert re.fullmatch(r"compare/a-b-\w{12}/report\.html", other)
    assert Path("compare/a-b/report.html").read_text() == page
    assert compare("../" + tmp_path.name + "/q/a", "q/b") == other, "their own report is written anew"


def test_a_run_and_its_record_are_compared(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for target in ("x0", "flow"):
        Path(f"{target}.yaml").write_text(RUN.format(folder=folder, target=target))
    assert main(["train", "x0.yaml", "--directory", "mine"]) == 0
    command = ["compare", "mine", "flow.yaml", "--sweep", "10", "--speeds", "1", "--guidances", "1", "--device", "cpu"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "compare/mine-flow/report.html"
    results = json.loads(Path("compare/mine-flow/report.json").read_text())
    assert [recipe["name"] for recipe in results["recipes"]] == ["mine", "flow"]
    assert results["judge"]["name"] == "none"
    assert results["recipes"][0]["runs"][0]["directory"] == "mine"
    assert "There is no judge for this data set" in Path("compare/mine-flow/report.html").read_text()
