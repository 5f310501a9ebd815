"""What of a protected face comes back, and for whom: with the key, a wrong one, none, or a purifier (protocol erasure).

A mask that does nothing is easily erased, so that erasing is measured on pairs that are *protected*: accepted with the
natural photo and refused as posted. What lives here: those shares, from the decisions of a finished run. What must not:
the answers themselves (`bench.protocols.erasure`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.results import Results
from bench.errors import UsageError
from bench.leaderboard.adaptation import in_a_word
from bench.plugins import syntax
from bench.protocols.erasure import CONDITIONS, POSTED, ErasureProtocol
from bench.run.spec import Cell
from bench.stats.intervals import Estimate, rate_interval

COLUMNS: Mapping[str, str] = {
    "attack": "canonical name",
    "backbone": "the tracker's backbone",
    "head": "the tracker's head",
    "access": "black-box or white-box (the tracker's backbone is a surrogate)",
    "eraser": "who tries: right key, wrong key, no key, or the defence that a tracker without a key uses",
    "kind": "key: the attack's own erasing; defence: a purifier or hardening of the run",
    "surrogates": "backbones the attack used",
    "extractors": "backbones the eraser was trained with; empty for keys and defences that do not learn",
    "extractor_is_tracker": "the tracker's backbone trained the eraser, or one that the attack works against",
    "attack_seen_by_defense": "whether the eraser was trained on this attack: seen, seen-with-other-parameters, "
    "unseen, not-trained; empty for keys",
    "adapted": "whether the attack is adapted to the eraser: exact (to this very defence), partial (to a part of it, "
    "or to a whole that shares one), no; empty for keys",
    "identity_overlap": "an evaluated identity's photos trained the tracker, the eraser or the "
    "attack: yes, no, unknown",
    "n_identities": "identities compared",
    "n_pairs": "pairs of a clean probe and a gallery photo of the same identity, over all seeds",
    "recognised": "share of pairs accepted with the natural photo, mean over identities: what could "
    "be protected at all",
    "protected": "share of pairs accepted with the natural photo and refused as posted, mean over identities",
    "protected_low": "lower end of its 95 % interval over identities",
    "protected_high": "upper end",
    "protected_reason": "why protected or its interval is empty",
    "protected_pairs": "those pairs",
    "protected_identities": "identities with at least one of them",
    "undone": "share of an identity's protected pairs that are accepted after the eraser, mean over those identities",
    "undone_low": "lower end of its 95 % interval over identities",
    "undone_high": "upper end",
    "undone_reason": "why undone or its interval is empty",
    "cloak_psnr": "PSNR of the cloaks as posted against the original photos, dB, mean over changed photos",
    "psnr": "PSNR of what the eraser made of the cloaks against the originals, dB, mean over those that differ",
    "to_cloak_psnr": "PSNR of what the eraser made of the cloaks against the cloaks, dB, mean over those that differ",
    "to_cloak_unchanged": "share of cloaks that the eraser left as they are",
    "psnr_reason": "why one of these four is empty",
}
"""Every column with its meaning, in order."""

KEYS = tuple(name for name in CONDITIONS if name != POSTED)
NOBODY_PROTECTED = "no pair is protected: there is nothing to erase"
UNMEASURED = "only measured of what the attack itself erases"

_PAIR = ["identity", "image", "reference"]
_SEED = ["seed", *_PAIR]


@dataclass(frozen=True)
class _Group:
    """The cells of one attack, tracker and head under defence none, one a seed."""

    results: Results
    points: Sequence[Cell]

    @property
    def name(self) -> Cell:
        return self.points[0]

    def behind(self, defense: str) -> tuple[Cell, ...]:
        """Return the same cells behind a defence, those there are."""
        moved = (point._replace(defense=defense) for point in self.points)
        return tuple(point for point in moved if point in self.results.cells)

    @property
    def defenses(self) -> tuple[str, ...]:
        """The defences that the attack met here."""
        return tuple(name for name in self.results.values("defense") if name != "none" and self.behind(name))


def table(results: Results) -> pd.DataFrame:
    """Return the table of a run, one row an attack, tracker and eraser.

    Args:
        results: of a finished run of protocol erasure.

    Raises:
        UsageError: the run is of another protocol, or has no attack but ``none``.
        DataError: a file of the run is missing or damaged.
    """
    protocol = results.facts.spec.protocol
    if syntax.parse(protocol).name != ErasureProtocol.name:
        raise UsageError(
            f"{results.folder.path} is a run of protocol {protocol}, and this table is of protocol "
            f"{ErasureProtocol.name}: bench run --protocol {ErasureProtocol.name} --head pair ..."
        )
    rows = [row for group in _groups(results) for row in _rows(group)]
    if not rows:
        raise UsageError(f"{results.folder.path} has no attack but none, and so nothing to erase.")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _groups(results: Results) -> Iterator[_Group]:
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for point in results.cells:
        if point.attack != "none" and point.defense == "none":
            found.setdefault((point.attack, point.backbone, point.head), []).append(point)
    return (_Group(results, points) for points in found.values())


def _rows(group: _Group) -> Iterator[dict[str, Any]]:
    pairs, reason = _pairs(group)
    protected = _protected_columns(pairs, reason)
    for eraser in (*KEYS, *group.defenses):
        after, lacking = _after(group, eraser)
        yield {
            **{name: getattr(group.name, name) for name in ("attack", "backbone", "head")},
            "eraser": eraser,
            "kind": "key" if eraser in KEYS else "defence",
            **_threat_columns(group, eraser),
            **protected,
            **_columns("undone", _undone(pairs, after, reason or lacking)),
            **_image_columns(group, eraser),
        }


def _threat_columns(group: _Group, eraser: str) -> dict[str, Any]:
    """Return the threat model of an eraser: that of the cells it acts in, each mark over all seeds."""
    points = group.points if eraser in KEYS else group.behind(eraser)
    threats = [group.results.cells[point].threat for point in points]
    # A key is no defence, and "not-trained" would be said of defence none.
    seen = () if eraser in KEYS else [threat.attack_seen_by_defense for threat in threats]
    adapted = () if eraser in KEYS else [in_a_word(threat) for threat in threats]
    return {
        "access": "|".join(dict.fromkeys(threat.access for threat in threats)),
        "surrogates": _names(threat.surrogates for threat in threats),
        "extractors": _names(threat.extractors for threat in threats),
        "extractor_is_tracker": any(threat.extractor_is_tracker for threat in threats),
        "attack_seen_by_defense": "|".join(dict.fromkeys(seen)),
        "adapted": "|".join(dict.fromkeys(adapted)),
        "identity_overlap": next(
            mark
            for mark in ("yes", "unknown", "no")
            if mark in {threat.identity_overlap for threat in threats}
        ),
    }


def _names(joined: Iterable[str]) -> str:
    names = (name for names in joined for name in names.split("|") if name)
    return "|".join(dict.fromkeys(names))


# -- pairs -----------------------------------------------------------------------------------------------------


def accepted(rows: pd.DataFrame, *, protected: bool) -> pd.Series[bool]:
    """Return whether each pair is accepted, by identity, probe and gallery photo.

    Args:
        rows: decisions of one cell under one condition.
        protected: of protected identities, else with natural photos. A row without a gallery photo is no pair.
    """
    chosen = rows[(rows["protected"] == protected) & rows["reference"].notna()]
    results: pd.Series[bool] = chosen.set_index(_PAIR)["correct"]
    return results


def _gathered(
    results: Results, points: Sequence[Cell], condition: str, *, protected: bool
) -> tuple[pd.Series[bool] | None, str]:
    """Return the answers of cells that differ in the seed, or why there are none."""
    found = {}
    for point in points:
        rows = results.rows(point, condition)
        if rows is None:
            failed = results.cells[point].reason
            return None, failed or results.not_applicable(point, condition) or "the cell has no decisions"
        found[point.seed] = accepted(rows, protected=protected)
    return pd.concat(found, names=["seed"]), ""


def _pairs(group: _Group) -> tuple[pd.DataFrame | None, str]:
    """Return every pair with whether it is recognised (natural) and protected, or why there are none."""
    natural, reason = _gathered(group.results, group.points, POSTED, protected=False)
    posted, _ = _gathered(group.results, group.points, POSTED, protected=True)
    if natural is None or posted is None:
        return None, reason
    both = pd.concat({"natural": natural, "posted": posted}, axis=1, join="inner")
    return pd.DataFrame({"recognised": both["natural"], "protected": both["natural"] & ~both["posted"]}), ""


def _after(group: _Group, eraser: str) -> tuple[pd.Series[bool] | None, str]:
    """Return whether each pair is accepted after an eraser, or why that is not known."""
    if eraser in KEYS:
        return _gathered(group.results, group.points, eraser, protected=True)
    points = group.behind(eraser)
    if len(points) < len(group.points):
        return None, "the defence was not run with every seed"
    return _gathered(group.results, points, POSTED, protected=True)


# -- shares ----------------------------------------------------------------------------------------------------


def _protected_columns(pairs: pd.DataFrame | None, reason: str) -> dict[str, Any]:
    if pairs is None:
        return _columns("protected", Estimate.missing(reason))
    rates = pairs.groupby("identity")
    chosen = pairs[pairs["protected"]]
    return {
        "n_identities": rates.ngroups,
        "n_pairs": len(pairs),
        "recognised": float(rates["recognised"].mean().mean()),
        **_columns("protected", _share(pairs["protected"])),
        "protected_pairs": len(chosen),
        "protected_identities": chosen.index.get_level_values("identity").nunique(),
    }


def _undone(pairs: pd.DataFrame | None, after: pd.Series[bool] | None, reason: str) -> Estimate:
    if pairs is None or after is None:
        return Estimate.missing(reason)
    chosen = pairs.index[pairs["protected"]]
    if chosen.empty:
        return Estimate.missing(NOBODY_PROTECTED)
    # A photo that a defence dropped is not accepted.
    return _share(after.reindex(chosen, fill_value=False))


def _share(hits: pd.Series[bool]) -> Estimate:
    """Return the mean over identities of their own shares of hits, with the interval of the leaderboard's rates."""
    return rate_interval(hits.astype(np.float64).groupby("identity").mean().to_numpy(), len(hits))


