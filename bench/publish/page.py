"""The leaderboard as a page of its own: one HTML file without anything from outside."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import UsageError
from bench.leaderboard import as_html
from bench.leaderboard.boards import tasks
from bench.leaderboard.columns import COLUMNS
from bench.leaderboard.merge import Merged, Source
from bench.leaderboard.plausible import EVALUATED
from bench.leaderboard.summary import development, references_last
from bench.run.spec import BENCHMARK_VERSION, RunSpec


@dataclass(frozen=True)
class Origin:
    """One of the leaderboards that a page is made from, as the page names it.

    Attributes:
        name: its folder or file, without the folders above it where the path is absolute.
        runs: digests of the runs whose rows it holds.
        rows: how many.
        by: who submitted it, or "".
        command: what makes the run again, or "" for a table.
        environment: on what it was made, a few words, or "".
        foreign: methods of code that was not this project's when it was submitted.
        standing: of a submission, whether its rows were checked against its decisions, a sentence or two; else "".
    """

    name: str
    runs: str
    rows: int
    by: str = ""
    command: str = ""
    environment: str = ""
    foreign: str = ""
    standing: str = ""


def page(
    merged: Merged, title: str = "CloakBench leaderboard", labels: Mapping[str, str] | None = None
) -> str:
    """Return the page of a leaderboard: what it holds, its boards, every cell, and how it was made.

    It loads nothing: its policy forbids that, and the only script that may run is the one inside, named by its digest.

    Args:
        merged: of one source or several.
        title: its heading.
        labels: canonical name → what a method is called, as `bench.leaderboard.names.labels` gives them.

    Raises:
        UsageError: the rows are of the development split, which is not published.
    """
    if development(merged.leaderboard):
        raise UsageError(
            "the page is for publishing, and these rows are of the development split, on which choices are made. Look "
            "at them with --csv, --md or `bench report`, and publish a run on split evaluation."
        )
    leaderboard = references_last(merged.leaderboard)
    text = (
        as_html.environment()
        .get_template("leaderboard.page.html.j2")
        .render(
            title=title,
            css=as_html.CSS,
            js=as_html.JS,
            script_digest=as_html.script_digest(as_html.JS),
            boards=as_html.boards(tasks(merged), labels),
            table=as_html.html(leaderboard, labels=labels),
            summary=summary(merged),
            origins=[origin_of(source) for source in merged.sources],
            again="bench leaderboard "
            + " ".join(shlex.quote(shown_path(source.name)) for source in merged.sources),
            columns=COLUMNS,
            version=BENCHMARK_VERSION,
        )
    )
    return str(text)


def summary(merged: Merged) -> str:
    """Return in a sentence what a leaderboard holds."""
    leaderboard = merged.leaderboard
    counts = [
        _count(len(leaderboard), "row"),
        _count(len(merged.sources), "source"),
        _count(len(set(leaderboard["attack"]) - {"none"}), "attack"),
        _count(len(set(leaderboard["defense"]) - {"none"}), "defence"),
        _count(leaderboard["backbone"].nunique(), "tracker"),
    ]
    identities = sorted({int(count) for count in leaderboard["n_identities"].dropna()})
    span = (
        f"{identities[0]} to {identities[-1]}"
        if len(identities) > 1
        else str(*identities)
        if identities
        else "no"
    )
    failed = int((leaderboard["status"] != "ok").sum())
    tail = f" {_count(failed, 'cell')} failed and is NA." if failed else ""
    rows, sources, *rest = counts
    datasets = ", ".join(dict.fromkeys(map(str, leaderboard["dataset"])))
    return f"{rows} from {sources}: {', '.join(rest)}, {span} identities; dataset {datasets}.{tail}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def shown_path(name: str) -> str:
    """Return a path as it may be published: an absolute one without the folders above its last name."""
    absolute = name.startswith(("/", "~")) or re.match(r"[A-Za-z]:|\\", name)
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] if absolute else name


def origin_of(source: Source) -> Origin:
    """Return what a page says of one of its sources."""
    runs = ", ".join(dict.fromkeys(map(str, source.leaderboard["run"])))
    name, rows = shown_path(source.name), len(source.leaderboard)
    if source.folder is not None:
        command = requested_command(source.results.facts.requested)
        return Origin(
            name, runs, rows, command=command, environment=environment_words(source.folder.machine())
        )
    record = source.record
    foreign = ", ".join(str(method["name"]) for method in record.get("methods", []) if method.get("foreign"))
    environment = environment_words(record["environment"]) if "environment" in record else ""
    by, command = str(record.get("by", "")), str(record.get("command", ""))
    return Origin(name, runs, rows, by, command, environment, foreign, standing(source))


def standing(source: Source) -> str:
    """Return whether a submission's rows were checked against its decisions; "" of what is no submission."""
    if not source.record:
        return ""
    if why := source.record.get("unreliable"):
        return f"UNRELIABLE, say the maintainers: {why}"
    if source.checked:
        return "Checked: the decisions beside the record give these rates."
    named, url = source.record.get("decisions") or {}, source.record.get("decisions_url") or ""
    if not named:
        return "Unchecked: the rows are their submitter's alone. The record is of a version that named no decisions."
    where = f"to be had at {url}" if url else "not published"
    return (
        "Unchecked: the rows are their submitter's alone. The record names "
        f"{_count(len(named), 'file')} of decisions by digest, {where}."
    )


def environment_words(machine: Mapping[str, Any]) -> str:
    """Return on what a run was made, in a few words."""
    packages: Mapping[str, Any] = machine.get("packages", {})
    named: Sequence[str] = [
        f"{name} {packages[name]}" for name in ("cloakbench", "torch") if name in packages
    ]
    device = machine.get("cuda_device") or machine.get("cpu_model") or machine.get("device") or ""
    return ", ".join(filter(None, [*named, f"Python {machine.get('python', 'unknown')}", str(device)]))


def requested_command(requested: RunSpec) -> str:
    """Return the command that asks for a run, in its shortest form; folders, threads and devices are no part of it."""
    words = ["bench", "run", "--dataset", requested.dataset]
    words += [] if requested.protocol == "tracker" else ["--protocol", requested.protocol]
    repeated = {
        "--attack": requested.attacks,
        "--defense": requested.defenses,
        "--backbone": requested.backbones,
        "--head": requested.heads,
        "--seed": () if requested.seeds == (0,) else tuple(map(str, requested.seeds)),
    }
    words += [word for option, values in repeated.items() for value in values for word in (option, value)]
    words += [] if requested.split == EVALUATED else ["--split", requested.split]
    words += ["--split-seed", str(requested.split_seed)] if requested.split_seed else []
    words += ["--identities", str(requested.identities)] if requested.identities is not None else []
    return shlex.join(words)
