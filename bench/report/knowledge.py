"""What a defence knew that a tracker's need not: the attack it is measured against, its surrogates, the tracker."""

from collections.abc import Sequence

from bench.report.wording import few, listing
from bench.run.folder import CellResult

_SEEN = {"seen": "on {}", "seen-with-other-parameters": "on other parameters of {}"}


def knowledge(cells: Sequence[CellResult], defense: str) -> str:
    """Return on what a defence was trained, as ``it was trained …``; "" where none of that favours it.

    Args:
        cells: those that are spoken of.
        defense: canonical name.
    """
    own = [cell for cell in cells if cell.defense == defense and cell.attack != "none"]
    said = []
    for mark, how in _SEEN.items():
        seen = dict.fromkeys(cell.attack for cell in own if cell.threat.attack_seen_by_defense == mark)
        if seen:
            said.append(how.format(few(list(seen), "attack of this run", "attacks of this run")))
    shared = dict.fromkeys(cell.attack for cell in own if cell.threat.extractors_are_surrogates)
    if shared:
        every = len(shared) > 1 and set(shared) == {cell.attack for cell in own}
        whose = "every attack" if every else few(list(shared), "attack of this run", "attacks of this run")
        said.append(f"with surrogates of {whose} as extractors")
    if any(cell.threat.extractor_is_tracker for cell in own):
        said.append("with a tracker's own features")
    return f"it was trained {listing(said)}" if said else ""
