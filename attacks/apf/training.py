"""Trains modules 2 and 3 of `attacks.apf.attack` against a server model, on identities that are not evaluated.

The U-Net is trained alone; then it is frozen and the enhancement is trained on top, so that one file answers
for modules=2 and modules=3. Every draw comes from (seed, stage, step) and every checkpoint holds weights and
optimiser, so a training that was killed goes on to the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from attacks.apf.card import PAPER_COSINE, ApfCard, ApfQuality
from attacks.apf.cloud import LARGEST_EPS, CloudSide, Gradient
from attacks.apf.end import Ascent, Diversity
from attacks.apf.network import STRIDE, UNIVERSAL_BOUND, ApfNetwork, load_network, save_network
from attacks.apf.photos import Pairs, deal_identities, read_pairs, unit_features
from bench.contracts import Backbone, MethodParams, Trainer, TrainRequest
from bench.data.files import sha256_of
from bench.errors import MethodError, UsageError, unknown
from bench.plugins.factory import canonical
from bench.plugins.training import (
    Clock,
    cosine_decay,
    learnt_from,
    load_checkpoint,
    save_checkpoint,
    training_command,
    write_tensors,
)
from bench.quality.metrics import GREY_LEVELS
from bench.randomness import numpy_generator, torch_generator
from bench.run.code_hashes import code_digest
from bench.run.digest import environment

UNIVERSAL_EPS = UNIVERSAL_BOUND / 2
"""Bound of U where pixels are in [0, 1]."""

STAGES = ("0", "1", "1+2", "1+2+3")
"""What is measured: the photo itself, and the modules in order."""


class _Projection(torch.autograd.Function):
    """Clip to ±1; the gradient passes inside, and outside where a step down it leads back inside."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.clamp(values, -1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        inside = (values.abs() <= 1) | (values * gradient > 0)
        return torch.mul(gradient, inside)


def bounded(perturbations: Tensor, eps: int) -> Tensor:
    """Return perturbations in units of ε as they are sent: clipped to ±1 and whole grey levels.

    Rounding passes gradients (straight-through); clipping stops those that lead further out, so that no pixel
    runs away and each can come back.
    """
    clipped: Tensor = _Projection.apply(perturbations)
    return clipped + ((clipped.detach() * eps).round() / eps - clipped.detach())


def posted(photos: Tensor, change: Tensor) -> Tensor:
    """Return `photos` + `change` clipped to [0, 1], with straight-through gradients."""
    cloaks = photos + change
    return cloaks + (cloaks.detach().clamp(0, 1) - cloaks.detach())


def dodging_loss(embeddings: Tensor, others: Tensor) -> Tensor:
    """Return mean(10 − d), d the squared L2 distance of unit embeddings, as the paper has it.

    Args:
        embeddings: N×D of cloaks, of any length.
        others: N×D unit embeddings of other photos of the same identities.
    """
    distances = (F.normalize(embeddings, dim=1) - others).square().sum(1)
    return (10 - distances).mean()


class ApfTrainer(Trainer):
    """Trains the transfer network and the enhancement of APF against one server model."""

    name: ClassVar[str] = "apf"
    paper: ClassVar[str] = (
        "Zhang et al., Adversarial Privacy-preserving Filter, ACM MM 2020 (demo: ACM MM 2021)"
    )
    needs_backbones: ClassVar[bool] = True

    class Params(MethodParams):
        """Parameters of `ApfTrainer`."""

        probe: str = Field(
            "auto", min_length=1, description="backbone of module 1; auto: the first --backbone"
        )
        server: str = Field(
            "auto", min_length=1, description="backbone to train against; auto: the other --backbone"
        )
        steps: int = Field(
            1000, ge=1, description="steps that train the U-Net", json_schema_extra={"unit": "steps"}
        )
        enhance_steps: int = Field(
            200, ge=1, description="steps that train the enhancement", json_schema_extra={"unit": "steps"}
        )
        batch: int = Field(
            32, ge=1, le=4096, description="photos a step", json_schema_extra={"unit": "images"}
        )
        lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate of the U-Net, decays as a cosine")
        enhance_lr: float = Field(
            1e-2, gt=0, le=1, description="peak learning rate of the enhancement, likewise"
        )
        photos: int = Field(
            3000,
            ge=2,
            description="photos to train on, whole identities, many rather than much of each",
            json_schema_extra={"unit": "images"},
        )
        holdout: int = Field(
            60,
            ge=1,
            description="training identities kept for measuring",
            json_schema_extra={"unit": "people"},
        )
        eps: int = Field(
            8, ge=1, le=LARGEST_EPS, description="L∞ bound", json_schema_extra={"unit": "grey levels"}
        )
        step: float = Field(
            2, gt=0, le=255, description="step of module 1", json_schema_extra={"unit": "grey levels"}
        )
        ascent_steps: int = Field(
            10, ge=1, le=1000, description="steps of module 1", json_schema_extra={"unit": "steps"}
        )
        diversity: float = Field(0.5, ge=0, le=1, description="probability of input diversity in module 1")
        server_diversity: float = Field(
            0.0, ge=0, le=1, description="the same for what the server model sees in training"
        )
        probe_weight: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="share of the loss that the probe model has, so that its answer is not unlearnt",
        )
        universal_steps: int = Field(
            200, ge=1, description="steps that make U", json_schema_extra={"unit": "steps"}
        )
        width: int = Field(
            64,
            ge=1,
            le=128,
            description="channels of the U-Net's first level",
            json_schema_extra={"unit": "channels"},
        )
        precision: Literal["float32", "bfloat16"] = Field(
            "float32", description="arithmetic of the U-Net while it trains; weights stay float32"
        )
        checkpoint_every: int = Field(
            100, ge=1, description="steps between checkpoints", json_schema_extra={"unit": "steps"}
        )

    params: Params

    def train(self, request: TrainRequest) -> Mapping[str, Any]:
        """Train, write weights and card, return the card.

        The folder ``<out>.checkpoint`` holds gradients, U and the last checkpoint until the weights are
        written; called again after a kill, training goes on from there.

        Raises:
            UsageError: not two backbones, one has no gradient, or too few identities have enough photos.
            DataError: a file of the checkpoint is damaged.
        """
        return _Training(self.params, canonical(self), request).run()


