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

from attacks.apf.end import Ascent, image_gradients, other_photos
from bench.contracts import MICRO_BATCH, Backbone, Context, Faces, Identity, TrainRequest
from bench.errors import UsageError
from bench.plugins.factory import canonical
from bench.plugins.training import write_tensors
from bench.run.code_hashes import code_digest
from bench.run.digest import environment

_SHARD = 128
"""Photos between two files of the gradient cache."""


@dataclass(frozen=True)
class Pairs:
    """Photos, each with another of the same identity, and the gradient between them.

    Attributes:
        photos: N×3×H×W uint8.
        others: N rows of `photos`: the photo each is pushed away from.
        third: N rows of `photos`: one that crafting did not see; the same as `others` for identities of two photos.
        gradients: N×3×H×W int8, module 1's answer.
    """

    photos: Tensor
    others: Tensor
    third: Tensor
    gradients: Tensor


def deal_identities(
    identities: Sequence[Identity], holdout: int, photos: int, rng: np.random.Generator, dataset: str
) -> tuple[list[Identity], list[Identity]]:
    """Return held-out identities, who have three photos or more, and identities to train on, who have two or more.

    Args:
        identities: whom one may learn from.
        holdout: identities to keep out.
        photos: train on whole identities until they have this many photos together.
        rng: deals.
        dataset: its name, for messages.

    Raises:
        UsageError: too few identities have enough photos.
    """
    able = [identity for identity in identities if len(identity.photos) >= 2]
    shuffled = [able[i] for i in rng.permutation(len(able))]
    held_out = [identity for identity in shuffled if len(identity.photos) >= 3][:holdout]
    kept_out = {identity.id for identity in held_out}
    rest = [identity for identity in shuffled if identity.id not in kept_out]
    if len(held_out) < holdout or not rest:
        raise UsageError(
            f"'{dataset}' has {len(able)} training identities of two photos or more; holdout={holdout} takes "
            f"identities of three or more and leaves {len(rest)} to train on. Lower holdout or take another dataset."
        )
    chosen, count = [], 0
    for identity in rest:
        if count >= photos:
            break
        chosen.append(identity)
        count += len(identity.photos)
    return held_out, chosen


def read_pairs(
    request: TrainRequest,
    identities: Sequence[Identity],
    probe: Backbone,
    ascent: Ascent,
    folder: Path,
    what: str,
) -> Pairs:
    """Return the photos of `identities` with their gradients, made shard by shard and kept in `folder`.

    Args:
        request: dataset, seed, device, progress.
        identities: whole identities, two photos or more each.
        probe: module 1's model.
        ascent: module 1's settings.
        folder: where shards are kept.
        what: name of the work, for the progress bar.
    """
    photos, gradients = [], []
    total, done = sum(len(identity.photos) for identity in identities), 0
    for shard in _shards(identities):
        ids = tuple(image for identity in shard for image in identity.photos)
        owners = tuple(identity.id for identity in shard for _ in identity.photos)
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
    others, third = _rows(identities)
    return Pairs(torch.cat(photos), others, third, torch.cat(gradients))


def _shards(identities: Sequence[Identity]) -> list[list[Identity]]:
    """Cut identities into shards of about `_SHARD` photos, never through an identity."""
    cut: list[list[Identity]] = [[]]
    for identity in identities:
        if sum(len(other.photos) for other in cut[-1]) >= _SHARD:
            cut.append([])
        cut[-1].append(identity)
    return cut


def _rows(identities: Sequence[Identity]) -> tuple[Tensor, Tensor]:
    """Return the rows of the other and the third photo, in the order `_apf_end.other_photos` goes by."""
    others: list[int] = []
    third: list[int] = []
    begin = 0
    for identity in identities:
        count = len(identity.photos)
        order = sorted(range(count), key=lambda row: identity.photos[row])
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
        code_digest("attacks.apf.end", type(probe)),
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
