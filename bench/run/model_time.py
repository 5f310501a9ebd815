"""Were the tracker's weights published after everything the attack could work with?

A cloak posted today meets the networks of tomorrow. A row says so only where dates of publication tell, which cards
state to the year, the month or the day (`bench.contracts.BackboneCard.released`).
"""

from collections.abc import Mapping
from typing import Literal

ModelTime = Literal["later", "not-later", ""]

NOT_RECORDED = "the run is of a version that did not record it"
"""Reason in runs that were made before the column was there."""

NO_SURROGATES = "the attack has no surrogates"


def model_time(tracker: str, released: str, surrogates: Mapping[str, str]) -> tuple[ModelTime, str]:
    """Return whether a tracker's weights are later than every surrogate's, and why that is not known.

    >>> model_time("t", "2021-09-22", {"a": "2018", "b": "2021-09"})
    ('', 'published 2021-09-22 (t) and 2021-09 (b): too coarse to say which is later')
    >>> model_time("t", "2021-10", {"a": "2018", "b": "2021-09"})
    ('later', '')
    >>> model_time("t", "2017-02-12", {"a": "2018", "b": ""})
    ('not-later', '')
    >>> model_time("t", "2022", {"a": "2018", "b": ""})
    ('', 'no date of publication is known of b')

    Args:
        tracker: name of the tracker's backbone.
        released: when its weights were published, YYYY[-MM[-DD]]; "" where that is not known.
        surrogates: name of each surrogate → when its weights were published, likewise.

    Returns:
        ``later``, ``not-later`` (one surrogate's are as late or later), or "" with the reason.
    """
    if not surrogates:
        return "", NO_SURROGATES
    if released and any(_last(released) <= _first(date) for date in surrogates.values() if date):
        return "not-later", ""
    undated = [name for name, date in {tracker: released, **surrogates}.items() if not date]
    if undated:
        return "", f"no date of publication is known of {', '.join(undated)}"
    close = {name: date for name, date in surrogates.items() if _first(released) <= _last(date)}
    if not close:
        return "later", ""
    said = ", ".join(f"{date} ({name})" for name, date in close.items())
    return "", f"published {released} ({tracker}) and {said}: too coarse to say which is later"


def _first(date: str) -> str:
    """Return the first day that a date may mean."""
    return date + "-01-01"[len(date) - len("YYYY") :]


def _last(date: str) -> str:
    """Return the last day that a date may mean; of a month the 31st, as days are only compared."""
    return date + "-12-31"[len(date) - len("YYYY") :]
