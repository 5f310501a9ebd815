"""The photos a purifier trains on: which, their cloaks, their features; cloaks are kept between trainings."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.contracts import (
    MICRO_BATCH,
    Attack,
    Backbone,
    Binding,
    Context,
    Dataset,
    Faces,
    Identity,
    TrainRequest,
)
from bench.data.files import sha256_of
from bench.errors import MethodError
from bench.plugins.factory import canonical
from bench.plugins.training import write_tensors
from bench.run.code_hashes import code_digest
from bench.run.digest import environment

_SHARD = 64
"""Photos cloaked between two files of the cloak cache."""


@dataclass(frozen=True)
class Photos:
    """Photos of training identities with their cloaks.

    Attributes:
        natural: N×3×H×W uint8.
        cloaks: attack (canonical) → rows of `natural` that it cloaked, and N'×3×H×W uint8 cloaks.
        features: for each extractor N×D features of the natural photos.
    """

    natural: Tensor
    cloaks: Mapping[str, tuple[list[int], Tensor]]
    features: tuple[Tensor, ...]


def choose_photos(identities: Sequence[Identity], count: int, scope: str) -> list[tuple[str, str]]:
    """Return up to `count` (image id, identity id), many identities rather than many photos of one.

    Attacks of scope ``identity`` get whole identities, as the contract asks.
    """
    if scope == "identity":
        chosen: list[tuple[str, str]] = []
        for identity in identities:
            if chosen and len(chosen) + len(identity.photos) > count:
                break
            chosen += [(photo, identity.id) for photo in identity.photos]
        return chosen
    rounds = max((len(identity.photos) for identity in identities), default=0)
    turns = [
        (identity.photos[turn], identity.id)
        for turn in range(rounds)
        for identity in identities
        if turn < len(identity.photos)
    ]
    return turns[:count]


def to_faces(dataset: Dataset, photos: Sequence[tuple[str, str]], device: torch.device) -> Faces:
    """Read the crops of (image id, identity id) as faces in [0, 1]."""
    ids = tuple(photo for photo, _ in photos)
    crops = dataset.crops(ids).to(device).float() / 255
    return Faces(crops, ids, tuple(identity for _, identity in photos))


def to_bytes(images: Tensor) -> Tensor:
    """Round [0, 1] images to uint8, as they are posted."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def embed_all(images: Tensor, extractors: Sequence[Backbone], device: torch.device) -> tuple[Tensor, ...]:
    """Return the extractors' features (N×D each) of N×3×H×W uint8 images, without gradient."""
    features: list[list[Tensor]] = [[] for _ in extractors]
    for start in range(0, len(images), MICRO_BATCH):
        batch = images[start : start + MICRO_BATCH].to(device).float() / 255
        for found, extractor in zip(features, extractors, strict=True):
            with torch.no_grad():
                found.append(extractor.embed(batch))
    return tuple(torch.cat(found) for found in features)


