"""The page in headless Chromium: sorted, filtered, from disk, by keyboard, on a phone, in the dark, printed."""

import re
import shutil
import subprocess

import pytest

from bench.report.html import to_html

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def file(html, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, file):
    """Return a function that opens the page; at the end no message and no request must be left."""
    contexts, said, requested = [], [], []

    def visit(anchor="", *, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(file.as_uri() + anchor)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in requested if not url.startswith(("data:", "file:", "blob:"))] == []


def column(page, key):
    return page.eval_on_selector_all(
        f'td[data-column="{key}"]', "cells => cells.filter(c => c.offsetParent).map(c => c.dataset.value)"
    )


def test_the_leaderboard_sorts_by_mouse_and_keyboard(opened, view):
    page = opened()
    rates = sorted(float(rate) * 100 for rate in view.leaderboard["asr"])
    button = page.locator('th[data-key="asr"] button')
    button.click()
    assert [float(value) for value in column(page, "asr")] == pytest.approx(rates)
    button.focus()
    page.keyboard.press("Enter")
    assert [float(value) for value in column(page, "asr")] == pytest.approx(rates[::-1])
    assert page.locator('th[data-key="asr"]').get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("name", ["attack", "defense", "backbone", "access"])
def test_the_leaderboard_filters(opened, view, name):
    page = opened()
    select = page.locator(f'select[name="{name}"]')
    option = select.locator("option").last.get_attribute("value")
    assert option
    select.select_option(value=option)
    wanted = page.locator(f'.board tbody tr[data-{name}="{option[1:]}"]').count()
    assert wanted
    if option[1:] in set(view.leaderboard[name]):
        assert wanted == (view.leaderboard[name] == option[1:]).sum()
    assert page.locator(".board tbody tr:visible").count() == wanted
    assert page.locator(".board-count").inner_text() == f"{wanted} of {len(view.leaderboard)} rows"


def test_an_anchor_opens_what_is_folded_around_it(opened):
    page = opened("#rank-defense")
    assert page.locator("#rank-defense").is_visible()
    folded = page.locator("#rank-defense details").first
    folded.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert folded.evaluate("each => each.open") is True


def test_a_stray_anchor_is_no_error(opened):
    assert opened("#%E0%A4%A").locator("h1").is_visible()


def test_the_first_tab_skips_to_the_content(opened):
    page = opened()
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("each => document.activeElement === each") is True
    box = skip.bounding_box()
    assert box is not None
    assert box["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_everything_that_can_be_used_can_be_reached_by_tab_and_is_outlined(opened):
    page = opened()
    wanted = page.eval_on_selector_all(
        "a[href], button, select, input, summary, [tabindex='0']",
        "all => all.filter(e => e.checkVisibility() && !e.disabled).length",
    )
    seen, bare = set(), []
    for step in range(wanted + 5):
        page.keyboard.press("Tab")
        place = page.evaluate(
            """step => { const e = document.activeElement; e.dataset.seen = e.dataset.seen || String(step);
            return [e.tagName, e.dataset.seen, getComputedStyle(e).outlineStyle]; }""",
            step,
        )
        if place[0] == "BODY":
            continue
        seen.add(place[1])
        bare += [place] if place[2] == "none" else []
    assert bare == []
    assert len(seen) >= wanted


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(opened, width):
    page = opened(width=width)
    page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
    page.locator("input[name='wide']").check()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.eval_on_selector_all(
        ".scroll, .board-scroll", "all => all.map(e => [e.clientWidth, e.scrollWidth])"
    )
    assert all(shown <= width for shown, _ in boxes)
    if width == 390:
        assert any(whole > shown for shown, whole in boxes)


def luminance(colour):
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


SHADES = """() => {
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  const words = 'h1, h2, p, a, td, th button, caption, dt, dd, code, figcaption, li, summary';
  return Array.from(document.querySelectorAll(words))
    .filter(e => e.offsetParent && e.textContent.trim() && !e.matches('.skip'))
    .map(e => [e.tagName + '.' + e.className, getComputedStyle(e).color, behind(e)]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(opened, scheme):
    page = opened(scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.05) == (scheme == "dark")
    shades = {tuple(found) for found in page.evaluate(SHADES)}
    assert len(shades) > 10
    for name, front, back in shades:
        light, dark = sorted((luminance(front), luminance(back)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name
    cards = page.eval_on_selector_all(".card", "all => all.map(e => getComputedStyle(e).backgroundColor)")
    assert cards
    assert min(luminance(card) for card in cards) > 0.9


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_it_prints_everything_on_a4(opened, report, tmp_path):
    page = opened(scheme="dark")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    text = subprocess.run(
        ["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    words = " ".join(text.split())
    for section in report.sections:
        assert section.title in words
        for part in section.parts:
            assert " ".join(part.title.split()[:3]) in words
    assert "Every pair, the one with the better mean first." in words  # was folded
    assert "Download CSV" not in words
    assert "Skip to the content" not in words
    sizes = subprocess.run(
        ["pdfinfo", "-l", "99", tmp_path / "report.pdf"], capture_output=True, text=True, check=True
    )
    found = {
        (round(float(w)), round(float(h)))
        for w, h in re.findall(r"size:\s+([\d.]+) x ([\d.]+)", sizes.stdout)
    }
    assert found == {(595, 842), (842, 595)}


def test_print_media_hides_what_cannot_be_used_on_paper(opened):
    page = opened()
    page.emulate_media(media="print")
    assert not page.locator(".board-controls").is_visible()
    assert not page.locator("nav").is_visible()
    wide = page.evaluate(
        "Array.from(document.querySelectorAll('.scroll')).every(e => getComputedStyle(e).overflowX === 'visible')"
    )
    assert wide is True


def test_it_works_without_a_script(browser, html, tmp_path):
    path = tmp_path / "bare.html"
    path.write_text(html, encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".board tbody tr").first.is_visible()
    assert page.locator("#summary .lead").is_visible()
    assert page.locator("#summary tbody tr").count() >= 2
    context.close()


def test_no_script_but_its_own_runs(browser, report, tmp_path):
    planted = to_html(report).replace("</main>", "<script>document.title = 'planted'</script></main>")
    path = tmp_path / "planted.html"
    path.write_text(planted, encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.title() != "planted"
    page.close()
