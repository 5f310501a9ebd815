"""The columns of the leaderboard and of the decisions, made from the code that writes them."""

from bench.leaderboard import columns as leaderboard_columns
from bench.run import decisions
from bench.run.folder import CellResult, RunFacts
from bench.run.spec import BENCHMARK_VERSION, RunSpec
from cloakbench_site.markdown import code, prose, table


def pages() -> dict[str, str]:
    """Return staged name → Markdown of the schema's page."""
    return {"reference/schema.md": "\n".join(_schema())}


def _schema() -> list[str]:
    return [
        "# Result schema\n",
        f"For whoever reads results by program. Made from the code, benchmark version {BENCHMARK_VERSION}. What the "
        "numbers mean and how a run's folder is laid out: [results](../results.md).\n",
        "## Leaderboard\n",
        "One row a cell, these columns in this order. `bench leaderboard --columns` prints the same.\n",
        table(
            ("column", "meaning"),
            [(code(name), prose(text)) for name, text in leaderboard_columns.COLUMNS.items()],
        ),
        "## Decisions\n",
        f"One row an answer, Parquet, schema version {decisions.VERSION.decode()}. Rows are named by "
        + ", ".join(code(name) for name in decisions.KEY)
        + " and sorted by these.\n",
        table(
            ("column", "type", "may be empty", "meaning"),
            [
                (
                    code(f.name),
                    _type(f),
                    "yes" if f.nullable else "no",
                    prose(f.metadata[b"description"].decode()),
                )
                for f in decisions.SCHEMA
            ],
        ),
        "## Specification\n",
        "The fields of a suite file (`bench run --config`) and of `spec.json`.\n",
        _fields(RunSpec),
        "## Cells\n",
        "One entry of `cells.json`.\n",
        _fields(CellResult),
        "## What was requested\n",
        "The facts of a run in `spec.json`, read as `bench.run.folder.RunFacts`.\n",
        _fields(RunFacts),
    ]


def _type(field: object) -> str:
    kind = str(getattr(field, "type", ""))
    return code("string" if kind.startswith("dictionary") else kind)


def _fields(model: type) -> str:
    """Return a model's fields, by autodoc-pydantic."""
    return f"```{{eval-rst}}\n.. autopydantic_model:: {model.__module__}.{model.__qualname__}\n   :no-index:\n```\n"
