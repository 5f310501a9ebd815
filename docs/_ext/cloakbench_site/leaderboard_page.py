"""The public leaderboard on the site: a page that names the submitted runs, and the table as a page of its own."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.leaderboard.merge import Merged, merge, read_sources
from bench.publish import page as leaderboard_page_module
from cloakbench_site.markdown import code, table

PAGE = "public-leaderboard.md"
"""The page's staged name."""

TABLE = "leaderboard-table.html"
"""The table's file at the root of the site."""


@dataclass(frozen=True)
class PublicLeaderboard:
    """What the site has of the submitted runs.

    Attributes:
        page: Markdown.
        table: a self-contained HTML file, which the page leads to.
    """

    page: str
    table: str


@cache
def public_leaderboard(root: Path) -> PublicLeaderboard:
    """Return the page and the table of ``results/leaderboard``, made once a build.

    Args:
        root: the repository.

    Raises:
        DataError: a submission is damaged.
        UsageError: there is none.
    """
    merged = merge(read_sources([root / "results" / "leaderboard"]))
    return PublicLeaderboard(_page(merged), leaderboard_page_module.page(merged))


def _page(merged: Merged) -> str:
    rows = []
    for source in merged.sources:
        leaderboard, origin = source.leaderboard, leaderboard_page_module.origin_of(source)
        rows.append(
            (
                code(origin.runs),
                ", ".join(map(code, dict.fromkeys(leaderboard["protocol"].astype(str)))),
                ", ".join(code(name) for name in dict.fromkeys(leaderboard["attack"]) if name != "none"),
                len(set(leaderboard["defense"]) - {"none"}),
                leaderboard["backbone"].nunique(),
                origin.rows,
                origin.by,
                origin.standing.partition(":")[0].lower(),
            )
        )
    head = ("run", "protocol", "attacks", "defences", "trackers", "rows", "by", "decisions")
    return (
        "# The public leaderboard\n\nFor anyone who looks for a number, or warnings one.\n\n"
        f'<p><a href="{TABLE}">The table, which sorts and filters</a></p>\n\n'
        f"{leaderboard_page_module.summary(merged)} Runs are not ranked against each other: each has "
        f"identities, photos and a "
        "protocol of its own. A run is checked where its decisions lie beside it and give its rates; of an "
        "unchecked one the rows are its submitter's alone. What a run had to pass, and how to add one, is on the "
        "page of [the leaderboard](leaderboard.md).\n\n"
        f"{table(head, rows)}"
    )
