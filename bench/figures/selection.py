"""Which rows of a run a figure shows.

What lives here: the choice of methods, heads, conditions and trackers, and their rates in the mean over trackers.
What must not: any measure of its own; rates are those of `bench.leaderboard.means` and of the leaderboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from bench.analysis.claims import name_in_run
from bench.analysis.comparison_groups import Axis
from bench.errors import unknown
from bench.figures import FigureOptions, NotDrawableError
from bench.leaderboard import adaptation, significance_tables
from bench.leaderboard import means as run_means
from bench.leaderboard.adaptation import Adaptation
from bench.leaderboard.names import NOTHING, short_names
from bench.leaderboard.view import RunView

NO_CLOAK = "none"
"""The attack, or the defence, that does nothing."""


@dataclass(frozen=True)
class Panel:
    """What is never averaged over: one head, and one access of the attacks.

    Attributes:
        head: the tracker's head.
        access: ``black-box`` or ``white-box``.
    """

    head: str
    access: str

    def title(self, panels: Sequence[Panel]) -> str:
        """Return what tells this panel from the others, in a few words."""
        accesses = {panel.access for panel in panels}
        head = f"head {self.head}"
        return f"{head}, {self.access}" if len(accesses) > 1 or self.access != "black-box" else head


@dataclass(frozen=True)
class Selection:
    """What is shown of a run.

    Attributes:
        view: the run.
        options: as given.
        attacks: canonical names, without ``none``.
        defenses: canonical names, ``none`` first where the run has it.
        heads: the tracker's heads.
        condition: which of the protocol's questions.
        backbone: the only tracker shown, None for all.
    """

    view: RunView
    options: FigureOptions
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    heads: tuple[str, ...]
    condition: str
    backbone: str | None

    @cached_property
    def short_attacks(self) -> dict[str, str]:
        """Return what attacks are called in figures; ``none`` is named for what it is."""
        return self._called("attack")

    @cached_property
    def short_defenses(self) -> dict[str, str]:
        """Return what defences are called in figures; ``none`` is named for what it is."""
        return self._called("defense")

    @cached_property
    def short_backbones(self) -> dict[str, str]:
        """Return what trackers are called in figures."""
        return self._called("backbone")

    def _called(self, axis: str) -> dict[str, str]:
        """Return what the run's methods of one axis are called."""
        nothing = {NO_CLOAK: NOTHING[axis]} if axis in NOTHING else {}
        return short_names(self.view.results.values(axis), {**self.options.names, **nothing})

    @cached_property
    def table(self) -> pd.DataFrame:
        """Return the means over the trackers shown, with the columns of `bench.leaderboard.means.COLUMNS`."""
        if self.backbone is None:
            return self.view.means
        return run_means.table(
            run_means.means(self.view.results, list(self.attacks), backbones=[self.backbone])
        )

    @cached_property
    def rates(self) -> pd.DataFrame:
        """Return the rows of `table` that are shown, without those over several attacks."""
        table = self.table
        shown = (
            table["against"].isin(self.attacks)
            & table["defense"].isin(self.defenses)
            & table["head"].isin(self.heads)
            & (table["condition"] == self.condition)
        )
        return table[shown]

    @cached_property
    def adapted(self) -> Mapping[tuple[str, str], Adaptation]:
        """Return each attack of the run with a defence it is adapted to → whether to the whole or to a part."""
        rows = self.view.leaderboard
        kinds = adaptation.column(rows)
        pairs = zip(rows["attack"], rows["defense"], kinds, strict=True)
        return {(attack, defense): kind for attack, defense, kind in pairs if kind is not None}

    def mark(self, attack: str, defense: str) -> str:
        """Return the mark of a rate whose attack is adapted to the defence, or another to a part of it; else ""."""
        kind = self.adapted.get((attack, defense))
        return "" if kind is None else adaptation.MARKS[kind]

    def averaged(self, defenses: Sequence[str]) -> tuple[str, ...]:
        """Return the attacks that these defences are compared in the mean over.

        An attack that was made against some of them is no common measure of all. One attack alone is no mean.
        """
        if len(self.attacks) == 1:
            return self.attacks
        made_against = {attack for attack, defense in self.adapted if defense in defenses}
        return tuple(name for name in self.attacks if name not in made_against)

    @cached_property
    def averaged_table(self) -> pd.DataFrame:
        """Return `table` with means over `averaged` of the defences shown, in place of those over all attacks."""
        attacks = self.averaged(self.defenses)
        if attacks == self.attacks or len(attacks) < 2:
            return self.table
        backbones = () if self.backbone is None else (self.backbone,)
        return run_means.table(run_means.means(self.view.results, attacks, backbones))

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """Return every head and access that has rates."""
        found = self.rates[["head", "access"]].drop_duplicates().itertuples(index=False, name=None)
        return tuple(Panel(*map(str, row)) for row in found)

    def of_panel(self, panel: Panel) -> pd.DataFrame:
        """Return the rates of one panel."""
        rows = self.rates
        return rows[(rows["head"] == panel.head) & (rows["access"] == panel.access)]

    def rate(self, panel: Panel, attack: str, defense: str) -> dict[str, Any]:
        """Return one row of `rates`, {} where there is none."""
        return self._rates.get((panel.head, panel.access, attack, defense), {})

    @cached_property
    def _rates(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Return the rows of `rates` by head, access, attack and defence."""
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in self.rates.astype(object).to_dict("records"):
            place = tuple(row[name] for name in ("head", "access", "against", "defense"))
            found.setdefault(place, {str(key): value for key, value in row.items()})
        return found

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Return the tested pairs of defences against each attack shown, of `significance_tables.PAIRS`."""
        return self.pairs_of("defense", self.attacks)

    def pairs_of(self, axis: Axis, opponents: Sequence[str]) -> pd.DataFrame:
        """Return the tested pairs of methods of one axis against each opponent, of `significance_tables.PAIRS`."""
        shown = [
            (one, ranking)
            for one, ranking in self.view.ranked
            if one.axis == axis
            and one.opponent in opponents
            and one.head in self.heads
            and one.condition == self.condition
        ]
        return significance_tables.pairs(shown)

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """Return the leaderboard's rows that are shown, those of attack ``none`` among them."""
        table = self.view.leaderboard
        shown = (
            table["attack"].isin((*self.attacks, NO_CLOAK))
            & table["defense"].isin(self.defenses)
            & table["head"].isin(self.heads)
            & (table["condition"] == self.condition)
        )
        if self.backbone is not None:
            shown &= table["backbone"] == self.backbone
        return table[shown]

    def failed(self, panel: Panel, attack: str, defense: str) -> bool:
        """Say whether one of the cells behind a rate failed."""
        access = ("", "black-box") if panel.access == "black-box" else (panel.access,)
        return any(
            cell.status != "ok"
            for point, cell in self.view.results.cells.items()
            if (point.attack, point.defense, point.head) == (attack, defense, panel.head)
            and (self.backbone in (None, point.backbone))
            and (cell.threat.access in access or attack == NO_CLOAK)
        )

    @property
    def head(self) -> str:
        """The first head shown, of figures that show one."""
        return self.heads[0]


def select(view: RunView, options: FigureOptions) -> Selection:
    """Return what to show; what is not named is all of the run, of conditions the first that is ranked.

    Raises:
        NotDrawableError: the run has no attack but ``none``.
        UsageError: an option names what the run has not.
    """
    results = view.results
    attacks = tuple(name for name in results.values("attack") if name != NO_CLOAK)
    if not attacks:
        raise NotDrawableError(
            "the run has no attack but none, so no attack success to show. Add one with --attack."
        )
    if options.attack is not None:
        attacks = (_named("attack", options.attack, view),)
    defenses = tuple(sorted(results.values("defense"), key=lambda name: name != NO_CLOAK))
    if options.defense is not None:
        wanted = (NO_CLOAK, _named("defense", options.defense, view))
        defenses = tuple(name for name in defenses if name in wanted)
    heads = results.values("head")
    if options.head is not None:
        if options.head not in heads:
            raise unknown("head of this run", options.head, heads)
        heads = (options.head,)
    backbone = None if options.backbone is None else _named("backbone", options.backbone, view)
    return Selection(view, options, attacks, defenses, heads, _condition(view, options.condition), backbone)


def _named(axis: str, text: str, view: RunView) -> str:
    return text if text in view.results.values(axis) else name_in_run(axis, text, view.results)


def _condition(view: RunView, wanted: str | None) -> str:
    there = view.results.conditions()
    if wanted is None:
        return next(iter(view.results.ranked_conditions()), there[0])
    if wanted not in there:
        raise unknown("condition of this run", wanted, there)
    return wanted
