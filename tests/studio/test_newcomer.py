"""A newcomer's five minutes, in a real browser: makes, plays, trains, draws, asks; nothing is asked of anyone else.

Needs the chromium of this machine ($BOWERBIRD_CHROMIUM, default /usr/bin/chromium).  $BOWERBIRD_SCREENSHOTS is a folder
for what was seen on the way, on a desktop and on a phone, in both languages.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studio_site import Site, running

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")

CHROMIUM = Path(os.environ.get("BOWERBIRD_CHROMIUM", "/usr/bin/chromium"))
SCREENSHOTS = os.environ.get("BOWERBIRD_SCREENSHOTS")
STEPS = os.environ.get("BOWERBIRD_NEWCOMER_BUDGET", "12steps")
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
    """With the runs of the package where there are some, else with tiny ones."""
    from bowerbird.studio.host import shipped_runs

    with running(tmp_path_factory.mktemp("newcomer"), shipped | shipped_runs()) as site:
        yield site


class Visit:
    """A page of a browser that writes down every error and every request that leaves this machine."""

    def __init__(self, browser: Any, site: Site, screen: str, language: str):
        width, height = SCREENS[screen]
        self.site, self.screen, self.language, self.wrong = site, screen, language, list[str]()
        self.context = browser.new_context(viewport={"width": width, "height": height}, locale=LOCALES[language])
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
    page.click("form[action^='/export/safetensors/'] button")
    page.wait_for_selector("#taken a[download]")
    assert page.inner_text(".take + .about").endswith("bowerbird serve digits")
    page.click("[data-film]")
    page.wait_for_selector(".film canvas")
    until(page, "document.querySelector('.film output').textContent !== ''")
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


@pytest.mark.parametrize("language", LOCALES)
def test_every_page_fits_every_screen_in_both_languages(browser, studio: Site, language):
    visit = Visit(browser, studio, "desktop", language)
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


def test_the_first_page_can_be_used_with_the_keyboard_alone(browser, studio: Site):
    visit = Visit(browser, studio, "desktop", "en")
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
