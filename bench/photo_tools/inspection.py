"""What a change did to photos: how visible it is, and how far each recogniser's answer moved.

Pairs of files are compared as a whole and face by face. A face of the second photo is cut out as a tracker would that
has only this photo: with the landmarks found in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import CROP_SIZE, Backbone, Binding, Frozen
from bench.errors import BenchError, DataError, UsageError, unknown
from bench.faces import pixels as faces_pixels
from bench.faces import search
from bench.faces.alignment import TEMPLATE, Pixels, align, estimate_similarity
from bench.faces.whole_photo import Samples
from bench.photo_tools import photo_files
from bench.photo_tools.photo_folders import Photo, Refusal, find_photos, read_bytes, to_tensor, without_ending
from bench.photo_tools.records import CLOAKS, ERASED, PURIFIED, CloakRecord, EraseRecord, PurifyRecord
from bench.plugins import factory, registry
from bench.quality import metrics
from bench.quality.lpips import Lpips, Unavailable
from bench.run.device import use_device
from bench.run.stages.embed import embed

Advance = Callable[[int], None]

FARS = (0.01, 0.001)
"""False-accept rates at which a verdict is given, where a backbone's card has the threshold."""

_STRIP = 2_000_000
"""Pixels of a photo that are compared at once, so that memory stays bounded."""

LPIPS_PIXELS = 4_000_000
"""Larger photos get no LPIPS as a whole: it would need several gigabytes."""


class Visibility(Frozen):
    """How visible a change is; None with a reason where it cannot be said."""

    identical: bool | None = Field(description="whether every value is the same")
    linf: float | None = Field(description="largest difference, grey levels")
    psnr: float | None = Field(description="dB; None where identical")
    ssim: float | None = Field(description="structural similarity")
    lpips: float | None = Field(description="LPIPS distance (AlexNet, version 0.1)")
    reasons: dict[str, str] = Field({}, description="measure → why there is none")


class Verdict(Frozen):
    """What a recogniser says at one threshold."""

    far: float = Field(description="false-accept rate the threshold was set for")
    threshold: float | None = Field(description="cosine from which two faces are one person's")
    same_person: bool | None = Field(description="whether the two photos are taken for one person's")
    reason: str = Field("", description="why there is no verdict")


class Movement(Frozen):
    """How far one backbone's embedding of a face moved."""

    backbone: str
    cosine: float = Field(description="of the two embeddings")
    distance: float = Field(description="1 − cosine")
    verdicts: tuple[Verdict, ...]


class FaceChange(Frozen):
    """What became of one face."""

    box: tuple[float, float, float, float] = Field(
        description="left, top, right, bottom of the aligned crop in the first photo"
    )
    found_again: bool = Field(description="whether a face is found there in the second photo")
    visibility: Visibility
    movements: tuple[Movement, ...] = ()


class FileFacts(Frozen):
    """One of the two files."""

    file: str
    format: str
    width: int
    height: int
    bytes: int
    faces: int