def _roles(params: ApfTrainer.Params, request: TrainRequest) -> tuple[Backbone, Backbone]:
    """Return probe and server.

    Raises:
        UsageError: not two backbones, a name that is not among them, or one without gradient.
    """
    by_name = {backbone.card.name: backbone for backbone in request.backbones}
    if len(by_name) != 2 or len(request.backbones) != 2:
        found = ", ".join(b.card.name for b in request.backbones) or "none"
        raise UsageError(
            f"apf needs two backbones, --backbone PROBE --backbone SERVER, got {found}. The probe works on the "
            "user's device, the server's is what modules 2 and 3 are trained against."
        )
    for role, name in (("probe", params.probe), ("server", params.server)):
        if name != "auto" and name not in by_name:
            raise unknown(f"apf {role}", name, by_name, "It is one of the two --backbone.")
    first, second = by_name
    probe = params.probe if params.probe != "auto" else (second if params.server == first else first)
    server = params.server if params.server != "auto" else (second if probe == first else first)
    if probe == server:
        raise UsageError(f"apf: probe and server are both '{probe}'. Name one of them only.")
    for name, backbone in by_name.items():
        if not backbone.differentiable:
            raise UsageError(
                f"backbone '{name}' has no gradient, and APF needs that of both. Choose another."
            )
    return by_name[probe], by_name[server]


