"""The seam at which the harness calls plugins: what they return is checked, what they leave behind is undone.

Every stage calls plugins through here. A plugin that breaks its contract fails the cells it is part of, by name, and
no other: the process-wide settings it changed are as before once the call is over.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contracts import (
    CROP_SIZE,
    Attack,
    Backbone,
    Context,
    Dataset,
    Decided,
    Defense,
    Detector,
    Embedded,
    Faces,
    Hardening,
    Identity,
    PersonMask,
    Protocol,
    Purifier,
    Split,
    Substitution,
    Trial,
    WholePhoto,
)  # fmt: skip
from bench.datasets import whole_photos
from bench.errors import MethodError, UsageError
from bench.plugins.process import calling

log = logging.getLogger("bench")

_ROUNDING = 0.01
"""Share of an embedding's length by which it may differ in another batch; rounding is a thousandth of that."""

_SAME = 1e-6
"""Share of an embedding's length below which two are the same."""

# -- datasets and their split --------------------------------------------------------------------------


def identities(dataset: Dataset, role: Literal["evaluation", "training"]) -> list[Identity]:
    """Return those of `Dataset.identities` that have a role."""
    with calling(f"dataset '{dataset.name}'"):
        found = dataset.identities()
    return [identity for identity in found if identity.role == role]


def fingerprint(dataset: Dataset) -> str:
    """Return `Dataset.fingerprint`."""
    with calling(f"dataset '{dataset.name}'"):
        return dataset.fingerprint()


def split(protocol: Protocol, evaluated: Sequence[Identity], split_seed: int) -> Split:
    """Return `Protocol.split`."""
    with calling(f"protocol '{protocol.name}'"):
        return protocol.split(evaluated, split_seed)


def impostors(
    protocol: Protocol, training: Sequence[Identity], split_seed: int
) -> Mapping[str, tuple[str, ...]]:
    """Return `Protocol.impostors`."""
    with calling(f"protocol '{protocol.name}'"):
        return protocol.impostors(training, split_seed)


def given_targets(
    protocol: Protocol,
    split: Split,
    impostors: Mapping[str, tuple[str, ...]],
    others: Sequence[Identity],
    pool: Sequence[str],
    split_seed: int,
) -> Mapping[str, str]:
    """Return `Protocol.given_targets`.

    Args:
        protocol: what is asked.
        split: of the run.
        impostors: as the protocol dealt them.
        others: identities of role ``training``.
        pool: those that attacks draw from otherwise.
        split_seed: of the run.
    """
    who = f"protocol '{protocol.name}'"
    with calling(who):
        found = protocol.given_targets(split, impostors, pool, split_seed)
    _check_mapping(who, found, "identity id → identity id")
    possible = {identity.id for identity in others if len(identity.photos) > 1}
    without = split.gallery.keys() - found.keys()
    if without and split.gallery.keys() & found.keys():
        raise MethodError(f"{who} says whom some identities imitate, and not whom '{min(without)}' does")
    for identity, target in found.items():
        if identity in split.gallery:
            if target not in possible:
                raise UsageError(
                    f"{who} has '{identity}' imitate '{target}', who is no training identity of this dataset with two "
                    f"photos or more. There are {len(possible)}{_named_first(possible)}."
                )
        elif identity not in impostors:
            raise MethodError(f"{who} gives a target to '{identity}', neither evaluated nor an impostor")
        elif target not in split.gallery:
            raise MethodError(f"{who} has '{identity}' imitate {target!r}, who is not evaluated")
    return found


