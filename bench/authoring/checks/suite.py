"""Checks of one plugin as data: named before any of them runs, each run once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what must hold, in words.
        passed: whether it does.
        detail: what was found instead; "" where it holds.
        fix: what to write; "" where it holds.
    """

    check: str
    passed: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, eq=False)
class Check:
    """One thing that must hold.

    Attributes:
        name: what must hold, in words; unique within a suite.
        run: returns what is wrong, "" where nothing is. An exception is something wrong.
        needs: name of the check without which this one says nothing.
        fix: what to write where it does not hold, as code where a line of code does it.
    """

    name: str
    run: Callable[[], str]
    needs: str = ""
    _: KW_ONLY
    fix: str


def attempt(call: Callable[[], object]) -> Callable[[], str]:
    """Return the `Check.run` of what need only not fail."""

    def run() -> str:
        call()
        return ""

    return run


class Suite:
    """The checks of one plugin, in reading order."""

    def __init__(self, checks: Iterable[Check]) -> None:
        self._checks = {check.name: check for check in checks}
        self._findings: dict[str, Finding | None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What is checked, before anything is."""
        return tuple(self._checks)

    def findings(self) -> tuple[Finding, ...]:
        """Return the outcome of every check but those whose needs failed."""
        return tuple(finding for name in self._checks if (finding := self.finding(name)) is not None)

    def finding(self, name: str) -> Finding | None:
        """Return the outcome of one check, running first what it needs; None where one of these failed."""
        if name not in self._findings:
            self._findings[name] = self._run(self._checks[name])
        return self._findings[name]

    def _run(self, check: Check) -> Finding | None:
        needed = self.finding(check.needs) if check.needs else None
        if check.needs and (needed is None or not needed.passed):
            return None
        try:
            detail = check.run()
        except Exception as error:  # whatever a plugin raises is a finding
            detail = f"{type(error).__name__}: {error}"
        return Finding(check.name, not detail, detail, check.fix if detail else "")
