"""The page of a leaderboard in a browser: it sorts, filters, remembers, prints, and asks nobody for anything."""

import re
import shutil
from hashlib import sha256
from html.parser import HTMLParser

import pandas as pd
import pytest

from bench.leaderboard.as_csv import from_csv, to_csv
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.merge import Merged, Source
from bench.leaderboard.summary import references_last
from bench.publish.page import Origin, origin_of, page, summary

PLAIN = {
    "dataset": "tiny", "protocol": "tracker", "backbone": "net-a", "head": "nn", "condition": "", "seed": 0,
    "requested": True, "status": "ok", "n_identities": 20, "n_probes": 40, "baseline_error": 0.01,
    "normal_accuracy": 0.99, "recovery_reason": "no defence", "ranking_reason": "not ranked",
    "cloak_reason": "none measured", "access": "black-box", "extractor_is_tracker": False, "related": False,
    "extractors_are_surrogates": False, "attack_seen_by_defense": "not-trained",
    "attack_adapts_to_defense": False, "attack_adapts_in_part": False, "external": False,
    "identity_overlap": "no", "benchmark_version": "1", "run": "0123456789ab",
}  # fmt: skip

HOSTILE = '<img src=x onerror="window.hurt=1">\'),</script><script>window.hurt=1</script>'

ROWS = [
    {"attack": "fog", "defense": "none", "asr": 0.9},
    {"attack": "fog", "defense": "jpeg", "asr": 0.1, "attack_seen_by_defense": "seen"},
    {"attack": "mist", "defense": "none", "asr": 0.25, "backbone": "net-b", "access": "white-box"},
    {"attack": "mist", "defense": "jpeg", "asr": 0.05, "head": "linear", "identity_overlap": "yes"},
    {"attack": "=HYPERLINK(1)", "defense": "none", "asr": None, "asr_reason": "it has none"},
    {
        "attack": HOSTILE,
        "defense": "jpeg",
        "asr": 0.7,
        "attack_adapts_to_defense": True,
        "backbone": 'net, "c"',
    },
]

LIGHT, DARK = "rgb(255, 255, 255)", "rgb(15, 20, 25)"


def merged(rows=ROWS, **more):
    table = pd.DataFrame([PLAIN | row for row in rows], columns=list(COLUMNS))
    leaderboard = from_csv(to_csv(table), "the test's")
    return Merged(leaderboard, (Source("results/some.csv", leaderboard, **more),))


def test_the_page_is_one_file_that_names_its_sources():
    text = page(merged(record={"by": "Lab <b>", "command": "bench run --attack 'a b'", "environment": {"python": "3"},
                               "methods": [{"name": "fog", "foreign": "other code"}]}))  # fmt: skip
    seen = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attrs: seen.append((tag, dict(attrs)))
    reader.feed(text)
    assert [attrs["href"] for _, attrs in seen if "href" in attrs] == ["data:,"]
    assert not [attrs for tag, attrs in seen if "src" in attrs or tag in ("img", "iframe", "base")]
    for said in ("Lab &lt;b&gt;", "bench run --attack &#39;a b&#39;", "bench leaderboard results/some.csv --html FILE",
                 "other code than this project's when submitted: fog", "Benchmark version 1"):  # fmt: skip
        assert said in text
    assert text.count("<dt>") == len(COLUMNS)


def test_boards_stand_above_the_cells_and_labels_are_shown():
    text = page(merged(), labels={"jpeg": "JPEG at 75"})
    assert text.index("Defences, lowest mean ASR first") < text.index("Attacks, highest ASR first")
    assert text.index("Attacks, highest ASR first") < text.index("Every cell")
    assert '<th scope="row" title="jpeg">JPEG at 75</th>' in text
    assert '<th scope="row" title="none">no defence</th>' in text
    assert "&lt;img src=x" in text


def test_the_summary_counts_what_is_there():
    assert (
        summary(merged())
        == "6 rows from 1 source: 4 attacks, 1 defence, 3 trackers, 20 identities; dataset tiny."
    )
    failed = [{"attack": "fog", "defense": "none", "status": "failed", "n_identities": None}]
    assert summary(merged(failed)).endswith("no identities; dataset tiny. 1 cell failed and is NA.")


def test_a_source_is_named_without_the_folders_above_it():
    leaderboard = merged().leaderboard
    assert origin_of(Source("/home/somebody/runs/a.csv", leaderboard)) == Origin("a.csv", "0123456789ab", 6)


# -- in Chromium ---------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "board.html"
    path.write_text(page(merged()), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser, file):
    """Return a function that opens the page; whatever the console, a script or the network says fails the test."""
    trouble, opened = [], []

    def go(address="", width=1280, **more):
        tab = browser.new_page(viewport={"width": width, "height": 800}, accept_downloads=True, **more)
        tab.set_default_timeout(10_000)
        opened.append(tab)
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on(
            "request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None
        )
        tab.goto(f"{file.as_uri()}{address}")
        return tab

    yield go
    assert [tab.evaluate("window.hurt") for tab in opened] == [None] * len(opened)
    for tab in opened:
        tab.close()
    assert trouble == []


