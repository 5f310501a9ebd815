"""The whole benchmark on one page: read `run`, top to bottom.

Methods are texts such as ``fawkes:mode=mid``, as on the command line (`bench.plugins.syntax`). A matrix (`RunSpec`)
crosses them into cells, dataset × attack × defence × backbone × head × protocol × seed. How it is computed (`Options`)
stands apart: device, batch size and folders are not part of what is requested.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from bench.run.folder import CellResult, RunFolder
from bench.run.planning import Options, Prepared, prepare
from bench.run.runner import execute
from bench.run.spec import RunSpec, SplitName, make_spec

if TYPE_CHECKING:
    import pandas as pd

FIRST = (
    *("attack", "defense", "backbone", "head", "condition", "seed"),
    *(
        "asr_worst",
        "asr",
        "asr_low",
        "asr_high",
        "defended_baseline_error",
        "normal_accuracy",
        "recovery",
        "cloak_psnr",
        "status",
    ),
)
"""Columns that stand first in a data frame: whose row it is, and what a reader looks for."""

__all__ = ["FIRST", "Options", "RunSpec", "leaderboard", "measure", "plan", "run"]


def run(
    attacks: str | Sequence[str] = "none",
    defenses: str | Sequence[str] = "none",
    *,
    backbones: str | Sequence[str] = (),
    heads: str | Sequence[str] = (),
    dataset: str = "synthetic",
    protocol: str = "tracker",
    seeds: int | Sequence[int] = 0,
    split: SplitName = "evaluation",
    split_seed: int = 0,
    identities: int | None = None,
    options: Options | None = None,
) -> pd.DataFrame:
    """Run a matrix and return its leaderboard, one row a cell; the same as ``bench run``.

    What is true of the whole run, its folder, notes and warnings among it, is in the data frame's ``attrs``
    (`bench.leaderboard.about.ABOUT`).

    >>> from bench.api import run
    >>> table = run("pgd:steps=1", "jpeg", backbones="synthetic-iresnet", identities=4)
    >>> table[["attack", "defense", "status"]].values.tolist()  # doctest: +NORMALIZE_WHITESPACE
    [['none', 'none', 'ok'], ['none', 'jpeg', 'ok'], ['pgd:steps=1', 'none', 'ok'], ['pgd:steps=1', 'jpeg', 'ok']]
    >>> bool(table["asr"].between(0, 1).all()), table.attrs["failed"]
    (True, 0)

    Args:
        attacks: what cloaks gallery photos before they are posted.
        defenses: what the tracker does to get the faces back.
        backbones: the trackers' FR models; empty: the first group of the dataset's pool.
        heads: how the tracker recognises; empty: the protocol's first.
        dataset: whose faces.
        protocol: how the tracker is trained and tested.
        seeds: of the methods' randomness; each makes cells of its own.
        split: whom to evaluate; ``development``: training identities, on which choices are made.
        split_seed: of galleries, probes and folds, and of the choice of identities.
        identities: how many are evaluated; None for all.
        options: device, threads, folders; with ``Options(progress=True)`` it says how far it is.

    Raises:
        UsageError: something requested cannot be done.
        DataError: data or weights are missing or corrupt.
    """
    spec = make_spec(
        {
            "attacks": _several(attacks),
            "defenses": _several(defenses),
            "backbones": _several(backbones),
            "heads": _several(heads),
            "dataset": dataset,
            "protocol": protocol,
            "seeds": (seeds,) if isinstance(seeds, int) else tuple(seeds),
            "split": split,
            "split_seed": split_seed,
            "identities": identities,
        }
    )
    # Texts become plugins; cells become artefacts to compute, each with the digest of all that decides it.
    planned = plan(spec, options)
    # What the store lacks: faces → fit → cloak → purify → embed → decide. Decisions are rows, one a probe.
    measure(planned)
    # Decisions become error rates, one an identity; those become the rows, with intervals, tests, ranks and warnings.
    return leaderboard(planned.folder)


def plan(spec: RunSpec, options: Options | None = None) -> Prepared:
    """Check all that can be known before work starts, and say what is to be computed.

    The reference cells none × none, attack × none and none × defence are always added: they say what the tracker errs
    without any cloak, and what the cloak does without any defence.

    >>> matrix = RunSpec(attacks=("pgd:steps=1",), defenses=("jpeg",), backbones=("synthetic-iresnet",), identities=4)
    >>> planned = plan(matrix)
    >>> [(cell.attack, cell.defense) for cell in planned.run.cells]  # doctest: +NORMALIZE_WHITESPACE
    [('none', 'none'), ('none', 'jpeg'), ('pgd:steps=1', 'none'), ('pgd:steps=1', 'jpeg')]
    >>> plan(RunSpec(attacks=("pdg",)))
    Traceback (most recent call last):
    bench.errors.UsageError: unknown attack 'pdg'. Did you mean 'pgd'? ...

    Args:
        spec: the matrix.
        options: how it will be computed; the defaults of `Options` where None.

    Raises:
        UsageError: unknown names, values out of range, empty pools, too few photos, no fitting weights.
        DataError: data or weights that are missing or corrupt.
    """
    return prepare(spec, options or Options())


def measure(planned: Prepared) -> list[CellResult]:
    """Compute what the store lacks, write the run's folder, and return what became of each cell.

    A cell that fails is a result with its reason. After a kill, the same plan goes on where it was.

    >>> planned = plan(RunSpec(backbones=("synthetic-iresnet",), identities=4))
    >>> [result.status for result in measure(planned)]
    ['ok']
    >>> plan(RunSpec(backbones=("synthetic-iresnet",), identities=4)).missing
    []

    Raises:
        StoreError: the store or the run's folder cannot be written.
    """
    return execute(planned)


def leaderboard(folder: RunFolder) -> pd.DataFrame:
    """Return the leaderboard of a finished run: a view of its decisions, made again at will.

    >>> planned = plan(RunSpec(backbones=("synthetic-iresnet",), identities=4))
    >>> _ = measure(planned)
    >>> leaderboard(planned.folder)[["attack", "n_identities", "cloak_psnr"]].to_dict("records")
    [{'attack': 'none', 'n_identities': 4, 'cloak_psnr': nan}]

    Returns:
        One row a cell and condition, with the columns of `bench.leaderboard.columns.COLUMNS`, those of `FIRST` before
        the others; rates in [0, 1]. Its ``attrs`` are the facts of `bench.leaderboard.about.ABOUT`; pandas keeps them
        when rows or columns are chosen, not when frames are merged.

    Raises:
        DataError: not a run's folder, or one of its files is missing or damaged.
    """
    from bench.leaderboard.about import about
    from bench.leaderboard.table import build

    built = build(folder)
    found = built[[*FIRST, *(name for name in built.columns if name not in FIRST)]]
    facts: dict[Hashable | None, Any] = dict(about(folder, built).items())
    found.attrs = facts
    return found


def _several(texts: str | Sequence[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)
