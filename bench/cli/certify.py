"""`bench certify`: what a smoothed tracker is certain to recognise, of a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import json_option, store_option
from bench.cli.output import counting, duration, is_silent, number, percent, print_json, rows_of, say_split

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.certificates import Smoothing, Work
    from bench.run.graph import Node
    from bench.run.planning import Prepared

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_RADII = (0.0, 0.05, 0.1, 0.25, 0.5)
"""Radii that are printed; the files have the whole curve."""


@click.command(
    epilog="""\b
Examples:
  bench certify runs/3f2a --dry-run
  bench certify runs/3f2a --sigma 0.25 --samples 1000 --out certified
"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--backbone", metavar="METHOD", help="The tracker. [default: the run's, where it has one]")
@click.option(
    "--sigma",
    type=click.FloatRange(0, min_open=True),
    default=0.25,
    show_default=True,
    help="Standard deviation of the noise, pixels in [0, 1].",
)
@click.option(
    "--samples",
    type=click.IntRange(2),
    default=1000,
    show_default=True,
    help="Noisy copies of each gallery photo.",
)
@click.option(
    "--probe-samples",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Noisy copies of each probe.",
)
@click.option(
    "--failure",
    type=_SHARE,
    default=0.001,
    show_default=True,
    help="Probability that any bound of the whole table fails.",
)
@click.option("--noise-seed", type=int, default=0, show_default=True, help="Seed of the noise.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for tables and figure. [default: RUN/certified]"
)
@click.option("--dry-run", is_flag=True, help="Say how many embedding passes it takes, and do nothing else.")
@store_option
@click.option("--device", default="auto", help="Compute here. [default: as the run did]")
@click.option("--threads", type=click.IntRange(1), help="Threads. [default: as the run had]")
@json_option
def certify(
    run: Path,
    backbone: str | None,
    out: Path | None,
    noise_seed: int,
    dry_run: bool,
    as_json: bool,
    store: Path | None,
    device: str,
    threads: int | None,
    **smoothing: Any,
) -> None:
    """Certify which probes of the finished run in folder RUN a smoothed tracker recognises after any small change.

    The tracker embeds noisy copies of each photo and keeps their mean. A probe is certified at a radius where it is
    recognised under every change of that L2 norm to each of the identity's own gallery photos, whoever makes it.
    Real cloaks are many times larger, and their norms are stated beside: the curve is a lower bound and says nothing
    about them.

    Noisy embeddings are kept in the store: a command that was killed goes on where it was.
    """
    from bench.analysis import certificates
    from bench.files import check_writable
    from bench.run import planning
    from bench.run.folder import RunFolder

    folder, place = RunFolder(run), out or run / "certified"
    say_split(folder.facts())
    options = planning.Options(store=store, device=device, threads=threads, out=run)
    prepared = planning.prepare_again(folder, options)
    tracker = certificates.tracker_of(prepared, backbone)
    how = certificates.Smoothing(seed=noise_seed, **smoothing)
    work = certificates.work(prepared, tracker, how)
    if dry_run:
        _say_plan(prepared, work, as_json=as_json)
        return
    check_writable(place, "--out")
    _give(prepared, tracker, how, work, place, as_json=as_json)


def _missing(prepared: Prepared, work: Work) -> list[Node]:
    from bench.run.graph import missing

    return missing(prepared.store, work.nodes)


def _say_plan(prepared: Prepared, work: Work, *, as_json: bool) -> None:
    """Print how many passes there are, how many are cached, and about how long the others take."""
    from bench.integrity.verify import expected_seconds

    todo = _missing(prepared, work)
    seconds, untimed = expected_seconds(prepared, todo)
    addresses = {node.address for node in todo}
    left = sum(node.passes for node in work.nodes if node.address in addresses)
    photos, probes = (sum(node.images for node in nodes) for nodes in (work.gallery, work.probes))
    if as_json:
        counts = {"gallery_photos": photos, "probes": probes}
        print_json({**counts, "passes": work.passes, "cached": work.passes - left, "seconds": round(seconds)})
        return
    rough = " by rough estimate" if untimed else ""
    click.echo(
        f"{photos} gallery photos and {probes} probes: {work.passes:,} embedding passes, {work.passes - left:,} of "
        f"them cached. The others take about {duration(seconds)}{rough}."
    )


def _give(
    prepared: Prepared, tracker: str, how: Smoothing, work: Work, place: Path, *, as_json: bool
) -> None:
    """Compute what is missing, write tables and figure, and print the curve."""
    from bench.analysis import certificates
    from bench.files import write_atomically
    from bench.run import timings
    from bench.run.graph import Executor, Tally

    todo, tally = _missing(prepared, work), Tally()
    with counting(f"{tracker} under noise", sum(node.work for node in todo)) as advance:
        executor = Executor(prepared.store, prepared.machine, lambda _node, done: advance(done), tally)
        executor.compute(todo)
    timings.remember(prepared.store, tally)
    gallery, probes = (certificates.read(nodes, executor.fetch) for nodes in (work.gallery, work.probes))
    found = certificates.certified_probes(gallery, probes, how)
    tables = {
        "probes": found,
        "curve": certificates.curve(found),
        "cloaks": certificates.cloak_sizes(prepared, tracker, executor.fetch),
    }
    files = []
    for name, table in tables.items():
        files.append(place / f"{name}.csv")
        write_atomically(files[-1], table.to_csv(index=False, lineterminator="\n").encode())
    files += _drawn(tables, place)
    if as_json:
        facts = {"tracker": tracker, **vars(how), "files": [str(path) for path in files]}
        rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        print_json({**facts, **rows})
        return
    _say(tables, tracker, how)
    click.echo(f"{', '.join(map(str, files))} written")


def _drawn(tables: dict[str, pd.DataFrame], place: Path) -> list[Path]:
    """Write the figure in every format and return the files; none where there is no curve, which is said."""
    from bench.figures import FigureOptions, NotDrawableError, certified, files

    try:
        drawing = certified.draw(tables["curve"], tables["cloaks"], FigureOptions(width="column"))
    except NotDrawableError as reason:
        if not is_silent():
            click.echo(f"No figure: {reason}", err=True)
        return []
    paths = list(files.paths(place / "curve", files.FORMATS))
    for path in paths:
        files.save(drawing, path)
    return paths


def _say(tables: dict[str, pd.DataFrame], tracker: str, how: Smoothing) -> None:
    from bench.analysis import certificates

    probes, cloaks = tables["probes"], tables["cloaks"]
    shares = certificates.curve(probes, _RADII)
    first = shares.iloc[0]
    recognised = probes.groupby("identity")["recognised"].mean().mean()
    click.echo(
        f"{tracker}, head nn, smoothed with σ = {how.sigma:g}: {first['n_identities']:.0f} identities, "
        f"{first['n_probes']:.0f} probes, {percent(recognised)} % recognised without any change (estimate)."
    )
    for row in rows_of(shares):
        share = percent(row["certified"], row["certified_low"], row["certified_high"])
        click.echo(f"  certified at L2 {row['radius']:<5g} {share} %")
    click.echo(
        f"All of it holds with probability {1 - how.failure:g} over the noise. Largest radius of a probe: "
        f"{max(probes['radius'].max(), 0):.3f}."
    )
    for row in rows_of(cloaks.dropna()):
        sizes = f"{number(row['l2_min'])} to {number(row['l2_max'])}, median {number(row['l2_median'])}"
        beyond = " Nothing is certified against them." if row["l2_min"] >= probes["radius"].max() else ""
        click.echo(f"Cloaks of {row['attack']}: L2 {sizes} ({row['photos']} photos).{beyond}")
