"""A bar of images finished, on stderr, for commands that have one thing to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.cli.options import console, is_quiet


@contextmanager
def counting(what: str, total: int, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a progress bar and give the function that moves it on by a number of images.

    Args:
        what: what is being done.
        total: images in all.
        hidden: show nothing.
    """
    if hidden or is_quiet() or not total:
        yield lambda _n: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def duration(seconds: float) -> str:
    """Return a time in words: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
