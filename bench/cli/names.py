"""The commands' names: where each is, under which heading of ``bench --help``, and what it was once called.

Data only, so that `bench --help`, completion and the settings file need nothing else.
"""

from collections.abc import Mapping

SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Measure": {
        "run": ("bench.cli.run:run", "Run a matrix of attacks x defences x backbones."),
        "plan": ("bench.cli.run:plan", "Show what a run would compute, how long and how much disk."),
        "ablate": ("bench.cli.ablate:ablate", "Vary one factor at a time: train, run, test, draw."),
        "power": ("bench.cli.power:power", "Power analysis: detectable effect and sample size."),
        "train": ("bench.cli.train:train", "Train a backbone, a purifier or an attack."),
    },
    "Results of finished runs": {
        "leaderboard": (
            "bench.cli.leaderboard:leaderboard",
            "Write the leaderboard: CSV, page, LaTeX, Markdown.",
        ),
        "table": (
            "bench.cli.table:table",
            "Write another table: rankings with tests, means over trackers, erasure.",
        ),
        "certify": (
            "bench.cli.certify:certify",
            "Certify recognition by a smoothed tracker, up to which change.",
        ),
        "compare": (
            "bench.cli.compare:compare",
            "Compare two methods of a run, or two runs, by paired tests.",
        ),
        "plot": ("bench.cli.plot:plot", "Draw the figures: PNG, SVG and PDF."),
        "report": ("bench.cli.report:report", "Write a report: one HTML file, or Markdown."),
        "submit": ("bench.cli.submit:submit", "Check a run for the public leaderboard, and add it."),
    },
    "Can a run be trusted": {
        "reproduce": (
            "bench.cli.reproduce:reproduce",
            "Make a published table again by one command, and compare.",
        ),
        "verify": (
            "bench.cli.verify:verify",
            "Check every digest and recompute a sample, or the whole run (--rerun).",
        ),
        "audit": ("bench.cli.audit:audit", "List every leakage, and whether the rows mark it."),
    },
    "Methods, data and weights": {
        "list": (
            "bench.cli.catalogue:list_plugins",
            "List attacks, defenses, backbones, ...; or describe one.",
        ),
        "new": ("bench.cli.new:new", "Write a working plugin package of your own, with its test."),
        "check": ("bench.cli.check:check", "Run the contract checks on a plugin, yours or a registered one."),
        "fetch": ("bench.cli.fetch:fetch", "Fetch data sets, weights and trunks, checked by digest."),
        "data": ("bench.cli.data:data", "List datasets, add folders of your own."),
        "models": ("bench.cli.models:models", "List, convert, verify and calibrate backbones."),
        "export": ("bench.cli.exchange:export_group", "Write crops for a method that runs elsewhere."),
        "import": ("bench.cli.exchange:import_group", "Take in the cloaks that it made, with their card."),
        "store": ("bench.cli.store:store_group", "Check, repair, clear and copy the store of artefacts."),
        "doctor": ("bench.cli.doctor:doctor", "Show what is installed, what is missing, and how to get it."),
    },
}
"""Heading → command → where it is, and its line in ``bench --help``."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    name: command for commands in SECTIONS.values() for name, command in commands.items()
}
"""Command → where it is, and its line in ``bench --help``."""

FORMER: Mapping[str, tuple[str, ...]] = {
    "significance": ("table", "significance"),
    "means": ("table", "means"),
    "erasure": ("table", "erasure"),
    "rerun": ("verify", "--rerun"),
    "show": ("list",),
    "completion": ("--completion",),
    "data fetch": ("fetch",),
    "models fetch": ("fetch",),
}
"""What a command was once called, one word or a group's and its own → the words that ask for the same today. Hidden;
says the new name."""


def former_below(group: str) -> frozenset[str]:
    """Return the names of commands that a group once had and that are elsewhere today."""
    return frozenset(old.split()[1] for old in FORMER if old.split()[0] == group and " " in old)


LEANS_ON: Mapping[str, str] = {"plan": "run"}
"""A command → the command whose settings it takes where it has none of its own, as it describes what that would do."""


def renamed(words: list[str]) -> tuple[list[str], str]:
    """Return a command line with today's name of its command, and the former one; "" where it is today's.

    Args:
        words: of the command line, without ``bench``.
    """
    at = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    for count in (2, 1):
        old = " ".join(words[at : at + count])
        if old in FORMER:
            return [*words[:at], *FORMER[old], *words[at + count :]], old
    return words, ""
