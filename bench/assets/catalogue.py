"""What there is to fetch: data sets and weights that the project does not ship, with the state of their files.

Data sets, backbones, attacks and defences declare what they need (`bench.contracts.Method.assets`), the harness its
own measure's weights (`OWN`). How files get here is `bench.assets.fetching`. The user's own folders are in
``folders.json`` of the data folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from bench.assets import first_digests
from bench.contracts import AssetEntry, AssetFile, Frozen, Method
from bench.data.files import VARIABLE, data_folder, sha256_of
from bench.data.folders import FOLDERS, registered
from bench.errors import DataError, UsageError, unknown
from bench.files import write_atomically
from bench.plugins import factory, registry, syntax
from bench.quality import lpips_trunk

Kind = Literal["dataset", "weights"]
State = Literal["present", "absent", "corrupt"]

OWN: tuple[AssetEntry, ...] = (lpips_trunk.ENTRY,)
"""What the harness itself uses."""

_WITH_WEIGHTS: tuple[registry.Registry[Method], ...] = (
    registry.BACKBONES,
    registry.DEFENSES,
    registry.ATTACKS,
)
_DATASETS: tuple[registry.Registry[Method], ...] = (registry.DATASETS,)

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class FileState(Frozen):
    """A file of the catalogue and whether the data folder has it."""

    file: AssetFile
    path: Path
    state: State


class Listed(Frozen):
    """A catalogue entry with the state of its files."""

    entry: AssetEntry
    files: tuple[FileState, ...]

    @property
    def state(self) -> State:
        """``corrupt`` if any file is, else ``absent`` if any is, else ``present``."""
        states = {f.state for f in self.files}
        return "corrupt" if "corrupt" in states else "absent" if "absent" in states else "present"

    @property
    def bytes(self) -> int:
        """Size of its files: of those that are here as they are, else as stated; 0 where one is not stated."""
        sizes = [f.path.stat().st_size if f.state == "present" else f.file.bytes for f in self.files]
        return sum(sizes) if all(sizes) else 0

    @property
    def download(self) -> int:
        """Bytes to download for what is missing, 0 where a publisher states none."""
        recipes = {f.file.recipes[0] for f in self.files if f.state != "present" and f.file.recipes}
        sources = {source for recipe in recipes for source in recipe.sources}
        return sum(s.bytes for s in sources) if all(s.bytes for s in sources) else 0


class ByHand(Frozen):
    """A dataset that its publishers hand out themselves and that is read where the user unpacks it."""

    name: str
    what: str
    licence: str = Field(description="as stated by the publishers, and what is known of consent")
    how: str = Field(description="where its publishers hand it out, and what belongs where")


BY_HAND: tuple[ByHand, ...] = (
    ByHand(
        name="celeba",
        what="CelebA, aligned and cropped: 202,599 photos of 10,177 identities, five landmarks each",
        licence="non-commercial research purposes only; photos from the web, the people were not asked",
        how=(
            "Get img_align_celeba.zip, identity_CelebA.txt, list_landmarks_align_celeba.txt and "
            "list_eval_partition.txt from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
        ),
    ),
    ByHand(
        name="celeba-hq",
        what="CelebA-HQ: 30,000 photos of CelebA at 1024×1024; needs CelebA's identity_CelebA.txt",
        licence="non-commercial research purposes only; photos from the web, the people were not asked",
        how="Get CelebAMask-HQ (CelebA-HQ-img and the mapping) from https://github.com/switchablenorms/CelebAMask-HQ",
    ),
    ByHand(
        name="ffhq",
        what="FFHQ: 70,000 photos without identity labels; for training and calibration only",
        licence="CC BY-NC-SA 4.0 (the set); each photo has its own licence and author in the metadata",
        how="Get images1024x1024 and ffhq-dataset-v2.json with https://github.com/NVlabs/ffhq-dataset",
    ),
    ByHand(
        name="vggface2",
        what="VGGFace2: 3.31 million photos of 9,131 identities, five landmarks each",
        licence="taken offline by its publishers; photos from a web search, the people were not asked",
        how=(
            "It was handed out at http://www.robots.ox.ac.uk/~vgg/data/vgg_face2/ (test, train, bb_landmark); take the "
            "archives from a copy somebody has"
        ),
    ),
    ByHand(
        name="facescrub",
        what="FaceScrub: about 107,000 photos of 530 identities",
        licence="no licence for the photos, which are from the web; the people were not asked",
        how="Ask for the lists at http://vintage.winklerbros.net/facescrub.html and load the photos",
    ),
    ByHand(
        name="casia-webface",
        what="CASIA-WebFace: 494,414 photos of 10,575 identities; folders, or insightface's train.rec and train.idx",
        licence="research only; photos from the web, the people were not asked",
        how=(
            "Ask for it at http://www.cbsr.ia.ac.cn/english/CASIA-WebFace-Database.html, or get the packed crops from "
            "recognition/_datasets_ in https://github.com/deepinsight/insightface"
        ),
    ),
)
"""Datasets with readers and without files to fetch."""


def place_of(entry: ByHand, path: str = "") -> Path:
    """Return the folder such a dataset is looked for in.

    Args:
        entry: the dataset.
        path: its parameter of that name; "" for the data folder's.
    """
    return Path(path).expanduser() if path else data_folder() / entry.name


def by_hand(name: str) -> ByHand | None:
    """Return the dataset of a name, which may have parameters, that its publishers hand out themselves."""
    plain = syntax.parse(name).name
    return next((entry for entry in BY_HAND if entry.name == plain), None)


def catalogue(kind: Kind | None = None) -> tuple[AssetEntry, ...]:
    """Return the entries of a kind, or all, each name once, as the registered methods declare them."""
    declared = [entry for known in (*_DATASETS, *_WITH_WEIGHTS) for entry in _of_registry(known)]
    every = {entry.name: entry for entry in (*declared, *OWN) if kind in (None, entry.kind)}
    return tuple(every.values())


def _of_registry(known: registry.Registry[Method]) -> Iterator[AssetEntry]:
    for name in known.entries():
        yield from _declared(known, name)


def _declared(known: registry.Registry[Method], text: str) -> tuple[AssetEntry, ...]:
    """Return what a method declares, by name or with parameters; () where it cannot be made without more of them."""
    parsed = syntax.parse(text)
    if not set(known.load(parsed.name).required) <= set(parsed.values):
        return ()
    return factory.create(known.kind, text).assets()


def listing(kind: Kind | None = None) -> tuple[Listed, ...]:
    """Return each entry with the state of its files; reads the files that are there to check them."""
    return tuple(map(state_of, catalogue(kind)))


def state_of(entry: AssetEntry) -> Listed:
    """Return an entry with the state of its files; reads those that are there."""
    return Listed(entry=entry, files=tuple(map(_state, entry.files)))


def _state(file: AssetFile) -> FileState:
    path = data_folder() / file.path
    if not path.is_file():
        return FileState(file=file, path=path, state="absent")
    expected = accepted(file)
    whole = not expected or sha256_of(path) in expected
    return FileState(file=file, path=path, state="present" if whole else "corrupt")


def accepted(file: AssetFile) -> tuple[str, ...]:
    """Return the digests a file of the data folder may have; () where none is known."""
    if file.sha256:
        return (file.sha256, *file.equivalents)
    noted = first_digests.noted(file.path)
    return (noted,) if noted else ()


def is_public(file: AssetFile) -> bool:
    """Say whether there is a way to a file for anyone: every source has an address, or is in a package."""
    return any(all(source.url or source.package for source in recipe.sources) for recipe in file.recipes)


def find(name: str, kind: Kind | None = None) -> AssetEntry:
    """Return the entry of a name, which may have parameters, without importing other plugins than the one of it.

    Raises:
        UsageError: there is none of this name, or it is not to be fetched.
    """
    for own in OWN:
        if own.name == name and kind in (None, own.kind):
            return own
    if kind in (None, "dataset"):
        _refuse_by_hand(name)
    rooms = (
        *(_DATASETS if kind in (None, "dataset") else ()),
        *(_WITH_WEIGHTS if kind in (None, "weights") else ()),
    )
    of_name = [known for known in rooms if syntax.parse(name).name in known.entries()]
    entry = next((entry for known in of_name for entry in _declared(known, name)), None)
    if entry is not None:
        return entry
    if of_name:
        raise UsageError(f"nothing is to be fetched for '{name}': its files ship with it or are your own.")
    handed_out = [entry.name for entry in BY_HAND if kind in (None, "dataset")]
    valid = [*(entry.name for entry in catalogue(kind)), *handed_out]
    raise unknown("data set or weights" if kind is None else kind, name, valid, "See `bench fetch --list`.")


def _refuse_by_hand(name: str) -> None:
    entry = next((entry for entry in BY_HAND if entry.name == name), None)
    if entry is not None:
        raise UsageError(
            f"{name} is handed out by its publishers only. {entry.how}, and unpack it in {place_of(entry)} or "
            f"anywhere ({name}:path=FOLDER). Licence: {entry.licence}."
        )


def add(name: str, path: Path) -> Mapping[str, Path]:
    """Check a folder of ``identity/photo.jpg`` and record it, so that ``folder:path=NAME`` means it.

    Every photo is read to its end. How many photos an identity must have is decided where it is used.

    Returns:
        all registered folders.

    Raises:
        UsageError: the name cannot be used, or is taken by another folder.
        DataError: the folder's layout is wrong or a photo cannot be decoded; nothing is recorded.
    """
    from bench.datasets.folder import Folder

    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot name a folder; use small letters, digits, '-' and '_'.")
    folder = path.expanduser().resolve()
    known = registered()
    if known.get(name, folder) != folder:
        raise UsageError(f"'{name}' is {known[name]} already. Choose another name.")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Give one with a subfolder of photos for each identity.")
    Folder(Folder.Params(path=str(folder), min_photos=2, skip_small=True)).verify_photos()
    content = {**{n: str(p) for n, p in known.items()}, name: str(folder)}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    write_atomically(data_folder() / FOLDERS, text.encode(), f"another {VARIABLE}")
    return registered()
