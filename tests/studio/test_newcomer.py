"""A newcomer's five minutes, in a real browser: makes, plays, trains, draws, inpaints, asks; nothing is asked of anyone
else.  Then every button of every page, on a phone, in Chinese, in the dark.

Needs the chromium of this machine ($BOWERBIRD_CHROMIUM, default /usr/bin/chromium).  $BOWERBIRD_SCREENSHOTS is a folder
for what was seen on the way, on a desktop and on a phone, in both languages; with it, exports are really written.
"""

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from studio_site import Site, running

from bowerbird import api
from bowerbird.studio import site as studio_pages
from bowerbird.studio.language import Words
from bowerbird.studio.trainings import Trainings

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")

CHROMIUM = Path(os.environ.get("BOWERBIRD_CHROMIUM", "/usr/bin/chromium"))
SCREENSHOTS = os.environ.get("BOWERBIRD_SCREENSHOTS")
STEPS = os.environ.get("BOWERBIRD_NEWCOMER_BUDGET", "3steps")
PATIENCE_MS = 180_000
SCREENS = {"desktop": (1280, 900), "phone": (390, 844), "narrow": (360, 740)}
LOCALES = {"en": "en-US", "zh": "zh-CN"}

pytestmark = pytest.mark.skipif(not CHROMIUM.is_file(), reason=f"needs a browser: there is no {CHROMIUM}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as drives:
        arguments = ["--no-sandbox", "--disable-gpu", "--mute-audio"]
        browser = drives.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, shipped: dict[str, Path]) -> Iterator[Site]:
    """With tiny runs in the place of those of the package, which ``test_shipped`` tries; for screenshots with these."""
    from bowerbird.studio.host import shipped_runs

    with running(tmp_path_factory.mktemp("newcomer"), shipped_runs() if SCREENSHOTS else shipped) as site:
        yield site


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, shipped, chatter: Path, codes: Path) -> Iterator[Site]:
    """With tiny runs, which answer at once."""
    runs = tmp_path_factory.mktemp("small")
    for name, folder in (("chat", chatter), ("codes", codes), ("flow", shipped["digits"])):
        shutil.copytree(folder, runs / name)
    with running(runs, shipped) as site:
        yield site


class Visit:
    """A page of a browser that writes down every error and every request that leaves this machine."""

    def __init__(self, browser: Any, site: Site, screen: str, language: str):
        width, height = SCREENS[screen]
        self.site, self.screen, self.language, self.wrong = site, screen, language, list[str]()
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, locale=LOCALES[language], reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.site.address, "data:", "about:", "blob:")):
            self.wrong.append(f"foreign request: {request.url}")

    def go(self, path: str) -> Any:
        self.page.goto(self.site.address + path)
        return self.page

    def seen(self, what: str, *screens: str) -> None:
        """Keeps a screenshot on each screen (none: on that of the visit); nothing may be wider than the screen."""
        for name in screens or (self.screen,):
            width, height = SCREENS[name]
            self.page.set_viewport_size({"width": width, "height": height})
            self.page.emulate_media(color_scheme="dark" if name == "narrow" else "light")
            needed, there = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert needed <= there == width, f"{what} on {name}-{self.language} is {needed} pixels wide"
            if SCREENSHOTS:
                Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
                self.page.screenshot(path=f"{SCREENSHOTS}/{what}-{name}-{self.language}.png", full_page=True)

    def end(self) -> None:
        self.context.close()
        assert self.wrong == []


def loaded(page: Any, selector: str) -> None:
    """Waits until a picture is there and was decoded."""
    page.wait_for_selector(selector)
    until(
        page, "all => [...document.querySelectorAll(all)].every(one => one.complete && one.naturalWidth > 0)", selector
    )


