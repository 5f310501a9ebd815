"""A run's folder of many cells whose decisions are drawn, not computed: what tables and reports take is measured on it.

    python -m benchmarks.drawn_run FOLDER --attacks 24 --defenses 40 --identities 24

Everything but the rates is what a run writes: one file of decisions a cell, of measures an image set, of diagnoses.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from bench.contracts import ConditionFacts, Decided, Split
from bench.quality import per_image
from bench.quality.diagnosis import AttackDiagnosis, PurifiedShard, PurifierDiagnosis
from bench.quality.near_duplicates import SamePhotos
from bench.run import decision_files, decisions
from bench.run.folder import CellResult, RunFolder, describe_machine
from bench.run.planning import Options, Prepared, prepare
from bench.run.spec import Cell, RunSpec


def matrix(attacks: int, defenses: int, identities: int) -> RunSpec:
    """Return a matrix of (attacks + 1) · (defenses + 1) cells on drawn faces."""
    return RunSpec(
        attacks=tuple(f"pgd:steps={n + 1}" for n in range(attacks)),
        defenses=tuple(f"jpeg:quality={n + 10}" for n in range(defenses)),
        backbones=("synthetic-mobilefacenet",),
        dataset=f"synthetic:identities={identities}",
    )


def plan(spec: RunSpec, folder: Path) -> Prepared:
    """Plan a matrix with one thread and an empty store."""
    with tempfile.TemporaryDirectory() as store:
        return prepare(spec, Options(threads=1, store=Path(store), out=folder))


def draw(prepared: Prepared, seed: int = 0) -> RunFolder:
    """Write the folder of a run with drawn rates: each attack and each defence has its own success."""
    folder, rng = prepared.folder, np.random.default_rng(seed)
    machine = describe_machine("cpu", 1)
    folder.write_facts(prepared.facts, prepared.run.split, machine)
    strength = {name: rng.uniform(0.3, 0.9) for name in prepared.run.spec.attacks} | {"none": 0.03}
    left = {name: rng.uniform(0.05, 1.0) for name in prepared.run.spec.defenses} | {"none": 1.0}
    written: list[CellResult] = []
    for cell in prepared.run.cells:
        rows = _rows(prepared.run.split, max(strength[cell.attack] * left[cell.defense], 0.03), rng)
        artefact = decisions.to_bytes(Decided(rows, {"": ConditionFacts()}))
        written.append(_write(folder, prepared, cell, artefact, rng))
    folder.write_cells(written)
    folder.write_manifest()
    return folder


def _write(
    folder: RunFolder, prepared: Prepared, cell: Cell, artefact: bytes, rng: np.random.Generator
) -> CellResult:
    """Write a cell's files and return its entry."""
    stem = f"{prepared.run.cells.index(cell):05d}"
    images = [image for photos in prepared.run.split.gallery.values() for image in photos]
    files = {
        f"decisions/{stem}.parquet": decision_files.to_bytes(
            artefact, decision_files.name_of(cell, prepared.run.spec)
        ),
        "diagnoses/photos.json": SamePhotos(probes=len(images)).to_bytes(),
    }
    named = {"decisions": f"decisions/{stem}.parquet", "photo_diagnosis": "diagnoses/photos.json"}
    if cell.attack != "none":
        which = prepared.run.spec.attacks.index(cell.attack)
        named |= {
            "cloak_measures": f"images/cloak-{which}.parquet",
            "attack_diagnosis": f"diagnoses/attack-{which}.json",
        }
        found = AttackDiagnosis(goal="untargeted", max_linf=255, max_dssim=None, probes=())
        files[named["attack_diagnosis"]] = found.model_dump_json().encode()
        files[named["cloak_measures"]] = per_image.to_bytes(_measures(images, rng))
    if cell.defense != "none":
        named |= {
            "purified_measures": f"images/purified-{stem}.parquet",
            "purifier_diagnosis": f"diagnoses/purifier-{stem}.json",
        }
        shard = PurifiedShard(changes=dict.fromkeys(images, 9), spread_given=40, spread_returned=39)
        files[named["purifier_diagnosis"]] = PurifierDiagnosis(shards=(shard,)).model_dump_json().encode()
        files[named["purified_measures"]] = per_image.to_bytes(_measures(images, rng))
    for name, content in files.items():
        path = folder.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return CellResult(
        **cell._asdict(),
        requested=cell in prepared.run.cells_requested,
        status="ok",
        threat=prepared.threats[cell],
        **named,
    )


def _rows(split: Split, error: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return decisions of every probe in every rotation; only who is protected errs at that rate."""
    probes = [(name, image) for name, images in split.probes.items() for image in images]
    names = np.array([name for name, _ in probes], dtype=object)
    every = len(probes) * split.folds
    fold = np.repeat(np.arange(split.folds, dtype=np.int16), len(probes))
    identity = np.tile(names, split.folds)
    protected = np.array([split.fold[name] for name in identity]) == fold
    wrong = rng.random(every) < np.where(protected, error, 0.02)
    others = np.array(sorted(split.gallery), dtype=object)
    another = others[(np.searchsorted(others, identity) + rng.integers(1, len(others), every)) % len(others)]
    return pd.DataFrame(
        {
            "fold": fold,
            "identity": identity,
            "image": np.tile(np.array([image for _, image in probes], dtype=object), split.folds),
            "protected": protected,
            "predicted": np.where(wrong, another, identity),
            "correct": ~wrong,
            "score": rng.uniform(0.2, 0.9, every).astype(np.float32),
            "margin": rng.uniform(-0.2, 0.4, every).astype(np.float32),
        }
    )


_RANGES = {"psnr": (20, 40), "ssim": (0.6, 1), "dssim": (0, 0.2), "linf": (4, 32), "lpips": (0, 0.4)}


def _measures(images: list[str], rng: np.random.Generator) -> pd.DataFrame:
    drawn = {name: rng.uniform(*_RANGES[name], len(images)) for name in per_image.COLUMNS[1:-1]}
    return pd.DataFrame({"image": images, **drawn, "changed": True})[list(per_image.COLUMNS)]


def main() -> None:
    """Write a folder and say how many cells it has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--attacks", type=int, default=24)
    parser.add_argument("--defenses", type=int, default=40)
    parser.add_argument("--identities", type=int, default=24)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    prepared = plan(matrix(asked.attacks, asked.defenses, asked.identities), asked.folder)
    draw(prepared)
    print(f"{len(prepared.run.cells)} cells in {asked.folder}")


if __name__ == "__main__":
    main()
