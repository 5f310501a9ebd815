"""The photos APF trains and is measured on, with their gradients by the probe model, kept between runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from attacks._apf_end import Ascent, image_gradients, other_photos
from bench.contracts import MICRO_BATCH, Backbone, Context, Faces, Identity, TrainRequest
from bench.digest import code_digest, environment
from bench.errors import UsageError
from bench.methods import canonical
from bench.training import write_tensors

_SHARD = 128
"""Photos between two files of the gradient cache."""


@dataclass(frozen=True)
class Pairs:
    """Photos, each with another of the same person, and the gradient between them.

    Attributes:
        photos: N×3×H×W uint8.
        others: N rows of `photos`: the photo each is pushed away from.
        third: N rows of `photos`: one that crafting did not see; the same as `others` for people of two photos.
        gradients: N×3×H×W int8, module 1's answer.
    """

    photos: Tensor
    others: Tensor
    third: Tensor
    gradients: Tensor


def deal_people(
    people: Sequence[Identity], holdout: int, photos: int, rng: np.random.Generator, dataset: str
) -> tuple[list[Identity], list[Identity]]:
    """Return held-out people, who have three photos or more, and people to train on, who have two or more.

    Args:
        people: all of the dataset.
        holdout: people to keep out.
        photos: train on whole people until they have this many photos together.
        rng: deals.
        dataset: its name, for messages.

    Raises:
        UsageError: too few people have enough photos.
    """
    able = [person for person in people if person.role == "training" and len(person.photos) >= 2]
    shuffled = [able[i] for i in rng.permutation(len(able))]
    held_out = [person for person in shuffled if len(person.photos) >= 3][:holdout]
    kept_out = {person.id for person in held_out}
    rest = [person for person in shuffled if person.id not in kept_out]
    if len(held_out) < holdout or not rest:
        raise UsageError(
            f"'{dataset}' has {len(able)} training identities of two photos or more; holdout={holdout} takes "
            f"people of three or more and leaves {len(rest)} to train on. Lower holdout or take another dataset."
        )
    chosen, count = [], 0
    for person in rest:
        if count >= photos:
            break
        chosen.append(person)
        count += len(person.photos)
    return held_out, chosen


def read_pairs(
    request: TrainRequest,
    people: Sequence[Identity],
    probe: Backbone,
    ascent: Ascent,
    folder: Path,
    what: str,
) -> Pairs:
    """Return the photos of `people` with their gradients, made shard by shard and kept in `folder`.

    Args:
        request: dataset, seed, device, progress.
        people: whole people, two photos or more each.
        probe: module 1's model.
        ascent: module 1's settings.
        folder: where shards are kept.
        what: name of the work, for the progress bar.
    """
    photos, gradients = [], []
    total, done = sum(len(person.photos) for person in people), 0
    for shard in _shards(people):
        ids = tuple(image for person in shard for image in person.photos)
        owners = tuple(person.id for person in shard for _ in person.photos)
        crops = request.dataset.crops(ids)
        path = folder / f"gradients-{_digest(request, ids, probe, ascent)}.safetensors"
        if not path.is_file():
            faces = Faces(crops.to(request.device).float() / 255, ids, owners)
            ctx = Context(seed=request.seed, device=request.device, backbones=(probe,))
            gradient = image_gradients(faces, other_photos(faces), probe, ctx, ascent)
            write_tensors(path, {"gradients": gradient.values}, {})
        photos.append(crops)
        gradients.append(load_file(path)["gradients"])
        done += len(ids)
        request.report(what, done, total)
    others, third = _rows(people)
    return Pairs(torch.cat(photos), others, third, torch.cat(gradients))


def _shards(people: Sequence[Identity]) -> list[list[Identity]]:
    """Cut people into shards of about `_SHARD` photos, never through a person."""
    cut: list[list[Identity]] = [[]]
    for person in people:
        if sum(len(other.photos) for other in cut[-1]) >= _SHARD:
            cut.append([])
        cut[-1].append(person)
    return cut


def _rows(people: Sequence[Identity]) -> tuple[Tensor, Tensor]:
    """Return the rows of the other and the third photo, in the order `_apf_end.other_photos` goes by."""
    others: list[int] = []
    third: list[int] = []
    begin = 0
    for person in people:
        count = len(person.photos)
        order = sorted(range(count), key=lambda row: person.photos[row])
        place = {row: position for position, row in enumerate(order)}
        others += [begin + order[(place[row] + 1) % count] for row in range(count)]
        ahead = 2 if count > 2 else 1
        third += [begin + order[(place[row] + ahead) % count] for row in range(count)]
        begin += count
    return torch.tensor(others), torch.tensor(third)


def _digest(request: TrainRequest, ids: Sequence[str], probe: Backbone, ascent: Ascent) -> str:
    content = [
        canonical(request.dataset),
        request.dataset.fingerprint(),
        ids,
        request.seed,
        vars(ascent),
        probe.card.model_dump(mode="json"),
        code_digest("attacks._apf_end", type(probe)),
        environment(str(request.device), torch.get_num_threads()),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def unit_features(images: Tensor, backbone: Backbone, device: torch.device) -> Tensor:
    """Return the unit embeddings (N×D) of N×3×H×W uint8 images, without gradient."""
    found = []
    for start in range(0, len(images), MICRO_BATCH):
        batch = images[start : start + MICRO_BATCH].to(device).float() / 255
        with torch.no_grad():
            found.append(torch.nn.functional.normalize(backbone.embed(batch), dim=1))
    return torch.cat(found)
