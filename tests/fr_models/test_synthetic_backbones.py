import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_curve
from sklearn.neighbors import KNeighborsClassifier

from bench.contracts import Backbone, Binding, Dataset, Identity, TrainRequest
from bench.data.files import sha256_of
from bench.datasets.synthetic import Synthetic
from bench.errors import DataError, UsageError
from fr_models import backbone_training
from fr_models._torch_backbone import SHIPPED, TorchBackbone, read_card
from fr_models.backbone_training import BackboneTrainer, augmented, equal_error_rate, halves, rank_one
from fr_models.pools import REAL, SYNTHETIC
from fr_models.synthetic_iresnet import SyntheticIResNet
from fr_models.synthetic_mobilefacenet import SyntheticMobileFaceNet
from fr_models.synthetic_mobilefacenet_wide import SyntheticMobileFaceNetWide

SHIPPED_BACKBONES = (SyntheticMobileFaceNet, SyntheticIResNet, SyntheticMobileFaceNetWide)
every_backbone = pytest.mark.parametrize("cls", SHIPPED_BACKBONES, ids=lambda cls: cls.name)
TINY = BackboneTrainer.Params(
    width=0.25, depth=0.1, embedding_dim=16, steps=6, batch=6, holdout=3, checkpoint_every=2, warmup=2
)
TINY_DATA = Synthetic.Params(identities=2, photos=2, training_identities=7, training_photos=4)


def loaded(cls: type[Backbone]) -> Backbone:
    backbone = cls()
    backbone.load(torch.device("cpu"))
    return backbone


# What is shipped.


@every_backbone
def test_card_and_file_agree(cls: type[TorchBackbone]) -> None:
    card = cls.card
    assert (card.name, card.domain, card.training_data) == (cls.name, "synthetic", "synthetic/training")
    weights = SHIPPED / card.file
    assert sha256_of(weights) == card.sha256
    assert weights.stat().st_size < 2_000_000
    binding = Binding("synthetic", "synthetic", (), cls.name)
    assert cls().files(binding) == (weights,)
    assert f"--out {weights.name}" in card.training.command
    assert card.training.rank1 >= 0.98


def test_families_are_distinct_and_pools_know_the_names() -> None:
    assert len({cls.card.family for cls in SHIPPED_BACKBONES}) == 3
    names = {cls.name for cls in SHIPPED_BACKBONES}
    assert {name for group in SYNTHETIC.groups for name in group} == names
    for name in names:
        assert set(SYNTHETIC.helpers(name)) == names - {name}
    assert REAL.helpers("mobileface-v3") == ("mobilefacenet-casia", "mobilefacenet-relu6")


@every_backbone
def test_embeds_with_a_finite_gradient(cls: type[TorchBackbone]) -> None:
    backbone = loaded(cls)
    images = (Synthetic().crops(["synthetic-eval-0001/00", "synthetic-eval-0002/00"]) / 255).requires_grad_()
    vectors = backbone.embed(images)
    assert vectors.shape == (2, backbone.card.embedding_dim)
    assert vectors.dtype == torch.float32
    F.cosine_similarity(vectors[:1], vectors[1:]).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.isfinite().all())
    assert images.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    torch.testing.assert_close(backbone.embed_batch(images.detach()), vectors.detach(), rtol=1e-3, atol=1e-3)


@every_backbone
def test_gradient_agrees_with_differences(cls: type[TorchBackbone]) -> None:
    """Along its own gradient an embedding changes as the gradient says (in float64)."""
    backbone = loaded(cls)
    backbone._network.double()  # type: ignore[union-attr]
    pair = Synthetic().crops(["synthetic-eval-0003/00", "synthetic-eval-0004/00"]).double() / 255
    photo, other = pair[:1].requires_grad_(), backbone.embed(pair[1:])

    def cosine(image: torch.Tensor) -> torch.Tensor:
        return F.cosine_similarity(backbone.embed(image), other).sum()

    (gradient,) = torch.autograd.grad(cosine(photo), photo)
    step = 1e-6 * gradient / gradient.norm()
    slope = (cosine(photo + step) - cosine(photo - step)).item() / 2e-6
    assert slope == pytest.approx(gradient.norm().item(), rel=1e-3)