class _Training:
    """One training: the request with its parameters, photos, network and optimiser."""

    def __init__(self, params: ApfTrainer.Params, trainer: str, request: TrainRequest) -> None:
        self.params, self.trainer, self.request = params, trainer, request
        if request.attacks:
            raise UsageError("apf trains its own attack: leave out --attack.")
        if request.out.suffix != ".safetensors":
            raise UsageError(f"--out {request.out.name} must end in .safetensors.")
        self.probe, self.server = _roles(params, request)
        self.ascent = Ascent(params.eps, params.step, params.ascent_steps, params.diversity)
        self.folder = request.out.with_suffix(".checkpoint")

    def run(self) -> dict[str, Any]:
        """Train, write, return the card."""
        request, params = self.request, self.params
        rng = numpy_generator(request.seed, "apf/identities")
        held_out, identities = deal_identities(
            learnt_from(request).identities, params.holdout, params.photos, rng, canonical(request.dataset)
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(self.folder / "clock.json")
        self.pairs = read_pairs(request, identities, self.probe, self.ascent, self.folder, "gradients")
        side = self.pairs.photos.shape[-1]
        if side % STRIDE:
            raise UsageError(f"apf needs photos whose side is a multiple of {STRIDE} pixels, got {side}.")
        self.clock.save()
        self.judges = {"server": (self.server, 1 - params.probe_weight)}
        if params.probe_weight:
            self.judges["probe"] = (self.probe, params.probe_weight)
        self.features = {
            role: unit_features(self.pairs.photos, backbone, request.device)
            for role, (backbone, _) in self.judges.items()
        }
        network = self._trained()
        save_network(network, request.out)
        network = load_network(request.out, request.device)  # measured as it will be used
        held = read_pairs(request, held_out, self.probe, self.ascent, self.folder, "held-out gradients")
        content = self._card(network, held, len(held_out)).model_dump(mode="json")
        request.out.with_suffix(".json").write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        shutil.rmtree(self.folder)
        return content

    # The universal perturbation.

    def _universal(self) -> Tensor:
        """Return U, 3×H×W within ±0.1 where pixels are in [−1, 1]: signed ascent on the server model.

        Each step goes down the loss of a batch of photos + U; the steps shrink
        from a tenth of the bound to 0.
        """
        path = self.folder / f"universal-{self._digest('universal')}.safetensors"
        if path.is_file():
            return load_file(path)["universal"]
        shape, device = self.pairs.photos.shape[1:], self.request.device
        draw = torch_generator(self.request.seed, "apf/universal start")
        universal = ((2 * torch.rand(shape, generator=draw) - 1) * UNIVERSAL_EPS / 8).to(device)
        for step in range(self.params.universal_steps):
            rows = self._draw_rows("universal", step)
            change = universal.clone().requires_grad_()
            cloaks = self._diverse(posted(self._photos(rows), change), "universal", step)
            (gradient,) = torch.autograd.grad(self._dodging(cloaks, rows), change)
            size = cosine_decay(step, self.params.universal_steps, UNIVERSAL_EPS / 10)
            universal = (universal - size * gradient.sign()).clamp(-UNIVERSAL_EPS, UNIVERSAL_EPS)
            self.request.report("universal perturbation", step + 1, self.params.universal_steps)
        universal = (2 * universal).cpu()
        write_tensors(path, {"universal": universal}, {})
        self.clock.save()
        return universal

    # The networks.

    def _trained(self) -> ApfNetwork:
        params = self.params
        network = ApfNetwork(params.width, self.pairs.photos.shape[-1])
        network.draw(torch_generator(self.request.seed, "apf/weights"))
        network.enhancement.universal.copy_(self._universal())
        network.to(device=self.request.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimise(network, network.transfer, "transfer", params.steps, params.lr, self._transferred)
        network.transfer.requires_grad_(False)
        self._optimise(
            network,
            network.enhancement,
            "enhancement",
            params.enhance_steps,
            params.enhance_lr,
            self._enhanced,
        )
        return network

    def _optimise(
        self,
        network: ApfNetwork,
        part: torch.nn.Module,
        stage: str,
        steps: int,
        peak: float,
        forward: Callable[[ApfNetwork, Tensor], Tensor],
    ) -> None:
        """Train one part of the network in place, with checkpoints."""
        optimiser = torch.optim.Adam(part.parameters(), lr=peak)
        path = self.folder / f"state-{self._digest(stage)}.safetensors"
        done = load_checkpoint(path, {stage: part}, optimiser)["done"] if path.is_file() else 0
        for step in range(done, steps):
            loss = self._loss(network, stage, step, forward)
            if not math.isfinite(float(loss.detach())):
                raise MethodError(
                    f"apf: the loss of the {stage} is {float(loss)} at step {step}; lower the rate."
                )
            for group in optimiser.param_groups:
                group["lr"] = cosine_decay(step, steps, peak)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            self.request.report(stage, step + 1, steps)
            if (step + 1) % self.params.checkpoint_every == 0 or step + 1 == steps:
                save_checkpoint(path, {stage: part}, optimiser, {"done": step + 1})
                self.clock.save()

    def _loss(
        self, network: ApfNetwork, stage: str, step: int, forward: Callable[[ApfNetwork, Tensor], Tensor]
    ) -> Tensor:
        rows = self._draw_rows(stage, step)
        eps = self.params.eps
        gradients = self.pairs.gradients[rows].to(self.request.device).float() / eps
        perturbations = forward(network, gradients.contiguous(memory_format=torch.channels_last))
        change = bounded(perturbations, eps) * (eps / GREY_LEVELS)
        cloaks = self._diverse(posted(self._photos(rows), change), stage, step)
        return self._dodging(cloaks, rows)

    def _dodging(self, cloaks: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of cloaks of these rows: the server model's, with the probe's share."""
        others = self.pairs.others[rows].to(self.request.device)
        losses = [
            weight * dodging_loss(backbone.embed(cloaks), self.features[role][others])
            for role, (backbone, weight) in self.judges.items()
        ]
        return torch.stack(losses).sum()

    def _transferred(self, network: ApfNetwork, gradients: Tensor) -> Tensor:
        device, bfloat16 = self.request.device.type, self.params.precision == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            perturbations: Tensor = network.transfer(gradients)
        return perturbations.float()

    def _enhanced(self, network: ApfNetwork, gradients: Tensor) -> Tensor:
        with torch.no_grad():
            perturbations = self._transferred(network, gradients)
        enhanced: Tensor = perturbations + network.enhancement()
        return enhanced

    # Draws.

    def _draw_rows(self, stage: str, step: int) -> Tensor:
        """Return the photos of one step: each epoch sees every photo once, in an order of its own."""
        count, batch = len(self.pairs.photos), self.params.batch
        rows: list[int] = []
        place = step * batch
        while len(rows) < batch:
            epoch, offset = divmod(place + len(rows), count)
            order = numpy_generator(self.request.seed, f"apf/{stage}", str(epoch)).permutation(count)
            rows += order[offset : offset + batch - len(rows)].tolist()
        return torch.tensor(rows)

    def _photos(self, rows: Tensor) -> Tensor:
        photos = self.pairs.photos[rows].to(self.request.device).float() / 255
        return photos.contiguous(memory_format=torch.channels_last)

    def _diverse(self, images: Tensor, stage: str, step: int) -> Tensor:
        """Return the images as the server model sees them: changed where `server_diversity` asks for it."""
        if not self.params.server_diversity:
            return images
        generators = [
            torch_generator(self.request.seed, f"apf/{stage} diversity", f"{step}\x1f{row}")
            for row in range(len(images))
        ]
        return Diversity.drawn(generators, images.shape[1:], self.params.server_diversity)(images)

    # Card and digests.

    def _card(self, network: ApfNetwork, held: Pairs, identities: int) -> ApfCard:
        request, params = self.request, self.params
        quality = self._quality(network, held, identities)
        self.clock.save()
        return ApfCard(
            file=request.out.name,
            sha256=sha256_of(request.out),
            domain=request.dataset.domain,
            dataset=canonical(request.dataset),
            dataset_fingerprint=request.dataset.fingerprint(),
            training_identities=learnt_from(request).name,
            probe=self.probe.card.name,
            server=self.server.card.name,
            eps=params.eps,
            width=params.width,
            parameters=sum(p.numel() for p in network.parameters()),
            steps=params.steps,
            enhance_steps=params.enhance_steps,
            batch=params.batch,
            photos=len(self.pairs.photos),
            trainer=self.trainer,
            command=training_command(self.trainer, self.request, self.request.backbones),
            seed=request.seed,
            wall_seconds=round(self.clock.seconds, 1),
            machine=f"{request.device.type}, {platform.machine()}, {torch.get_num_threads()} threads",
            quality=quality,
        )

    def _quality(self, network: ApfNetwork, held: Pairs, identities: int) -> ApfQuality:
        device = self.request.device
        photos = held.photos.float() / 255
        gradient = Gradient.between(
            (photos + held.gradients.float() / GREY_LEVELS).clamp(0, 1), photos, self.params.eps
        )
        cloaks = {"0": photos, "1": photos + gradient.values / GREY_LEVELS}
        modules: Literal[2, 3]
        for stage, modules in (("1+2", 2), ("1+2+3", 3)):
            cloaks[stage] = CloudSide(network, modules, device).transfer(gradient).added_to(photos)
        posts = {stage: images.clamp(0, 1).mul(255).round().byte() for stage, images in cloaks.items()}
        cosines = {
            backbone.card.name: {
                stage: self._cosines(backbone, images, held) for stage, images in posts.items()
            }
            for backbone in (self.server, self.probe)
        }
        server, probe = cosines[self.server.card.name], cosines[self.probe.card.name]
        return ApfQuality(
            identities=identities,
            photos=len(photos),
            dodging_server={s: round(float((c <= PAPER_COSINE).mean()), 4) for s, c in server.items()},
            dodging_probe={s: round(float((c <= PAPER_COSINE).mean()), 4) for s, c in probe.items()},
            cosine_server={s: round(float(c.mean()), 4) for s, c in server.items()},
            cosine_probe={s: round(float(c.mean()), 4) for s, c in probe.items()},
            mean_change={
                stage: round(float((images.float() - held.photos.float()).abs().mean()), 3)
                for stage, images in posts.items()
            },
        )

    def _cosines(self, backbone: Backbone, images: Tensor, held: Pairs) -> np.ndarray:
        """Return the cosine of each image to the photo that crafting did not see."""
        natural = unit_features(held.photos, backbone, self.request.device)
        features = unit_features(images, backbone, self.request.device)
        found: np.ndarray = (features * natural[held.third.to(natural.device)]).sum(1).cpu().numpy()
        return found

    def _digest(self, stage: str) -> str:
        """Return a digest of what decides a stage's checkpoint."""
        content: list[Any] = [
            stage,
            self.trainer,
            self.request.seed,
            self.request.dataset.fingerprint(),
            learnt_from(self.request).name,
            [(b.card.model_dump(mode="json"), code_digest(type(b))) for b in (self.probe, self.server)],
            code_digest(type(self).__module__),
            environment(str(self.request.device), torch.get_num_threads()),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
