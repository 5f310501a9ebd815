"""What an attack and a purifier did, seen from outside: facts from which `analysis.warning_rules` draws its warnings.

Nothing here asks a method to cooperate, so plugins of third parties are judged like our own. An attack is
looked at through the surrogates it was handed, on a fixed sample of its cloaks; a purifier, by what it gave
back for every image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError

from bench.contracts import MICRO_BATCH, Backbone, Frozen
from bench.errors import DataError, MethodError
from bench.randomness import torch_generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.faces.pixels import Pixels

Kind = TypeVar("Kind", bound=Frozen)

SAMPLE_BATCHES = 4
"""Micro-batches of cloaks that are looked at: 32 images tell a broken attack, and cost little beside it."""

START = 4.0
"""Grey levels: the gradient is taken at a uniform random start this near; at the photo itself it is zero."""


class SurrogateProbe(Frozen):
    """One cloak under one surrogate. Distances are cosine distances 1 − cos of embeddings."""

    image: str = Field(description="image id")
    surrogate: str = Field(description="name of the backbone")
    moved: float = Field(description="distance from the photo to its cloak")
    random: float = Field(description="distance from the photo to the photo with `matched_noise`")
    slope: float | None = Field(
        description="‖∇d‖₁/255: what one grey level along the gradient's signs adds to the distance, to first "
        "order; empty where the surrogate has no gradient or it is not finite"
    )
    finite: bool = Field(description="False where the gradient holds NaN or infinity")


class AttackDiagnosis(Frozen):
    """What is known of one attack's cloaks besides their image measures."""

    goal: str = Field(description="of the threat model")
    max_linf: float | None = Field(description="declared budget, grey levels")
    max_dssim: float | None = Field(description="declared budget")
    adapts_to: tuple[str, ...] = Field((), description="defences the attack works against")
    probes: tuple[SurrogateProbe, ...] = Field(description="none where the attack was handed no surrogate")
    reason: str = Field("", description="why the surrogates could not be asked")


class PurifiedShard(Frozen):
    """What a purifier gave back for some images that it was given together."""

    changes: dict[str, int] = Field(description="image id → largest change of a pixel, grey levels")
    spread_given: float = Field(
        description="standard deviation of a pixel over the images given, mean over pixels, grey levels"
    )
    spread_returned: float = Field(description="the same over the images returned")


class PurifierDiagnosis(Frozen):
    """What is known of one purifier on one attack's cloaks, or on photos for attack ``none``."""

    shards: tuple[PurifiedShard, ...]
    reason: str = Field("", description="why there are none")


class _Probes(Frozen):
    probes: tuple[SurrogateProbe, ...]


