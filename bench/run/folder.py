"""A run on disk: what was requested, on what machine, every decision and image measure, and nothing aggregated.

spec.json          what was requested and its canonical form, the command, the benchmark's version
environment.json   packages, hardware, threads, device, determinism
splits.json        who is evaluated, on which photos, protected in which rotation (opaque ids)
cells.json         one entry a cell: status, reason, threat model, files
decisions/         one Parquet file a cell (`bench.run.decisions.SCHEMA`), with the cell's name inside
images/            image measures, one Parquet file a set of images
diagnoses/         what attacks and purifiers did (`bench.quality.diagnosis`), and photos that are in twice; JSON files
manifest.json      SHA-256 and size of every other file
timings.csv        seconds by stage and method; never part of a leaderboard
run.log            what was computed and what was reused
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from bench.contracts import Decided, Frozen, Split
from bench.errors import DataError, UsageError
from bench.files import write_atomically
from bench.run import decision_files
from bench.run.decisions import CodedTable
from bench.run.digest import REPORTED_PACKAGES, digest, package_versions
from bench.run.precision import Precision
from bench.run.provenance import MethodFacts
from bench.run.renamed import with_names_of_today
from bench.run.spec import BENCHMARK_VERSION, DEVELOPMENT_NOTE, Cell, RunSpec
from bench.run.threat import CellThreat
from bench.run.trained import Training

T = TypeVar("T")

_REPAIR = "`bench verify` says what else is; run the same command again to write it anew."


class CellResult(Frozen):
    """What became of one cell."""

    attack: str
    defense: str
    backbone: str
    head: str
    seed: int
    requested: bool = Field(description="False for reference cells the plan added")
    status: str = Field(description="ok or failed")
    reason: str = Field("", description="why it failed")
    threat: CellThreat
    trained: dict[Literal["attack", "defense"], Training] | None = Field(
        None,
        description="which of the two has trained parts → run: trained in the run, anew under each seed; weights: read "
        "from files, one training for all seeds; None: of an earlier version, which did not record it",
    )
    decisions: str = Field("", description="file of its decisions, inside the run folder")
    cloak_measures: str = Field("", description="file of cloak against original")
    purified_measures: str = Field("", description="file of purified against original")
    restored_measures: dict[str, str] = Field({}, description="condition → file of restored against original")
    restored_to_cloak_measures: dict[str, str] = Field(
        {}, description="condition → file of restored against cloak"
    )
    attack_diagnosis: str = Field("", description="file of what the attack did; empty: it changes no image")
    purifier_diagnosis: str = Field("", description="file of what the purifier did; empty: there is none")
    detection: str = Field(
        "", description="file of what the defence's detector flagged; empty: it has none, or several"
    )
    photo_diagnosis: str = Field(
        "", description="file of the probes that are gallery photos saved again; empty where nobody looked"
    )

    @property
    def cell(self) -> Cell:
        """The point of the matrix."""
        return Cell(self.attack, self.defense, self.backbone, self.head, self.seed)

    def files(self) -> tuple[str, ...]:
        """Return every file of the cell."""
        restored = (*self.restored_measures.values(), *self.restored_to_cloak_measures.values())
        measures = (self.cloak_measures, self.purified_measures, *restored)
        diagnoses = (
            *(self.attack_diagnosis, self.purifier_diagnosis, self.detection),
            self.photo_diagnosis,
        )
        named = (self.decisions, *measures, *diagnoses)
        return tuple(filter(None, named))


class RunFacts(Frozen):
    """What was requested of a run."""

    run: str = Field(description="digest of the specification")
    benchmark_version: str = BENCHMARK_VERSION
    requested: RunSpec
    spec: RunSpec
    task: str = Field("", description="dataset, protocol and split, with their version (`bench.run.task`)")
    given_targets: str = Field(
        "", description="digest of who imitates whom, where the protocol says so; empty: attacks draw"
    )
    dataset_note: str = ""
    lpips_trunk: str = Field("", description="SHA-256 of LPIPS' trunk; empty where there is none")
    lpips_reason: str = Field("", description="why there is no LPIPS, and the fix")
    command: str = ""
    fingerprint: str = Field("", description="digest of the photos and all that decides their crops")
    methods: tuple[MethodFacts, ...] = Field((), description="code and files of every method, by digest")
    device: str = Field("", description="where it was computed: cpu or cuda[:N]")
    threads: int | None = Field(None, description="threads torch computed with")
    batch_size: int | None = Field(None, description="images handed to a method per call; changes no byte")
    precision: Precision = Field("float32", description="what trackers' backbones multiplied in")

    @property
    def caution(self) -> str:
        """The dataset's note, and what else every row must say of whom it is and how it was made."""
        split = "" if self.spec.split == "evaluation" else DEVELOPMENT_NOTE
        precision = "" if self.precision == "float32" else f"Trackers embed in {self.precision}."
        return " ".join(filter(None, (split, self.dataset_note, precision)))


