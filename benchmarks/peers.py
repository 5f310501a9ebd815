"""PGD of other libraries beside the project's, on the same network and on the network as their users load it.

    pip install torchattacks foolbox adversarial-robustness-toolbox onnx2torch
    benchmarks/run peers

None of them knows embeddings: the network is wrapped as a classifier of two classes, "the same face" with k · cosine
to the photo's own embedding and "another" with 0. The sign of the gradient of its cross entropy is that of the cosine,
so that all of them take the same steps. What is not installed is left out and named.
"""

import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks.pgd import PGD
from bench.contracts import CROP_SIZE, MICRO_BATCH, Backbone, Context, Faces
from bench.plugins import factory
from benchmarks.ratios import Measure, interleaved, ratio
from fr_models._onnx_backbone import prepare

EPS, STEP, STEPS = 8, 2, 40
SCALE = 10.0
ROUNDS = 7

Photos = tuple[Tensor, Tensor]
"""Photos of the micro-batch, N×3×H×W in [0, 1], and the label of each."""


class SameFace(nn.Module):
    """A network as a classifier of "the same face" against "another", each photo by its own clean embedding."""

    def __init__(self, embed: Callable[[Tensor], Tensor], clean: Tensor) -> None:
        super().__init__()
        self.embed = embed
        with torch.no_grad():
            self.anchors = F.normalize(embed(clean), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return N×2 logits of N×3×H×W images."""
        cosine = (F.normalize(self.embed(images), dim=1) * self.anchors[: len(images)]).sum(1)
        return torch.stack((SCALE * cosine, torch.zeros_like(cosine)), 1)


def torchattacks(model: nn.Module, photos: Photos) -> Tensor:
    """Return PGD's images by torchattacks."""
    attack = importlib.import_module("torchattacks").PGD
    found: Tensor = attack(model, eps=EPS / 255, alpha=STEP / 255, steps=STEPS)(*photos)
    return found


def foolbox(model: nn.Module, photos: Photos) -> Tensor:
    """Return PGD's images by foolbox."""
    library = importlib.import_module("foolbox")
    attack = library.attacks.LinfPGD(abs_stepsize=STEP / 255, steps=STEPS)
    _, found, _ = attack(library.PyTorchModel(model, bounds=(0, 1)), *photos, epsilons=EPS / 255)
    return torch.as_tensor(found)


def art(model: nn.Module, photos: Photos) -> Tensor:
    """Return PGD's images by the Adversarial Robustness Toolbox."""
    classifier = importlib.import_module("art.estimators.classification").PyTorchClassifier(
        model, nn.CrossEntropyLoss(), photos[0].shape[1:], 2, clip_values=(0, 1), device_type="cpu"
    )
    module = importlib.import_module("art.attacks.evasion")
    attack = module.ProjectedGradientDescentPyTorch(
        classifier,
        eps=EPS / 255,
        eps_step=STEP / 255,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=len(photos[0]),
        verbose=False,
    )
    return torch.as_tensor(attack.generate(photos[0].numpy(), photos[1].numpy()))


PEERS: Mapping[str, Callable[[nn.Module, Photos], Tensor]] = {
    "torchattacks": torchattacks,
    "foolbox": foolbox,
    "art": art,
}


def peers() -> Iterator[Measure]:
    """Time each installed library's PGD against the project's: above 1 the project is faster."""
    for name in ("mobilefacenet-relu6", "mobileface-v2"):
        yield from _of_backbone(name)


def _of_backbone(name: str) -> Iterator[Measure]:
    data = os.environ.get("CLOAKBENCH_DATA")
    if not data or not (Path(data) / "weights" / "fr").is_dir():
        print("peers: left out, as CLOAKBENCH_DATA has no weights")
        return
    torch.set_num_threads(1)
    backbone = factory.backbone(name)
    backbone.load(torch.device("cpu"))
    photos = torch.rand(MICRO_BATCH, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    photos = F.interpolate(photos, size=CROP_SIZE, mode="bicubic").clamp(0, 1)
    given = photos, torch.zeros(len(photos), dtype=torch.long)
    same, ours = SameFace(backbone.embed, photos), partial(_ours, backbone, photos)
    networks: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
        "the same network": (backbone.embed, 1.0)
    }
    if (loaded := _as_users_load_it(backbone)) is not None:
        networks["network by onnx2torch"] = loaded, 1.3
    left = _cosine(same, ours())
    for library in filter(_is_installed, PEERS):
        for which, (embed, least) in networks.items():
            theirs = partial(_theirs, PEERS[library], embed, given)
            note = (
                f"{STEPS} steps on {len(photos)} photos, processor time of one thread; cosine left: ours {left:.3f}, "
                f"{library} {_cosine(same, theirs()):.3f}"
            )
            what = f"PGD of {library} / ours, {name}, {which}"
            yield ratio("peers", what, interleaved(theirs, ours, ROUNDS), least=least, note=note)


def _theirs(
    attack: Callable[[nn.Module, Photos], Tensor], embed: Callable[[Tensor], Tensor], given: Photos
) -> Tensor:
    """Return a library's images; what embeds the clean photos is part of the job, as it is of the project's."""
    return attack(SameFace(embed, given[0]), given)


def _ours(backbone: Backbone, photos: Tensor) -> Tensor:
    ids = tuple(str(row) for row in range(len(photos)))
    ctx = Context(seed=0, device=torch.device("cpu"), backbones=(backbone,))
    attack = PGD(PGD.Params(eps=EPS, step=STEP, steps=STEPS))
    made = attack.cloak(Faces(photos, ids, ids), ctx)
    return torch.stack([made[name] for name in ids])


def _cosine(model: SameFace, images: Tensor) -> float:
    with torch.no_grad():
        return float(model(images.float())[:, 0].mean()) / SCALE


def _as_users_load_it(backbone: Any) -> Callable[[Tensor], Tensor] | None:
    """Return the network as onnx2torch reads it, behind the same preprocessing; None where it does not."""
    if not _is_installed("onnx2torch"):
        return None
    import onnx

    try:
        network = importlib.import_module("onnx2torch").convert(onnx.load(str(backbone.weights_path())))
    except NotImplementedError as error:
        print(f"peers: onnx2torch does not read {backbone.name}: {error}")
        return None
    network.eval()

    def embed(images: Tensor) -> Tensor:
        found: Tensor = network(prepare(images, backbone.card.preprocessing).contiguous())
        return found.flatten(1)

    return embed


def _is_installed(name: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except ImportError as error:
        print(f"peers: {name} is left out: {error}")
        return False
    return True
