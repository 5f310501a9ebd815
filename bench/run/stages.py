"""What each stage computes, as functions of tensors; its source is part of every artefact's key.

Here the contracts are enforced: what leaves an attack or a purifier is checked and rounded to 8 bits.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench.contracts import Attack, Backbone, Context, Embedded, Faces, Purifier
from bench.errors import MethodError
from bench.faces.pixels import Pixels, to_bytes_range

EMBED_BATCH = 32
"""Images per forward pass when embedding, always padded to this many (see `contracts.MICRO_BATCH`)."""


def cloak(attack: Attack, pixels: Pixels, ctx: Context, batch_size: int) -> Pixels:
    """Return the images an attack changed, rounded to 8 bits.

    Args:
        attack: the attack.
        pixels: gallery photos of protected identities, whole scopes.
        ctx: with surrogates, targets and state.
        batch_size: at most this many images a call where the attack's scope is the image.

    Raises:
        MethodError: the attack broke its contract.
    """
    edits: dict[str, Tensor] = {}
    for rows in _scopes(attack.scope, pixels, batch_size):
        faces = pixels.faces(ctx.device).subset(rows)
        made = attack.cloak(faces, ctx)
        _check_edits(attack.name, faces, made)
        edits.update({name: to_bytes_range(image) for name, image in made.items()})
    kept = pixels.only(frozenset(edits))
    images = torch.stack([edits[name] for name in kept.ids]) if kept.ids else kept.images
    return replace(kept, images=images)


def _scopes(scope: str, pixels: Pixels, batch_size: int) -> Iterator[list[int]]:
    if scope == "image":
        for start in range(0, len(pixels.ids), batch_size):
            yield list(range(start, min(start + batch_size, len(pixels.ids))))
        return
    for identity in dict.fromkeys(pixels.identities):
        yield [row for row, name in enumerate(pixels.identities) if name == identity]


def _check_edits(name: str, faces: Faces, made: object) -> None:
    if not isinstance(made, Mapping):
        raise MethodError(f"attack '{name}' returned {type(made).__name__}, not a mapping image id → image")
    for image_id, image in made.items():
        if image_id not in faces.ids:
            raise MethodError(f"attack '{name}' edited '{image_id}', which it was not given")
        _check_images(f"attack '{name}' on '{image_id}'", image, tuple(faces.images.shape[1:]))


def _check_images(who: str, images: object, shape: tuple[int, ...]) -> None:
    if not isinstance(images, Tensor) or tuple(images.shape) != shape or images.dtype != torch.float32:
        found = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise MethodError(f"{who} returned {found}, not torch.float32 {shape}")
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise MethodError(f"{who} returned values in [{low:.4g}, {high:.4g}], not in [0, 1]")


def purify(defense: Purifier, pixels: Pixels, ctx: Context, batch_size: int) -> Pixels:
    """Return every image as the defence gives it back, rounded to 8 bits.

    Raises:
        MethodError: the defence broke its contract.
    """
    done = [pixels.images[:0]]
    for start in range(0, len(pixels.ids), batch_size):
        rows = list(range(start, min(start + batch_size, len(pixels.ids))))
        faces = pixels.faces(ctx.device).subset(rows)
        with torch.inference_mode():
            images = defense.purify(faces, ctx)
        _check_images(f"defence '{defense.name}'", images, tuple(faces.images.shape))
        done.append(to_bytes_range(images))
    return replace(pixels, images=torch.cat(done))


def erase(attack: Attack, cloaks: Pixels, key: bytes, ctx: Context, batch_size: int) -> Pixels:
    """Return cloaked images with their cloaks taken off, rounded to 8 bits.

    Args:
        attack: an erasable attack.
        cloaks: as posted.
        key: what is tried as the secret.
        ctx: without the secret.
        batch_size: at most this many images a call where the attack's scope is the image.

    Raises:
        MethodError: the attack broke its contract.
    """
    images = torch.empty_like(cloaks.images)
    for rows in _scopes(attack.scope, cloaks, batch_size):
        faces = cloaks.faces(ctx.device).subset(rows)
        erased = attack.erase(faces, key, ctx)
        _check_images(f"attack '{attack.name}', erasing,", erased, tuple(faces.images.shape))
        images[rows] = to_bytes_range(erased)
    return replace(cloaks, images=images)


def assign_targets(attack: Attack, pixels: Pixels, ctx: Context, batch_size: int) -> dict[str, str]:
    """Return image id → identity id whom the image's cloak imitates.

    Raises:
        MethodError: the attack names nobody for a photo, or someone outside its pool.
    """
    assert ctx.targets is not None, "a targeted attack has targets"
    found: dict[str, str] = {}
    for rows in _scopes(attack.scope, pixels, batch_size):
        found |= attack.assign_targets(pixels.faces(ctx.device).subset(rows), ctx)
    known = set(ctx.targets.identities)
    for name in pixels.ids:
        if found.get(name) not in known:
            raise MethodError(f"attack '{attack.name}' aims '{name}' at {found.get(name)!r}, not in its pool")
    return {name: found[name] for name in pixels.ids}


def embed(
    backbone: Backbone, pixels: Pixels, device: torch.device, advance: Callable[[int], None]
) -> Embedded:
    """Return embeddings computed in batches of one fixed shape.

    Raises:
        MethodError: an embedding has the wrong shape or is not finite.
    """
    done: list[np.ndarray] = []
    for start in range(0, len(pixels.ids), EMBED_BATCH):
        batch = pixels.images[start : start + EMBED_BATCH]
        count = len(batch)
        padded = torch.cat([batch, batch[-1:].expand(EMBED_BATCH - count, -1, -1, -1)])
        vectors = backbone.embed_batch(padded.to(device).float() / 255)[:count].float().cpu().numpy()
        _check_vectors(backbone, vectors, count)
        done.append(vectors)
        advance(count)
    empty = np.zeros((0, backbone.card.embedding_dim), dtype=np.float32)
    return Embedded(np.concatenate([empty, *done]), pixels.ids, pixels.identities)


def _check_vectors(backbone: Backbone, vectors: np.ndarray, count: int) -> None:
    expected = (count, backbone.card.embedding_dim)
    if vectors.shape != expected:
        raise MethodError(
            f"backbone '{backbone.card.name}' returned embeddings {vectors.shape}, its card says {expected}"
        )
    if not np.isfinite(vectors).all():
        raise MethodError(f"backbone '{backbone.card.name}' returned embeddings that are not finite")
