"""Every run ends with a page and a card, and both can be made anew at any time."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fromnoise.cli.main import main
from fromnoise.conditioning.config import ConditionerConfig, LabelConfig, NoConditionConfig, TextConfig
from fromnoise.core.config import read_yaml, write_yaml
from fromnoise.core.files import content_hash
from fromnoise.pipeline.config import ModelConfig
from fromnoise.pipeline.load import weights
from fromnoise.reporting import curves, record
from fromnoise.reporting.card import own, sampling_command
from fromnoise.training import loop
from fromnoise.training.environment import TOLD
from fromnoise.training.run import Run, read_run

Read = Callable[[str], Any]
Browse = Callable[[str, int], tuple[int, int, int, list[str]]]


def test_the_page_tells_of_the_run(toy: Path, read_page: Read) -> None:
    text = (toy / "report.html").read_text()
    page = read_page(text)
    lines = [json.loads(line) for line in (toy / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "validation_ema" in line][-1]
    shown = {8, 32, last["validation_ema"], last["validation_raw"], *last["validation_ema_by_time"]}
    assert shown | set(last["validation_raw_by_time"]) <= set(page.values)
    assert page.fetches_nothing() and page.tags.count("svg") == 6 and page.tags.count("img") == 2
    charts = ("training loss", "validation loss", "learning rate", "norm of the gradient", "t (0 data, 1 noise)")
    for words in (*charts, "step 4", "step 8", "after 4 steps", "Recipe shapes", "training.steps", "waiting for data"):
        assert words in page.words
    for value in record.read(toy).hashes.values():
        assert re.fullmatch(r"[0-9a-f]{64}", value) and value in page.words
    assert content_hash(weights(toy)) in page.words and content_hash(weights(toy, raw=True)) in page.words
    (began,) = [json.loads(line) for line in (toy / "environment.jsonl").read_text().splitlines()]
    assert began["versions"]["torch"] in page.words and began["machine"]["processor"] in page.words
    flops = record.read(toy).sizes["training_flops"]
    assert flops > 0 and {flops, flops * 32} <= set(page.values)


@pytest.mark.parametrize(("done", "whole"), [(200, True), (4000, False)])
def test_of_a_training_only_what_is_early_by_now_lies_above_the_chart(
    done: int, whole: bool, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tops: list[float] = []
    monkeypatch.setattr(curves, "chart", lambda lines, x, y, *, name, log_y, top: tops.append(top) or "")
    known, lines = record.read(toy), [*range(1, 20), *range(20, done + 1, 20)]
    logged = [known.logged[0] | {"step": step, "loss": 3.3 * step**-0.34} for step in lines]
    longer = known.run.training.model_copy(update={"steps": 4000})
    run = known.run.model_copy(update={"training": longer})
    curves.training_charts(curves.sides([replace(known, run=run, logged=logged, validated=[])], [""]))
    assert (tops[0] is None or tops[0] >= 3.3) == whole


def test_a_point_alone_is_seen(toy: Path) -> None:
    known = record.read(toy)
    one = replace(known, logged=known.logged[:1], validated=known.validated[:1])
    for svg in curves.training_charts(curves.sides([one], [""])):
        assert re.search(r'<g clip-path="[^"]*">\s*<use', svg)
    for svg in curves.training_charts(curves.sides([known], [""]))[2:]:
        assert not re.search(r'<g clip-path="[^"]*">\s*<use', svg)


@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_asks_for_nothing_and_scrolls_down_only(width: int, toy: Path, browse: Browse) -> None:
    wide, high, broken, asked = browse((toy / "report.html").read_text(), width)
    assert asked == [] and broken == 0
    assert wide <= width and high > 2000


def test_no_table_is_scrolled_sideways_on_a_usual_screen(toy: Path, browse: Browse) -> None:
    text = (toy / "report.html").read_text()
    scrolls = ".wide { overflow-x: auto;"
    assert scrolls in text
    wide, *_ = browse(text.replace(scrolls, ".wide {"), 1280)
    assert wide <= 1280


def test_a_browser_that_asks_is_seen(browse: Browse) -> None:
    page = '<!DOCTYPE html><img src="http://pictures.invalid/a.png"><p style="width:500px">words'
    wide, _, broken, asked = browse(page, 360)
    assert asked == ["http://pictures.invalid/a.png"] and broken == 1 and wide > 360


def test_the_card_is_one_of_a_hub(toy: Path) -> None:
    import yaml

    text = (toy / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    assert told == {
        "library_name": "fromnoise",
        "license": "unknown",
        "pipeline_tag": "text-to-image",
        "tags": ["fromnoise", "diffusion"],
    }
    heads = re.findall(r"^## (.*)$", body, re.M)
    assert heads == ["How it was trained", "How to draw", "Results", "Limits", "Licence"]
    (preview,) = re.findall(r"!\[[^]]*\]\(([^)]*)\)", body)
    assert (toy / preview).is_file() and preview.endswith("step-00000008.png")
    assert "8 optimizer steps of 4 pictures, 32 in all, seed 0" in body
    assert "By default: ddim, 2 steps, guidance 3 from 0 to 0.8.\n" in body
    assert content_hash(weights(toy)) in body


@pytest.mark.parametrize("prompts", [(), ('a "stop" sign', "it's $5")])
def test_what_the_card_says_to_draw_with_it_draws_with_it(
    prompts: tuple[str, ...], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = shutil.copytree(toy, Path("runs/my run"))
    run = read_run(place / "run.yaml")
    asked = run.training.model_copy(update={"previews": prompts, "device": "cpu"})
    write_yaml(run.model_copy(update={"training": asked}), place / "run.yaml")
    assert main(["report", str(place)]) == 0
    shell, python = re.findall(r"^```\w*\n(.*?)\n```$", (place / "README.md").read_text(), re.M | re.S)
    assert main(shlex.split(shell)[1:]) == 0
    exec(python, {})
    with Image.open("picture.png") as bare, Image.open(next(Path("pictures").glob("*_0.png"))) as told:
        said: Any = told.info
        assert said["prompt"] == (prompts or ("a prompt",))[0] and said["checkpoint"] == content_hash(weights(place))
        assert bare.tobytes() == told.tobytes()


@pytest.mark.parametrize(
    ("kind", "said"), [(NoConditionConfig(), "''"), (LabelConfig(), "0"), (TextConfig(), "'a prompt'")]
)
def test_a_model_is_shown_to_be_told_what_it_knows(kind: ConditionerConfig, said: str) -> None:
    run = Run(model=ModelConfig(conditioner=kind))
    assert sampling_command(run, Path("runs/new")) == f"fromnoise sample runs/new {said}"


def test_made_anew_it_has_what_was_found_since(
    toy: Path, read_page: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(toy, tmp_path / "toy")
    found = {
        "command": "fromnoise evaluate toy",
        "checkpoint": content_hash(weights(place)),
        "adherence": {"overall": 0.125, "single_object": {"mean": 0.25, "low": 0.1, "high": 0.4}},
        "confusion": [[1, 2], [3, 4]],
        "features": [{"extractor": "pixels", "frechet": 1.5}, {"extractor": "clip", "frechet": 2.5}],
    }
    (place / "evaluation.json").write_text(json.dumps(found))
    assert main(["report", str(place)]) == 0
    assert capsys.readouterr().out == f"{place / 'report.html'}\n"
    page = read_page((place / "report.html").read_text())
    assert {0.125, 0.25, 0.1, 0.4, 1.5, 2.5} <= set(page.values) and "features 2: frechet" in page.words
    assert "adherence: single object" in page.words
    assert "of other weights" not in page.words
    assert "| adherence: overall | 0.125 |" in (place / "README.md").read_text()

    (place / "evaluation.json").write_text(json.dumps(found | {"checkpoint": "0" * 64}))
    (place / "README.md").write_text("My own words.")
    assert main(["report", str(place)]) == 0
    assert "of other weights" in read_page((place / "report.html").read_text()).words
    assert (place / "README.md").read_text() == "My own words."
    assert "was changed by hand" in capsys.readouterr().err
    (place / "README.md").unlink()
    (place / "sampling.yaml").write_text("steps: 7")
    assert main(["report", str(place)]) == 0 and own(place / "README.md")
    assert (
        "By default: ddim, 7 steps, guidance 3 from 0 to 0.8, as sampling.yaml has it."
        in (place / "README.md").read_text()
    )


def test_of_a_run_in_training_it_tells_how_far_it_is(
    toy_flags: list[str], read_page: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by a signal, half a line behind what was logged, and before the first checkpoint."""
    clipped, taken = loop.clip_gradients, []

    def stopping(*given: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return clipped(*given)

    monkeypatch.setattr(loop, "clip_gradients", stopping)
    place = tmp_path / "toy"
    command = ["train", "shapes", "--directory", str(place), *toy_flags, "--training.steps", "8"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 143
    page = read_page((place / "report.html").read_text())
    assert "in training, or stopped: 37.5 % of its steps" in page.words
    assert "Its training is not finished: 3 of 8 steps" in (place / "README.md").read_text()

    with (place / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    shutil.rmtree(place / "checkpoints")
    assert main(["report", str(place)]) == 0
    words = read_page((place / "report.html").read_text()).words
    assert "37.5 % of its steps" in words and "not counted: there is no checkpoint yet" in words
    (place / "metrics.jsonl").unlink()
    assert main(["report", str(place)]) == 0
    assert "Nothing was logged yet" in read_page((place / "report.html").read_text()).words


def test_a_report_that_fails_takes_nothing_away(
    toy_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record.Record, "costs", property(lambda record: {}["costs"]))
    place = tmp_path / "toy"
    assert main(["train", "shapes", "--directory", str(place), *toy_flags, "--training.steps", "2"]) == 0
    said = capsys.readouterr()
    assert "no report: " in said.err and f"fromnoise report {place}" in said.err
    assert "draw with it" in said.out and weights(place).is_file() and not (place / "report.html").exists()


def test_of_a_vae_it_tells_how_well_it_reconstructs(toy_vae: Path, read_page: Read) -> None:
    text = (toy_vae / "report.html").read_text()
    page = read_page(text)
    last = [json.loads(line) for line in (toy_vae / "metrics.jsonl").read_text().splitlines()][-1]
    assert {*last["latent_mean"], *last["latent_std"], *last["latent_kurtosis"]} <= set(page.values)
    assert "PSNR, dB" in page.words and "a VAE: trained" in page.words and page.fetches_nothing()
    assert "Loss by time" not in page.words and page.tags.count("svg") == 7
    card = (toy_vae / "README.md").read_text()
    assert f"AutoencoderKL.from_pretrained({str(toy_vae / 'vae')!r})" in card and "latents of 8" in card


def test_an_evaluation_that_drew_otherwise_is_told(
    toy: Path, read_page: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(toy, tmp_path / "toy", ignore=shutil.ignore_patterns("checkpoints"))
    own = read_yaml(Run, place / "run.yaml").model.sampling.model_dump(mode="json")
    said = "Its pictures were drawn for evaluation otherwise than by run.yaml: sampler dpmpp_2m (run.yaml: "
    for drawing, unlike in ((own, False), (own | {"sampler": "dpmpp_2m", "interval": [0.2, 0.8]}, True)):
        (place / "evaluation.json").write_text(json.dumps({"accuracy": 0.5, "drawing": drawing}))
        assert main(["report", str(place)]) == 0
        assert main(["diff", str(place), str(toy), "--out", str(tmp_path / "diff.html")]) == 0
        pages = [read_page((file).read_text()).words for file in (place / "report.html", tmp_path / "diff.html")]
        told = capsys.readouterr().out
        for text in (*pages, (place / "README.md").read_text(), told):
            assert (said in text) == unlike and ("interval [0.2, 0.8]" in text) == unlike
            assert "drawing: sampler" in text and drawing["sampler"] in text


def test_held_out_pictures_that_changed_are_told_with_the_step(toy: Path, tmp_path: Path) -> None:
    place = shutil.copytree(toy, tmp_path / "toy")
    (line,) = map(json.loads, (place / "environment.jsonl").read_text().splitlines())
    first, then = line["held_out"], "f" * 64
    lines = [line, line | {"step": 2}, line | {"step": 4, "held_out": then}, line | {"step": 6}]
    (place / "environment.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    told = {key: value for key, value in record.read(place).hashes.items() if key.startswith("held-out")}
    name = "held-out pictures, from step "
    assert told == {f"{name}0": first, f"{name}4": then, f"{name}6": first}
    assert record.read(toy).hashes["held-out pictures"] == first


@pytest.mark.parametrize("command", ["report", "diff"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("metrics.jsonl", ["5", "null", '{"step": "a"}', '{"step": 1, "loss": 0.5}']),
        ("environment.jsonl", ["null", "{}", json.dumps(dict.fromkeys(TOLD, "a"))]),
        ("evaluation.json", ["[]", "null"]),
    ],
)
def test_a_damaged_record_is_one_line(
    name: str, lines: list[str], command: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(toy, tmp_path / "toy", ignore=shutil.ignore_patterns("checkpoints", "*.html"))
    for line in lines:
        (place / name).write_text(f"{line}\n")
        assert main([command, *[str(place)] * (1 + (command == "diff"))]) == 2
        said = capsys.readouterr()
        assert f"{place / name} is damaged: " in said.err and said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize(
    ("name", "words"), [("none", "none is no directory; allowed: the directory of a run"), (".", "has no run.yaml")]
)
def test_what_is_no_run_is_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", name]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and list(tmp_path.iterdir()) == []
