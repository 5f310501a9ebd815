"""Palette, markers, names, files: what all figures share."""

import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from bench.errors import UsageError
from bench.figures import KINDS, WIDTHS, Drawing, FigureOptions, files, kind, style
from bench.leaderboard.names import LONGEST, LONGEST_CUT, explained, short_names


def drawing(width="column"):
    with style.context():
        figure = style.new_figure(FigureOptions(width=width), 2.0)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], marker="o", label="line")
        axes.set_title("a < b & c")
        return Drawing(figure, "Title & <more>", "A caption.", 'It "says" a < b.')


def test_no_two_series_look_alike_in_grey():
    looks = style.looks(map(str, range(9)))
    for one, other in itertools.combinations(looks.values(), 2):
        differs = abs(style.luminance(one.colour) - style.luminance(other.colour)) > 0.1
        assert one.marker != other.marker
        assert differs or (one.line, one.marker) != (other.line, other.marker)
    first = [style.luminance(style.look(n).colour) for n in range(4)]
    assert min(abs(a - b) for a, b in itertools.pairwise(first)) > 0.1


def test_every_colour_can_be_seen_on_white():
    for number in range(7):
        contrast = 1.05 / (style.luminance(style.look(number).colour) + 0.05)
        assert contrast > 1.9


def test_the_map_of_rates_falls_in_lightness_all_the_way():
    steps = [style.luminance(to_hex(colormaps[style.HEAT](0.82 * n / 100))) for n in range(101)]
    assert all(a > b for a, b in itertools.pairwise(steps))


def test_luminance_is_that_of_the_standard():
    assert style.luminance("#ffffff") == pytest.approx(1)
    assert style.luminance("#000000") == 0
    assert style.luminance("#777777") == pytest.approx(0.1845, abs=1e-4)
    assert (style.ink_on("#ffff00"), style.ink_on("#000080")) == ("black", "white")


def test_points_of_one_place_stand_apart_within_their_room():
    places = [style.dodge(n, 4, 0.6) for n in range(4)]
    assert places == pytest.approx([-0.225, -0.075, 0.075, 0.225])


def test_short_names_stand_and_long_ones_lose_what_all_share():
    names = ["none", "pgd:eps=15", "pgd:eps=15,goal=targeted", "pgd:eps=15,momentum=1"]
    assert short_names(names) == dict(
        zip(names, ["none", "pgd:eps=15", "pgd (goal targeted)", names[3]], strict=True)
    )
    long = [
        "puface",
        "puface:features=real-siblings",
        "lowkey:perceptual=dssim,steps=3",
        "a/b/x.py:Keyed:strength=4",
    ]
    assert list(short_names(long).values()) == ["puface", long[1], "lowkey", "Keyed:strength=4"]
    word = "synthetic-mobilefacenet-wide"
    assert short_names([word, "m" * 40]) == {word: word, "m" * 40: "m" * 17 + "…"}
    chains = ["randompad + puface:train=adaptive", "ensemble:defenses=[puface & puface:train=adaptive]"]
    assert list(short_names(chains).values()) == ["randompad + puface", "ensemble"]
    twins = [f"pgd:mask={'ab' * 20}{number}" for number in range(2)]
    assert list(short_names(twins).values()) == ["pgd (mask …abababababab0)", "pgd (mask …abababababab1)"]
    strong = [
        "fawkes",
        "fawkes:budget=0.12,learning_rate=8,steps=20",
        "fawkes:budget=0.2,learning_rate=8,steps=20",
    ]
    assert list(short_names(strong).values()) == ["fawkes", "fawkes (budget .12)", "fawkes (budget .2)"]
    assert short_names(strong, {strong[1]: "Fawkes, strong"})[strong[1]] == "Fawkes, strong"
    assert explained(chains, short_names(chains)).startswith(
        "In the figure randompad + puface is randompad + puface:train"
    )


METHODS = st.from_regex(
    r"[a-z]{1,12}(:[a-z]{1,9}=[a-z0-9]{1,9}(,[a-z]{1,9}=[a-z0-9]{1,9}){0,2})?", fullmatch=True
)


