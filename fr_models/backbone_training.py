"""Trains a backbone with ArcFace on a dataset's training identities.

Every batch and every augmentation is drawn from (seed, stage, epoch or step), and a checkpoint holds
weights and optimiser, so a training that was killed goes on to the same weights. Nothing here defends:
augmentation is mild and no perturbed photo is shown.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.contracts import Identity, MethodParams, Preprocessing, Trainer, TrainRequest
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.plugins.factory import canonical
from bench.plugins.training import deal_training_identities, learnt_from
from bench.randomness import numpy_generator, torch_generator
from bench.run.digest import digest
from fr_models._arcface_loss import ArcFaceLoss
from fr_models._layers import initialise
from fr_models._onnx_backbone import prepare
from fr_models._torch_backbone import (
    Architecture,
    TrainedCard,
    TrainingRecord,
    write_card,
    write_weights,
)

_SHARD = 256
"""Photos read or embedded at a time."""

_DTYPES = {"float32": torch.float32, "float16": torch.float16}


# Measures on identities the network was not trained on.


def rank_one(vectors: Tensor, labels: Tensor, gallery: Tensor) -> float:
    """Return the share of probes whose nearest gallery photo (cosine) shows the same identity.

    Args:
        vectors: N×D embeddings.
        labels: N identities.
        gallery: N booleans; the others are probes.
    """
    unit = F.normalize(vectors)
    nearest = (unit[~gallery] @ unit[gallery].T).argmax(1)
    return float((labels[gallery][nearest] == labels[~gallery]).double().mean())


def equal_error_rate(vectors: Tensor, labels: Tensor) -> float:
    """Return the rate at which false accepts equal false rejects, over all pairs of N×D embeddings.

    Between two thresholds the rates are averaged at the one where they are nearest.
    """
    unit = F.normalize(vectors)
    first, second = torch.triu_indices(len(unit), len(unit), 1)
    order = (unit @ unit.T)[first, second].argsort(descending=True)
    same = (labels[first] == labels[second])[order].double()
    accepted = same.cumsum(0)
    rejects = 1 - accepted / same.sum()
    accepts = (torch.arange(1, len(same) + 1) - accepted) / (1 - same).sum()
    nearest = (rejects - accepts).abs().argmin()
    return float((rejects[nearest] + accepts[nearest]) / 2)


def halves(identities: Sequence[Identity]) -> Tensor:
    """Return for each photo whether it is gallery: the first half (rounded up) of each identity's photos."""
    return torch.tensor(
        [
            number < (len(identity.photos) + 1) // 2
            for identity in identities
            for number in range(len(identity.photos))
        ]
    )


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the rate of a step: linear up to `peak` over `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def augmented(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return images mirrored at random, shifted by a few pixels and changed in brightness and contrast.

    Args:
        images: N×3×H×W in [0, 1].
        strength: 1 mirrors half of them, shifts by up to 3 pixels and varies brightness by ±0.1 and
            contrast by ±20 %; 0 changes nothing.
        generator: of the CPU; draws alike whatever the device.
    """
    count, _, height, width = images.shape
    drawn = torch.rand(count, 5, generator=generator)
    mirrored = drawn[:, 0] < 0.5 * strength
    reach = round(3 * strength)
    shifts = ((drawn[:, 1:3] * (2 * reach + 1)).long() - reach).clamp(-reach, reach)
    contrast = (1 + 0.4 * strength * (drawn[:, 3] - 0.5)).to(images.device).view(-1, 1, 1, 1)
    brightness = (0.2 * strength * (drawn[:, 4] - 0.5)).to(images.device).view(-1, 1, 1, 1)
    rows = (torch.arange(height) + shifts[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + shifts[:, 1:]).clamp(0, width - 1)
    columns[mirrored] = columns[mirrored].flip(1)
    place = (rows[:, :, None] * width + columns[:, None, :]).flatten(1).to(images.device)
    moved = images.flatten(2).gather(2, place[:, None].expand(-1, 3, -1)).view_as(images)
    return ((moved - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


class BackboneTrainer(Trainer):
    """Trains MobileFaceNet or IResNet-18 with ArcFace."""

    name: ClassVar[str] = "backbone"
    paper: ClassVar[str] = "Deng et al., ArcFace: Additive Angular Margin Loss, CVPR 2019"

    class Params(MethodParams):
        """Parameters of `BackboneTrainer`; the defaults are for the small backbones the project ships."""

        arch: Literal["mobilefacenet", "iresnet18"] = Field("mobilefacenet", description="network")
        width: float = Field(0.25, gt=0, le=8, description="factor on the paper's channels; 1 is full size")
        depth: float = Field(
            1.0,
            gt=0,
            le=8,
            description="factor on MobileFaceNet's repeats; 1 is full size, and for iresnet18 all",
        )
        embedding_dim: int = Field(
            128, ge=2, le=4096, description="of the embedding", json_schema_extra={"unit": "dimensions"}
        )
        stem_stride: int = Field(
            1, ge=1, le=2, description="stride of IResNet-18's first convolution; 2 quarters the work"
        )
        steps: int = Field(3000, ge=1, description="of the optimiser", json_schema_extra={"unit": "steps"})
        batch: int = Field(
            64, ge=2, le=65536, description="images a step", json_schema_extra={"unit": "images"}
        )
        optimiser: Literal["sgd", "adamw"] = Field(
            "sgd", description="sgd has momentum 0.9; both decay weights by weight_decay"
        )
        lr: float = Field(0.1, gt=0, le=10, description="peak learning rate; decays as a cosine")
        warmup: int = Field(
            100, ge=0, description="steps over which the rate rises", json_schema_extra={"unit": "steps"}
        )
        weight_decay: float = Field(5e-4, ge=0, le=1, description="weight decay")
        margin: float = Field(
            0.3, ge=0, le=1.57, description="ArcFace's m", json_schema_extra={"unit": "radians"}
        )
        scale: float = Field(32.0, gt=0, le=1000, description="ArcFace's s")
        augment: float = Field(1.0, ge=0, le=1, description="strength of the augmentation; 0 for none")
        holdout: int = Field(
            100,
            ge=2,
            description="training identities kept for measuring",
            json_schema_extra={"unit": "identities"},
        )
        checkpoint_every: int = Field(
            250, ge=1, description="between checkpoints", json_schema_extra={"unit": "steps"}
        )
        store: Literal["float32", "float16"] = Field(
            "float32", description="type of the stored weights; what is measured is what is stored"
        )

        @model_validator(mode="after")
        def _depth_is_for_mobilefacenet(self) -> Self:
            if self.arch == "iresnet18" and self.depth != 1:
                raise ValueError(f"depth {self.depth} is for mobilefacenet; iresnet18 has depth 1")
            if self.arch == "mobilefacenet" and self.stem_stride != 1:
                raise ValueError(
                    f"stem_stride {self.stem_stride} is for iresnet18; mobilefacenet has its own"
                )
            return self

        @property
        def architecture(self) -> Architecture:
            """The network these parameters name."""
            return Architecture(
                arch=self.arch,
                width=self.width,
                depth=self.depth,
                embedding_dim=self.embedding_dim,
                stem_stride=self.stem_stride,
            )

    params: Params

    def train(self, request: TrainRequest) -> Mapping[str, Any]:
        """Train, write weights and card, return the card.

        ``<out>.checkpoint`` holds the last checkpoint until the weights are written; called again after a
        kill, training goes on from there. All crops are held in memory, 37 kB each.

        Raises:
            UsageError: the output's name, or too few training identities.
            DataError: the checkpoint is of another training.
        """
        return _Training(self.params, canonical(self), request).run()


@dataclass(frozen=True)
class _Photos:
    """Crops in memory: N×3×112×112 uint8, with N class indices."""

    pixels: Tensor
    labels: Tensor


class _Training:
    """One training: the request with its parameters, network, loss and optimiser."""

    def __init__(self, params: BackboneTrainer.Params, trainer: str, request: TrainRequest) -> None:
        if request.out.suffix != ".safetensors":
            raise UsageError(f"--out {request.out.name} must end in .safetensors.")
        self.params = params
        self.trainer = trainer
        self.request = request
        self.held_out, self.rest = self._identities()
        self.checkpoint = request.out.with_suffix(".checkpoint")
        known = (canonical(request.dataset), request.dataset.fingerprint(), learnt_from(request).name)
        self.key = digest([trainer, *known, request.seed])
        generator = torch_generator(request.seed, "backbone/weights")
        self.network = params.architecture.build()
        initialise(self.network, generator)
        self.network.to(device=request.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = ArcFaceLoss(
            params.embedding_dim, len(self.rest), params.scale, params.margin, generator
        ).to(request.device)
        self.learnt = nn.ModuleDict({"network": self.network, "loss": self.loss})
        self.optimiser = self._optimiser()
        self.seconds = 0.0

    def run(self) -> dict[str, Any]:
        """Train, write, return the card."""
        started = time.monotonic()
        step = self._resume()
        if step < self.params.steps:
            photos = self._photos(self.rest)
            started = self._optimise(photos, step, started)
        out = self.request.out
        write_weights(self.network, out, _DTYPES[self.params.store])
        rank1, eer = self._measure()
        self.seconds += time.monotonic() - started
        content = write_card(self._card(rank1, eer), out.with_suffix(".json"))
        self.checkpoint.unlink(missing_ok=True)
        return content

    def _identities(self) -> tuple[list[Identity], list[Identity]]:
        """Return held-out and trained-on identities; only training identities, dealt by the seed."""
        rng = numpy_generator(self.request.seed, "backbone/identities")
        return deal_training_identities(self.request, self.params.holdout, rng)

    def _photos(self, identities: Sequence[Identity]) -> _Photos:
        ids = [photo for identity in identities for photo in identity.photos]
        labels = [label for label, identity in enumerate(identities) for _ in identity.photos]
        shards = []
        for start in range(0, len(ids), _SHARD):
            shards.append(self.request.dataset.crops(ids[start : start + _SHARD]))
            self.request.report("read photos", min(start + _SHARD, len(ids)), len(ids))
        return _Photos(torch.cat(shards), torch.tensor(labels))

    # Optimisation.

    def _optimiser(self) -> torch.optim.Optimizer:
        params = self.params
        if params.optimiser == "sgd":
            return torch.optim.SGD(
                self.learnt.parameters(), params.lr, momentum=0.9, weight_decay=params.weight_decay
            )
        return torch.optim.AdamW(self.learnt.parameters(), params.lr, weight_decay=params.weight_decay)

    def _batch(self, photos: _Photos, step: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels of a step: epochs of permutations, cut into batches."""
        count, size = len(photos.labels), self.params.batch
        chosen: list[int] = []
        while len(chosen) < size:
            epoch, place = divmod(step * size + len(chosen), count)
            order = numpy_generator(self.request.seed, "backbone/order", str(epoch)).permutation(count)
            chosen += order[place : place + size - len(chosen)].tolist()
        images = photos.pixels[chosen].to(self.request.device).float() / 255
        generator = torch_generator(self.request.seed, "backbone/augmentation", str(step))
        return augmented(images, self.params.augment, generator), photos.labels[chosen].to(images.device)

    def _optimise(self, photos: _Photos, step: int, started: float) -> float:
        """Train from `step` to the end; returns when the clock was last read."""
        params = self.params
        self.learnt.train()
        while step < params.steps:
            rate = learning_rate(step, params.steps, params.lr, params.warmup)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            images, labels = self._batch(photos, step)
            loss = self.loss(self._embed(images), labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            step += 1
            self.request.report(f"train, loss {loss.item():.2f}", step, params.steps)
            if step % params.checkpoint_every == 0 or step == params.steps:
                now = time.monotonic()
                self.seconds, started = self.seconds + now - started, now
                self._save(step)
        return started

    def _embed(self, images: Tensor) -> Tensor:
        pixels = prepare(images, Preprocessing())
        return self.network(pixels.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    # Checkpoints: one file, so that a kill leaves either the old one or the new one.

    def _save(self, step: int) -> None:
        tensors = {f"learnt.{name}": value for name, value in self.learnt.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        metadata = {"key": self.key, "step": str(step), "seconds": repr(self.seconds)}
        unfinished = self.checkpoint.with_suffix(".unfinished")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        # safetensors stores rows in order; channels_last tensors must be laid out again.
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, unfinished, metadata)
        unfinished.replace(self.checkpoint)

    def _resume(self) -> int:
        """Return the step to go on from, with weights and optimiser as they were."""
        if not self.checkpoint.is_file():
            return 0
        fix = "Delete it to start again, or choose another --out."
        try:
            with safe_open(self.checkpoint, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise DataError(f"the checkpoint {self.checkpoint} cannot be read: {error}. {fix}") from error
        if metadata.get("key") != self.key:
            raise DataError(f"the checkpoint {self.checkpoint} is of another training. {fix}")
        self.learnt.load_state_dict(_under("learnt.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser.", tensors).items():
            index, _, slot = name.partition(".")
            state.setdefault(int(index), {})[slot] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.seconds = float(metadata["seconds"])
        return int(metadata["step"])

    # Measures and the card.

    def _measure(self) -> tuple[float, float]:
        """Return rank-1 and equal error rate on held-out identities, of the weights as stored."""
        stored = self.params.architecture.build()
        dtype = _DTYPES[self.params.store]
        stored.load_state_dict(
            {
                name: value.to(dtype).float() if value.is_floating_point() else value
                for name, value in self.network.state_dict().items()
            }
        )
        self.network = stored.to(device=self.request.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        photos = self._photos(self.held_out)
        with torch.inference_mode():
            vectors = torch.cat(
                [
                    self._embed(shard.to(self.request.device).float() / 255).cpu()
                    for shard in torch.split(photos.pixels, _SHARD)
                ]
            )
        return rank_one(vectors, photos.labels, halves(self.held_out)), equal_error_rate(
            vectors, photos.labels
        )

    def _card(self, rank1: float, eer: float) -> TrainedCard:
        dataset = self.request.dataset
        return TrainedCard(
            name=self.request.out.stem,
            file=self.request.out.name,
            sha256=sha256_of(self.request.out),
            licence="Apache-2.0" if dataset.domain == "synthetic" else "as the training data's",
            source="trained by this project",
            training_data=learnt_from(self.request).name,
            domain=dataset.domain,
            family=self.request.out.stem,
            embedding_dim=self.params.embedding_dim,
            note=dataset.note,
            architecture=self.params.architecture,
            training=TrainingRecord(
                command=self._command(),
                seed=self.request.seed,
                steps=self.params.steps,
                identities=len(self.rest),
                images=sum(len(identity.photos) for identity in self.rest),
                dataset_fingerprint=dataset.fingerprint(),
                held_out_identities=len(self.held_out),
                rank1=rank1,
                eer=eer,
                seconds=round(self.seconds, 1),
                torch=torch.__version__,
            ),
        )

    def _command(self) -> str:
        """Return the command that trains these weights again."""
        words = ["bench", "train", self.trainer, "--dataset", canonical(self.request.dataset)]
        if self.request.seed:
            words += ["--seed", str(self.request.seed)]
        return shlex.join([*words, "--out", self.request.out.name])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
