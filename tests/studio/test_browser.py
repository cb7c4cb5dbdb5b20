"""The studio in a real browser: every control, every bad input, a phone, a restart."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from PIL import Image

from fromnoise.core.files import content_hash
from fromnoise.studio.asked import restored
from fromnoise.studio.serve import serve
from tests.studio.conftest import WAITING
from tests.studio.hands import choose, tab, toast, unfold, until

TABS = ["Draw", "Words", "Sweep", "Two runs", "Between", "Train"]
SHIPPED = Path(serve.__code__.co_filename).parent.parent / "assets" / "shapes.safetensors"
FILM = "#draw-canvas input[type=range]"


def refusal(page: Any, name: str) -> str:
    """Why the page says below its buttons that there is no picture; it stays there until the next one."""
    page.wait_for_selector(f"#{name}-said .refused")
    assert page.locator("[data-testid=toast-text]").count() == 0
    return page.inner_text(f"#{name}-said")


def drawn(page: Any) -> None:
    """Wait until a new picture is finished."""
    page.wait_for_selector(FILM)


def settings(page: Any) -> None:
    unfold(page, "#draw-settings")


def test_enter_draws_and_the_slider_goes_back_in_time(page: Any, studio: Any) -> None:
    settings(page)
    page.fill("#draw-seed input", "7")
    page.fill("#draw-steps input", "6")
    page.fill("#draw-prompt textarea", "two green triangles")
    page.press("#draw-prompt textarea", "Enter")
    drawn(page)
    assert page.inner_text("#draw-canvas output") == "t = 0.00, step 6 of 6"
    picture = page.get_attribute("#draw-canvas img", "src")
    page.focus(FILM)
    page.keyboard.press("Home")
    assert page.inner_text("#draw-canvas output") == "t = 1.00, step 0 of 6"
    noise = page.get_attribute("#draw-canvas img", "src")
    assert noise != picture
    page.click("#draw-canvas .play")
    page.wait_for_function("document.querySelector('#draw-canvas output').textContent.includes('step 6')")
    assert page.get_attribute("#draw-canvas img", "src") == picture

    link = page.locator("#draw-canvas a.save")
    data = base64.b64decode(link.get_attribute("href").partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        told: Any = image.info
    assert link.get_attribute("download") == "two-green-triangles_7.png"
    assert data == (studio.folder / "pictures" / "two-green-triangles_7.png").read_bytes()
    expected = {"prompt": "two green triangles", "seed": "7", "steps": "6", "guidance": "3.0", "sampler": "ddim"}
    assert told == expected | {"checkpoint": content_hash(SHIPPED)}
    page.locator("#draw-gallery img").first.wait_for()


def test_what_cannot_be_drawn_is_told_in_a_line_and_the_next_picture_is_drawn(page: Any) -> None:
    settings(page)

    def refused(field: str, value: str, usual: str) -> str:
        page.fill(field, value)
        page.click("#draw-go")
        page.wait_for_function("s => document.querySelector('#draw-said').innerText != s", arg=told[-1])
        told.append(said := refusal(page, "draw"))
        page.fill(field, usual)
        assert "\n" not in said and "Traceback" not in said
        return said

    prompt, size, usual, told = "#draw-prompt textarea", "#draw-size textarea", "a red circle", [""]
    assert "no prompt is given" in refused(prompt, "  ", usual)
    assert "the prompt has 5,000 characters; allowed: up to 1,000" in refused(prompt, "a" * 5000, usual)
    assert "U+0007, a control character" in refused(prompt, "a \a red", usual)
    assert "steps: given 0" in refused("#draw-steps input", "0", "2")
    assert "steps: given 5000" in refused("#draw-steps input", "5000", "2")
    assert "guidance: given -1" in refused("#draw-guidance input", "-1", "3")
    assert "seed is -4" in refused("#draw-seed input", "-4", "0")
    assert "size is 30x30" in refused(size, "30", "32")
    assert "size is 9996x9996" in refused(size, "9996", "32")
    assert "size is 160x128 (height x width); allowed here: up to 16 times" in refused(size, "160x128", "32")
    assert "given 'wide'" in refused(size, "wide", "32x40")
    page.click("#draw-go")
    drawn(page)
    picture = page.evaluate("[document.querySelector('#draw-canvas img').naturalWidth]")
    assert picture == [40] and page.inner_text("#draw-said") == ""


def test_what_others_than_the_page_send_is_told_in_a_line(studio: Any) -> None:
    client = Client(studio.address, verbose=False)
    asked: dict[str, Any] = {"name": "one", "text": "a red circle", "size": None, "steps": 1, "api_name": "/draw"}
    assert "<img" in client.predict(**asked)[0]
    faults = {"no prompt is given": ("text", None), "model: given None; allowed: ": ("name", None)}
    for said, (key, value) in (faults | {"model: given 5; allowed: ": ("name", 5)}).items():
        asked[key] = value
        assert f"Not possible: {said}" in client.predict(**asked)[1]


def test_markup_is_text_and_no_program(page: Any) -> None:
    settings(page)
    page.fill("#draw-steps input", "1")
    attack = '<img src=x onerror="window.broken=1"> & "red"'
    page.fill("#draw-prompt textarea", attack)
    page.click("#draw-go")
    drawn(page)
    page.locator("#draw-gallery img").first.wait_for()
    tab(page, "Two runs")
    choose(page, "#two-first input", attack)
    page.click("#two-go")
    assert "<img src=x" in refusal(page, "two")
    assert page.evaluate("window.broken") is None


def test_a_dropped_picture_restores_its_settings(page: Any, studio: Any, tmp_path: Path) -> None:
    from fromnoise.pipeline.pictures import save_png

    how = {"prompt": "a yellow star", "seed": "123", "steps": "5", "guidance": "1.5", "sampler": "euler"}
    picture = save_png(Image.new("RGB", (64, 32)), tmp_path, "star", how | {"checkpoint": "0123456789"})
    settings(page)
    page.set_input_files("#draw-restore input[type=file]", str(picture))
    page.wait_for_function("document.querySelector('#draw-prompt textarea').value == 'a yellow star'")
    fields = ["seed input", "steps input", "guidance input", "sampler input", "size textarea"]
    assert [page.input_value(f"#draw-{field}") for field in fields] == ["123", "5", "1.5", "euler", "32x64"]
    assert "01234567" in page.inner_text("#draw-origin")
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    page.click("#draw-restore button[aria-label='Clear']")
    page.set_input_files("#draw-restore input[type=file]", str(plain))
    assert "plain.png does not say its prompt" in toast(page)
    page.click("#draw-new-seed")
    page.wait_for_function("document.querySelector('#draw-seed input').value != '123'")


def test_stop_ends_a_picture_and_the_next_one_is_drawn(page: Any, studio: Any) -> None:
    settings(page)
    before = len(list((studio.folder / "pictures").glob("*.png")))
    page.fill("#draw-steps input", "1000")
    page.fill("#draw-size textarea", "96")  # a thousand steps of that take minutes
    page.click("#draw-go")
    page.wait_for_selector("#draw-canvas img")
    page.click("#draw-stop")
    page.fill("#draw-steps input", "2")
    page.fill("#draw-size textarea", "32")

    def again() -> bool:
        page.click("#draw-go")  # while the stop is on its way, the button does nothing
        page.wait_for_timeout(300)
        return page.locator(FILM).count() > 0

    until(again)
    assert page.inner_text("#draw-canvas output") == "t = 0.00, step 2 of 2"
    names = [path.name for path in (studio.folder / "pictures").glob("*.png")]
    assert len(names) > before
    steps = [restored(studio.folder / "pictures" / name).asked.steps for name in names]
    assert 1000 not in steps


def test_who_finds_the_line_full_is_told_in_words_that_stay(page: Any, browser: Any, studio: Any) -> None:
    settings(page)
    page.fill("#draw-steps input", "1000")
    page.fill("#draw-size textarea", "96")
    page.click("#draw-go")
    page.wait_for_selector("#draw-canvas img")
    for name in ("Words", "Sweep"):  # as many as may wait, behind a picture that takes minutes
        tab(page, name)
        page.click(f"#{name.lower()}-go")
        page.wait_for_function(
            "s => document.querySelector(s).innerText.includes('queue')", arg=f"#{name.lower()}-canvas"
        )

    other = browser.new_page()
    other.goto(studio.address)  # all but drawing goes on: the model is told, and runs are followed
    other.locator(".about", has_text="million").first.wait_for()
    other.click("#draw-go")
    told = other.get_by_text(f"The line is full: {WAITING} pictures are waited for. Press again in a minute.").first
    told.wait_for()
    tab(other, "Train")
    choose(other, "#train-run input", "one")
    other.wait_for_function("document.querySelector('#facts').textContent.includes('recipe shapes')")
    tab(other, "Draw")
    assert told.is_visible() and other.locator("[data-testid=toast-text]").count() == 0
    assert "Error" not in other.inner_text("#draw-canvas")

    for name in ("Words", "Sweep", "Draw"):
        tab(page, name)
        page.click(f"#{name.lower()}-stop")
    until(lambda: bool(other.click("#draw-go") or other.wait_for_timeout(300) or other.locator(FILM).count()))
    assert not told.is_visible()
    other.close()


def test_another_model_brings_its_settings_and_what_is_outside_is_refused(page: Any, studio: Any) -> None:
    settings(page)
    choose(page, "#model input", "one")
    page.wait_for_function("document.querySelector('#draw-steps input').value == '3'")
    assert "mmdit, linear path" in page.inner_text(".about >> nth=0")
    (studio.folder / "secret").mkdir(exist_ok=True)
    for name, said in (("../secret", "outside the folder of runs"), ("none", "there is no run 'none'")):
        choose(page, "#model input", name)
        assert said in toast(page)


def test_what_is_typed_or_chosen_while_a_model_loads_stays(page: Any) -> None:
    first, asked, held = page.input_value("#model input"), [1], []

    def slowly(route: Any) -> None:  # its settings are asked for, or its weights: what comes `asked`th is held
        asked[0] -= route.request.post_data_json["data"][:1] == [first]
        held.append(route) if asked[0] == 0 and not held else route.continue_()

    page.route("**/queue/join*", slowly)
    page.reload()
    settings(page)
    until(lambda: bool(page.wait_for_timeout(20) or held))
    page.fill("#draw-steps input", "9")
    held[0].continue_()
    page.wait_for_function("document.querySelector('.about').textContent.includes('million')")
    assert page.input_value("#draw-steps input") == "9"

    asked[0] = 2
    held.clear()
    page.reload()
    settings(page)
    until(lambda: bool(page.wait_for_timeout(20) or held))
    choose(page, "#model input", "one")
    page.wait_for_function("document.querySelector('#draw-steps input').value == '3'")
    held[0].continue_()
    page.wait_for_function("document.querySelector('.about').textContent.includes('0.0 million')")


def test_words_are_laid_over_the_picture(page: Any) -> None:
    tab(page, "Words")
    page.fill("#words-prompt textarea", "a red circle")
    page.press("#words-prompt textarea", "Enter")
    page.wait_for_selector("#words-closer input[type=range]")
    assert page.locator("#words-canvas figcaption").all_inner_texts() == ["picture", "a", "red", "circle"]
    before = page.get_attribute("#words-closer img", "src")
    page.locator("#words-choice label").first.click()
    page.wait_for_function("document.querySelector('#words-closer figcaption').textContent.includes('“a”')")
    assert page.get_attribute("#words-closer img", "src") != before


def test_a_sweep_fills_a_grid(page: Any) -> None:
    tab(page, "Sweep")
    page.fill("#sweep-guidances textarea", "0, 3")
    page.fill("#sweep-steps textarea", "1 2 3")
    page.press("#sweep-steps textarea", "Enter")
    page.wait_for_function("document.querySelectorAll('#sweep-canvas img').length == 6")
    made = sources(page, "#sweep-canvas")
    assert len(set(made)) == 6
    page.fill("#sweep-steps textarea", "2 many")
    page.click("#sweep-go")
    assert "steps: given '2 many'; allowed: numbers" in refusal(page, "sweep")
    assert sources(page, "#sweep-canvas") == made  # what was drawn before stays, too


def test_two_runs_are_told_apart_or_guessed(page: Any) -> None:
    tab(page, "Two runs")
    for field, name in (("first", "one"), ("second", "other")):
        choose(page, f"#two-{field} input", name)
    page.click("#two-go")
    page.wait_for_selector("#two-canvas .note")
    assert page.locator("#two-canvas figcaption").all_inner_texts() == ["one", "other"]
    told = dict(zip(["one", "other"], sources(page, "#two-canvas"), strict=True))
    assert "Coloured shapes by prompt" in page.inner_text("#two-canvas")
    page.click("#two-blind input")
    page.click("#two-go")
    page.wait_for_selector("#two-guess input")
    hidden = sources(page, "#two-canvas")
    assert page.locator("#two-canvas figcaption").all_inner_texts() == ["left", "right"]
    assert sorted(hidden) == sorted(told.values())
    left = next(name for name, source in told.items() if source == hidden[0])
    page.locator("#two-guess label", has_text=left).click()
    page.wait_for_function("document.querySelector('#two-verdict').textContent.includes('Right: 1 of 1')")
    assert page.locator("#two-canvas figcaption").first.inner_text() == left


def sources(page: Any, place: str) -> list[str]:
    return page.evaluate("s => [...document.querySelectorAll(s + ' img')].map(i => i.src)", place)


def test_between_two_prompts_is_a_strip_and_an_animation(page: Any) -> None:
    tab(page, "Between")
    page.fill("#to-seed input", "5")
    page.fill("#between-count input", "3")
    page.click("#between-go")
    page.wait_for_selector("#between-canvas .save")
    assert page.locator("#between-canvas .strip figcaption").all_inner_texts() == ["0%", "50%", "100%"]
    data = page.get_attribute("#between-canvas a.save", "href")
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as film:
        assert film.format == "WEBP" and getattr(film, "n_frames", 1) == 4
    page.fill("#between-count input", "1")
    page.click("#between-go")
    assert "count is 1; allowed: 2 to 64" in refusal(page, "between")


@pytest.mark.parametrize("name", TABS)
def test_a_phone_scrolls_down_only(browser: Any, studio: Any, name: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(studio.address)
    page.wait_for_selector("#draw-prompt textarea")
    tab(page, name)
    if name in ("Draw", "Sweep"):
        page.click(f"#{name.lower()}-go")
        page.wait_for_selector(f"#{name.lower()}-canvas img")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_the_gallery_survives_a_restart_and_runs_that_come_after_it_are_followed(page: Any, studio: Any) -> None:
    page.locator("#draw-gallery img").first.wait_for()
    before = page.locator("#draw-gallery img").count()
    assert before == len(list((studio.folder / "pictures").glob("*.png"))) > 0
    assert studio.stop() == 0
    (studio.folder / "runs").rename(studio.folder / "away")
    newest = max((studio.folder / "pictures").glob("*.png"), key=lambda path: path.stat().st_mtime_ns)
    newest.rename(newest.with_name("{a}.png"))
    studio.start()
    page.goto(studio.address)
    page.locator("#draw-gallery img").first.wait_for()
    assert page.locator("#draw-gallery img").count() == before
    page.locator("#draw-gallery button.thumbnail-item").first.click()
    page.wait_for_function("document.querySelector('#draw-origin').textContent.includes('Settings of a picture')")
    (studio.folder / "away").rename(studio.folder / "runs")
    tab(page, "Train")
    page.locator("#facts", has_text="of 1,000,000").wait_for()
