"""Runs a planned matrix: computes what is missing and writes the run's folder."""

from collections.abc import Callable

from bench.run import journal
from bench.run.folder import CellResult
from bench.run.graph import Executor, Node, Tally
from bench.run.outputs import Outputs
from bench.run.planning import Prepared


def execute(
    prepared: Prepared, advance: Callable[[Node, int], None] = lambda _node, _n: None
) -> list[CellResult]:
    """Compute what is missing and write the run's folder; returns what became of each cell.

    Whatever is computed before an interruption is kept: the same command goes on from there.

    Raises:
        StoreError: the store or the run's folder cannot be written.
    """
    prepared.begin()
    tally = Tally()
    with journal.kept(prepared, tally):
        executor = Executor(prepared.store, prepared.machine, advance, tally)
        executor.compute(prepared.missing)
        results = Outputs(prepared, executor.fetch).write_cells(prepared.folder)
    prepared.folder.write_manifest()
    return results
