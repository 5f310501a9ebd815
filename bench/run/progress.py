"""How far work is, on standard error: bars on a terminal; elsewhere a line as a stage begins and every half minute.

What lives here: tasks with what is done of them, and their two displays. What must not: what the work is.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

LINE_SECONDS = 30.0
"""Where there is no terminal, nothing is silent for longer."""

LEAST_BAR, MOST_BAR = 6, 24
LEAST_LABEL = 10


@dataclass(frozen=True)
class Step:
    """Something of a run got further: what `bench.run.planning.Options.progress` is called with.

    Attributes:
        stage: one of `bench.run.graph.STAGES`.
        method: whose, with its helpers; ``cells`` for decisions.
        done: images finished; cells, for decisions.
        total: images in all that were missing when the run was planned.
    """

    stage: str
    method: str
    done: int
    total: int


@dataclass
class Task:
    """Some work and how far it is.

    Attributes:
        label: a few words.
        total: in all; None where that is not known.
        expected: seconds it takes, about; None where that is not known.
        stage: tasks of one stage are announced together, where lines are printed.
        done: of `total`.
        started: when; None where it was not.
        ended: when; None where it was not.
    """

    label: str
    total: int | None
    expected: float | None = None
    stage: str = ""
    done: int = 0
    started: float | None = None
    ended: float | None = None

    def move(self, done: int, now: float) -> None:
        """Note how much is done; the first note is its start."""
        self.started = now if self.started is None else self.started
        self.done = done
        finished = self.total is not None and done >= self.total
        self.ended = (now if self.ended is None else self.ended) if finished else None

    def count(self) -> str:
        """Return how much is done, of how much."""
        return f"{self.done}" if self.total is None else f"{self.done}/{self.total}"

    def time(self, now: float) -> str:
        """Return about how long it will still take, or how long it took; how long it has run where nobody knows."""
        if self.started is None:
            return ""
        if self.ended is not None:
            return f"in {clock(self.ended - self.started)}"
        run = now - self.started
        if self.total is not None and self.done:
            return f"{clock(run / self.done * (self.total - self.done))} left"
        if self.expected is not None and run < self.expected:
            return f"~{clock(self.expected - run)} left"
        return f"for {clock(run)}"


def clock(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def cut(text: str, width: int) -> str:
    """Return a text at most `width` long, its end replaced by an ellipsis where it is longer."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def bar(task: Task, width: int) -> str:
    """Return a bar of a width; a task whose total is not known has an empty one."""
    share = task.done / task.total if task.total else 0.0
    full = min(width, round(share * width))
    return "━" * full + "─" * (width - full)


def line(task: Task, now: float, width: int) -> str:
    """Return a task as one line of at most `width` characters: label, bar, count, time.

    Where there is little room the label gets shorter, then goes the time, then the count, then the label; the bar is
    the last to go.
    """
    for tail in (f"{task.count():>9}  {task.time(now):<13}", f"{task.count():>9}", ""):
        room = width - len(tail) - 2
        if room >= LEAST_LABEL + 1 + LEAST_BAR:
            across = min(MOST_BAR, max(LEAST_BAR, room // 3))
            place = room - 1 - across
            return f"{cut(task.label, place):<{place}} {bar(task, across)}  {tail}".rstrip()
    return bar(task, max(width, 1))


def short_labels(groups: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return (stage, method with its helpers in brackets) → label, without the helpers where that tells them apart."""
    named = {group: f"{group[0]} {group[1].partition(' (')[0]}" for group in groups}
    alike = Counter(named.values())
    return {group: label if alike[label] == 1 else " ".join(group) for group, label in named.items()}


@dataclass
class Display:
    """Tasks as they are shown; `bars` and `lines` show them."""

    now: Callable[[], float] = time.monotonic
    tasks: dict[str, Task] = field(default_factory=dict)
    begun: Callable[[Task], None] = lambda _task: None

    def add(self, label: str, total: int | None, *, expected: float | None = None, stage: str = "") -> None:
        """Add a task that has not begun."""
        self.tasks[label] = Task(label, total, expected, stage or label)

    def advance(self, label: str, count: int) -> None:
        """Count something as done; 0 says that the task has begun."""
        self._move(self.tasks[label], self.tasks[label].done + count)

    def report(self, label: str, done: int, total: int | None) -> None:
        """Say how much is done, of how much; a task of a new label is added."""
        if label not in self.tasks:
            self.add(label, total)
        self.tasks[label].total = total
        self._move(self.tasks[label], done)

    def _move(self, task: Task, done: int) -> None:
        new = task.started is None
        task.move(done, self.now())
        if new:
            self.begun(task)

    def running(self) -> list[Task]:
        """Return the tasks that have begun and are not done."""
        return [task for task in list(self.tasks.values()) if task.started is not None and task.ended is None]

    def shown(self, width: int, height: int) -> Iterator[str]:
        """Yield a line for each task that has begun, the last where they are too many, and how many are to come."""
        tasks = list(self.tasks.values())  # at once: work goes on while a terminal is drawn
        begun = [task for task in tasks if task.started is not None]
        waiting = len(tasks) - len(begun)
        room = max(height - 2, 1)
        for task in begun[-room:]:
            yield line(task, self.now(), width)
        if waiting:
            yield cut(f"{waiting} more to come", width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for text in self.shown(options.max_width, console.height):
            yield Text(text, no_wrap=True, overflow="crop")


@contextmanager
def display(console: Console | None = None) -> Iterator[Display]:
    """Show tasks on standard error while the block runs: as bars on a terminal, else as lines.

    Args:
        console: where; one on standard error where None.
    """
    if console is None:
        from rich.console import Console as RichConsole

        console = RichConsole(stderr=True, markup=False, highlight=False)
    shown = Display()
    with bars(shown, console) if console.is_terminal and not console.is_dumb_terminal else lines(shown):
        yield shown


@contextmanager
def bars(shown: Display, console: Console) -> Iterator[None]:
    """Show tasks as bars that move."""
    from rich.live import Live

    with Live(shown, console=console, refresh_per_second=4):
        yield


@contextmanager
def lines(shown: Display, stream: TextIO | None = None, seconds: float = LINE_SECONDS) -> Iterator[None]:
    """Print a line on each task as its stage begins, and every so often on those that run.

    Args:
        shown: the tasks.
        stream: where; standard error where None.
        seconds: between two looks at what runs.
    """
    out = sys.stderr if stream is None else stream
    over = threading.Event()
    announced: set[str] = set()

    def say(task: Task) -> None:
        tail = task.time(shown.now())
        print_line(f"{task.label}: {task.count()}{f', {tail}' if tail else ''}", out)

    def begun(task: Task) -> None:
        if task.stage not in announced:
            announced.add(task.stage)
            say(task)

    def watch() -> None:
        while not over.wait(seconds):
            for task in shown.running():
                say(task)

    shown.begun = begun
    watcher = threading.Thread(target=watch, name="bench-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def print_line(text: str, out: TextIO) -> None:
    """Print a line at once, with what the stream cannot show replaced; nothing happens where nobody reads any more."""
    encoding = out.encoding or "utf-8"
    with suppress(OSError, ValueError):  # nobody reads any more; the work goes on
        out.write(f"{text}\n".encode(encoding, "replace").decode(encoding))
        out.flush()