class Cloaker:
    """Cloaks training photos shard by shard and keeps each shard in a folder.

    Args:
        request: dataset, seed, device, progress.
        surrogates: what the attacks use, in the order they see them.
        others: identities whom targeted attacks may imitate.
        folder: where shards are kept; trainings of one dataset, seed and set of surrogates may share it.
    """

    def __init__(
        self, request: TrainRequest, surrogates: Sequence[Backbone], others: Sequence[Identity], folder: Path
    ) -> None:
        self.request, self.surrogates, self.others, self.folder = request, surrogates, others, folder
        folder.mkdir(parents=True, exist_ok=True)

    def cloak(self, name: str, attack: Attack, photos: list[tuple[str, str]]) -> Tensor:
        """Return N×3×H×W uint8 cloaks of `photos`.

        Raises:
            MethodError: the attack broke its contract.
        """
        state: Mapping[str, Tensor] | None = None
        done = 0
        cloaked = []
        for shard in shards(photos, attack):
            path = self.folder / f"cloaks-{self._digest(name, attack, shard, photos)}.safetensors"
            if not path.is_file():
                if state is None:
                    state = self._fit(attack, photos)
                write_tensors(
                    path, {"cloaks": self._shard(name, attack, shard, state, done, len(photos))}, {}
                )
            cloaked.append(load_file(path)["cloaks"])
            done += len(shard)
            self.request.report(f"cloak {name}", done, len(photos))
        return torch.cat(cloaked)

    def _fit(self, attack: Attack, photos: list[tuple[str, str]]) -> Mapping[str, Tensor]:
        if not attack.requires_fit:
            return {}
        faces = to_faces(self.request.dataset, photos, self.request.device)
        return attack.fit(faces, self._context(attack))

    def _shard(
        self,
        name: str,
        attack: Attack,
        shard: list[tuple[str, str]],
        state: Mapping[str, Tensor],
        done: int,
        total: int,
    ) -> Tensor:
        faces = to_faces(self.request.dataset, shard, self.request.device)
        finished = done

        def advance(count: int) -> None:
            nonlocal finished
            finished += count
            self.request.report(f"cloak {name}", finished, total)

        context = self._context(attack, state, advance, {identity for _, identity in shard})
        edits = attack.cloak(faces, context)
        images = [edits.get(image, natural) for image, natural in zip(faces.ids, faces.images, strict=True)]
        cloaks = torch.stack(images)
        if cloaks.shape != faces.images.shape or not bool(cloaks.isfinite().all()):
            raise MethodError(f"attack '{name}' returned images that are not finite {faces.images.shape}.")
        return to_bytes(cloaks).cpu()

    def _context(
        self,
        attack: Attack,
        state: Mapping[str, Tensor] | None = None,
        advance: Callable[[int], None] = lambda _count: None,
        cloaked: set[str] | None = None,
    ) -> Context:
        targets = None
        if attack.threat.needs_targets:
            others = [identity for identity in self.others if identity.id not in (cloaked or set())]
            photos = choose_photos(others, 4 * _SHARD, "image")
            targets = to_faces(self.request.dataset, photos, self.request.device)
        return Context(
            seed=self.request.seed,
            device=self.request.device,
            backbones=self.surrogates,
            targets=targets,
            state=state or {},
            files=attack.files(self._binding()),
            key=self._key() if attack.erasable else b"",
            advance=advance,
        )

    def _key(self) -> bytes:
        """Return the key of erasable training cloaks; whoever trains may know it, a purifier never sees it."""
        return hashlib.sha256(f"training/{self.request.seed}".encode()).digest()

    def _binding(self) -> Binding:
        """Return what the attacks are bound to: these surrogates, and no tracker."""
        request = self.request
        names = tuple(backbone.card.name for backbone in self.surrogates)
        return Binding(canonical(request.dataset), request.dataset.domain, names, "")

    def _digest(
        self, name: str, attack: Attack, shard: list[tuple[str, str]], photos: list[tuple[str, str]]
    ) -> str:
        """Return a digest of all that decides a shard's cloaks."""
        request = self.request
        content = [
            name,
            attack.params.model_dump(mode="json"),
            code_digest(type(attack), __name__),
            [sha256_of(path) for path in attack.files(self._binding())],
            shard,
            photos if attack.requires_fit else [],
            request.seed,
            request.dataset.fingerprint(),
            [identity.id for identity in self.others] if attack.threat.needs_targets else [],
            [(b.card.model_dump(mode="json"), code_digest(type(b))) for b in self.surrogates],
            environment(str(request.device), torch.get_num_threads()),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def shards(photos: list[tuple[str, str]], attack: Attack) -> list[list[tuple[str, str]]]:
    """Cut photos into shards of about 64, never through an identity where the scope is the identity."""
    cut: list[list[tuple[str, str]]] = []
    for photo, identity in photos:
        new_scope = attack.scope == "image" or (bool(cut) and cut[-1][-1][1] != identity)
        if not cut or (len(cut[-1]) >= _SHARD and new_scope):
            cut.append([])
        cut[-1].append((photo, identity))
    return cut
