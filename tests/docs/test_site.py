"""The site builds without a warning and has a page for everything the code registers."""

import html
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bench.cli import COMMANDS, load_command, plugin_commands
from bench.leaderboard.columns import COLUMNS
from bench.plugins import registry
from bench.run.decisions import SCHEMA

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "_ext"))

from cloakbench_site import made_pages
from cloakbench_site.markdown import cell, code, prose, table
from cloakbench_site.method_pages import SECTIONS, cards, page_name, parameters
from cloakbench_site.staging import fix_links, stage, staged_name, tables_of_contents, with_title

ROOT = Path(__file__).parents[2]
PLUGINS = [(kind, name) for kind in SECTIONS for name in registry.EVERY[kind].entries()]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return made_pages(ROOT)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site as the README says, with warnings as errors."""
    out = tmp_path_factory.mktemp("site") / "html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_links_to_pages_and_anchors_that_are_there(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    assert len(pages) > 100
    for path, text in pages.items():
        for target in re.findall(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="([^"]+)"', text):
            if re.match(r"(https?|mailto|data):", target):
                continue
            name, _, anchor = html.unescape(target).partition("#")
            there = (path.parent / name.partition("?")[0]).resolve() if name else path
            assert there.exists(), f"{path.relative_to(site)} links to {target}"
            if anchor and there.suffix == ".html":
                assert anchor in ids[there], f"{path.relative_to(site)} links to {target}"


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:img|script|iframe|source)\b[^>]*\bsrc="((?:https?:)?//[^"]+)"', text)
        fetched += re.findall(r'<link\b[^>]*rel="stylesheet"[^>]*href="((?:https?:)?//[^"]+)"', text)
        assert not fetched, f"{path.relative_to(site)} fetches {fetched}"


def test_every_page_of_the_site_is_reached_from_its_side_bar(site: Path) -> None:
    front = (site / "index.html").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        if text.startswith("# ") and path.name != "index.md":
            target = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
            assert f'href="{target}"' in front, target


def test_building_leaves_nothing_in_the_tree(site: Path) -> None:
    assert not list((ROOT / "docs").rglob("reference"))
    assert (site / "reference" / "attacks" / "pgd.html").is_file()
    assert not (site / "_downloads").is_dir() or not list((site / "_downloads").rglob("*.md"))


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_plugin_has_a_page_with_every_parameter(kind: str, name: str, made: dict[str, str]) -> None:
    page = made[page_name(kind, name)]
    cls = registry.of(kind).load(name)
    assert page.startswith(f"# {name}\n")
    for key, info in cls.Params.model_fields.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{key}` |"))
        assert cell(prose(info.description or "")) in row
        if isinstance(info.json_schema_extra, dict) and (unit := info.json_schema_extra.get("unit")):
            assert f"| {unit} |" in row
    if cls.paper:
        assert cell(prose(cls.paper)) in page


def test_a_page_says_range_default_and_unit() -> None:
    rows = {row[0]: row for row in parameters(registry.ATTACKS.load("pgd"))}
    assert rows["`eps`"][1:4] == ("`float, > 0 … 255`", "`8`", "grey levels")


def test_shipped_weights_are_on_the_page_of_their_method(made: dict[str, str]) -> None:
    for package, kind in (("attacks", "attacks"), ("defenses", "defenses"), ("fr_models", "backbones")):
        for card in (ROOT / package / "weights").glob("*.json"):
            owners = [
                name
                for name in registry.EVERY[kind].entries()
                if card.stem in cards(registry.of(kind).load(name), name)
            ]
            assert len(owners) == 1, f"{card.name}: {owners}"
            assert f"### {card.stem}\n" in made[page_name(kind, owners[0])]


def _options(command: click.Command, context: click.Context) -> set[str]:
    found = {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
    }
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            found |= _options(sub, context)
    return found


def test_every_command_has_a_page_with_every_option(site: Path) -> None:
    for name in (*COMMANDS, *plugin_commands()):
        page = html.unescape((site / f"reference/commands/{name}.html").read_text(encoding="utf-8"))
        command = load_command(name)
        for option in _options(command, click.Context(command)):
            assert option in page, f"bench {name} {option}"
        assert "\b" not in page
        assert "\f" not in page
    assert 'id="bench-models-verify"' in (site / "reference/commands/models.html").read_text(encoding="utf-8")


def test_the_schema_page_has_every_column(made: dict[str, str]) -> None:
    page = made["reference/schema.md"]
    for name, meaning in COLUMNS.items():
        assert f"| {code(name)} | {cell(prose(meaning))} |" in page
    for field in SCHEMA:
        assert f"| {code(field.name)} |" in page


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a small repository."""
    files = {
        "docs/index.md": "# Front\n\n## Start\n\n- [One](one.md): first\n",
        "docs/one.md": "# One\n\n[results](../results/README.md#a), [code](../bench/x.py), [`y`](../bench/x.py)\n",
        "docs/deep/two.md": "# Two\n\n[one](../one.md) `[no](link.md)`\n\n    [no](link.md)\n",
        "docs/deep/rows.md": "| a |\n|---|\n| 1 |\n",
        "results/README.md": "# Results\n\n![p](p.png) [two](../docs/deep/two.md)\n",
        "results/p.png": "png",
        "bench/x.py": "x = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_links_lead_to_where_pages_are_staged(tree: Path) -> None:
    def fixed(name: str) -> str:
        return fix_links((tree / name).read_text(), tree / name, tree)

    one = fixed("docs/one.md")
    assert "[results](results/README.md#a), code (`bench/x.py`), `bench/x.py`" in one
    assert fixed("docs/deep/two.md") == (tree / "docs/deep/two.md").read_text()
    assert fixed("results/README.md") == "# Results\n\n![p](p.png) [two](../deep/two.md)\n"


def test_a_link_to_nothing_is_named(tree: Path) -> None:
    (tree / "docs/one.md").write_text("# One\n\n[x](gone.md)\n")
    with pytest.raises(ValueError, match=r"docs/one\.md links to gone\.md"):
        fix_links("[x](gone.md)", tree / "docs/one.md", tree)


def test_staging_writes_what_changed_and_removes_what_went(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage(tree, out, {"reference/a.md": "# A\n"}, {"Reference": ["reference/a.md"]})
    front = (out / "index.md").read_text()
    assert ":caption: Start\n:maxdepth: 1\n\none\n" in front
    assert ":caption: Reference\n:maxdepth: 1\n\nreference/a\n" in front
    assert ":caption: More\n:maxdepth: 1\n\ndeep/two\nresults/README\n" in front
    assert (out / "deep/rows.md").read_text().startswith("---\norphan: true\n---\n\n# Rows\n\n| a |")
    before = (out / "one.md").stat().st_mtime_ns
    (tree / "results/p.png").unlink()
    (tree / "results/README.md").write_text("# Results\n")
    stage(tree, out, {}, {})
    assert (out / "one.md").stat().st_mtime_ns == before
    assert not (out / "results/p.png").exists()
    assert not (out / "reference/a.md").exists()


def test_a_made_page_never_hides_a_written_one(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one\.md is written by hand"):
        stage(tree, tmp_path / "out", {"one.md": "# A\n"}, {})


def test_pages_keep_their_title_and_sections_their_order() -> None:
    assert with_title("# Own\n", "a/b.md") == "# Own\n"
    contents = tables_of_contents(
        "## B\n\n- [x](x.md)\n- [z](z.md)\n\n## A\n\n- [y](y.md)\n", ["x.md", "y.md", "z.md"], {}
    )
    assert re.findall(r":caption: (\w+)", contents) == ["B", "A"]
    assert "More" not in contents


def test_source_code_has_no_place_in_the_site() -> None:
    assert staged_name(ROOT / "bench" / "spec.py", ROOT) is None
    assert staged_name(ROOT / "docs" / "conf.py", ROOT) is None
    assert staged_name(ROOT / "docs" / "protocol.md", ROOT) == "protocol.md"
    assert staged_name(ROOT / "results" / "README.md", ROOT) == "results/README.md"


def test_text_from_the_code_never_becomes_markup() -> None:
    assert prose("a <b> *c* ``d|e`` [f]") == "a \\<b> \\*c\\* `d|e` \\[f\\]"
    assert table(("a",), [["x|y\nz"]]) == "| a |\n|---|\n| x\\|y z |\n"
    assert code("") == ""
    assert code("a`b") == "`` a`b ``"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_each_page_says_whom_it_is_for(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if not text.startswith("# "):
        return  # a table written by a command
    first = text.split("\n\n")[1]
    assert first.startswith(("For anyone", "For whoever")), f"{page.name}: {first[:60]}"
    assert first.count("\n") < 3 or "." in first.split("\n")[0]


def test_the_public_table_has_every_row_of_every_submission(site: Path) -> None:
    rows = sum(
        len(path.read_text(encoding="utf-8").splitlines()) - 1
        for path in (ROOT / "results" / "leaderboard").glob("*.csv")
    )
    text = (site / "leaderboard-table.html").read_text(encoding="utf-8")
    assert f"{rows} of {rows} rows" in text
    assert f"<p>{rows:,} rows from" in (site / "public-leaderboard.html").read_text(encoding="utf-8")
