"""The documentation site's own extension for Sphinx.

Pages written by hand are read from ``docs/`` and ``results/``; pages that only repeat what the code says (a page a
method, a page a command, the schema, the Python interface) are made from it at every build.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[3]
"""The repository."""


def made_pages(root: Path) -> dict[str, str]:
    """Return staged name → text of every page made from the code."""
    from cloakbench_site import command_pages, leaderboard_page, method_pages, python_pages, schema_pages

    return {
        **method_pages.pages(root),
        **command_pages.pages(),
        **schema_pages.pages(),
        **python_pages.pages(),
        leaderboard_page.PAGE: leaderboard_page.public_leaderboard(root).page,
    }


def _stage(app: "Sphinx", _config: "Config") -> None:
    """Make the site's source among its working files and let Sphinx read that instead of ``docs/``."""
    from cloakbench_site.leaderboard_page import PAGE
    from cloakbench_site.method_pages import SECTIONS
    from cloakbench_site.staging import stage

    source = Path(app.doctreedir) / "source"
    methods = [f"reference/{kind}/index.md" for kind in SECTIONS]
    others = [PAGE, "reference/commands/index.md", "reference/schema.md", "reference/python/index.md"]
    stage(ROOT, source, made_pages(ROOT), {"Methods": methods, "Reference": others})
    app.srcdir = type(app.srcdir)(source)


def _write_table(app: "Sphinx", error: Exception | None) -> None:
    """Put the public table beside the pages: it is a page of its own, not one of Sphinx's."""
    from cloakbench_site.leaderboard_page import TABLE, public_leaderboard

    if error is None and app.builder.format == "html":
        (Path(app.outdir) / TABLE).write_text(public_leaderboard(ROOT).table, encoding="utf-8")


def setup(app: "Sphinx") -> dict[str, Any]:
    """Connect to Sphinx."""
    from cloakbench_site import command_pages

    app.connect("config-inited", _stage)
    app.connect("build-finished", _write_table)
    command_pages.connect(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