def shown(tab, column="attack"):
    """Return what stands in a column of the rows that are seen, in their order."""
    cells = tab.locator(f'.board tbody tr:visible td[data-column="{column}"]').all_inner_texts()
    return [text.split("\n")[0].strip() for text in cells]


def wait_for_count(tab, text):
    # Polled outside the page: its Content-Security-Policy refuses a script given as a string.
    from playwright.sync_api import expect

    expect(tab.locator(".board-count")).to_have_text(text)


def sorting(tab):
    return {
        cell.get_attribute("data-key"): cell.get_attribute("aria-sort")
        for cell in tab.locator(".board thead th").all()
        if cell.get_attribute("aria-sort") != "none"
    }


UP = ["5.0", "10.0", "25.0", "70.0", "90.0"]


@needs_chromium
def test_it_sorts_by_mouse_both_ways_and_what_is_missing_comes_last(visit):
    tab = visit()
    assert shown(tab, "asr")[:5] == ["10.0", "5.0", "70.0", "90.0", "25.0"]
    button = tab.get_by_role("button", name="ASR %")
    button.click()
    assert shown(tab, "asr")[:5] == UP
    assert sorting(tab) == {"asr": "ascending"}
    button.click()
    assert shown(tab, "asr")[:5] == UP[::-1]
    assert shown(tab, "asr")[5].startswith("NA")
    assert sorting(tab) == {"asr": "descending"}


@needs_chromium
def test_it_sorts_by_keyboard(visit):
    tab = visit()
    tab.get_by_role("button", name="Attack").focus()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Defence"
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")
    assert sorting(tab) == {"attack": "ascending"}
    assert shown(tab)[2:] == ["fog", "fog", "mist", "mist"]
    tab.keyboard.press("Space")
    assert sorting(tab) == {"attack": "descending"}
    assert shown(tab)[:4] == ["mist", "mist", "fog", "fog"]
    assert tab.evaluate("document.activeElement.textContent") == "Attack"


@needs_chromium
@pytest.mark.parametrize(
    ("label", "value", "rows"),
    [
        ("Attack", "mist", 2), ("Defence", "jpeg", 3), ("Backbone", 'net, "c"', 1), ("Head", "linear", 1),
        ("Access", "white-box", 1), ("Attack seen", "seen", 1), ("Adapted", "exact", 1), ("Overlap", "yes", 1),
        ("Attack", HOSTILE, 1),
    ],
)  # fmt: skip
def test_each_filter_keeps_its_rows(visit, label, value, rows):
    tab = visit()
    tab.get_by_label(label, exact=True).select_option(label=value)
    assert len(shown(tab)) == rows
    assert tab.get_by_role("status").inner_text() == f"{rows} of 6 rows"
    tab.get_by_role("button", name="Reset").click()
    wait_for_count(tab, "6 of 6 rows")
    assert "#" not in tab.url


@needs_chromium
def test_filters_and_words_are_joined(visit):
    tab = visit()
    tab.get_by_label("Defence", exact=True).select_option(label="no defence")
    tab.get_by_label("Search").fill("MIST net-b")
    assert shown(tab) == ["mist"]
    tab.get_by_label("Search").fill("nothing like it")
    assert tab.get_by_role("status").inner_text() == "0 of 6 rows"


@needs_chromium
def test_the_address_brings_the_same_rows_back(visit):
    tab = visit()
    tab.get_by_label("Backbone", exact=True).select_option(label='net, "c"')
    tab.get_by_label("Search").fill("jpeg")
    tab.get_by_label("All columns").check()
    tab.get_by_role("button", name="asr_pooled", exact=False).click()
    address = tab.url[tab.url.index("#") :]
    again = visit(address)
    assert (again.url, shown(again), sorting(again)) == (tab.url, shown(tab), {"asr_pooled": "ascending"})
    assert again.get_by_label("Search").input_value() == "jpeg"
    assert again.get_by_label("All columns").is_checked()
    again.evaluate("location.hash = '#leaderboard:attack=fog&sort=asr:down'")
    wait_for_count(again, "2 of 6 rows")
    assert shown(again, "asr") == ["90.0", "10.0"]
    assert not again.get_by_label("All columns").is_checked()


@needs_chromium
@pytest.mark.parametrize("address", ["#else", "#leaderboard:sort=no:down&attack=no&x=1", "#leaderboard:%"])
def test_an_address_that_says_nothing_shows_everything(visit, address):
    assert len(shown(visit(address))) == 6


