"""The whole benchmark from Python: `run` takes the names of methods and returns the leaderboard."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.run.runner import Options, execute, prepare
from bench.run.spec import make_spec

if TYPE_CHECKING:
    import pandas as pd


def run(
    attacks: str | Sequence[str] = "none",
    defenses: str | Sequence[str] = "none",
    *,
    backbones: str | Sequence[str] = (),
    heads: str | Sequence[str] = (),
    dataset: str = "synthetic",
    protocol: str = "tracker",
    seeds: int | Sequence[int] = 0,
    split_seed: int = 0,
    identities: int | None = None,
    options: Options | None = None,
) -> "pd.DataFrame":
    """Run a matrix and return its leaderboard, one row a cell (`bench.leaderboard.columns.COLUMNS`).

    The same as ``bench run``: methods are texts such as ``"fawkes:mode=mid"``.

    Raises:
        UsageError: something requested cannot be done.
        DataError: data or weights are missing or corrupt.
    """
    from bench.leaderboard.table import build

    requested = make_spec(
        {
            "attacks": _several(attacks),
            "defenses": _several(defenses),
            "backbones": _several(backbones),
            "heads": _several(heads),
            "dataset": dataset,
            "protocol": protocol,
            "seeds": (seeds,) if isinstance(seeds, int) else tuple(seeds),
            "split_seed": split_seed,
            "identities": identities,
        }
    )
    prepared = prepare(requested, options or Options())
    execute(prepared)
    return build(prepared.folder)


def _several(texts: str | Sequence[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)
