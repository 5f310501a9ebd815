"""The files of cells in a run's folder, as bytes: decisions, image measures, diagnoses."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.quality import diagnosis, per_image
from bench.quality.detections import DetectedShard, Detections
from bench.quality.near_duplicates import SamePhotos
from bench.run import decision_files
from bench.run.digest import digest
from bench.run.folder import CellResult, RunFolder, decisions_file, file_stem
from bench.run.graph import Node, NodeError
from bench.run.planning import Prepared
from bench.run.spec import Cell
from bench.run.trained import trained_parts

log = logging.getLogger("bench")

Fetch = Callable[[Node], bytes]
"""Gives an artefact's payload, or raises `NodeError`."""


class Outputs:
    """Makes the files of cells from artefacts, those that cells share once.

    Args:
        prepared: the run.
        fetch: gives its artefacts.
    """

    def __init__(self, prepared: Prepared, fetch: Fetch) -> None:
        self.prepared = prepared
        self.fetch = fetch
        self._made: set[str] = set()

    def write_cells(self, folder: RunFolder) -> list[CellResult]:
        """Write the files of every cell, then what became of each; returns that."""
        results = []
        for cell in self.prepared.run.cells:
            result, files = self.cell(cell)
            for name, content in files.items():
                folder.write_bytes(name, content)
            results.append(result)
        folder.write_cells(results)
        failed = sum(result.status != "ok" for result in results)
        log.info("%d cells done, %d failed", len(results) - failed, failed)
        return results

    def cell(self, cell: Cell) -> tuple[CellResult, Mapping[str, bytes]]:
        """Return a cell's entry in ``cells.json``, and name → content of those of its files no earlier cell had."""
        files: dict[str, bytes] = {}
        named: Mapping[str, Any] = {}
        status, reason = "ok", ""
        try:
            named = self._named(cell, files)
        except NodeError as error:
            status, reason = "failed", str(error)
        self._made |= files.keys()
        result = CellResult(
            **cell._asdict(),
            requested=cell in self.prepared.run.cells_requested,
            status=status,
            reason=reason,
            threat=self.prepared.threats[cell],
            trained=trained_parts(self.prepared.run, cell),
            **named,
        )
        return result, files

    def _named(self, cell: Cell, files: dict[str, bytes]) -> Mapping[str, Any]:
        """Add a cell's files to `files` and return their names as `CellResult` has them."""
        nodes = self.prepared.nodes[cell]
        decisions = decisions_file(cell)
        name = decision_files.name_of(cell, self.prepared.run.spec)
        files[decisions] = decision_files.to_bytes(self.fetch(nodes.decision), name)

        def restored(kind: str, found: Mapping[str, Sequence[Node]]) -> dict[str, str]:
            return {condition: self.measures(kind, shards, files) for condition, shards in found.items()}

        return {
            "decisions": decisions,
            "cloak_measures": self.measures("cloak_measures", nodes.cloak_measures, files),
            "purified_measures": self.measures("purified_measures", nodes.purified_measures, files),
            "restored_measures": restored("restored", nodes.restored_measures),
            "restored_to_cloak_measures": restored("restored_to_cloak", nodes.restored_to_cloak_measures),
            **self.diagnoses(cell, files),
        }

    def measures(self, kind: str, nodes: Sequence[Node], files: dict[str, bytes]) -> str:
        """Add the image measures of `nodes` to `files` as one; returns its name, or "" where there are none."""
        if not nodes:
            return ""
        joint = digest([node.address for node in nodes])[:8]
        name = f"images/{file_stem(kind, nodes[0].label)}-{joint}.parquet"
        if name not in self._made and name not in files:
            parts = [per_image.from_bytes(self.fetch(node)) for node in nodes]
            files[name] = per_image.to_bytes(pd.concat(parts, ignore_index=True))
        return name

    def diagnoses(self, cell: Cell, files: dict[str, bytes]) -> dict[str, str]:
        """Add what is known of a cell's attack, purifier and photos; that it could not be found out fails no cell."""
        nodes = self.prepared.nodes[cell]
        point = (cell.attack, cell.backbone, cell.seed)
        named: dict[str, str] = {}
        if self.prepared.run.attacks[cell.attack].changes_images:
            named["attack_diagnosis"] = f"diagnoses/{file_stem('attack', *point)}.json"
        if nodes.purifier_probes:
            named["purifier_diagnosis"] = f"diagnoses/{file_stem('purifier', cell.defense, *point)}.json"
        if nodes.detections:
            named["detection"] = f"diagnoses/{file_stem('detection', cell.defense, *point)}.json"
        if nodes.photo_probes:
            joint = digest([node.address for node in nodes.photo_probes])[:8]
            named["photo_diagnosis"] = f"diagnoses/photos-{joint}.json"
        make = {
            "attack_diagnosis": self._attack,
            "purifier_diagnosis": self._purifier,
            "detection": self._detections,
            "photo_diagnosis": self._photos,
        }
        for kind, name in named.items():
            if name not in self._made and name not in files:
                files[name] = diagnosis.to_bytes(make[kind](cell))
        return named

    def _photos(self, cell: Cell) -> SamePhotos:
        payloads, reason = self._all(self.prepared.nodes[cell].photo_probes)
        return (
            diagnosis.read(SamePhotos, payloads[0], "a stored diagnosis")
            if payloads
            else SamePhotos(reason=reason)
        )

    def _attack(self, cell: Cell) -> diagnosis.AttackDiagnosis:
        threat = self.prepared.run.attacks[cell.attack].threat
        payloads, reason = self._all(self.prepared.nodes[cell].attack_probes)
        return diagnosis.AttackDiagnosis(
            goal=threat.goal,
            max_linf=threat.max_linf,
            max_dssim=threat.max_dssim,
            adapts_to=threat.adapts_to,
            probes=tuple(one for part in payloads for one in diagnosis.probes_from_bytes(part)),
            reason=reason,
        )

    def _purifier(self, cell: Cell) -> diagnosis.PurifierDiagnosis:
        payloads, reason = self._all(self.prepared.nodes[cell].purifier_probes)
        shards = tuple(diagnosis.shard_from_bytes(part) for part in payloads)
        return diagnosis.PurifierDiagnosis(shards=shards, reason=reason)

    def _detections(self, cell: Cell) -> Detections:
        nodes = self.prepared.nodes[cell]
        payloads, reason = self._all(nodes.detections)
        shards = [diagnosis.read(DetectedShard, part, "a stored detection") for part in payloads]
        cloaks = len(nodes.cloak_detections)
        return Detections(cloaked=tuple(shards[:cloaks]), natural=tuple(shards[cloaks:]), reason=reason)

    def _all(self, nodes: Sequence[Node]) -> tuple[list[bytes], str]:
        """Return the payloads, or none and why."""
        try:
            return [self.fetch(node) for node in nodes], ""
        except NodeError as error:
            return [], str(error)
