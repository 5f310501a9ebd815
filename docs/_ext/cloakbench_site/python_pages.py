"""The Python interface, by autodoc and autodoc-pydantic."""

from cloakbench_site.markdown import prose, table

MODULES = {
    "bench": ("Runs", "Run a matrix from Python.", ("bench.api.run", "bench.run.planning.Options")),
    "bench.contracts": ("Contracts", "What a plugin implements, and what it is handed.", ()),
    "bench.plugins.registry": ("Plugins", "Find and build plugins by the text that names them.", ()),
    "bench.leaderboard.view": ("A finished run", "Read a run's folder once and ask it many times.", ()),
    "bench.run.folder": ("The run's folder", "Read and write the files of a run.", ()),
    "bench.leaderboard.table": ("Leaderboard", "Build, write and shorten the table of a run.", ()),
    "bench.run.decisions": ("Decisions", "Read and write the answers of one cell.", ()),
    "bench.figures": ("Figures", "Draw a finished run.", ()),
    "bench.errors": ("Errors", "Every error a user can meet.", ()),
}
"""Module → heading, what it is for, and members documented instead of all."""


def pages() -> dict[str, str]:
    """Return staged name → Markdown of the pages."""
    made = {f"reference/python/{module}.md": _module_page(module) for module in MODULES}
    rows = [(f"[{module}]({module}.md)", prose(line)) for module, (_, line, _) in MODULES.items()]
    toctree = "```{toctree}\n:hidden:\n\n" + "\n".join(MODULES) + "\n```\n"
    made["reference/python/index.md"] = (
        "# Python interface\n\nFor whoever runs, extends or reads CloakBench from Python. What is not here is not "
        "promised to stay.\n\n" + table(("module", "for"), rows) + "\n" + toctree
    )
    return made


def _module_page(module: str) -> str:
    title, line, members = MODULES[module]
    if members:
        body = "\n".join(
            f".. auto{'class' if name.rpartition('.')[2][0].isupper() else 'function'}:: {name}\n"
            for name in members
        )
    else:
        body = f".. automodule:: {module}\n   :members:\n   :member-order: bysource\n   :show-inheritance:\n"
    return f"# {module}\n\n{title}. {prose(line)}\n\n```{{eval-rst}}\n{body}```\n"