class Comparison(Frozen):
    """What a change did to one photo."""

    name: str
    before: FileFacts
    after: FileFacts
    whole: Visibility
    faces: tuple[FaceChange, ...]


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        comparisons: one a pair of photos.
        refused: photos that could not be compared, with the reasons.
        backbones: who was asked.
        notes: what a reader must know.
    """

    comparisons: tuple[Comparison, ...]
    refused: tuple[Refusal, ...]
    backbones: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Seen:
    """A photo as it is seen, with its faces."""

    facts: FileFacts
    pixels: Pixels
    samples: Samples
    points: tuple[np.ndarray, ...]

    @property
    def is_crop(self) -> bool:
        return self.pixels.shape == (CROP_SIZE, CROP_SIZE, 3)


@dataclass(frozen=True, eq=False)
class _FacePair:
    """A face before and after, each 3×112×112 uint8."""

    change: FaceChange
    before: Tensor
    after: Tensor


def inspect(
    before: Path,
    after: Path,
    lpips: Lpips | Unavailable,
    *,
    backbones: tuple[str, ...] = (),
    device: str = "auto",
    threads: int | None = None,
    advance: Advance = lambda _n: None,
) -> Inspection:
    """Compare photos before and after a change.

    Args:
        before: a photo, or a folder of photos.
        after: a photo, or a folder of photos of the same names; endings do not count.
        lpips: measures LPIPS, or says why not.
        backbones: who is asked; () for all whose weights are there.
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        threads: threads torch computes with; None for all cores.
        advance: called with the number of pairs compared.

    Raises:
        UsageError: the two are not two photos or two folders, or nothing fits together, or an unknown backbone.
        DataError: the weights of a backbone that was named are missing.
    """
    machine, _ = use_device(device, threads)
    recognisers, notes = _backbones(backbones)
    pairs, refused = pairs_of(before, after)
    comparisons, faces, failed = [], [], []
    for name, one, other in pairs:
        try:
            comparison, pairs_of_faces = _compared(name, one, other, lpips)
        except DataError as error:
            failed.append(Refusal(name, str(error)))
        else:
            comparisons.append(comparison)
            faces.append(pairs_of_faces)
        advance(1)
    rows = iter(_movements([pair for found in faces for pair in found], recognisers, machine))
    done = tuple(
        comparison.model_copy(
            update={
                "faces": tuple(pair.change.model_copy(update={"movements": next(rows)}) for pair in found)
            }
        )
        for comparison, found in zip(comparisons, faces, strict=True)
    )
    names = tuple(backbone.card.name for backbone in recognisers)
    return Inspection(done, (*refused, *failed), names, notes)


# -- which files belong together -------------------------------------------------------------------------------


def pairs_of(before: Path, after: Path) -> tuple[list[tuple[str, Path, Path]], tuple[Refusal, ...]]:
    """Return name, file before and file after of each pair, and the files that have no partner.

    Folders made by `bench cloak`, `purify` or `erase` say themselves what was made of what; else photos belong
    together whose paths are the same but for the ending.

    Raises:
        UsageError: one is a folder and the other is not, or no photo has a partner.
    """
    if before.is_file() and after.is_file():
        return [(before.name, before, after)], ()
    if not (before.is_dir() and after.is_dir()):
        missing = [str(path) for path in (before, after) if not path.exists()]
        what = f"{' and '.join(missing)} is not there" if missing else "one is a photo and the other a folder"
        raise UsageError(f"inspect compares two photos or two folders: {what}.")
    records = (CLOAKS, PURIFIED, ERASED)
    first, refused = find_photos(before, records)
    second, others = find_photos(after, records)
    made = _made(after)
    partners = _partners(first, second, made)
    pairs = [(photo.name, photo.path, partners[photo].path) for photo in first if photo in partners]
    namesakes = {without_ending(photo.name).lower() for photo in second}
    alone = []
    for photo in [photo for photo in first if photo not in partners]:
        another = " that is not another's" if without_ending(photo.name).lower() in namesakes else ""
        alone.append(Refusal(photo.name, f"{after} has no photo of this name{another}"))
    taken = {photo.path for photo in partners.values()}
    reason = f"{before} has no photo of this name"
    left = [Refusal(str(photo.path), reason) for photo in second if photo.path not in taken]
    if not pairs:
        raise UsageError(f"no photo in {after} has the name of one in {before}; endings do not count.")
    return pairs, (*refused, *others, *alone, *left)


def _partners(first: Sequence[Photo], second: Sequence[Photo], made: Mapping[str, str]) -> dict[Photo, Photo]:
    """Return photo → its partner, no other's: what was made of it, else its namesake, endings counted or not."""
    found: dict[Photo, Photo] = {}
    free = {photo.name: photo for photo in second}
    for photo in first:
        partner = free.pop(made.get(photo.name, ""), None)
        if partner is not None:
            found[photo] = partner
    for photo in first:
        if photo not in found and photo.name in free:
            found[photo] = free.pop(photo.name)
    by_id = {without_ending(name).lower(): name for name in free}
    for photo in first:
        name = by_id.pop(without_ending(photo.name).lower(), None) if photo not in found else None
        if name is not None:
            found[photo] = free.pop(name)
    return found