class ManifestEntry(Frozen):
    """One file of a run's folder."""

    sha256: str
    size: int = Field(description="bytes")


MANIFEST = "manifest.json"

FILES = (
    "spec.json", "environment.json", "splits.json", "cells.json", "leaderboard.csv", "timings.csv", "run.log",
)  # fmt: skip
"""What a run writes at the top of its folder, besides the manifest."""

FOLDERS = ("decisions", "images", "diagnoses")
"""What holds the files that ``cells.json`` names."""


class RunFolder:
    """Reads and writes a run's folder.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest: tuple[tuple[int, int, int], Mapping[str, ManifestEntry]] | None = None

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file, whole or not at all."""
        write_atomically(self.path / name, as_json(value))

    def write_facts(self, facts: RunFacts, split: Split, machine: Mapping[str, Any]) -> None:
        """Write what was requested, who is evaluated and on what machine, before any work.

        What an earlier execution of the same run left is replaced: a folder without ``cells.json`` is not finished.

        Raises:
            UsageError: the folder holds another run.
        """
        self.check_free_for(facts.run)
        for stale in ("cells.json", "leaderboard.csv", MANIFEST):
            (self.path / stale).unlink(missing_ok=True)
        self.write_json("spec.json", facts.model_dump(mode="json"))
        self.write_json("splits.json", split_json(split))
        self.write_json("environment.json", machine)

    def check_free_for(self, run: str) -> None:
        """Check that nothing of another run would be written over.

        Args:
            run: digest of the run that is to be written here.

        Raises:
            UsageError: the folder holds another run.
        """
        try:
            there = json.loads((self.path / "spec.json").read_bytes())["run"]
        except (FileNotFoundError, NotADirectoryError):
            return
        except (ValueError, KeyError, TypeError):
            there = "with a damaged spec.json"
        if there != run:
            raise UsageError(
                f"{self.path} holds run {there}, and this is run {run}, which would be written over it. Choose another "
                "folder with --out, or remove that one."
            )

    def write_bytes(self, name: str, payload: bytes) -> None:
        """Write one file."""
        write_atomically(self.path / name, payload)

    def write_cells(self, cells: list[CellResult]) -> None:
        """Write the state of every cell."""
        self.write_json("cells.json", [cell.model_dump(mode="json") for cell in cells])

    def entries(self, also: Iterable[str] = ()) -> dict[str, ManifestEntry]:
        """Return every file as it is now that lies where a run writes or is in `also`, the manifest itself left out.

        Whatever else lies in the folder, such as tables made from the run later or a store, is no part of the run.
        """
        inside = (path for name in FOLDERS for path in (self.path / name).rglob("*"))
        named = (self.path / name for name in (*FILES, *also))
        files = (path for path in {*named, *inside} if path.is_file())
        return {
            path.relative_to(self.path).as_posix(): _entry(path)
            for path in sorted(files)
            if not path.name.startswith(".")
        }

    def extras(self) -> dict[str, int]:
        """Return what lies at the folder's top besides the run → how many files it has."""
        own = {*FILES, *FOLDERS, MANIFEST}
        return {
            path.name: 1 if path.is_file() else sum(inner.is_file() for inner in path.rglob("*"))
            for path in sorted(self.path.iterdir())
            if path.name not in own and not path.name.endswith(".tmp")
        }

    def write_manifest(self) -> None:
        """Write the digest of every file of the run; the last thing a run does."""
        named = {name for cell in self.cells() for name in cell.files()}
        entries = {name: entry for name, entry in self.entries().items() if name in {*FILES, *named}}
        self.write_json(MANIFEST, {name: entry.model_dump() for name, entry in entries.items()})

    def manifest(self) -> dict[str, ManifestEntry]:
        """Return the digests as they were written.

        Raises:
            DataError: there is no manifest, or it is damaged.
        """
        return self._parsed(
            MANIFEST,
            lambda found: {name: ManifestEntry.model_validate(entry) for name, entry in found.items()},
        )

    def content(self, name: str) -> bytes:
        """Return one of the run's files, checked against the manifest where the run has finished and has one.

        Raises:
            DataError: the file is missing, cannot be read, or is not what the run wrote.
        """
        path = self.path / name
        try:
            payload = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"{path} is missing; run the same command again to write it.") from None
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
        listed = self._listed()
        if listed is None:
            return payload
        if name not in listed:
            raise DataError(f"{path} is no file of this run: {MANIFEST} does not list it. {_REPAIR}")
        if sha256(payload).hexdigest() != listed[name].sha256:
            raise DataError(
                f"{path} is not what the run wrote: {MANIFEST} has another digest of it. {_REPAIR}"
            )
        return payload

    def decided(self, result: CellResult, spec: RunSpec) -> Decided:
        """Return a finished cell's decisions, checked against the manifest and the name inside their file.

        Args:
            result: the cell.
            spec: the run's, in canonical form.

        Raises:
            DataError: the file is missing, damaged, or another cell's.
        """
        name = decision_files.name_of(result.cell, spec)
        return decision_files.from_bytes(
            self.content(result.decisions), str(self.path / result.decisions), name
        )

    def coded(self, result: CellResult, spec: RunSpec) -> CodedTable:
        """Return a finished cell's decisions as `decided` does, each name a number that stands for it."""
        name = decision_files.name_of(result.cell, spec)
        return decision_files.coded_from_bytes(
            self.content(result.decisions), str(self.path / result.decisions), name
        )

    def check_files(self, *names: str) -> None:
        """Check files against the manifest, where there is one; see `content`."""
        if self._listed() is not None:
            for name in names:
                self.content(name)

    def _listed(self) -> Mapping[str, ManifestEntry] | None:
        """Return the manifest, read once as long as it is the same file; None before the run is finished."""
        try:
            found = (self.path / MANIFEST).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._manifest is None or self._manifest[0] != stamp:
            self._manifest = (stamp, self.manifest())
        return self._manifest[1]

    def split(self) -> Split:
        """Return who was evaluated, on which photos.

        Raises:
            DataError: the folder is not a run, or its file is damaged.
        """

        def made(found: Any) -> Split:
            named = {
                key: {k: tuple(v) for k, v in found[key].items()} for key in ("gallery", "probes", "cloaked")
            }
            return Split(fold=found["fold"], **named)

        return self._parsed("splits.json", made)

    def machine(self) -> dict[str, Any]:
        """Return the machine the run was made on.

        Raises:
            DataError: the folder is not a run, or its file is damaged.
        """
        return self._parsed("environment.json", dict)

    def facts(self) -> RunFacts:
        """Return what was requested.

        Raises:
            DataError: the folder is not a run, or its file is damaged.
        """
        where = str(self.path / "spec.json")
        return self._parsed(
            "spec.json",
            lambda found: RunFacts.model_validate_json(json.dumps(with_names_of_today(found, where))),
        )

    def cells(self) -> list[CellResult]:
        """Return every cell.

        Raises:
            DataError: the folder is not a run, or its file is damaged.
        """
        where = str(self.path / "cells.json")
        return self._parsed(
            "cells.json",
            lambda found: [CellResult.model_validate(item) for item in with_names_of_today(found, where)],
        )

    def _parsed(self, name: str, make: Callable[[Any], T]) -> T:
        try:
            return make(json.loads(self._read(name)))
        except ValidationError as error:
            raise self._not_readable(name, error) from None
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(f"{self.path / name} is damaged: {error!r}.") from None

    def _not_readable(self, name: str, error: ValidationError) -> DataError:
        """Tell a file of another version, which has other fields, from a damaged one."""
        unknown = [
            ".".join(map(str, found["loc"]))
            for found in error.errors()
            if found["type"] in ("extra_forbidden", "missing")
        ]
        if not unknown:
            return DataError(f"{self.path / name} is damaged: {error.errors()[0]['msg']}.")
        return DataError(
            f"{self.path / name} was made by another version of CloakBench: this one does not know, or misses, the "
            f"field {', '.join(unknown)}. The run was made with benchmark version {self._version_there()}; this is "
            f"version {BENCHMARK_VERSION}. Read it with the version that made it, or make the run again."
        )

    def _version_there(self) -> str:
        try:
            return str(json.loads(self._read("spec.json"))["benchmark_version"])
        except (ValueError, KeyError, TypeError, DataError):
            return "unknown"

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"'{self.path}' is not a finished run (it has no {name}). `bench run` prints the folder of a run."
            ) from None