@every_backbone
def test_a_copy_can_be_trained_and_the_backbone_stays(cls: type[TorchBackbone]) -> None:
    backbone = loaded(cls)
    images = Synthetic().crops([f"synthetic-eval-000{k}/00" for k in (1, 2, 3)]) / 255
    before = backbone.embed(images)
    copy = backbone.trainable(torch.device("cpu"))
    assert copy.training
    norms = [m for m in copy.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms  # as it was trained, not folded
    torch.testing.assert_close(copy.eval()(images), before, rtol=1e-3, atol=1e-3)
    parameters = list(copy.train().parameters())
    copy(images).square().sum().backward()
    assert all(p.requires_grad and p.grad is not None and p.grad.isfinite().all() for p in parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(1.5)
    assert not torch.allclose(copy.eval()(images), before, rtol=0.1)
    assert torch.equal(backbone.embed(images), before)


@pytest.mark.slow
@every_backbone
def test_recognises_unseen_people(cls: type[TorchBackbone]) -> None:
    """Rank-1 by scikit-learn's nearest neighbour on 100 evaluated identities, 7 photos to know, 7 to recognise."""
    dataset = Synthetic(Synthetic.Params(identities=100, photos=14))
    identities = [identity for identity in dataset.identities() if identity.role == "evaluation"]
    backbone = loaded(cls)

    def embed(photos: list[str]) -> np.ndarray:
        crops = dataset.crops(photos) / 255
        return torch.cat([backbone.embed_batch(part) for part in torch.split(crops, 50)]).numpy()

    known = embed([photo for identity in identities for photo in identity.photos[:7]])
    requested = embed([photo for identity in identities for photo in identity.photos[7:]])
    labels = np.repeat(np.arange(100), 7)
    nearest = KNeighborsClassifier(1, metric="cosine").fit(known, labels)
    assert nearest.score(requested, labels) >= 0.98


@every_backbone
def test_wrong_or_missing_weights_are_refused(cls: type[TorchBackbone], tmp_path: Path) -> None:
    class Elsewhere(cls):  # type: ignore[misc,valid-type]
        folder = tmp_path

    with pytest.raises(DataError, match="bench train backbone"):
        Elsewhere().load(torch.device("cpu"))
    content = bytearray((SHIPPED / cls.card.file).read_bytes())
    content[-1] ^= 1
    (tmp_path / cls.card.file).write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        Elsewhere().load(torch.device("cpu"))


def test_used_before_load_is_refused() -> None:
    with pytest.raises(RuntimeError, match="before load"):
        SyntheticIResNet().embed(torch.zeros(1, 3, 112, 112))


def test_card_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bench train backbone"):
        read_card(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="not the card"):
        read_card(tmp_path / "bad.json")


# Measures and augmentation.


def test_measures_agree_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(12).repeat_interleave(6)
    vectors = torch.randn(12, 8, generator=generator)[labels] + 0.9 * torch.randn(72, 8, generator=generator)
    gallery = torch.tensor([True, True, True, False, False, False]).repeat(12)
    nearest = KNeighborsClassifier(1, metric="cosine").fit(vectors[gallery].numpy(), labels[gallery].numpy())
    expected = nearest.score(vectors[~gallery].numpy(), labels[~gallery].numpy())
    assert rank_one(vectors, labels, gallery) == pytest.approx(expected)
    first, second = np.triu_indices(72, 1)
    unit = F.normalize(vectors).numpy()
    same = (labels[first] == labels[second]).numpy()
    accepts, hits, _ = roc_curve(same, (unit[first] * unit[second]).sum(1), drop_intermediate=False)
    place = np.abs(1 - hits - accepts).argmin()
    assert equal_error_rate(vectors, labels) == pytest.approx((1 - hits + accepts)[place] / 2, abs=2e-3)


def test_halves_round_up() -> None:
    identities = [Identity("a", ("1", "2", "3"), "training"), Identity("b", ("1", "2"), "training")]
    assert halves(identities).tolist() == [True, True, False, True, False]


def test_augmentation_keeps_range_and_does_nothing_at_zero() -> None:
    images = torch.rand(16, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    same = augmented(images, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(same, images)
    changed = augmented(images, 1.0, torch.Generator().manual_seed(1))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert bool(((changed - images).abs().amax(dim=(1, 2, 3)) > 0.05).all())


def test_augmentation_mirrors_and_shifts_whole_images() -> None:
    """A ramp over x stays a ramp: rising, or falling where it was mirrored, moved by at most 3 pixels."""
    ramp = (torch.arange(112) / 224 + 0.25).expand(64, 3, 112, 112)
    changed = augmented(ramp, 1.0, torch.Generator().manual_seed(2))
    rises = changed[:, 0, 0, 100] > changed[:, 0, 0, 10]
    assert 0.25 < rises.float().mean() < 0.75
    middle = changed[:, 0, :, 5:-5].diff(dim=2)
    assert bool(((middle > 0).all(dim=(1, 2)) == rises).all())
    assert torch.equal(changed[:, :, :1].expand_as(changed), changed)


# Training.


def train(out: Path, report: Callable[[str, int, int], None] = lambda *_: None) -> dict[str, object]:
    torch.set_num_threads(1)
    request = TrainRequest(dataset=Synthetic(TINY_DATA), out=out, seed=3, report=report)
    return dict(BackboneTrainer(TINY).train(request))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "tiny.safetensors"
    train(out)
    return out


def test_training_writes_a_card_that_loads(whole: Path) -> None:
    card = read_card(whole.with_suffix(".json"))
    assert card.sha256 == sha256_of(whole)
    assert (card.training.identities, card.training.held_out_identities) == (4, 3)
    assert card.training.images == 16
    assert card.training.command == (
        "bench train backbone:batch=6,checkpoint_every=2,depth=0.1,embedding_dim=16,holdout=3,steps=6,warmup=2 "
        "--dataset synthetic:identities=2,photos=2,training_identities=7,training_photos=4 "
        "--seed 3 --out tiny.safetensors"
    )
    assert not whole.with_suffix(".checkpoint").exists()
    tiny = type("Tiny", (TorchBackbone,), {"name": "tiny", "card": card, "folder": whole.parent})
    vectors = loaded(tiny).embed_batch(torch.rand(2, 3, 112, 112))
    assert vectors.shape == (2, 16)


def test_interrupted_training_ends_with_the_same_weights(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.safetensors"

    def interrupt(what: str, done: int, _total: int) -> None:
        if what.startswith("train") and done == 5:  # after the checkpoint at step 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(out, interrupt)
    assert not out.exists()
    steps: list[int] = []
    train(out, lambda what, done, _total: steps.append(done) if what.startswith("train") else None)
    assert steps == [5, 6]
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.safetensors"
    code = (
        "import sys,time; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "import test_synthetic_backbones as t\n"
        "t.train(Path(sys.argv[2]), lambda what, done, n: time.sleep(60) if 'train' in what and done == 5 else None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(out)])
    waited = time.monotonic()
    while not out.with_suffix(".checkpoint").exists() and time.monotonic() - waited < 90:
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    train(out)
    assert out.read_bytes() == whole.read_bytes()


def test_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "tiny.safetensors"

    def interrupt(what: str, done: int, _total: int) -> None:
        if what.startswith("train") and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(out, interrupt)
    other = TrainRequest(dataset=Synthetic(TINY_DATA), out=out, seed=4)
    with pytest.raises(DataError, match="of another training"):
        BackboneTrainer(TINY).train(other)
    out.with_suffix(".checkpoint").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        train(out)


def test_only_training_people_are_read(tmp_path: Path) -> None:
    read: list[str] = []

    class Watched(Synthetic):
        def crops(self, ids: list[str]) -> torch.Tensor:  # type: ignore[override]
            read.extend(ids)
            return super().crops(ids)

    dataset: Dataset = Watched(TINY_DATA)
    BackboneTrainer(TINY).train(TrainRequest(dataset=dataset, out=tmp_path / "x.safetensors"))
    assert len(read) == 28
    assert len(set(read)) == 28, "held-out photos must not be trained on"
    assert all(photo.startswith("synthetic-train") for photo in read)


def test_float16_is_measured_as_stored(tmp_path: Path) -> None:
    params = TINY.model_copy(update={"store": "float16", "optimiser": "adamw", "lr": 1e-3})
    out = tmp_path / "half.safetensors"
    request = TrainRequest(dataset=Synthetic(TINY_DATA), out=out, seed=3)
    content = BackboneTrainer(params).train(request)
    assert json.loads(out.with_suffix(".json").read_text()) == content
    assert 0 <= content["training"]["eer"] <= 1
    card = read_card(out.with_suffix(".json"))
    tiny = type("Tiny", (TorchBackbone,), {"name": "half", "card": card, "folder": tmp_path})
    assert bool(loaded(tiny).embed_batch(torch.rand(2, 3, 112, 112)).isfinite().all())


def test_requests_that_cannot_work_are_refused(tmp_path: Path) -> None:
    dataset = Synthetic(TINY_DATA)
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        BackboneTrainer(TINY).train(TrainRequest(dataset=dataset, out=tmp_path / "x.pt"))
    few = TINY.model_copy(update={"holdout": 6})
    with pytest.raises(UsageError, match="7 training identities"):
        BackboneTrainer(few).train(TrainRequest(dataset=dataset, out=tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match="depth"):
        BackboneTrainer.Params(arch="iresnet18", depth=2)


def test_learning_rate_rises_then_falls() -> None:
    rates = [backbone_training.learning_rate(step, 100, 0.1, 10) for step in range(100)]
    assert rates.index(max(rates)) in {9, 10}
    assert max(rates) == pytest.approx(0.1)
    assert bool(np.all(np.diff(rates[:10]) > 0))
    assert bool(np.all(np.diff(rates[10:]) < 0))
    assert rates[-1] < 1e-3 * 0.1 + 1e-4