def _made(folder: Path) -> dict[str, str]:
    """Return source → what a folder's record says was made of it."""
    for name, kind in ((CLOAKS, CloakRecord), (PURIFIED, PurifyRecord), (ERASED, EraseRecord)):
        with contextlib.suppress(DataError):
            if (record := kind.read(folder / name)) is not None:
                return {source: one.output for source, one in record.photos.items() if one.output}
    return {}


# -- pixels ----------------------------------------------------------------------------------------------------


def _compared(
    name: str, before: Path, after: Path, lpips: Lpips | Unavailable
) -> tuple[Comparison, list[_FacePair]]:
    one, other = _seen(before), _seen(after)
    whole = _whole(one.pixels, other.pixels, lpips)
    if whole.identical and not _same_samples(one.samples, other.samples):
        reason = "the photos differ only in transparency or in the low byte of 16 bits, which nobody sees"
        whole = whole.model_copy(update={"identical": False, "reasons": {**whole.reasons, "psnr": reason}})
    pairs = [_face_pair(one, other, points, index, lpips) for index, points in enumerate(one.points)]
    faces = [pair for pair in pairs if pair is not None]
    comparison = Comparison(name=name, before=one.facts, after=other.facts, whole=whole, faces=())
    return comparison, faces


def _same_samples(one: Samples, other: Samples) -> bool:
    """Say whether two photos that look the same to 8 bits are the same in every value."""
    if one.dtype == other.dtype and one.shape[2] == other.shape[2]:
        return bool(np.array_equal(one, other))
    a, b = (_in_depth(samples) for samples in (one, other))
    return bool(np.array_equal(a, b))


def _in_depth(samples: Samples) -> Samples:
    """Return H×W×4 uint16 of any samples: grey in three channels, opaque where nothing else is said."""
    deep = samples if samples.dtype == np.uint16 else samples.astype(np.uint16) * 257
    alpha = deep[..., -1:] if deep.shape[2] in {2, 4} else np.full_like(deep[..., :1], 65535)
    colours = deep[..., :1] if deep.shape[2] <= 2 else deep[..., :3]
    return np.concatenate([np.broadcast_to(colours, (*deep.shape[:2], 3)), alpha], axis=2)


def _seen(path: Path) -> _Seen:
    payload = read_bytes(path)
    content = photo_files.read(payload, str(path))
    pixels = content.seen()
    height, width = pixels.shape[:2]
    if (height, width) == (CROP_SIZE, CROP_SIZE):
        points: tuple[np.ndarray, ...] = (TEMPLATE,)
    else:
        points = tuple(face.points for face in search.find_faces(pixels))
    sizes = {"width": width, "height": height, "bytes": len(payload), "faces": len(points)}
    facts = FileFacts(file=str(path), format=content.format, **sizes)
    return _Seen(facts, pixels, content.upright(), points)


def _face_pair(
    one: _Seen, other: _Seen, points: np.ndarray, index: int, lpips: Lpips | Unavailable
) -> _FacePair | None:
    """Return a face before and after; None where photos of different sizes do not both show it."""
    same_size = one.pixels.shape == other.pixels.shape
    again = _found_again(one, other, points, index)
    if again is None and not same_size:
        return None
    before = one.pixels if one.is_crop else align(one.pixels, points)
    own = other.pixels if other.is_crop else align(other.pixels, points if again is None else again)
    # Pixels are compared where they lay, embeddings as each photo by itself gives them.
    there = align(other.pixels, points) if same_size and not other.is_crop else own
    change = FaceChange(
        box=_box(points, one.is_crop),
        found_again=again is not None,
        visibility=_visibility(to_tensor(before), to_tensor(there), lpips),
    )
    return _FacePair(change, to_tensor(before), to_tensor(own))


