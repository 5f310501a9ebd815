"""What ``bench data list|add|fetch`` and ``bench models fetch`` do.

The catalogue knows data sets and weights that the project does not ship: what they are, their licence, their
files pinned by SHA-256 and where to get them. Data sets are listed here, weights are declared by the registered
backbones, defences and attacks (`bench.contracts.Method.assets`). The user's own folders are in ``folders.json`` of
the data folder.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field

from bench.contracts import AssetEntry, AssetFile, Frozen, Method, Recipe, Source
from bench.data.files import VARIABLE, data_folder, sha256_of
from bench.data.folders import FOLDERS, registered
from bench.errors import DataError, UsageError, unknown
from bench.files import write_atomically
from bench.plugins import factory, registry, syntax

Kind = Literal["dataset", "weights"]
State = Literal["present", "absent", "corrupt"]
Report = Callable[[str, int, int], None]

TIMEOUT_S = 30
"""Seconds without an answer after which a download is given up."""

_WITH_WEIGHTS: tuple[registry.Registry[Method], ...] = (
    registry.BACKBONES,
    registry.DEFENSES,
    registry.ATTACKS,
)

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


def _as_published(name: str, url: str) -> tuple[Recipe, ...]:
    return (Recipe(sources=(Source(name=name, url=url),)),)


_LFW = AssetEntry(
    name="lfw",
    kind="dataset",
    what="Labeled Faces in the Wild, deep-funneled: 13,233 photos of 5,749 identities, five landmarks each",
    licence=(
        "none stated; published by its authors as a public research benchmark "
        "(cite Huang et al., UMass TR 07-49, 2007, and Huang et al., NIPS 2012)"
    ),
    source="umass-vis-lfw/umass-vis-lfw.github.io @ 2a620cd8cceb10430f8c7012fe9fa5f0837759e9",
    files=(
        AssetFile(
            path="lfw/lfw-deepfunneled.tar",
            bytes=126_760_960,
            sha256="351075da5e18755678ee5851572a5b1c879476632a79e6cabed84430a11785f1",
        ),
        AssetFile(
            path="lfw/landmarks.csv",
            bytes=1_919_323,
            sha256="3df48366ccf49e848d18dfbfb8d5382a2aec1e04a81110b3e6f85555a0675c4b",
        ),
        AssetFile(
            path="lfw/pairs.txt",
            bytes=155_335,
            sha256="ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
            recipes=_as_published("pairs.txt", "http://vis-www.cs.umass.edu/lfw/pairs.txt"),
        ),
        AssetFile(
            path="lfw/people.txt",
            bytes=94_770,
            sha256="bc8fa2b7f25c895cf7efb6de4f4fc27ca8b8d1cfa63350ad8b96eae2b198d365",
            recipes=_as_published("people.txt", "http://vis-www.cs.umass.edu/lfw/people.txt"),
        ),
    ),
    how=(
        "The archive is an uncompressed tar of the authors' photos and the landmarks were computed for it; "
        "neither has a public source of its own. Take both from a copy somebody has: --from URL_OR_FOLDER. "
        "Or unpack the authors' lfw-deepfunneled.tgz (http://vis-www.cs.umass.edu/lfw/) and run "
        "--dataset lfw:path=FOLDER,landmarks=detect."
    ),
)

DATASETS: tuple[AssetEntry, ...] = (_LFW,)
"""Data sets with files to fetch; a procedural or a user's own data set has none."""


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


def place_of(entry: ByHand) -> Path:
    """Return the folder such a dataset is looked for in, unless its parameter ``path`` says another."""
    return data_folder() / entry.name


def weights() -> tuple[AssetEntry, ...]:
    """Return the weights that belong in the data folder, as the registered methods declare them, each once."""
    declared = [entry for known, name in _methods() for entry in _declared(known, name)]
    return tuple({entry.name: entry for entry in declared}.values())


def _methods() -> Iterator[tuple[registry.Registry[Method], str]]:
    """Yield each registered method that may need weights; those come first that are nothing without them."""
    for known in _WITH_WEIGHTS:
        for name in known.entries():
            yield known, name


def _declared(known: registry.Registry[Method], text: str) -> tuple[AssetEntry, ...]:
    """Return what a method declares, by name or with parameters; () where it cannot be made without more of them."""
    parsed = syntax.parse(text)
    if not set(known.load(parsed.name).required) <= set(parsed.values):
        return ()
    return factory.create(known.kind, text).assets()


def catalogue(kind: Kind | None = None) -> tuple[AssetEntry, ...]:
    """Return the entries of a kind, or all."""
    datasets = DATASETS if kind in (None, "dataset") else ()
    return datasets + (weights() if kind in (None, "weights") else ())


def listing(kind: Kind | None = None) -> tuple[Listed, ...]:
    """Return each entry with the state of its files; reads the files that are there to check them."""
    return tuple(Listed(entry=e, files=tuple(map(_state, e.files))) for e in catalogue(kind))


def _state(file: AssetFile) -> FileState:
    path = data_folder() / file.path
    if not path.is_file():
        state: State = "absent"
    else:
        state = (
            "corrupt"
            if file.sha256 and sha256_of(path) not in (file.sha256, *file.equivalents)
            else "present"
        )
    return FileState(file=file, path=path, state=state)


