"""What those who join read and run is in one state with the project."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["authors"] == [{"name": "CloakBench developers"}]
    assert str(citation["version"]) == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_no_page_keeps_the_marks_of_a_merge() -> None:
    marks = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")]
    assert len(pages) > 40
    assert [str(page) for page in pages if marks.search(page.read_text(encoding="utf-8"))] == []


def test_hooks_run_what_the_environment_has() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    tools = {hook["entry"].split()[0] for hook in hooks[0]["hooks"]}
    installed = {re.split(r"[<>=]", name)[0] for name in PROJECT["project"]["optional-dependencies"]["test"]}
    assert tools == {"ruff", "mypy", "lint-imports"}
    assert {"ruff", "mypy", "import-linter"} <= installed


def test_every_session_that_is_told_of_is_there() -> None:
    nox = pytest.importorskip("nox")
    runpy.run_path(str(ROOT / "noxfile.py"))
    told = set(re.findall(r"nox -s (\w+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert told == set(nox.registry.get()) == {"lint", "unit", "tests", "full", "docs"}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (ROOT / target).exists(), f"{page} links to {target}"
    for path in re.findall(r"`((?:bench|tests|docs|attacks|defenses|fr_models|results)/[\w./]*)`", text):
        assert (ROOT / path).exists(), f"{page} names {path}"


def test_the_versions_that_one_raises_are_where_it_says() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, path in (
        ("CONTRACT_VERSION", "bench/contracts.py"),
        ("BENCHMARK_VERSION", "bench/run/spec.py"),
    ):
        assert f"`{name}` (`{path}`)" in text
        assert re.search(rf"^{name} = ", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem
)
def test_forms_are_forms(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.stem == "config":
        assert set(content) == {"blank_issues_enabled"}
        return
    assert {"name", "description", "body"} <= set(content)
    ids = [field["id"] for field in content["body"]]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in content["body"])
