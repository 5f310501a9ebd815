"""What trainers share: which identities they train on and which they keep out, checkpoints, the clock, the decay."""

import json
import math
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.contracts import Backbone, Identity, TrainingIdentities, TrainRequest
from bench.errors import DataError, UsageError
from bench.files import write_atomically
from bench.plugins.factory import canonical


def learnt_from(request: TrainRequest) -> TrainingIdentities:
    """Return whom a training learns from: whom the request names, else all identities of role ``training``."""
    if request.learnt_from is not None:
        return request.learnt_from
    training = (identity for identity in request.dataset.identities() if identity.role == "training")
    return TrainingIdentities(f"{canonical(request.dataset)}/training", tuple(training))


def deal_training_identities(
    request: TrainRequest, holdout: int, rng: np.random.Generator
) -> tuple[list[Identity], list[Identity]]:
    """Return held-out and trained-on identities of a request, dealt by `rng`.

    Raises:
        UsageError: fewer than two identities are left to train on.
    """
    identities = learnt_from(request).identities
    if len(identities) < holdout + 2:
        raise UsageError(
            f"'{canonical(request.dataset)}' has {len(identities)} training identities to learn from; "
            f"holdout={holdout} leaves too few to train on. Lower holdout or take another dataset."
        )
    shuffled = [identities[i] for i in rng.permutation(len(identities))]
    return shuffled[:holdout], shuffled[holdout:]


def cosine_decay(step: int, steps: int, peak: float) -> float:
    """Return the learning rate that falls from `peak` at step 0 to 0 after `steps`, as a cosine."""
    return peak * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass
class Clock:
    """Wall-clock time of a training, kept over kills in a file of its checkpoint's folder.

    Attributes:
        path: the file.
        seconds: time so far, the present process up to the last `save` included.

    Raises:
        DataError: the file is there and holds something else.
    """

    path: Path
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._since = time.monotonic()
        if not self.path.is_file():
            return
        try:
            self.seconds = float(json.loads(self.path.read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} does not hold the time of a training ({error!r}). Delete it: the time so far is lost, "
                "nothing else."
            ) from error

    def save(self) -> float:
        """Write and return the time so far; a kill leaves the old file or the new one."""
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        write_atomically(self.path, json.dumps({"seconds": self.seconds}).encode())
        return self.seconds


def training_command(trainer: str, request: TrainRequest, backbones: Sequence[Backbone]) -> str:
    """Return the command that makes the weights again, for their card.

    Args:
        trainer: its canonical text.
        request: what was requested; an absolute ``--out`` is named by its file alone.
        backbones: in the order in which they are to be named.
    """
    words = ["bench", "train", trainer, "--dataset", canonical(request.dataset)]
    words += [word for attack in request.attacks for word in ("--attack", canonical(attack))]
    words += [word for backbone in backbones for word in ("--backbone", backbone.card.name)]
    if learnt_from(request).name.endswith("/training"):
        words.append("--with-development")
    out = request.out.name if request.out.is_absolute() else request.out.as_posix()
    return shlex.join([*words, "--seed", str(request.seed), "--out", out])


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write safetensors so that a kill leaves the old file or the new one; trainings may share a folder."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


def save_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write networks, optimiser and JSON facts as one safetensors; a kill leaves the old file or the new one."""
    tensors = {
        f"{part}/{name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": tensor for name, tensor in moments.items()}
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, plain, {"facts": json.dumps(facts)})


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote into networks and optimiser; return the facts.

    Raises:
        DataError: the file is corrupt or of other networks.
    """
    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
        for part, module in modules.items():
            module.load_state_dict(_under(f"{part}/", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _under("optimiser/", tensors).items():
            index, _, name = key.partition("/")
            state.setdefault(int(index), {})[name] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"checkpoint {path} cannot be read ({error}). Delete it to start the training anew."
        ) from error
    return facts


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
