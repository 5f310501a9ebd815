"""Two ways to do a thing, run in turn: only their ratio counts, as it holds on another machine where seconds do not."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.stats.criteria import verdict

RESAMPLES = 2000


@dataclass(frozen=True)
class Measure:
    """One bar and what was measured for it.

    Attributes:
        bar: the part it belongs to.
        what: one against what.
        value: the ratio, or the amount.
        low, high: its 95 % interval over rounds (percentile bootstrap of the median); None where it was measured once.
        unit: "×", "s", "MB" or "%".
        most: what it may be at most; None where `least` is asked.
        least: what it must be at least.
        rounds: how often.
        note: how it was measured.
    """

    bar: str
    what: str
    value: float
    low: float | None
    high: float | None
    unit: str
    most: float | None
    least: float | None
    rounds: int
    note: str

    @property
    def verdict(self) -> str:
        """``met`` or ``short`` where the interval says so, else ``open``; of one measurement, where the value does."""
        if self.most is None and self.least is None:
            return "—"
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return (
            verdict(low, high, most=self.most)
            if self.most is not None
            else verdict(low, high, least=self.least)
        )


def interleaved(first: Callable[[], object], second: Callable[[], object], rounds: int) -> list[float]:
    """Return first's processor time over second's, a ratio a round; each is run once before, unmeasured.

    The time of this process's threads, not of the clock: what else the machine does counts less.
    """
    first()
    second()
    return [processor_seconds(first) / processor_seconds(second) for _ in range(rounds)]


def processor_seconds(action: Callable[[], object]) -> float:
    """Return how long this process's threads compute for an action."""
    start = time.process_time()
    action()
    return time.process_time() - start


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def summary(values: list[float]) -> tuple[float, float, float]:
    """Return the median of some values and its 95 % interval (percentile bootstrap, seed 0)."""
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    return median(values), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def ratio(
    bar: str,
    what: str,
    values: list[float],
    *,
    most: float | None = None,
    least: float | None = None,
    note: str = "",
) -> Measure:
    """Return the measure of ratios, one a round."""
    value, low, high = summary(values)
    return Measure(bar, what, value, low, high, "×", most, least, len(values), note)


def amount(
    bar: str,
    what: str,
    value: float,
    unit: str,
    *,
    most: float | None = None,
    rounds: int = 1,
    note: str = "",
) -> Measure:
    """Return the measure of one amount."""
    return Measure(bar, what, value, None, None, unit, most, None, rounds, note)