def _named_first(names: Iterable[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return f", e.g. {first}" if first else ""


def crops(dataset: Dataset, ids: Sequence[str]) -> Tensor:
    """Return `Dataset.crops`: N×3×112×112 uint8."""
    with calling(f"dataset '{dataset.name}'"):
        images = dataset.crops(ids)
    _check_tensor(f"dataset '{dataset.name}'", images, (len(ids), 3, CROP_SIZE, CROP_SIZE), torch.uint8)
    return images


def whole_photo(dataset: Dataset, image: str) -> WholePhoto:
    """Return the photo that a crop was cut out of (`Dataset.whole_photo`): H×W×3 uint8 with 5×2 finite points."""
    who = f"dataset '{dataset.name}'"
    with calling(who):
        found = whole_photos.whole_photo(dataset, image)
    if not isinstance(found, WholePhoto):
        raise MethodError(f"{who} returned {type(found).__name__}, not a WholePhoto")
    pixels, points = np.asarray(found.pixels), np.asarray(found.points)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise MethodError(f"{who} returned a photo {pixels.dtype} {pixels.shape}, not uint8 (H, W, 3)")
    if points.shape != (5, 2) or not np.isfinite(points.astype(float)).all():
        raise MethodError(f"{who} returned points {points.tolist()} for '{image}', not 5×2 finite numbers")
    return found


# -- what is learnt ------------------------------------------------------------------------------------


def fit(method: Attack | Defense, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
    """Return `Attack.fit` or `Defense.fit`: named tensors."""
    return _learnt(method, lambda: method.fit(faces, ctx))


def train(hardening: Hardening, tracker: Backbone, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
    """Return `Hardening.train`: named tensors."""
    return _learnt(hardening, lambda: hardening.train(tracker, faces, ctx))


def _learnt(method: Attack | Defense, learn: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    who = _named(method)
    with calling(who):
        state = learn()
    _check_mapping(who, state, "name → tensor")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise MethodError(f"{who} learnt {name!r}: {type(value).__name__}, not name → tensor")
    return state


def learn(attack: PersonMask, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
    """Return `PersonMask.learn` of one identity's photos: named tensors, at least one."""
    mask = _learnt(attack, lambda: attack.learn(faces, ctx))
    if not mask:
        raise MethodError(f"{_named(attack)} learnt a mask without a tensor")
    return mask


def harden(hardening: Hardening, tracker: Backbone, state: Mapping[str, Tensor]) -> Backbone:
    """Return `Hardening.harden`: the backbone that the tracker uses."""
    who = _named(hardening)
    with calling(who):
        hardened = hardening.harden(tracker, state)
    if not isinstance(hardened, Backbone):
        raise MethodError(f"{who} returned {type(hardened).__name__}, not a Backbone")
    return hardened


# -- images --------------------------------------------------------------------------------------------


def cloak(attack: Attack, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
    """Return `Attack.cloak`: edits of photos that were given, 3×H×W float32 in [0, 1]."""
    who = _named(attack)
    with calling(who):
        edits = attack.cloak(faces, ctx)
    _check_mapping(who, edits, "image id → image")
    for image_id, image in edits.items():
        if image_id not in faces.ids:
            raise MethodError(f"{who} edited '{image_id}', which it was not given")
        _check_images(f"{who} on '{image_id}'", image, tuple(faces.images.shape[1:]))
    return edits


def apply(attack: PersonMask, faces: Faces, mask: Mapping[str, Tensor], ctx: Context) -> Tensor:
    """Return `PersonMask.apply` on photos of one identity: N×3×H×W float32 in [0, 1]."""
    who = _named(attack)
    with calling(who), torch.inference_mode():
        images = attack.apply(faces, mask, ctx)
    return _check_images(who, images, tuple(faces.images.shape))


def take_off(attack: PersonMask, faces: Faces, mask: Mapping[str, Tensor], ctx: Context) -> Tensor:
    """Return `PersonMask.take_off`: N×3×H×W float32 in [0, 1]."""
    who = _named(attack)
    with calling(who), torch.inference_mode():
        images = attack.take_off(faces, mask, ctx)
    return _check_images(f"{who}, taking a mask off,", images, tuple(faces.images.shape))


def assign_targets(attack: Attack, faces: Faces, ctx: Context) -> Mapping[str, str]:
    """Return `Attack.assign_targets` for the photos given: image id → identity id of the pool."""
    assert ctx.targets is not None, "a targeted attack has targets"
    who = _named(attack)
    with calling(who):
        found = attack.assign_targets(faces, ctx)
    _check_mapping(who, found, "image id → identity id")
    known = set(ctx.targets.identities)
    for name in faces.ids:
        if found.get(name) not in known:
            raise MethodError(f"{who} imitates {found.get(name)!r} on '{name}', who is not in its pool")
    return {name: found[name] for name in faces.ids}


def erase(attack: Attack, faces: Faces, key: bytes, ctx: Context) -> Tensor:
    """Return `Attack.erase`: N×3×H×W float32 in [0, 1]."""
    who = _named(attack)
    with calling(who):
        images = attack.erase(faces, key, ctx)
    return _check_images(f"{who}, erasing,", images, tuple(faces.images.shape))


def purify(defense: Purifier, faces: Faces, ctx: Context) -> Tensor:
    """Return `Purifier.purify`: N×3×H×W float32 in [0, 1]."""
    who = _named(defense)
    with calling(who), torch.inference_mode():
        images = defense.purify(faces, ctx)
    return _check_images(who, images, tuple(faces.images.shape))


def flagged(detector: Detector, faces: Faces, ctx: Context) -> Tensor:
    """Return `Detector.flagged`: N booleans."""
    who = _named(detector)
    with calling(who), torch.inference_mode():
        found = detector.flagged(faces, ctx)
    return _check_tensor(f"{who}, asked for what it flags,", found, (len(faces),), torch.bool)


# -- backbones and protocols -----------------------------------------------------------------------------


def load(backbone: Backbone, device: torch.device) -> None:
    """Have a backbone read its weights onto a device, and look whether it embeds each picture by itself.

    Raises:
        MethodError: a picture's embedding depends on what else is in the batch.
    """
    with calling(f"backbone '{backbone.card.name}'"):
        backbone.load(device)
    _check_rows(backbone, device)


def _check_rows(backbone: Backbone, device: torch.device) -> None:
    """Embed a few pictures alone and together; rounding apart, each must get the same embedding."""
    coarse = torch.rand((3, 3, 7, 7), generator=torch.Generator().manual_seed(0))
    pictures = F.interpolate(coarse, size=CROP_SIZE, mode="bilinear").to(device)
    # In float64, where the squares of no float32 overflow or vanish; on the CPU, as not every device has it.
    together = embed(backbone, pictures).cpu().double()
    alone = torch.cat([embed(backbone, picture[None]).cpu().double() for picture in pictures])
    apart = (together - alone).norm(dim=1)
    if bool((apart > _ROUNDING * alone.norm(dim=1)).any()):
        raise MethodError(
            f"backbone '{backbone.card.name}' gives a picture another embedding alone than among others (by up to "
            f"{float((apart / alone.norm(dim=1)).max()):.2g} of its length): it mixes its batch, so that no answer is "
            "of one photo. Export the network for evaluation, without operations over the batch."
        )
    spread = (together - together.mean(0)).norm(dim=1).max()
    if float(spread) <= _SAME * float(together.norm(dim=1).max()):
        log.warning(
            "backbone '%s' gives different pictures the same embedding: every answer of it is chance",
            backbone.card.name,
        )


def embed(backbone: Backbone, images: Tensor, *, in_torch: bool = False) -> Tensor:
    """Return `Backbone.embed_batch`: N×D, finite, a row for each image.

    Args:
        backbone: whose embeddings.
        images: N×3×112×112 in [0, 1].
        in_torch: take `Backbone.embed` instead, which computes in torch whatever the quickest way is.

    Raises:
        MethodError: they have another shape or are not finite.
    """
    who = f"backbone '{backbone.card.name}'"
    with calling(who):
        if in_torch:
            with torch.inference_mode():
                vectors = backbone.embed(images)
        else:
            vectors = backbone.embed_batch(images)
    expected = (len(images), backbone.card.embedding_dim)
    if not isinstance(vectors, Tensor):
        raise MethodError(f"{who} returned {type(vectors).__name__}, not a tensor of embeddings")
    if tuple(vectors.shape) != expected or not vectors.is_floating_point():
        raise MethodError(
            f"{who} returned {vectors.dtype} embeddings {tuple(vectors.shape)} for {len(images)} images, its card "
            f"says {expected}"
        )
    if not bool(vectors.isfinite().all()):
        raise MethodError(f"{who} returned embeddings that are not finite")
    return vectors


def fuse(method: Substitution, embeddings: Sequence[Tensor]) -> Tensor:
    """Return `Substitution.fuse`: N×D float32, finite, a row for each image.

    Args:
        method: of the tracker.
        embeddings: N×D_k by each of its backbones.

    Raises:
        MethodError: they have another shape or are not finite.
    """
    who = _named(method)
    with calling(who):
        fused = method.fuse(embeddings)
    count = len(embeddings[0])
    if (
        not isinstance(fused, Tensor)
        or fused.ndim != 2
        or len(fused) != count
        or fused.dtype != torch.float32
    ):
        kind = f"{fused.dtype} {tuple(fused.shape)}" if isinstance(fused, Tensor) else type(fused).__name__
        raise MethodError(
            f"{who} fused the embeddings of {count} images to {kind}, not to {count} rows of float32"
        )
    if not bool(fused.isfinite().all()):
        raise MethodError(f"{who} returned embeddings that are not finite")
    return fused


def decide(protocol: Protocol, views: Mapping[str, Embedded], trial: Trial) -> Decided:
    """Return `Protocol.decide`."""
    who = f"protocol '{protocol.name}'"
    with calling(who):
        decided = protocol.decide(views, trial)
    if not isinstance(decided, Decided):
        raise MethodError(f"{who} returned {type(decided).__name__}, not Decided")
    return decided


# -- checks --------------------------------------------------------------------------------------------


def _named(method: Attack | Defense) -> str:
    return f"{'attack' if isinstance(method, Attack) else 'defence'} '{method.name}'"


def _check_mapping(who: str, found: object, of: str) -> None:
    if not isinstance(found, Mapping):
        raise MethodError(f"{who} returned {type(found).__name__}, not a mapping {of}")


def _check_images(who: str, images: object, shape: tuple[int, ...]) -> Tensor:
    found = _check_tensor(who, images, shape, torch.float32)
    if not found.numel():
        return found
    low, high = (float(bound) for bound in found.aminmax())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise MethodError(f"{who} returned values in [{low:.4g}, {high:.4g}], not in [0, 1]")
    return found


def _check_tensor(who: str, found: object, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if isinstance(found, Tensor) and tuple(found.shape) == shape and found.dtype == dtype:
        return found
    kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise MethodError(f"{who} returned {kind}, not {dtype} {shape}")