def sample(shards: Sequence[Sequence[str]]) -> dict[int, tuple[str, ...]]:
    """Choose the cloaks to look at: up to `SAMPLE_BATCHES` shards, evenly spaced, images in the order of a hash.

    Args:
        shards: image ids that the attack was given, shard by shard.

    Returns:
        index of a shard → ids chosen from it; whole micro-batches where it has enough.
    """
    filled = [index for index, ids in enumerate(shards) if ids]
    count = min(SAMPLE_BATCHES, len(filled))
    chosen = [filled[(2 * k + 1) * len(filled) // (2 * count)] for k in range(count)]
    size = MICRO_BATCH * (SAMPLE_BATCHES // max(count, 1))
    return {index: tuple(sorted(shards[index], key=_hashed)[:size]) for index in chosen}


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def matched_noise(perturbation: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise that has everything of a perturbation but its aim: the phases of its spectrum are random.

    Energy, spectrum (so smoothness), mean and the correlation of the channels stay. "Surrogate data" of
    Theiler et al., "Testing for nonlinearity in time series" (Physica D 58, 1992).

    Args:
        perturbation: 3×H×W.
        generator: CPU generator.
    """
    import torch

    noise = torch.randn(perturbation.shape[-2:], generator=generator, dtype=torch.float64)
    phase = torch.fft.fft2(noise)
    phase = phase / phase.abs().clamp_min(1e-12)
    phase[0, 0] = 1
    spectrum = torch.fft.fft2(perturbation.detach().cpu().double()) * phase
    noisy: Tensor = torch.fft.ifft2(spectrum).real.to(perturbation)
    return noisy


def probe_attack(
    originals: Pixels,
    cloaks: Pixels,
    chosen: Sequence[str],
    surrogates: Sequence[tuple[str, Backbone]],
    *,
    seed: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda _n: None,
) -> tuple[SurrogateProbe, ...]:
    """Return what each surrogate makes of the chosen cloaks; those the attack left unchanged are passed over.

    Args:
        originals: photos, the chosen among them.
        cloaks: as posted; may lack some.
        chosen: image ids.
        surrogates: name and loaded backbone of each.
        seed: of the random starts and the noise, with the image's id.
        device: where to compute.
        advance: called with the number of images finished.

    Raises:
        MethodError: a surrogate's embedding is not finite.
    """
    found: list[SurrogateProbe] = []
    for ids in _batches(_changed(originals, cloaks, chosen)):
        padded = (*ids, *[ids[-1]] * (MICRO_BATCH - len(ids)))
        photo, cloak = (_images(pixels, padded, device) for pixels in (originals, cloaks))
        random, start = _beside(photo, cloak, padded, seed)
        for name, backbone in surrogates:
            measured = _Measured(name, backbone, photo)
            facts = zip(
                measured.distance(cloak), measured.distance(random), *measured.slope(start), strict=True
            )
            rows = zip(ids, facts, strict=False)  # padded rows are nobody's
            found += [
                SurrogateProbe(image=i, surrogate=name, moved=m, random=r, slope=s, finite=f)
                for i, (m, r, s, f) in rows
            ]
        advance(len(ids))
    return tuple(found)


class _Measured:
    """One surrogate and a micro-batch of photos that others are compared with."""

    def __init__(self, name: str, backbone: Backbone, photo: Tensor) -> None:
        import torch

        self.name, self.backbone = name, backbone
        with torch.no_grad():
            self.clean = self._unit(photo)

    def distance(self, images: Tensor) -> list[float]:
        import torch

        with torch.no_grad():
            return [float(value) for value in self._distances(images)]

    def slope(self, start: Tensor) -> tuple[list[float | None], list[bool]]:
        """Return the slope of each image at a start, and whether it is finite."""
        import torch

        from bench.quality.metrics import GREY_LEVELS

        if not self.backbone.differentiable:
            return [None] * len(start), [True] * len(start)
        with torch.enable_grad():
            at = start.clone().requires_grad_()
            total = self._distances(at).sum()
            # Embeddings that lost their graph (rounded, detached) have no gradient: it is zero.
            gradient = torch.autograd.grad(total, at)[0] if total.requires_grad else torch.zeros_like(at)
        slopes = (gradient.abs().flatten(1).sum(1) / GREY_LEVELS).tolist()
        finite = gradient.isfinite().flatten(1).all(1).tolist()
        return [s if ok else None for s, ok in zip(slopes, finite, strict=True)], finite

    def _distances(self, images: Tensor) -> Tensor:
        # ‖a − b‖²/2 = 1 − cos of unit vectors, without the cancellation of small distances.
        return (self._unit(images) - self.clean).square().sum(1) / 2

    def _unit(self, images: Tensor) -> Tensor:
        import torch.nn.functional as F

        embed = self.backbone.embed if self.backbone.differentiable else self.backbone.embed_batch
        vectors = embed(images)
        if vectors.ndim != 2 or len(vectors) != len(images):  # else padded rows would hide a missing one
            raise MethodError(
                f"surrogate '{self.name}' returned embeddings {tuple(vectors.shape)} for {len(images)} images"
            )
        if not bool(vectors.isfinite().all()):
            raise MethodError(f"surrogate '{self.name}' returned embeddings that are not finite")
        return F.normalize(vectors.float(), dim=1)


def _changed(originals: Pixels, cloaks: Pixels, chosen: Sequence[str]) -> list[str]:
    import torch

    before, after = _places(originals), _places(cloaks)
    return [
        name
        for name in chosen
        if name in after and not torch.equal(originals.images[before[name]], cloaks.images[after[name]])
    ]


def _batches(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(ids), MICRO_BATCH):
        yield tuple(ids[start : start + MICRO_BATCH])


def _places(pixels: Pixels) -> dict[str, int]:
    return {name: row for row, name in enumerate(pixels.ids)}


def _images(pixels: Pixels, ids: Sequence[str], device: torch.device) -> Tensor:
    import torch

    from bench.quality.metrics import GREY_LEVELS

    place = _places(pixels)
    chosen = pixels.images[[place[name] for name in ids]].to(device).float() / GREY_LEVELS
    return chosen.contiguous(memory_format=torch.channels_last)


def _beside(photo: Tensor, cloak: Tensor, ids: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
    """Return the photos with matched noise, rounded as they would be posted, and with a small random start."""
    import torch

    from bench.quality.metrics import GREY_LEVELS

    noise = [
        matched_noise(change, torch_generator(seed, "diagnose/noise", name))
        for change, name in zip(cloak - photo, ids, strict=True)
    ]
    posted = ((photo + torch.stack(noise)).clamp(0, 1) * GREY_LEVELS).round() / GREY_LEVELS
    offset = [torch.rand(photo.shape[1:], generator=torch_generator(seed, "diagnose/start", i)) for i in ids]
    start = photo + (2 * torch.stack(offset).to(photo) - 1) * (START / GREY_LEVELS)
    return posted, start.clamp(0, 1)


def probe_purifier(given: Pixels, returned: Pixels) -> PurifiedShard:
    """Return how a purifier changed each image, and how different what it returned still is.

    Args:
        given: N×3×H×W uint8, N ≥ 1.
        returned: the same ids.
    """
    import torch

    place = _places(given)
    before = given.images[[place[name] for name in returned.ids]].float()
    after = returned.images.float()
    largest = (after - before).abs().flatten(1).amax(1) if len(after) else torch.zeros(0)
    changes = dict(zip(returned.ids, (int(value) for value in largest), strict=True))
    return PurifiedShard(changes=changes, spread_given=_spread(before), spread_returned=_spread(after))


def _spread(images: Tensor) -> float:
    return float(images.std(0, correction=0).mean()) if len(images) else 0.0


def probes_to_bytes(probes: tuple[SurrogateProbe, ...]) -> bytes:
    """Return probes as stored."""
    return to_bytes(_Probes(probes=probes))


def probes_from_bytes(payload: bytes) -> tuple[SurrogateProbe, ...]:
    """Return probes from their stored form."""
    return read(_Probes, payload, "a stored diagnosis").probes


def shard_from_bytes(payload: bytes) -> PurifiedShard:
    """Return a shard from its stored form."""
    return read(PurifiedShard, payload, "a stored diagnosis")


def to_bytes(value: Frozen) -> bytes:
    """Return a diagnosis as JSON."""
    return (value.model_dump_json(indent=1) + "\n").encode()


def read(kind: type[Kind], payload: bytes, source: str) -> Kind:
    """Return a diagnosis from JSON.

    Raises:
        DataError: not the JSON of that kind.
    """
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        problem: Any = error.errors()[0]["msg"]
        raise DataError(f"{source} is damaged: {problem}.") from None
