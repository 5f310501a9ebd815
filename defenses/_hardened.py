"""What hardenings share: the training of a copy of the tracker's network, and the backbone that embeds with it.

Here: the loop (AdamW with cosine decay, checkpoint, progress) and `Hardened`. Not here: losses and data, which make one
hardening differ from another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.contracts import Backbone, Context
from bench.errors import DataError, MethodError
from bench.plugins.training import cosine_decay, load_checkpoint, save_checkpoint

log = logging.getLogger("bench")

_CHECKPOINT_STEPS = 20
"""Steps between two checkpoints: some ten seconds to a minute of work."""


class Hardened(Backbone):
    """A tracker's backbone with other weights of the same network."""

    def __init__(self, tracker: Backbone, network: nn.Module) -> None:
        """Take the tracker's card, without what was found of its own weights.

        Args:
            tracker: whose network was trained.
            network: N×3×112×112 images in [0, 1] to N×D embeddings.
        """
        super().__init__()
        # Its digest, its thresholds and its accuracy are those of the weights it was trained from.
        own = {"sha256": "", "equivalents": (), "thresholds": (), "lfw_accuracy": None, "embed_with": "torch"}
        self.card = tracker.card.model_copy(update=own)
        self.network = network.eval().requires_grad_(False)

    def load(self, device: torch.device) -> None:
        """Move the network; it was made with its weights."""
        self.network.to(device)

    def embed(self, images: Tensor) -> Tensor:
        """Return N×D float32 embeddings, differentiable with respect to `images`."""
        self.network.to(images.device)  # `Hardening.harden` is not told where to compute
        embeddings: Tensor = self.network(images)
        return embeddings

    def trainable(self, device: torch.device) -> nn.Module:
        """Return a copy of the network that can be trained further; see `Backbone.trainable`."""
        return deepcopy(self.network).to(device).requires_grad_(True).train()


def trained_copy(tracker: Backbone, device: torch.device) -> nn.Module:
    """Return a copy of the tracker's network to be trained, batch norm's statistics and dropout as in evaluation.

    Raises:
        UsageError: the backbone is a black box.
    """
    return tracker.trainable(device).eval()


def harden(tracker: Backbone, state: Mapping[str, Tensor]) -> Hardened:
    """Return the tracker's backbone with the weights of `weights_of`.

    Raises:
        UsageError: the backbone is a black box.
    """
    # A copy may share with the tracker's own network what is not trained, and loading writes into all there is.
    network = deepcopy(tracker.trainable(torch.device("cpu")))
    network.load_state_dict(dict(state))
    return Hardened(tracker, network)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network as a hardening's state."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def in_proportion(advance: Callable[[int], None], units: int, images: int) -> Callable[[int], None]:
    """Return what counts so many units of work as so many images."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        before, done = done, done + more
        advance(done * images // units - before * images // units)

    return count


@dataclass(frozen=True)
class Descent:
    """How networks are trained.

    Attributes:
        name: of the method, for its draws and messages.
        steps: of AdamW.
        learning_rate: at the first step; it falls to 0 as a cosine.
        images: photos that the training is counted as, for progress.
    """

    name: str
    steps: int
    learning_rate: float
    images: int

    def run(self, modules: Mapping[str, nn.Module], loss_of: Callable[[int], Tensor], ctx: Context) -> None:
        """Train in place; goes on from the context's checkpoint where there is one.

        Args:
            modules: name → what is trained.
            loss_of: step → loss; draws from (seed, step) alone, so that a training that goes on draws the same.
            ctx: checkpoint and progress.

        Raises:
            MethodError: a loss is not finite.
        """
        parameters = [each for module in modules.values() for each in module.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=self.learning_rate)
        for step in self._steps_left(modules, optimiser, ctx):
            for group in optimiser.param_groups:
                group["lr"] = cosine_decay(step, self.steps, self.learning_rate)
            loss = loss_of(step)
            if not bool(loss.isfinite()):
                raise MethodError(
                    f"'{self.name}' diverged at step {step + 1}: its loss is {loss.item()}. Lower learning_rate, now "
                    f"{self.learning_rate}."
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            log.debug("%s: step %d of %d, loss %.4f", self.name, step + 1, self.steps, loss.item())
            done = step + 1
            if ctx.checkpoint is not None and done % _CHECKPOINT_STEPS == 0 and done < self.steps:
                save_checkpoint(ctx.checkpoint, modules, optimiser, {"step": done})

    def _steps_left(
        self, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, ctx: Context
    ) -> Iterator[int]:
        """Yield the steps still to be made and count the photos that each stands for, those of earlier ones first."""
        first = _resumed(self.name, modules, optimiser, ctx)
        advance = in_proportion(ctx.advance, self.steps, self.images)
        advance(first)
        for step in range(first, self.steps):
            yield step
            advance(1)


def _resumed(
    name: str, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, ctx: Context
) -> int:
    """Return how many steps were made already, with networks and optimiser as they were then."""
    if ctx.checkpoint is None or not ctx.checkpoint.is_file():
        return 0
    before = {part: deepcopy(module.state_dict()) for part, module in modules.items()}
    try:
        step = int(load_checkpoint(ctx.checkpoint, modules, optimiser)["step"])
    except (DataError, KeyError) as error:
        for part, module in modules.items():
            module.load_state_dict(before[part])
        log.warning("'%s' starts anew: %s", name, error)
        return 0
    log.info("'%s' goes on after step %d", name, step)
    return step