@given(st.lists(METHODS, min_size=1, max_size=8, unique=True))
def test_short_names_are_short_and_all_different(names):
    short = short_names(names)
    assert list(short) == names
    assert len(set(short.values())) == len(names)
    assert all(len(text) <= LONGEST_CUT for text in short.values())
    assert all(short[name] == name for name in names if len(name) <= LONGEST)


@pytest.mark.parametrize(("labels", "width"), [(4, 4.6), (4, 3.5), (5, 7.2), (7, 3.5)])
def test_a_legend_is_no_wider_than_its_figure(labels, width):
    names = ["a rather long label", "b", "another long label", "c", "one more long label", "d", "e"][:labels]
    with style.context():
        figure = Figure(figsize=(width, 3), layout="constrained")
        FigureCanvasAgg(figure)
        figure.subplots()
        style.legend_on_top(figure, *style.marks(style.looks(names), dict(zip(names, names, strict=True))))
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= width * figure.dpi


def test_four_labels_in_three_columns_are_two_one_and_one():
    lengths = [1.0, 0.1, 1.0, 0.1]
    assert style._width(lengths, 3) == pytest.approx(3 * 0.45 + 1.0 + 1.0 + 0.1)


def test_a_legend_of_more_lines_is_given_more_room():
    assert style.legend_height(["a", "b"], 3.5) == 0
    long = ["a rather long label of a method"] * 4
    assert style.legend_height(long, 3.5) == pytest.approx(3 * style._LEGEND_LINE)
    assert style.legend_height([], 3.5) == 0


@pytest.mark.parametrize("width", ["column", "page"])
def test_every_format_is_the_width_asked_for(tmp_path, width):
    shown = drawing(width)
    for form in files.FORMATS:
        files.save(shown, tmp_path / f"f.{form}")
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width == round(WIDTHS[width] * files.DPI)
    root = ElementTree.parse(tmp_path / "f.svg").getroot()
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(72 * WIDTHS[width])
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", (tmp_path / "f.pdf").read_bytes())
    assert float(box[1]) == pytest.approx(72 * WIDTHS[width], abs=0.1)


def test_the_same_drawing_gives_the_same_bytes_without_a_date(tmp_path):
    for form in files.FORMATS:
        files.save(drawing(), tmp_path / f"a.{form}")
        files.save(drawing(), tmp_path / f"b.{form}")
        payload = (tmp_path / f"a.{form}").read_bytes()
        assert payload == (tmp_path / f"b.{form}").read_bytes()
        assert b"/CreationDate" not in payload
        assert b"dc:date" not in payload


def test_pdf_embeds_true_type():
    payload = files.to_bytes(drawing().figure, "pdf")
    assert b"/Type3" not in payload
    assert b"/FontFile2" in payload


def test_svg_keeps_text_and_carries_its_words():
    text = files.to_svg(drawing())
    root = ElementTree.fromstring(text)
    space = {"s": "http://www.w3.org/2000/svg"}
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'It "says" a < b.'
    assert root.find("s:title", space).text == "Title & <more>"
    assert root.find("s:desc", space).text == 'It "says" a < b.'
    assert "a < b & c" in [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_prefix_keeps_figures_of_one_page_apart():
    text = files.to_svg(drawing(), "one")
    ids = set(re.findall(r'\bid="([^"]*)"', text))
    assert ids
    assert all(name.startswith("one-") for name in ids)
    used = set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
    assert used
    assert used <= ids


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"'f.jpg'\. Valid: files ending in \.png, \.svg, \.pdf"):
        files.save(drawing(), tmp_path / "f.jpg")
    with pytest.raises(UsageError, match=r"unknown kind of figure 'heat'\. Did you mean 'heatmap'"):
        kind("heat")


def test_names_of_files_come_from_stem_or_suffix(tmp_path):
    assert files.paths(tmp_path / "a.v2", ("png", "pdf")) == (tmp_path / "a.v2.png", tmp_path / "a.v2.pdf")
    assert files.paths(tmp_path / "a.svg", files.FORMATS) == (tmp_path / "a.svg",)


def test_only_the_grid_shows_photos():
    assert [name for name, one in KINDS.items() if one.shows_photos] == ["grid"]
