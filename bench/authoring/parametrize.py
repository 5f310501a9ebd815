"""The contract checks as test cases of a plugin's own test suite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.authoring.checks import suite_of
from bench.authoring.checks.suite import Suite
from bench.contracts import Method
from bench.plugins.factory import canonical

if TYPE_CHECKING:
    from _pytest.mark.structures import MarkDecorator, ParameterSet


@dataclass(frozen=True, eq=False)
class PluginCheck:
    """One contract check of one plugin; calling it in a test passes, fails or skips the test."""

    suite: Suite
    name: str

    def __call__(self) -> None:
        """Run the check.

        It skips where a check that it needs has failed: that one's own test says why.
        """
        import pytest

        finding = self.suite.finding(self.name)
        if finding is None:
            pytest.skip("a check that this one needs failed")
        if not finding.passed:
            pytest.fail(f"{finding.detail}. Write: {finding.fix}", pytrace=False)


def parametrize_with_checks(plugins: Iterable[Method | ParameterSet]) -> MarkDecorator:
    """Return a pytest decorator that gives a test the arguments `plugin` and `check`, one case for each pair.

    What checks there are follows from what a plugin declares; none runs while tests are collected. The checks of one
    plugin share what they compute, as in ``bench check``::

        @parametrize_with_checks([MyCloak(), MyCloak(MyCloak.Params(eps=4))])
        def test_it_keeps_the_contract(plugin, check):
            check()

    Args:
        plugins: instances, each with the parameters to check it under; or ``pytest.param(instance, marks=…, id=…)``.
    """
    import pytest

    cases = []
    for plugin in plugins:
        given = plugin if isinstance(plugin, tuple) else pytest.param(plugin)
        method = given.values[0]
        if not isinstance(method, Method):
            raise TypeError(f"{method!r} is no plugin; give an instance, such as MyCloak().")
        suite = suite_of(method)
        label = given.id or canonical(method)
        cases += [
            pytest.param(method, PluginCheck(suite, name), id=f"{label}-{name}", marks=given.marks)
            for name in suite.names
        ]
    return pytest.mark.parametrize(("plugin", "check"), cases)