def _found_again(one: _Seen, other: _Seen, points: np.ndarray, index: int) -> np.ndarray | None:
    """Return the landmarks in the second photo of a face of the first; None where it is not found."""
    if other.is_crop:
        return other.points[0] if index == 0 else None
    if not other.points:
        return None
    if one.is_crop:
        return other.points[0]
    expected = points * np.divide(other.pixels.shape[1::-1], one.pixels.shape[1::-1])
    size = float(np.ptp(expected, axis=0).max())
    distances = [float(np.linalg.norm(found - expected, axis=1).mean()) for found in other.points]
    nearest = int(np.argmin(distances))
    return other.points[nearest] if distances[nearest] < size else None


def _box(points: np.ndarray, is_crop: bool) -> tuple[float, float, float, float]:
    if is_crop:
        return (0.0, 0.0, float(CROP_SIZE), float(CROP_SIZE))
    inverse = np.linalg.inv(np.vstack([estimate_similarity(points), [0, 0, 1]]))
    ends = (-0.5, CROP_SIZE - 0.5)
    corners = np.array([[x, y, 1] for x in ends for y in ends]) @ inverse.T
    (left, top), (right, bottom) = corners[:, :2].min(0), corners[:, :2].max(0)
    return (round(float(left), 1), round(float(top), 1), round(float(right), 1), round(float(bottom), 1))


