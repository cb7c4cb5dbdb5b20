"""The studio's trainings in a real browser: begun, gone on with, followed, stopped."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tests.studio.conftest import TEXT, make_run
from tests.studio.hands import choose, tab, toast, unfold, until


def test_a_training_is_gone_on_with_followed_stopped_and_saved(page: Any, studio: Any) -> None:
    tab(page, "Train")
    choose(page, "#train-run input", "long")
    page.click("#train-resume")
    log = studio.folder / "runs" / "long" / "metrics.jsonl"
    until(lambda: log.is_file() and '"loss"' in log.read_text())
    page.wait_for_selector("#charts svg")
    page.wait_for_function("/images\\/s/.test(document.querySelector('#facts').textContent)")
    make_run(studio.folder / "runs" / "later", TEXT, 3)
    held: list[Any] = []
    busy = [True]
    page.route("**/queue/join*", lambda route: held.append(route) if busy[0] else route.continue_())
    page.reload()
    page.wait_for_selector("#draw-prompt textarea")
    tab(page, "Train")
    assert page.inner_text("#facts .empty") == "The run is being read."
    busy[0] = False
    for route in held:
        route.continue_()
    page.wait_for_selector("#charts svg")
    assert page.input_value("#train-run input") == "long"
    shutil.rmtree(studio.folder / "runs" / "later")
    page.click("#train-resume")
    assert "long is being trained" in toast(page)
    page.click("#train-stop")
    page.wait_for_function("document.querySelector('#train-line').textContent.includes('stopped, and saved')")
    (saved,) = (studio.folder / "runs" / "long" / "checkpoints").iterdir()
    last = json.loads(log.read_text().splitlines()[-1])["step"]
    assert int(saved.name.removeprefix("step-")) >= last > 0
    page.click("#train-stop")
    assert "is not being trained" in toast(page)


def test_a_training_is_begun_only_inside_the_folder(page: Any, studio: Any) -> None:
    tab(page, "Train")
    unfold(page, "#train-begin")

    def refused(name: str, settings: str) -> str:
        page.fill("#train-name textarea", name)
        page.fill("#train-settings textarea", settings)
        page.click("#train-start")
        return toast(page)

    assert "without folders" in refused("../out", "")
    assert "is there already" in refused("one", "")
    assert "--directory is the run's name" in refused("new", "--directory /tmp/elsewhere")
    assert sorted(path.name for path in (studio.folder / "runs").glob("[!.]*")) == ["long", "one", "other"]
    page.fill("#train-name textarea", "new")
    page.fill("#train-settings textarea", "--training.stps 3")
    page.click("#train-start")
    said = "unknown flag --training.stps; nearest: --training.steps"
    page.wait_for_function("s => document.querySelector('#train-line').textContent.includes(s)", arg=said)


def test_a_recipe_is_begun_and_followed_to_its_end(page: Any, studio: Any) -> None:
    tab(page, "Train")
    unfold(page, "#train-begin")
    page.fill("#train-name textarea", "begun")
    tiny = "--model.backbone.width 16 --model.backbone.depth 1 --model.backbone.head_width 8 --training.batch 2"
    plain = "--training.compile off --training.precision float32 --training.device cpu --training.log_every 1"
    page.fill("#train-settings textarea", f"--training.steps 2 {tiny} {plain} --training.previews 'a red circle'")
    page.press("#train-settings textarea", "Enter")
    page.wait_for_function("document.querySelector('#train-line').textContent.includes('trained to its end')")
    page.wait_for_selector("#previews img")
    assert page.locator("#previews img").evaluate("one => one.width <= one.naturalWidth"), "a small preview stays small"
    run = studio.folder / "runs" / "begun"
    assert (run / "checkpoints" / "step-00000002" / "ema.safetensors").is_file()
    assert "steps: 2\n" in (run / "run.yaml").read_text()
    page.reload()  # where no other is in training, the latest is shown, not that of when the studio began
    page.wait_for_selector("#draw-prompt textarea")
    tab(page, "Train")
    page.locator("#facts", has_text="begun: recipe shapes").wait_for()
    shutil.rmtree(run)


def test_a_run_that_came_since_the_start_is_offered_and_one_that_is_typed_is_taken(page: Any, studio: Any) -> None:
    new = make_run(studio.folder / "runs" / "one since", TEXT, 3)
    for name, field in (("Draw", "#model"), ("Two runs", "#two-first"), ("Train", "#train-run")):
        tab(page, name)
        page.click(f"{field} input")
        options = page.locator(field).get_by_role("option")
        page.locator(field).get_by_role("option", name="one since", exact=True).wait_for()
        for keys, taken in ((["Enter"], "one"), (["ArrowDown", "ArrowUp", "Enter"], "one since")):
            page.fill(f"{field} input", "")
            page.keyboard.type("one", delay=50)
            until(lambda options=options: options.count() == 2)
            for key in keys:
                page.keyboard.press(key)
            until(lambda options=options: options.count() == 0)
            assert page.input_value(f"{field} input") == taken
            page.click(f"{field} input")
        page.keyboard.press("Escape")
    shutil.rmtree(new)


def test_a_choice_made_before_a_slow_answer_stays_and_its_list_closed(browser: Any, studio: Any) -> None:
    page = browser.new_page()
    page.add_init_script("""
        const ask = fetch;
        fetch = (...what) => ask(...what).then(answer => new Promise(go => setTimeout(() => go(answer), 300)));
    """)
    with page.expect_response("**/predict"):  # the names of runs, asked for as the page opens
        page.goto(studio.address)
    for name, field in (("Draw", "#model input"), ("Train", "#train-run input")):
        tab(page, name)
        choose(page, field, "one")
        page.wait_for_timeout(1000)  # the answers to what was asked before the choice
        assert page.input_value(field) == "one" and page.get_by_role("option").count() == 0
    page.close()