def as_json(value: Any) -> bytes:
    """Return a JSON file of a run's folder."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _entry(path: Path) -> ManifestEntry:
    with path.open("rb") as file:
        return ManifestEntry(sha256=file_digest(file, "sha256").hexdigest(), size=path.stat().st_size)


def file_stem(*parts: Any) -> str:
    """Return a file name that says what is inside and is unique: readable parts and a short digest."""
    readable = "__".join(re.sub(r"[^A-Za-z0-9.=+-]+", "_", str(part)).strip("_")[:60] for part in parts)
    return f"{readable}__{digest([str(part) for part in parts])[:8]}"


def decisions_file(cell: Cell) -> str:
    """Return the name of a cell's file of decisions, inside the run's folder."""
    return f"decisions/{file_stem(*cell)}.parquet"


def split_json(split: Split) -> dict[str, Any]:
    """Return a split as it is written."""
    photos = {"gallery": split.gallery, "probes": split.probes, "cloaked": split.cloaked}
    listed = {name: {key: list(value) for key, value in part.items()} for name, part in photos.items()}
    return {**listed, "fold": dict(split.fold)}


def describe_machine(device: str, threads: int, precision: Precision = "float32") -> dict[str, Any]:
    """Return packages, hardware, threads, device and determinism flags, without host or user names."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": package_versions(REPORTED_PACKAGES),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpu_cores": os.cpu_count(),
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "device": device,
        **_describe_cuda(device),
        "dtype": "float32" if precision == "float32" else f"float32, {precision} in embedding",
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "byte_order": sys.byteorder,
    }


def _describe_cuda(device: str) -> dict[str, str]:
    import torch

    if not device.startswith("cuda"):
        return {"cuda_device": "", "cuda": "", "cudnn": "", "cuda_driver": ""}
    return {
        "cuda_device": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        "cuda_driver": _cuda_driver(),
    }


def _cuda_driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603  # fixed
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (found.stdout.splitlines() or ["unknown"])[0].strip()


def _cpu_model() -> str:
    """Return the processor's name as the system states it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")
