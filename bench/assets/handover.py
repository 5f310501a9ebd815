"""Crops for methods that run elsewhere, and the cloaks that come back: `bench export crops`, `bench import cloaks`.

What lives here: the two folders and what is checked of them. What must not: what a run makes of the cloaks (the attack
`precomputed`).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts import CROP_SIZE, Frozen, Split
from bench.data.cloak_cards import CARD, CloakCard, CloakFile, read_listing
from bench.errors import DataError, UsageError
from bench.faces.alignment import TEMPLATE
from bench.faces.photos import read_photo
from bench.files import refuse_full, write_atomically
from bench.plugins import registry
from bench.run import calls
from bench.run.photo_sets import shown_photos
from bench.run.resolve import Resolved

MANIFEST = "manifest.json"
SHARD = 64
"""Photos read at a time."""

Report = Callable[[int, int], None]
Image = NDArray[np.uint8]


class CropFile(Frozen):
    """One crop."""

    file: str = Field(
        min_length=1, description="path inside the folder, with /; its cloak is to have the same"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file")
    identity: str = Field(description="whose photo it is")
    role: Literal["gallery", "probe"] = Field(description="what the tracker trains on, or is asked about")
    fold: int = Field(ge=0, description="rotation in which the identity is protected")
    target: str = Field(
        "", description="identity id that its cloak is to imitate, where the protocol says whom"
    )


class CropManifest(Frozen):
    """What is in a folder of crops."""

    format: Literal[1] = 1
    dataset: str = Field(description="canonical name")
    dataset_fingerprint: str = Field(description="digest of everything that decides the crops")
    split: str = Field(description="evaluation or development")
    split_seed: int
    protocol: str = Field(description="canonical; it deals gallery, probes and folds")
    crop_size: int = Field(description="side in pixels")
    landmarks: tuple[tuple[float, float], ...] = Field(
        description="where alignment put eyes, nose and the corners of the mouth in every crop, (x, y) in pixels"
    )
    photos: Mapping[str, CropFile] = Field(min_length=1, description="image id → its crop")
    targets: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="identity id of a target → files of the photos by which a method may know it; empty where each "
        "method draws whom it imitates",
    )


def export_crops(run: Resolved, out: Path, report: Report) -> CropManifest:
    """Write every gallery photo and probe of a run's split as PNG, and the manifest last.

    Files are ``IDENTITY/PHOTO.png`` by number, so that no name of a person or of a file travels.

    Args:
        run: dataset, split and protocol.
        out: a folder that is empty or not there.
        report: called with (photos written, photos in all).

    Raises:
        UsageError: the folder holds something.
        DataError: a photo cannot be read.
        StoreError: the disk is full or the folder cannot be written.
    """
    refuse_full(out)
    listed = list(_listed(run.split))
    shown = _targets(run)
    in_all = len(listed) + sum(map(len, shown.values()))
    photos: dict[str, CropFile] = {}
    written = _written(run, [(image, file) for image, *_, file in listed], out)
    for done, ((image, identity, role, file), sha256) in enumerate(zip(listed, written, strict=True), 1):
        photos[image] = CropFile(
            file=file,
            sha256=sha256,
            identity=identity,
            role=role,
            fold=run.split.fold[identity],
            target=run.given_targets.get(identity, ""),
        )
        report(done, in_all)
    of_targets = [pair for pairs in shown.values() for pair in pairs]
    for done, _ in enumerate(_written(run, of_targets, out), len(listed) + 1):
        report(done, in_all)
    manifest = CropManifest(
        dataset=run.spec.dataset,
        dataset_fingerprint=run.fingerprint,
        split=run.spec.split,
        split_seed=run.spec.split_seed,
        protocol=run.spec.protocol,
        crop_size=CROP_SIZE,
        landmarks=tuple((float(x), float(y)) for x, y in TEMPLATE),
        photos=photos,
        targets={name: tuple(file for _, file in pairs) for name, pairs in shown.items()},
    )
    write_atomically(out / MANIFEST, _as_json(manifest.model_dump(mode="json")))
    return manifest


def _targets(run: Resolved) -> dict[str, list[tuple[str, str]]]:
    """Return (image id, file) of the photos that attacks see of each identity that evaluated ones are to imitate."""
    named = {target for name, target in run.given_targets.items() if name in run.split.gallery}
    found = {}
    for number, identity in enumerate(one for one in run.roles.others if one.id in named):
        shown = enumerate(shown_photos(identity))
        found[identity.id] = [(image, f"targets/{number:03d}/{place:04d}.png") for place, image in shown]
    return found


def _written(run: Resolved, listed: Sequence[tuple[str, str]], out: Path) -> Iterator[str]:
    """Write crops as PNG and yield the digest of each.

    Args:
        run: whose dataset.
        listed: (image id, file) of each.
        out: the folder.
    """
    for start in range(0, len(listed), SHARD):
        part = listed[start : start + SHARD]
        crops = calls.crops(run.dataset, [image for image, _ in part])
        for (_, file), crop in zip(part, crops, strict=True):
            content = _png(crop.permute(1, 2, 0).numpy())
            path = out / file
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            yield _sha256(content)


def read_manifest(folder: Path) -> CropManifest:
    """Return the manifest of a folder of crops.

    Raises:
        DataError: there is none, or it is no manifest.
    """
    return read_listing(folder, MANIFEST, CropManifest, "`bench export crops` writes it, with the crops.")


@dataclass(frozen=True)
class Declared:
    """What whoever made the cloaks says of them; see `bench.data.cloak_cards.CloakCard`."""

    method: str
    paper: str = ""
    surrogates: tuple[str, ...] = ()
    training_identities: str = "unknown"
    constraint: str = ""
    max_linf: float | None = None
    targeted: bool = False


@dataclass(frozen=True)
class Imported:
    """What was found of the cloaks.

    Attributes:
        card: as written.
        unchanged: cloaks that are the crop itself.
        linf: largest change of a pixel, grey levels.
        psnr: mean over the others, dB; NaN where there is none.
        unknown: declared surrogates that no registered backbone is called.
    """

    card: CloakCard
    unchanged: int
    linf: int
    psnr: float
    unknown: tuple[str, ...]


def import_cloaks(folder: Path, crops: Path, declared: Declared, report: Report) -> Imported:
    """Check a folder of cloaks against the crops they were made of, and write its card.

    Args:
        folder: PNG files of the same names as the crops': all of the gallery's, and all of the probes' or none.
        crops: the folder that `export_crops` wrote.
        declared: goes into the card.
        report: called with (cloaks checked, cloaks in all).

    Raises:
        UsageError: there is no such folder; or the cloaks are to be targeted, and the crops name no targets.
        DataError: a cloak is missing, too many, no PNG of a crop's size, changes more than is declared, or the crops
            are not what was exported. No card is written.
    """
    manifest = read_manifest(crops)
    if declared.targeted and not manifest.targets:
        raise UsageError(
            f"{crops / MANIFEST} says of no photo whom its cloak is to imitate (--targeted): its protocol was "
            f"'{manifest.protocol}'. Export crops with a protocol that does, e.g. --protocol pairs, and cloak those."
        )
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder. Name the one that holds the cloaks.")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {CARD}
    wanted = _wanted(manifest, there, folder)
    files: dict[str, CloakFile] = {}
    changes, errors = [], []
    for done, (image, entry) in enumerate(sorted(wanted.items()), 1):
        if (folder / entry.file).is_symlink():
            raise DataError(
                f"{folder / entry.file} is a link. Put the file itself there, so that the folder is whole."
            )
        content, cloak = _read_cloak(folder / entry.file)
        change = np.abs(cloak.astype(np.int16) - _read_crop(crops, entry))
        changes.append(int(change.max()))
        errors.append(float(np.square(change, dtype=np.float64).mean()))
        if declared.max_linf is not None and changes[-1] > declared.max_linf:
            raise DataError(
                f"{folder / entry.file} changes a pixel by {changes[-1]} grey levels, and {declared.max_linf:g} are "
                "declared (--max-linf). Declare what is true, or make the cloak again."
            )
        files[image] = CloakFile(file=entry.file, sha256=_sha256(content))
        report(done, len(wanted))
    card = CloakCard(
        method=declared.method,
        paper=declared.paper,
        surrogates=declared.surrogates,
        training_identities=declared.training_identities,
        constraint=declared.constraint,
        max_linf=declared.max_linf,
        dataset=manifest.dataset,
        dataset_fingerprint=manifest.dataset_fingerprint,
        cloaks=files,
        targets={image: wanted[image].target for image in files} if declared.targeted else {},
    )
    write_atomically(folder / CARD, _as_json(card.model_dump(mode="json")))
    psnr = [10 * math.log10(255**2 / error) for error in errors if error]
    mean = sum(psnr) / len(psnr) if psnr else math.nan
    registered = registry.EVERY["backbones"].entries()
    unknown = tuple(name for name in declared.surrogates if name not in registered)
    return Imported(card, errors.count(0.0), max(changes), mean, unknown)


def _listed(split: Split) -> Iterator[tuple[str, str, Literal["gallery", "probe"], str]]:
    """Yield (image id, identity id, role, file) of every photo, numbered within each identity."""
    for number, identity in enumerate(sorted(split.gallery)):
        roles: list[tuple[str, Literal["gallery", "probe"]]] = [
            (image, "gallery") for image in split.gallery[identity]
        ]
        roles += [(image, "probe") for image in split.probes[identity]]
        for place, (image, role) in enumerate(sorted(roles)):
            yield image, identity, role, f"{number:05d}/{place:04d}.png"


def _wanted(manifest: CropManifest, there: set[str], folder: Path) -> dict[str, CropFile]:
    """Return the crops that have to have a cloak: of the gallery, and of the probes where one of these has.

    Raises:
        DataError: a cloak is missing, or a file is none.
    """
    known = {entry.file for entry in manifest.photos.values()}
    if others := sorted(there - known):
        raise DataError(
            f"{len(others)} files in '{folder}' are no crop's, first '{others[0]}'. A cloak has its crop's name; "
            "remove the others."
        )
    probes = any(entry.role == "probe" and entry.file in there for entry in manifest.photos.values())
    wanted = {image: entry for image, entry in manifest.photos.items() if probes or entry.role == "gallery"}
    if missing := sorted(entry.file for entry in wanted.values() if entry.file not in there):
        raise DataError(
            f"{len(missing)} of {len(wanted)} cloaks are missing in '{folder}', first '{missing[0]}'. Cloak every "
            "gallery photo, and all probes or none of them."
        )
    return wanted


def _read_cloak(path: Path) -> tuple[bytes, Image]:
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG"):
        raise DataError(
            f"{path} is no PNG. A run makes its own losses: import the cloaks as they left the method."
        )
    image: Image = read_photo(content, str(path))
    if image.shape != (CROP_SIZE, CROP_SIZE, 3):
        height, width = image.shape[:2]
        raise DataError(
            f"{path} is {width}×{height} pixels, its crop is {CROP_SIZE}×{CROP_SIZE}. Scale nothing."
        )
    return content, image


def _read_crop(crops: Path, entry: CropFile) -> NDArray[np.int16]:
    path = crops / entry.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"the crop {path} cannot be read ({error.strerror}). Export the crops again."
        ) from error
    if _sha256(content) != entry.sha256:
        raise DataError(f"{path} is not what was exported. Export the crops again, into another folder.")
    return read_photo(content, str(path)).astype(np.int16)


def _png(pixels: Image) -> bytes:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
