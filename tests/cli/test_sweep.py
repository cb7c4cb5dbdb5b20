"""`fromnoise sweep`: what words and fields stand for, and faults in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fromnoise.cli.main import main
from fromnoise.cli.sweep import combinations, field_of
from fromnoise.cli.train import Started, start

RUN = """\
data: {{type: folder, path: {folder}, size: 16}}
model:
  backbone: {{type: dit, patch: 8, width: 16, head_width: 8, depth: 1}}
  conditioner: {{type: text, vocabulary: 280, width: 16, depth: 0, heads: 1}}
  sampling: {{steps: 2}}
training: {{steps: 2, batch: 4, device: cpu, precision: float32, compile: "off", optimizer: {{type: adamw}}}}
"""


def test_every_combination_of_fields_is_a_run() -> None:
    begun, _ = start("shapes")
    assert isinstance(begun, Started)
    fields = dict(map(field_of, ["--training.optimizer.lr=1e-3,2e-3", "model.sampling.interval=0 0.5,0 1"]))
    found = combinations(begun, fields)
    assert [name for name, _, _ in found] == [f"lr={lr}_interval=0-{high}" for lr in ("1e-3", "2e-3")
                                              for high in ("0.5", "1")]  # fmt: skip
    assert [(run.training.optimizer.lr, run.model.sampling.interval) for _, _, run in found] == [
        (1e-3, (0, 0.5)), (1e-3, (0, 1)), (2e-3, (0, 0.5)), (2e-3, (0, 1))]  # fmt: skip
    assert all(run.training.steps == begun.training.steps for _, _, run in found)


def test_faults_are_told_in_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "mine" / "run.yaml"
    record.parent.mkdir()
    record.write_text(RUN.format(folder=folder))
    faults = {
        "one run is wanted, 0 words are given; usage: fromnoise sweep RUN": [],
        "is no run; allowed: the directory of a finished run": [str(tmp_path)],
        "is not finished: step 0 of 2": [str(record.parent)],
        "guidances.0: given '-1'": [str(record.parent), "--guidances", "-1"],
        "samplers.0: given 'eular'": [str(record.parent), "--samplers", "eular"],
        "intervals.0: given '0.9-0.2'; allowed: two times from 0 to 1": ["x", "--intervals", "0.9-0.2"],
        "intervals.0: given 'all'; allowed: LOW-HIGH, as in 0-0.8": ["x", "--intervals", "all"],
        "unknown flag --guidances; --help lists all": ["shapes", "--field", "training.batch=1,2", "--guidances", "2"],
        f"seed: given '{2**63}'; input should be less than {2**63}": ["x", "--seed", str(2**63)],
        f"seed: given '{2**64}'; input": ["shapes", "--field", "training.batch=1,2", "--seed", str(2**64)],
        "one recipe is wanted, 0 words are given": ["--field", "training.batch=1,2"],
        "unknown recipe 'shaps'": ["shaps", "--field", "training.batch=1,2"],
        "vae trains a VAE, which draws nothing": ["vae", "--field", "training.batch=1,2"],
        "--field training.batch=8: allowed: KEY=VALUE,VALUE": ["shapes", "--field", "training.batch=8"],
        "--field training.batch: allowed: KEY=VALUE,VALUE": ["shapes", "--field", "training.batch"],
        "a field is given twice": ["shapes", "--field", "training.batch=1,2", "--field", "training.batch=3,4"],
        "seeds are paired, and counted by --seeds": ["shapes", "--field", "training.seed=1,2"],
        "unknown flag --training.optimizer.lrr; nearest: --training.optimizer.lr": [
            "shapes", "--field", "training.optimizer.lrr=1,2"],
        "training.batch: given 'many'": ["shapes", "--field", "training.batch=8,many"],
    }  # fmt: skip
    for told, words in faults.items():
        assert main(["sweep", *words]) == 2, told
        said = capsys.readouterr().err
        assert told in said and said.count("\n") == 1, said


def test_help_tells_of_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in ((["--help"], "--guidances"), (["--field", "--help"], "--seeds")):
        with pytest.raises(SystemExit):
            main(["sweep", *words])
        assert told in capsys.readouterr().out


def test_a_run_without_a_judge_is_trained_and_compared_by_loss_but_not_swept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RUN.format(folder=folder))
    words = ["sweep", "small.yaml", "--field", "training.optimizer.lr=1e-3,1e-1", "--seeds", "1", "--device", "cpu"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sweep/custom-lr/sweep.html"
    results = json.loads(Path("sweep/custom-lr/sweep.json").read_text())
    assert [side["values"] for side in results["sides"]] == [{"training.optimizer.lr": v} for v in ("1e-3", "1e-1")]
    assert results["sides"][0]["summary"]["accuracy"] is None and "One seed each" in results["notes"][0]
    assert main(["sweep", "sweep/custom-lr/runs/lr=1e-3-seed0"]) == 2
    told = "there is no judge of folder data to sweep by; allowed: runs on shapes, mnist, cifar10 data"
    assert told in capsys.readouterr().err


def test_a_sweep_of_other_values_takes_a_directory_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RUN.format(folder=folder))

    def sweep(field: str) -> str:
        assert main(["sweep", "small.yaml", "--field", field, "--seeds", "1", "--device", "cpu"]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    first = Path("sweep/custom-shift/sweep.html")
    assert Path(sweep("model.sampling.shift=1,2")) == first
    page = first.read_text()
    for field in ("model.sampling.shift=3,4", "model.objective.times.shift=1,2"):
        other = sweep(field)
        assert re.fullmatch(r"sweep/custom-shift-\w{12}/sweep\.html", other) and sweep(field) == other
    assert first.read_text() == page and len(list(Path("sweep").iterdir())) == 3
    assert Path(sweep("model.sampling.shift=1,2,3")) == first, "a value added goes on"
    assert [side["name"] for side in json.loads(first.with_suffix(".json").read_text())["sides"]][2] == "shift=3"