def _whole(one: Pixels, other: Pixels, lpips: Lpips | Unavailable) -> Visibility:
    if one.shape != other.shape:
        reason = f"the photos are {one.shape[1]}×{one.shape[0]} and {other.shape[1]}×{other.shape[0]} pixels"
        return Visibility(
            identical=None, linf=None, psnr=None, ssim=None, lpips=None,
            reasons=dict.fromkeys(("linf", "psnr", "ssim", "lpips"), reason),
        )  # fmt: skip
    largest, squares, similar, windows = 0, 0.0, 0.0, 0
    height, width = one.shape[:2]
    small = min(height, width) < metrics.SSIM_WINDOW
    step = max(64, _STRIP // width)
    overlap = metrics.SSIM_WINDOW - 1
    for top in range(0, height, step):
        a, b = one[top : top + step], other[top : top + step]
        difference = a.astype(np.int16) - b
        largest = max(largest, int(np.abs(difference).max(initial=0)))
        squares += float(np.square(difference, dtype=np.float64).sum())
        rows = min(top + step + overlap, height) - top - overlap
        if not small and rows > 0:
            parts = [
                to_tensor(image[top : top + step + overlap])[None].float() / 255 for image in (other, one)
            ]
            similar += rows * float(metrics.ssim(parts[0], parts[1])[0])
            windows += rows
    reasons = {"ssim": f"the photo is smaller than {metrics.SSIM_WINDOW} pixels"} if small else {}
    distance, reason = _lpips_of_whole(one, other, lpips)
    if reason:
        reasons["lpips"] = reason
    mean = squares / one.size
    return Visibility(
        identical=largest == 0,
        linf=float(largest),
        psnr=float(10 * np.log10(255**2 / mean)) if mean > 0 else None,
        ssim=similar / windows if windows else None,
        lpips=distance,
        reasons=reasons,
    )


def _lpips_of_whole(one: Pixels, other: Pixels, lpips: Lpips | Unavailable) -> tuple[float | None, str]:
    if isinstance(lpips, Unavailable):
        return None, lpips.reason
    if min(one.shape[:2]) < 63:
        return None, "LPIPS needs sides of at least 63 pixels"
    if one.shape[0] * one.shape[1] > LPIPS_PIXELS:
        return None, f"the photo has more than {LPIPS_PIXELS:,} pixels; LPIPS is given for the faces"
    pair = (to_tensor(image)[None].float() / 255 for image in (other, one))
    return float(lpips.distance(*pair)[0]), ""


def _visibility(before: Tensor, after: Tensor, lpips: Lpips | Unavailable) -> Visibility:
    a, b = (image[None].float() / 255 for image in (after, before))
    same = bool(torch.equal(before, after))
    distance = None if isinstance(lpips, Unavailable) else float(lpips.distance(a, b)[0])
    return Visibility(
        identical=same,
        linf=float(metrics.linf(a, b)[0]),
        psnr=None if same else float(metrics.psnr(a, b)[0]),
        ssim=float(metrics.ssim(a, b)[0]),
        lpips=distance,
        reasons={"lpips": lpips.reason} if isinstance(lpips, Unavailable) else {},
    )


# -- recognisers -----------------------------------------------------------------------------------------------


def _backbones(requested: Sequence[str]) -> tuple[tuple[Backbone, ...], tuple[str, ...]]:
    """Return who is asked, and what a reader must know of it."""
    known = registry.BACKBONES.entries()
    for name in requested:
        if name.partition(":")[0] not in known:
            raise unknown("backbone", name, known, "See `bench models list`.")
    if requested:
        found = tuple(factory.backbone(name) for name in requested)
        for backbone in found:
            backbone.files(_binding(backbone))
        return found, ()
    there = [one for name in known if (one := _if_there(name)) is not None]
    real = tuple(one for one in there if one.card.domain == "real")
    if real:
        return real, ()
    return tuple(there), (
        "only backbones trained on drawn faces are here: what they say of photos of people means nothing. "
        "`bench models list` says how to get others.",
    )


def _if_there(name: str) -> Backbone | None:
    try:
        backbone = factory.backbone(name)
        backbone.files(_binding(backbone))
    except BenchError:
        return None
    return backbone


def _binding(backbone: Backbone) -> Binding:
    return Binding("", backbone.card.domain, (), backbone.card.name)


def _movements(
    pairs: Sequence[_FacePair], backbones: Sequence[Backbone], device: torch.device
) -> list[tuple[Movement, ...]]:
    """Return, for each face, how far each backbone's embedding moved."""
    found: list[list[Movement]] = [[] for _ in pairs]
    if not pairs:
        return []
    names = tuple(str(row) for row in range(len(pairs)))
    views = [
        faces_pixels.Pixels(torch.stack([getattr(pair, side) for pair in pairs]), names, names)
        for side in ("before", "after")
    ]
    for backbone in backbones:
        backbone.load(device)
        vectors = [embed(backbone, view, device, lambda _n: None).vectors for view in views]
        a, b = (np.asarray(one, dtype=np.float64) for one in vectors)
        a, b = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (a, b))
        for row, cosine in enumerate((a * b).sum(1).clip(-1, 1)):
            # Rounding must not move a face that is the same to the bit.
            exact = 1.0 if torch.equal(pairs[row].before, pairs[row].after) else float(cosine)
            found[row].append(_movement(backbone, exact))
    return [tuple(rows) for rows in found]


def _movement(backbone: Backbone, cosine: float) -> Movement:
    verdicts = tuple(_verdict(backbone, far, cosine) for far in FARS)
    return Movement(backbone=backbone.card.name, cosine=cosine, distance=1 - cosine, verdicts=verdicts)


def _verdict(backbone: Backbone, far: float, cosine: float) -> Verdict:
    for threshold in backbone.card.thresholds:
        if np.isclose(threshold.far, far):
            return Verdict(far=far, threshold=threshold.cosine, same_person=cosine >= threshold.cosine)
    name = backbone.card.name
    reason = (
        f"the card of {name} has no threshold for FAR {100 * far:g} %; `bench models calibrate` gives one"
    )
    return Verdict(far=far, threshold=None, same_person=None, reason=reason)