def _columns(name: str, estimate: Estimate) -> dict[str, Any]:
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_reason": estimate.reason,
    }


# -- images ----------------------------------------------------------------------------------------------------


def _image_columns(group: _Group, eraser: str) -> dict[str, Any]:
    cells = [group.results.cells[point] for point in group.points]
    cloak = _image_mean(group, [cell.cloak_measures for cell in cells])
    if eraser in KEYS:
        back = _image_mean(group, [cell.restored_measures.get(eraser, "") for cell in cells])
        files = [cell.restored_to_cloak_measures.get(eraser, "") for cell in cells]
        to_cloak = _image_mean(group, files)
    else:
        behind = [group.results.cells[point] for point in group.behind(eraser)]
        back = _image_mean(group, [cell.purified_measures for cell in behind])
        to_cloak = _Image(reason=UNMEASURED)
    reasons = {"cloak_psnr": cloak.reason, "psnr": back.reason, "to_cloak_psnr": to_cloak.reason}
    return {
        "cloak_psnr": cloak.psnr,
        "psnr": back.psnr,
        "to_cloak_psnr": to_cloak.psnr,
        "to_cloak_unchanged": to_cloak.unchanged,
        "psnr_reason": "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason),
    }


@dataclass(frozen=True)
class _Image:
    psnr: float | None = None
    unchanged: float | None = None
    reason: str = ""


def _image_mean(group: _Group, files: Sequence[str]) -> _Image:
    """Return PSNR and share of unchanged images in the mean over seeds of each seed's own mean."""
    if not files or not all(files):
        return _Image(reason="not measured, or the defence does not change images")
    found = [group.results.images(name) for name in files]
    shares = [one.share_unchanged for one in found if one.share_unchanged is not None]
    unchanged = float(np.mean(shares)) if len(shares) == len(found) else None
    psnr = [one.means.get("psnr") for one in found if not one.reason]
    values = [value for value in psnr if value is not None]
    if len(values) < len(found):
        reason = next((one.reason for one in found if one.reason), "not finite")
        return _Image(unchanged=unchanged, reason=reason)
    return _Image(float(np.mean(values)), unchanged)
