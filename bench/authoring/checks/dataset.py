"""What a dataset must keep to: unique identities and photos, and crops that depend on the photo alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from bench.authoring.checks.declarations import wrong_choice
from bench.authoring.checks.observation import GLOBALS, difference, disturbed, watched
from bench.authoring.checks.suite import Check, attempt
from bench.contracts import CROP_SIZE, Dataset, Identity
from bench.datasets import whole_photos
from bench.errors import UsageError
from bench.faces.alignment import align
from bench.run import calls

LISTS = "lists its identities"
CROPS = "gives crops"

_HEX = re.compile(r"[0-9a-f]{16,}")


class _Reading:
    """A dataset being read, and a second instance of it, each step done once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @cached_property
    def identities(self) -> tuple[Identity, ...]:
        return self.dataset.identities()

    @cached_property
    def fresh(self) -> Dataset:
        return type(self.dataset)(self.dataset.params)

    @property
    def ids(self) -> list[str]:
        return [image for identity in self.identities[:3] for image in identity.photos[:2]]

    def crops_like(self, requested: Sequence[str]) -> str:
        expected = {image: self.crops[self.ids.index(image)] for image in requested}
        return difference(expected, dict(zip(requested, self.dataset.crops(requested), strict=True)))

    @cached_property
    def twice(self) -> tuple[tuple[Tensor, frozenset[str]], tuple[Tensor, frozenset[str]]]:
        """Crops by either instance, and the global state that changed meanwhile."""
        ids = self.ids
        return watched(lambda: self.dataset.crops(ids)), watched(lambda: self.fresh.crops(ids))

    @property
    def crops(self) -> Tensor:
        return self.twice[0][0]

    def misshapen(self) -> str:
        expected = (len(self.ids), 3, CROP_SIZE, CROP_SIZE)
        if self.crops.dtype == torch.uint8 and tuple(self.crops.shape) == expected:
            return ""
        return f"{self.crops.dtype} {tuple(self.crops.shape)} is not torch.uint8 {expected}"


def checks(dataset: Dataset) -> Iterator[Check]:
    """Yield the checks of a dataset."""
    work = _Reading(dataset)
    yield Check(
        LISTS,
        attempt(lambda: work.identities),
        fix='def identities(self): return (Identity("anna", ("anna/1", "anna/2"), "evaluation"), …)',
    )
    yield Check(
        "identities are unique and sorted by id",
        lambda: _wrong_identities(work.identities),
        LISTS,
        fix="return tuple(sorted(found, key=lambda identity: identity.id)), each id once",
    )
    yield Check(
        "image ids are unique, and everyone has some",
        lambda: _wrong_photos(work.identities),
        LISTS,
        fix="make an image's id of its identity's and its own name: f'{identity}/{photo}'",
    )
    yield Check(
        "at least two identities are evaluated; roles are valid",
        lambda: _wrong_roles(work.identities, dataset),
        LISTS,
        fix='Identity(id, photos, "evaluation") for two or more; "training" for the others',
    )
    yield Check(
        "lists the same identities again",
        lambda: "" if work.fresh.identities() == work.identities else "they differ",
        LISTS,
        fix="let identities() depend on files and parameters alone: sort what a folder lists",
    )
    yield Check(
        "its fingerprint is a hex digest and stays",
        lambda: _wrong_fingerprint(dataset, work.fresh),
        LISTS,
        fix="def fingerprint(self): return hashlib.sha256(all that decides the crops).hexdigest()",
    )
    yield Check(
        CROPS,
        attempt(lambda: work.twice),
        LISTS,
        fix="def crops(self, ids): … return a tensor of the photos with these ids, in this order",
    )
    yield Check(
        "crops are uint8 N×3×112×112",
        work.misshapen,
        CROPS,
        fix="return torch.stack(images).to(torch.uint8), RGB, 112 pixels high and wide",
    )
    yield Check(
        GLOBALS,
        lambda: disturbed(work.twice[0][1], work.twice[1][1]),
        CROPS,
        fix="set no global seed, dtype or thread count",
    )
    yield Check(
        "crops are the same again",
        lambda: difference({"crops": work.crops}, {"crops": work.twice[1][0]}),
        CROPS,
        fix="draw nothing in crops(), or from a seed made of the image's id",
    )
    yield Check(
        "crops do not depend on order",
        lambda: work.crops_like(work.ids[::-1]),
        CROPS,
        fix="return crops in the order of the ids given",
    )
    yield Check(
        "a crop alone is the same",
        lambda: work.crops_like(work.ids[1:2]),
        CROPS,
        fix="let a crop depend on its own photo alone",
    )
    yield Check(
        "no images give no crops",
        lambda: _wrong_empty(dataset),
        CROPS,
        fix="return torch.empty(0, 3, 112, 112, dtype=torch.uint8) for no ids",
    )
    if whole_photos.gives(type(dataset)):
        yield Check(
            "a whole photo aligned by its points is the crop",
            lambda: _wrong_photo(dataset, dict(zip(work.ids, work.crops, strict=True))),
            CROPS,
            fix="in whole_photo(), return the photo and the points that crops() aligns, by bench.faces.alignment.align",
        )


def _wrong_identities(identities: Sequence[Identity]) -> str:
    ids = [identity.id for identity in identities]
    if twice := _listed_twice(ids):
        return f"'{twice}' is listed twice"
    return "" if ids == sorted(ids) else "they are not sorted"


def _wrong_photos(identities: Sequence[Identity]) -> str:
    bare = [identity.id for identity in identities if not identity.photos]
    if bare:
        return f"'{bare[0]}' has no photos"
    twice = _listed_twice(image for identity in identities for image in identity.photos)
    return f"image '{twice}' is listed twice" if twice else ""


def _listed_twice(names: Iterable[str]) -> str:
    return next((name for name, times in Counter(names).items() if times > 1), "")


def _wrong_roles(identities: Sequence[Identity], dataset: Dataset) -> str:
    odd = [identity for identity in identities if identity.role not in ("evaluation", "training")]
    if odd:
        return wrong_choice(f"role of '{odd[0].id}'", odd[0].role, ("evaluation", "training"))
    evaluated = sum(identity.role == "evaluation" for identity in identities)
    if dataset.impostors_only:  # photos without identities, for training and calibration
        return "all its identities are for training only, and some are evaluated" if evaluated else ""
    return "" if evaluated >= 2 else f"{evaluated} identities are evaluated"


def _wrong_fingerprint(dataset: Dataset, fresh: Dataset) -> str:
    first, second = dataset.fingerprint(), fresh.fingerprint()
    if not (isinstance(first, str) and _HEX.fullmatch(first)):
        return f"{first!r} is not a hex digest"
    return "" if first == second else f"{first} became {second}"


def _wrong_empty(dataset: Dataset) -> str:
    shape = tuple(dataset.crops([]).shape)
    return "" if shape == (0, 3, CROP_SIZE, CROP_SIZE) else f"their shape is {shape}"


def _wrong_photo(dataset: Dataset, crops: Mapping[str, Tensor]) -> str:
    try:
        whole_photos.check(dataset)
    except UsageError:
        return ""  # its photos are crops, by its parameters
    for image, crop in list(crops.items())[:2]:
        photo = calls.whole_photo(dataset, image)
        aligned = torch.from_numpy(align(photo.pixels, photo.points)).permute(2, 0, 1)
        if not torch.equal(aligned, crop):
            most = int((aligned.int() - crop.int()).abs().max())
            return f"that of '{image}' is another, by up to {most} grey levels"
    return ""