def until(page: Any, expression: str, argument: Any = None) -> None:
    """Waits until it is true.  (Playwright's own waiting evaluates a string, which the page's policy forbids.)"""
    for _ in range(PATIENCE_MS // 200):
        if page.evaluate(expression, argument):
            return
        page.wait_for_timeout(200)
    raise AssertionError(f"never true: {expression}")


def test_a_newcomers_five_minutes(browser, studio: Site):
    visit = Visit(browser, studio, "desktop", "en")
    page = visit.go("/")
    for card in ("digits", "emoji-3d"):  # at once, without a click
        loaded(page, f"#made-{card} .picture")
    page.fill("#first-line", "春江潮水連")
    page.click(".card.poem button:not(.quiet)")
    until(page, "document.querySelector('#made-poem .verse')?.textContent.startsWith('春江潮水連')")
    page.click(".card.chorale form button")
    page.wait_for_selector("#made-chorale audio")
    played = page.evaluate(
        """async () => {
            const audio = document.querySelector('#made-chorale audio');
            await audio.play();
            await new Promise((done) => audio.addEventListener('timeupdate', () => audio.currentTime > 0 && done()));
            audio.pause();
            return audio.duration;
        }"""
    )
    assert played > 0.5
    page.click(".card.digits label:has(input[value='3'])")
    until(page, "!document.querySelector('#made-digits').hasAttribute('aria-busy')")
    loaded(page, "#made-digits .near")
    draw(page)
    visit.seen("1-at-once")
    page.click("#made-emoji-3d [data-verify]")
    page.wait_for_selector("#made-emoji-3d .verdicts")

    page.click("nav a[href='/train']")
    visit.seen("2-train")
    page.evaluate("budget => document.querySelector('#emoji-budget').append(new Option(budget, budget))", STEPS)
    page.select_option("#emoji-budget", STEPS)
    page.click("form[action='/train/start'] button")
    page.wait_for_url("**/runs/emoji-3d-001")
    page.wait_for_selector(".state.training")
    page.wait_for_selector(".curves path")
    visit.seen("3-training")
    page.wait_for_selector(".state.finished")
    loaded(page, "#sharpening .picture:not(.waiting)")
    assert page.locator("#sharpening figure").count() == 12
    visit.seen("4-trained")

    page.click("nav a[href='/runs']")
    page.click("a[href='/runs/shipped/digits']")
    loaded(page, "#played .picture")
    with page.expect_download() as saved:
        page.click("#played a[download]")
    assert saved.value.suggested_filename == "digits-seed-0.zip"
    assert page.inner_text(".take + .about").endswith("bowerbird serve digits")
    page.click("[data-film]")
    page.wait_for_selector(".film canvas")
    until(page, "document.querySelector('.film output').textContent !== ''")
    inpaint(page)
    visit.seen("5-playground")

    page.click("nav a[href='/code']")
    page.click("[data-example]")
    until(page, "document.querySelector('#code').value.includes('class VAE')")
    page.click("form.code button:not([type])")
    page.wait_for_selector(".code-findings .error")
    assert "logarithm of the variance" in page.inner_text(".code-findings .error")
    page.fill("input[name=question]", "Why is the standard deviation wrong?")
    page.click("form[action$='/ask'] button")
    page.wait_for_selector(".answer p")
    visit.seen("6-code")
    visit.end()


def draw(page: Any) -> None:
    """A face, with the mouse, that becomes 3-D."""
    page.click("#made-emoji-3d-tab-draw")
    page.locator("canvas").first.scroll_into_view_if_needed()
    box = page.locator("canvas").first.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.fill("[data-width]", "90")
    page.mouse.move(*middle)
    page.mouse.down()
    for dx, dy in ((-30, -30), (30, -30), (30, 30), (-30, 30), (-30, -30)):
        page.mouse.move(middle[0] + dx, middle[1] + dy, steps=4)
    page.mouse.up()
    page.click(".colours label:has(input[value='#212121'])")
    page.fill("[data-width]", "18")
    for dx in (-22, 22):
        page.mouse.move(middle[0] + dx, middle[1] - 14)
        page.mouse.down()
        page.mouse.move(middle[0] + dx, middle[1] - 6, steps=3)
        page.mouse.up()
    before = page.inner_html("#made-emoji-3d")
    page.click("form[data-drawing] button:not([type])")
    until(page, "before => document.querySelector('#made-emoji-3d').innerHTML !== before", before)
    loaded(page, "#made-emoji-3d .picture.big")


def inpaint(page: Any) -> None:
    """A stroke across a digit; below it the digit stays as it was."""
    canvas = page.locator(".brush canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 60, steps=4)
    page.mouse.up()
    page.click(".brush button:not([type])")
    loaded(page, "#painted .picture:not(.near)")
    before, after = (pixels_of(page, one) for one in (".brush input:checked + img", "#painted .picture:not(.near)"))
    lower = len(after) // 2
    np.testing.assert_array_equal(after[lower:], before[lower:])
    assert (after != before).any()


def pixels_of(page: Any, selector: str) -> np.ndarray:
    """Of a picture on the page, as it was sent."""
    sent = page.request.get(page.url.partition("/runs/")[0] + page.get_attribute(selector, "src"))
    return np.asarray(Image.open(io.BytesIO(sent.body())).convert("L"))


@pytest.mark.parametrize("language", LOCALES)
def test_every_page_fits_every_screen_in_both_languages(browser, small: Site, language):
    visit = Visit(browser, small, "desktop", language)
    page = visit.go("/")
    assert page.get_attribute("html", "lang") == {"en": "en", "zh": "zh-Hans"}[language]
    loaded(page, "#made-emoji-3d .picture")
    visit.seen("home", *SCREENS)
    for name, path in (("train", "/train"), ("runs", "/runs"), ("run", "/runs/shipped/emoji-3d"), ("code", "/code")):
        visit.go(path)
        if name == "run":
            loaded(page, "#sharpening .picture")
        visit.seen(name, *SCREENS)
    page.click(".language")
    assert page.get_attribute("html", "lang") == {"en": "zh-Hans", "zh": "en"}[language]
    visit.end()


def test_the_first_page_can_be_used_with_the_keyboard_alone(browser, small: Site):
    visit = Visit(browser, small, "desktop", "en")
    page = visit.go("/")
    loaded(page, "#made-emoji-3d .picture")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus(".card.digits input:checked")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.card.digits input:checked').value === '8'")
    page.focus("#made-emoji-3d-tab-pick")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "made-emoji-3d-tab-draw"
    assert page.is_visible("canvas")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, a, input:not([type=hidden]), select, canvas')]
            .filter((one) => one.offsetParent && !(one.innerText?.trim() || one.labels?.length || one.title ||
                one.getAttribute('aria-label') || one.querySelector?.('img[alt]')))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    visit.end()


# ---------------------------------------------------------------------------------------------------- every button


class Presser:
    """Presses buttons of a page and writes down what stands on them."""

    def __init__(self, page: Any):
        self.page, self.pressed = page, set[str]()

    def __call__(self, *selectors: str) -> None:
        for selector in selectors:
            button = self.page.locator(selector).first
            self.pressed.add(button.inner_text().strip())
            button.click()
            until(self.page, "!document.querySelector('[aria-busy]')")
            assert self.page.locator("p.error:visible").all_inner_texts() == [], selector

    def away(self, selector: str, address: str) -> None:
        """Presses one that leads to another page."""
        self.pressed.add(self.page.inner_text(selector).strip())
        self.page.click(selector)
        self.page.wait_for_url(address)


def on_buttons() -> set[str]:
    """What stands on the buttons of the templates, in Chinese."""
    templates = "".join(path.read_text() for path in Path(studio_pages.__file__).parent.glob("templates/*.html"))
    names = [
        name for one in re.findall("<button.*?</button>", templates) for name in re.findall(r't\("([\w.-]+\w)"\)', one)
    ]
    return {Words("zh")(name) for name in names}


def test_every_button_of_every_page_does_what_it_says(browser, small: Site, tiny: Path, tmp_path, monkeypatch):
    visit = Visit(browser, small, "narrow", "zh")
    press = Presser(visit.page)
    picture, archive = sorted(tiny.rglob("*.png"))[0], tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(picture, picture.name)
    at_home(visit, press, picture)
    at_training(visit, press, tiny, archive, monkeypatch)
    at_a_run(visit, press, picture, tmp_path, monkeypatch)
    at_code(visit, press, monkeypatch)
    assert on_buttons() <= press.pressed
    visit.end()


def at_home(visit: Visit, press: Presser, picture: Path) -> None:
    page = visit.go("/")
    for card in ("poem", "chorale", "digits", "emoji-text", "emoji-3d"):
        page.wait_for_selector(f"#made-{card} .under")
    until(page, "!document.querySelector('[aria-busy]')")
    press(".card.emoji-text form button")
    press(
        ".card.poem form button", ".card.chorale form button", "#made-digits [data-again]", "#made-digits [data-verify]"
    )
    assert "自称由 Bowerbird 生成" in page.inner_text("#made-digits .verdicts")
    press(
        "#made-emoji-3d-tab-pick",
        "#made-emoji-3d-tab-draw",
        "[data-undo]",
        "[data-clear]",
        "[data-drawing] button:not([type])",
    )
    press("#made-emoji-3d-tab-bring")
    page.set_input_files("[data-bringing] input[type=file]", picture)
    press("[data-bringing] button")
    visit.seen("b1-home")


def at_training(visit: Visit, press: Presser, tiny: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts and looks at data is a process; here it is answered for."""
    looked = {
        "summary": "tiny: 64 images, 8x8 grey, 2 classes; train 52, val 6, test 6; none skipped", "styles": ["a", "b"],
        "cost": "0.30 M parameters, 0.5 GFLOP and 0.012 s per step, 0.05 GB, about 5.0 minutes",
        "recipe": "vae", "recipes": ["vae", "flow"],
    }  # fmt: skip

    async def answered(*_words: object) -> tuple[int, str]:
        return 0, json.dumps(looked)

    asked = []
    monkeypatch.setattr("bowerbird.studio.train_page.told", answered)
    monkeypatch.setattr(Trainings, "start", lambda self, recipe, settings: asked.append(settings["data"]) or "flow")
    page = visit.go("/train")
    page.set_input_files("[data-zip] input[type=file]", archive)
    press("[data-zip] button")
    page.fill("#own-source", str(tiny))
    press("#own-source + button")
    assert "64 张图像" in page.inner_text("#looked") and "约 5.0 分钟" in page.inner_text("#looked .cost")
    visit.seen("b2-train")
    press.away("#looked form button", "**/runs/flow")
    assert asked == [str(tiny)]


def at_a_run(visit: Visit, press: Presser, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acted = []
    with monkeypatch.context() as lively:
        lively.setattr(Trainings, "stop", lambda self, run, for_good: acted.append(for_good))
        lively.setattr(Trainings, "resume", lambda self, run, budget: acted.append(budget))
        for state in ("training", "paused"):
            lively.setattr(Trainings, "state", lambda self, run, state=state: (state, None))
            page = visit.go("/runs/flow")
            until(page, "document.querySelector('#played .under')")
            for button in page.locator("[data-act]:visible").all():
                press.pressed.add(button.inner_text())
                with page.expect_response("**/live/flow"):
                    button.click()
    assert acted == [False, True, None]
    press("#played [data-again]", ".controls button:not([type])", "[data-film]", "[data-play]")
    press("[data-half]", ".brush [data-clear]", "[data-half]", ".brush button:not([type])")
    page.set_input_files(".brush [data-bring]", picture)
    until(page, "document.querySelector('.brush [data-name]').value.startsWith('upload:')")
    press("[data-half]", ".brush button:not([type])")
    if not SCREENSHOTS:
        monkeypatch.setattr("bowerbird.studio.run_page.told", written)
    formats = api.exports_of(visit.site.runs / "flow")
    assert page.locator(".take form").count() == len(formats) == 5
    for to in formats:
        press(f"form[action^='/export/{to}/'] button")
        assert re.search(rf"flow(-{to}\.zip|\.html)", page.inner_text("#taken a[download]"))
    visit.seen("b3-run")
    page = visit.go("/runs/codes")
    page.locator(".latents input").first.fill("2")
    loaded(page, "#decoded .picture")
    page = visit.go("/runs/chat")
    page.fill(".talk input", "hello 3")
    press(".talk button")
    until(page, "document.querySelector('.theirs')?.textContent.length > 0")
    page = visit.go("/runs")
    for box in page.locator(".shelf input").all()[:2]:
        box.check()
    press.away("button[form=compare]", "**/compare?run=*")
    visit.seen("b4-compare")


async def written(_module: str, words: list[str], _seconds: float) -> tuple[int, str]:
    """In place of the process that writes an export, which tests/export watches."""
    out = Path(words[-1])
    out = out if out.suffix else out / "weights"
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(b"weights")
    return 0, ""


def at_code(visit: Visit, press: Presser, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"rule": "B1", "severity": "warning", "line": 1, "message": "It says nothing.", "evidence": "", "fix": ""}]
    answer = {"claims": [], "passages": [], "mode": "offline"}

    async def answered(_module: str, words: list[str], _seconds: float) -> tuple[int, str]:
        return 0, json.dumps({"findings": found} if words[0] == "check" else answer)

    monkeypatch.setattr("bowerbird.studio.code_page.told", answered)
    page = visit.go("/code")
    press("[data-example]")
    until(page, "document.querySelector('#code').value.includes('class VAE')")
    press("form.code button:not([type])")
    page.fill("input[name=question]", "为什么？")
    press("form[action$='/ask'] button")
    visit.seen("b5-code")