def fetch(
    name: str, source: str = "", *, kind: Kind | None = None, report: Report | None = None
) -> tuple[Path, ...]:
    """Put the files of an entry into the data folder; those already there and whole are left alone.

    Args:
        name: of the entry.
        source: a mirror: the URL of a folder, or a folder on this machine, that holds the files under their
            path in the catalogue or directly under their name; the catalogue's own URLs when empty.
        kind: look among these entries only.
        report: called with (path, files done, files in all).

    Returns:
        paths of the files that were written.

    Raises:
        UsageError: unknown name, or some file has no known source (what has one is fetched first).
        DataError: a source does not answer or gives other bytes; no half file is left.
    """
    entry = _entry(name, kind)
    wanted = [s for s in map(_state, entry.files) if s.state != "present"]
    known = [s for s in wanted if source or url_of(s.file)]
    for done, state in enumerate(known):
        if report is not None:
            report(state.file.path, done, len(known))
        _fetch_file(state.file, state.path, source)
    by_hand = [s for s in wanted if s not in known and not s.file.sha256]
    if by_hand:
        places = ", ".join(str(s.path) for s in by_hand)
        raise UsageError(
            f"{name} is not fetched: its publisher states no digest to check it by. {entry.how} The place is {places}."
        )
    if len(known) < len(wanted):
        missing = ", ".join(s.file.path for s in wanted if s not in known)
        raise UsageError(f"{name}: no public source is known for {missing}. {entry.how}")
    return tuple(state.path for state in known)


def _entry(name: str, kind: Kind | None) -> AssetEntry:
    """Find an entry without importing other plugins than the one that is requested.

    Raises:
        UsageError: there is none of this name, or it is not to be fetched.
    """
    listed = {e.name: e for e in DATASETS} if kind in (None, "dataset") else {}
    if name in listed:
        return listed[name]
    by_hand = {entry.name: entry for entry in BY_HAND} if kind in (None, "dataset") else {}
    if name in by_hand:
        entry = by_hand[name]
        raise UsageError(
            f"{name} is handed out by its publishers only. {entry.how}, and unpack it in {place_of(entry)} or "
            f"anywhere ({name}:path=FOLDER). Licence: {entry.licence}."
        )
    methods = list(_methods()) if kind in (None, "weights") else []
    of_name = [known for known, method in methods if method == syntax.parse(name).name]
    found = next((entry for known in of_name for entry in _declared(known, name)), None)
    if found is not None:
        return found
    if of_name:
        raise UsageError(f"nothing is to be fetched for '{name}': its weights ship with it or are your own.")
    valid = (*listed, *by_hand, *(entry.name for entry in (weights() if methods else ())))
    raise unknown("data set or weights" if kind is None else kind, name, valid)


def _fetch_file(file: AssetFile, path: Path, source: str) -> None:
    if not file.sha256:
        raise UsageError(
            f"{file.path} is not pinned by a SHA-256 in its card, so it is not fetched. Put it at {path} yourself."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(path.parent).free) < file.bytes:
            raise DataError(f"{path.parent} has {free:,} bytes free, {file.path} needs {file.bytes:,}.")
        # Within the same folder, so that the last step is a rename: the file is there whole or not at all.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
            part = Path(folder) / path.name
            origin = _copy(file, part, source)
            if (found := sha256_of(part)) != file.sha256:
                raise DataError(
                    f"{origin} has SHA-256 {found}, {file.path} must have {file.sha256}. "
                    "Nothing was kept; try another source with --from."
                )
            part.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error}. Free some space, or point {VARIABLE} elsewhere."
        ) from error


def _copy(file: AssetFile, part: Path, source: str) -> str:
    """Write the file to `part` from wherever it is; returns where that was, for messages."""
    folder = _local_folder(source)
    if folder is None:
        urls = _candidate_urls(file, source)
        for url in urls[:-1]:
            try:
                return _download(url, part)
            except _NotThereError:
                continue
        return _download(urls[-1], part)
    for candidate in (folder / file.path, folder / Path(file.path).name):
        if candidate.is_file():
            shutil.copyfile(candidate, part)
            return str(candidate)
    raise DataError(f"{folder} has neither {file.path} nor {Path(file.path).name}. Give another --from.")


def _local_folder(source: str) -> Path | None:
    """Return the folder `source` names, None where it is a URL of the net or empty."""
    parts = urlsplit(source)
    if not source or parts.scheme in ("http", "https"):
        return None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in source:
        raise UsageError(f"'{source}' cannot be read; valid: http://…, https://…, file://… or a folder.")
    return Path(source).expanduser()


def url_of(file: AssetFile) -> str:
    """Return where exactly this file is published, "" where it has to be made."""
    return next((r.sources[0].url for r in file.recipes if r.convert is None), "")


def _candidate_urls(file: AssetFile, source: str) -> tuple[str, ...]:
    if not source:
        return (url_of(file),)
    base = source.rstrip("/")
    return f"{base}/{file.path}", f"{base}/{Path(file.path).name}"


class _NotThereError(DataError):
    """The server says that it has no such file."""


def _download(url: str, part: Path) -> str:
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(timeout=TIMEOUT_S, chunk_size=1 << 16)(url, part, None)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "nothing"
        kind = _NotThereError if status == 404 else DataError
        raise kind(f"{url} answers {status}. Try another source with --from.") from error
    except requests.RequestException as error:
        reason = type(error).__name__
        raise DataError(
            f"{url} cannot be reached ({reason}). Check the network, or give a copy with --from URL_OR_FOLDER."
        ) from error
    return url


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
