"""What a run wants of the catalogue: its dataset, trackers, helpers of the pools, attacks, defences with their parts.

The plan's own resolution is asked (`bench.run.resolve`), so that what it would load is what is named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.assets import catalogue
from bench.assets.catalogue import ByHand
from bench.contracts import AssetEntry, Method, with_parts
from bench.data.files import data_folder
from bench.errors import UsageError
from bench.plugins import factory
from bench.run.bound import helper_names
from bench.run.resolve import Resolved, resolve
from bench.run.spec import RunSpec


@dataclass(frozen=True)
class Needs:
    """What a run wants that the project does not ship.

    Attributes:
        entries: what ``bench fetch`` calls it → entry; sorted by kind, datasets first.
        by_hand: datasets that their publishers hand out themselves and whose folder is not here.
    """

    entries: dict[str, AssetEntry]
    by_hand: tuple[ByHand, ...]

    def missing(self) -> tuple[str, ...]:
        """Return the names of what is not here, by the presence of the files."""
        return tuple(name for name, entry in self.entries.items() if not _is_here(entry))


def needs_of(requested: RunSpec) -> Needs:
    """Return what a run wants.

    Raises:
        UsageError: the specification names what does not exist.
    """
    run = resolve(requested)
    found: dict[str, AssetEntry] = {}
    for method in (run.dataset, run.protocol, *_methods(run)):
        for entry in method.assets():
            found.setdefault(_called(entry, method), entry)
    found |= {entry.name: entry for entry in catalogue.OWN}
    ordered = sorted(found.items(), key=lambda item: item[1].kind)
    return Needs(dict(ordered), tuple(_handed_out(run.dataset)))


def _handed_out(dataset: Method) -> Iterator[ByHand]:
    entry = catalogue.by_hand(dataset.name)
    path = getattr(dataset.params, "path", "")
    if entry is not None and not catalogue.place_of(entry, path).is_dir():
        yield entry


def _methods(run: Resolved) -> Iterator[Method]:
    """Yield trackers, attacks, defences and purifiers of channels with parts and helpers, as the plan binds them."""
    channels = {text.strip() for view in run.protocol.views.values() for text in view.channel.split("+")}
    purifiers = [factory.defense(text) for text in sorted(channels - {""})]
    for tracker, backbone in run.backbones.items():
        yield backbone
        for method in (*run.attacks.values(), *run.defenses.values(), *purifiers):
            binding = run.binding(method, tracker)
            yield from (part for part, _ in with_parts(method, binding))
            for name in helper_names(binding):
                helper: Method = run.plugin("backbones", name).method
                yield helper


def _called(entry: AssetEntry, method: Method) -> str:
    """Return the name by which ``bench fetch`` finds an entry: with the method's parameters where these decide it."""
    try:
        if catalogue.find(entry.name) == entry:
            return entry.name
    except UsageError:
        pass
    return factory.canonical(method)


def _is_here(entry: AssetEntry) -> bool:
    return all((data_folder() / file.path).is_file() for file in entry.files)
