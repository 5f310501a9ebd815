"""The whole photos that crops were cut out of: which datasets have them, and how they give them.

A dataset of somebody else says it by `bench.contracts.Dataset.whole_photo`. Those of this package are asked here and
not in their own modules, whose code is in the key of every crop and so of all that was ever made from one: what only a
photo as posted needs is no reason to make it all again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.contracts import Dataset, WholePhoto
from bench.errors import DataError, UsageError
from bench.faces.photos import read_photo
from bench.plugins import registry

Reader = Callable[[Any, str], WholePhoto]


def whole_photo(dataset: Dataset, image: str) -> WholePhoto:
    """Return the photo that a crop was cut out of, with the points by which that was done.

    Args:
        dataset: where it is from.
        image: id of an image of it.

    Raises:
        UsageError: the dataset has crops alone, or no such image.
        DataError: the photo cannot be read, or has no landmarks or face.
    """
    reader = _reader(type(dataset))
    return dataset.whole_photo(image) if reader is None else reader(dataset, image)


def check(dataset: Dataset) -> None:
    """Check that a dataset has whole photos, before any work.

    Raises:
        UsageError: it has crops alone; names the datasets that have more.
    """
    if not gives(type(dataset)):
        known = registry.DATASETS.entries()
        fitting = ", ".join(name for name in known if gives(registry.DATASETS.load(name)))
        raise UsageError(
            f"dataset {dataset.name} has aligned crops and no whole photos. Use one of {fitting}, or a dataset of your "
            "own with whole_photo()."
        )
    if _is_aligned(dataset):
        raise UsageError(
            f"the photos of dataset {dataset.name} are aligned crops already, as its parameters say. Give it the "
            "photos they were cut out of."
        )


def gives(cls: type[Dataset]) -> bool:
    """Say whether a kind of dataset has whole photos, unless its parameters say that they are crops."""
    return _reader(cls) is not None or cls.whole_photo is not Dataset.whole_photo


def _reader(cls: type[Dataset]) -> Reader | None:
    """Return how a dataset of this package gives photos; None for others, and where a subclass says it itself."""
    if cls.whole_photo is not Dataset.whole_photo:
        return None
    readers = _readers()
    return next((readers[base] for base in cls.__mro__ if base in readers), None)


def _readers() -> Mapping[type, Reader]:
    from bench.datasets._published import PublishedDataset
    from bench.datasets.folder import Folder
    from bench.datasets.lfw import LFW

    return {LFW: _of_lfw, Folder: _of_folder, PublishedDataset: _of_published}


def _is_aligned(dataset: Dataset) -> bool:
    """Whether the photos that a dataset reads are crops on the template."""
    from bench.datasets._published import ALIGNED, PublishedDataset
    from bench.datasets.folder import Folder

    if isinstance(dataset, Folder):
        return dataset.params.aligned
    return isinstance(dataset, PublishedDataset) and dataset._points_from == ALIGNED


def _of_lfw(dataset: Any, image: str) -> WholePhoto:
    pixels = dataset.photo(image)
    return WholePhoto(pixels, dataset._points(image, pixels).points)


def _of_folder(dataset: Any, image: str) -> WholePhoto:
    file = dataset._files.get(image)
    if file is None:
        raise UsageError(f"unknown image '{image}' in {dataset.root}; ids look like folder-0000/0000.")
    try:
        pixels = read_photo(file)
        return WholePhoto(pixels, dataset._points(file, pixels).points)
    except DataError as error:
        # As in `Folder.crops`: a reason may be published, and a file's name may be an identity's.
        raise DataError(str(error).replace(str(file), f"photo {image} of the folder")) from error


def _of_published(dataset: Any, image: str) -> WholePhoto:
    identity, index = dataset._located(image)
    person, called = dataset._published[identity], dataset._called(image)
    pixels = dataset._pixels(person, person.photos[index], called)
    try:
        points = dataset._points_of(person, person.photos[index])
        return WholePhoto(pixels, dataset._detected(image, pixels) if points is None else points)
    except DataError as error:
        raise DataError(f"{called}: {error}") from error