@needs_chromium
def test_all_columns_are_the_schema(visit):
    tab = visit()
    short = tab.locator(".board thead th:visible").count()
    tab.get_by_label("All columns").check()
    assert tab.locator(".board thead th.wide:visible button").all_inner_texts() == list(COLUMNS)
    assert tab.locator(".board tbody tr").first.locator("td.wide").count() == len(COLUMNS)
    tab.get_by_label("All columns").uncheck()
    assert tab.locator(".board thead th:visible").count() == short


@needs_chromium
def test_the_csv_of_all_rows_is_the_leaderboards_byte_for_byte(visit, tmp_path):
    tab = visit()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "a.csv")
    wanted = to_csv(references_last(merged().leaderboard)).encode()
    assert sha256((tmp_path / "a.csv").read_bytes()).digest() == sha256(wanted).digest()


@needs_chromium
def test_the_csv_is_of_the_rows_shown_in_their_order(visit, tmp_path):
    tab = visit()
    tab.get_by_label("Defence", exact=True).select_option(label="no defence")
    tab.get_by_role("button", name="ASR %").click()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "a.csv")
    read = from_csv((tmp_path / "a.csv").read_text(encoding="utf-8"), "it")
    assert list(read["attack"]) == ["mist", "fog", "=HYPERLINK(1)"]


@needs_chromium
def test_a_phone_scrolls_the_table_and_not_the_page(visit):
    tab = visit(width=390)
    tab.get_by_label("All columns").check()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('.board-scroll'))")
    widest = tab.evaluate(
        "Math.max(...[...document.querySelectorAll('form *')].map(e => e.getBoundingClientRect().right))"
    )
    assert widest <= 390


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_rates_are_in_sight_and_a_table_that_goes_on_says_so(visit, width):
    tab = visit(width=width)
    for at in (".ranks td.number", '.board td[data-column="worst"]', '.board td[data-column="asr"]'):
        ends = tab.eval_on_selector_all(at, "all => all.map(e => e.getBoundingClientRect().right)")
        assert ends
        assert ends[0] <= width
    cut = tab.evaluate(
        "(box => box.scrollWidth > box.clientWidth + 1)(document.querySelector('.board-scroll'))"
    )
    assert tab.locator(".board-more").is_visible() == cut
    assert cut or width > 390
    shadow = "getComputedStyle(document.querySelector('{}')).backgroundImage"
    assert all("gradient" in tab.evaluate(shadow.format(at)) for at in (".scroll", ".board-scroll"))


@needs_chromium
def test_no_script_but_its_own_runs(browser, tmp_path):
    path = tmp_path / "planted.html"
    path.write_text(page(merged()).replace("</main>", "<script>document.title = 'planted'</script></main>"))
    tab = browser.new_page()
    tab.goto(path.as_uri())
    assert tab.title() != "planted"
    tab.close()


@needs_chromium
def test_the_header_stays_in_sight(visit):
    tab = visit()
    tab.evaluate("document.querySelector('.board-scroll').style.maxHeight = '150px'")
    tab.evaluate("document.querySelector('.board-scroll').scrollTop = 100")
    top = "document.querySelector('{}').getBoundingClientRect().top"
    assert tab.evaluate(top.format(".board thead th")) == pytest.approx(
        tab.evaluate(top.format(".board-scroll")), abs=2
    )


@needs_chromium
@pytest.mark.parametrize(("scheme", "colour"), [("light", LIGHT), ("dark", DARK)])
def test_it_is_light_or_dark_as_the_system_is(visit, scheme, colour):
    tab = visit(color_scheme=scheme)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert tab.evaluate(style.format("body", "backgroundColor")) == colour
    light = [
        sum(map(int, re.findall(r"\d+", tab.evaluate(style.format(at, "color"))))) > 380
        for at in ("body", "td")
    ]
    assert light == [scheme == "dark"] * 2


@needs_chromium
def test_print_shows_the_filtered_rows_without_controls(visit, tmp_path):
    tab = visit(color_scheme="dark")
    tab.get_by_label("Attack", exact=True).select_option(label="fog")
    tab.emulate_media(media="print")
    assert shown(tab) == ["fog", "fog"]
    assert not tab.locator(".board-controls").is_visible()
    assert tab.evaluate("getComputedStyle(document.querySelector('.board-scroll')).overflow") == "visible"
    assert tab.evaluate("getComputedStyle(document.querySelector('.board td')).color") == "rgb(0, 0, 0)"
    assert tab.pdf(path=tmp_path / "a.pdf").startswith(b"%PDF")


@needs_chromium
def test_without_scripts_it_is_a_plain_table(browser, file):
    tab = browser.new_page(java_script_enabled=False)
    tab.goto(file.as_uri())
    assert tab.locator(".board tbody tr:visible").count() == 6
    assert not tab.locator(".board-controls").is_visible()
    assert tab.locator(".board thead button:disabled").count() == tab.locator(".board thead th").count()
    tab.close()
