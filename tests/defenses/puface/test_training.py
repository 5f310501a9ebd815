"""Training the purifier: its formulas, whose photos it sees, and that a killed training goes on exactly."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from bench.contracts import (
    Attack,
    Backbone,
    BackboneCard,
    Context,
    Dataset,
    Faces,
    Identity,
    MethodParams,
    ThreatModel,
    TrainRequest,
)
from bench.data.files import sha256_of
from bench.errors import UsageError
from bench.plugins import factory, syntax
from bench.quality.lpips import Lpips, Unavailable
from bench.randomness import torch_generator
from defenses.puface import training
from defenses.puface.losses import adaptive_examples, feature_distance
from defenses.puface.network import load_network, purify
from defenses.puface.perturbations import Recipe, amplify, smooth
from defenses.puface.purifier import SHELF
from defenses.puface.training import PuFaceTrainer
from defenses.puface.training_photos import choose_photos

SIDE = 16


class Blobs(Dataset):
    """Smooth random 16×16 images; remembers which were read."""

    name = "blobs"
    domain = "test"

    def __init__(self, identities: int = 24) -> None:
        super().__init__()
        self.n_identities = identities
        self.read: set[str] = set()

    def identities(self) -> tuple[Identity, ...]:
        return tuple(
            Identity(f"p{i:02}", (f"p{i:02}/0", f"p{i:02}/1"), "evaluation" if i % 4 == 0 else "training")
            for i in range(self.n_identities)
        )

    def fingerprint(self) -> str:
        return f"blobs of {self.n_identities}"

    def crops(self, ids: Sequence[str]) -> Tensor:
        self.read.update(ids)
        images = [torch.rand(3, 4, 4, generator=torch_generator(0, "blobs", image)) for image in ids]
        smooth_images = F.interpolate(torch.stack(images), size=SIDE, mode="bilinear", align_corners=False)
        return smooth_images.mul(255).round().to(torch.uint8)


class Checkers(Attack):
    """Adds a chequered pattern, 20 grey levels high, its sign drawn for each photo."""

    name = "checkers"
    threat = ThreatModel(goal="untargeted")

    class Params(MethodParams):
        height: float = 20.0

    params: Params
    calls = 0

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        type(self).calls += 1
        lines = torch.arange(SIDE) % 2
        pattern = (lines[:, None] ^ lines[None, :]) * 2.0 - 1
        cloaks = {}
        for image_id, image in zip(faces.ids, faces.images, strict=True):
            sign = torch.randint(2, (1,), generator=ctx.generator("checkers", image_id)) * 2 - 1
            cloaks[image_id] = (image + sign * pattern * self.params.height / 255).clamp(0, 1)
        ctx.advance(len(faces))
        return cloaks


class Stripes(Checkers):
    """Another attack that wants whole identities."""

    name = "stripes"
    scope = "identity"  # type: ignore[assignment]

    def cloak(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        for identity in faces.identities:
            assert faces.identities.count(identity) == 2, "an identity came apart"
        return super().cloak(faces, ctx)


class Projection(Backbone):
    """A random linear map that sees the chequered pattern ten times as strong as anything else."""

    def __init__(self, name: str = "projection") -> None:
        super().__init__()
        self.card = BackboneCard(name=name, licence="none", embedding_dim=12)
        self.load(torch.device("cpu"))

    def load(self, device: torch.device) -> None:
        generator = torch_generator(0, "projection", self.card.name)
        lines = torch.arange(SIDE) % 2
        pattern = ((lines[:, None] ^ lines[None, :]) * 2.0 - 1).expand(3, SIDE, SIDE).reshape(1, -1)
        self.weight = torch.randn(12, 3 * SIDE * SIDE, generator=generator)
        self.weight = (self.weight + torch.randn(12, 1, generator=generator) * pattern).to(device)

    def embed(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight.T


SMALL = PuFaceTrainer.Params(
    steps=12,
    batch=8,
    cloaks=(10,),
    naturals=12,
    holdout=3,
    evaluate_every=4,
    width=6,
    depth=2,
    smooth_share=0.5,
)


def request(out: Path, **changes: object) -> TrainRequest:
    parts: dict[str, object] = {
        "dataset": Blobs(),
        "attacks": (Checkers(),),
        "backbones": (Projection(),),
        "seed": 3,
    }
    return TrainRequest(out=out, **(parts | changes))  # type: ignore[arg-type]


# Formulas.


@settings(deadline=None)
@given(k=st.floats(0, 8), seed=st.integers(0, 1000))
def test_amplification_is_a_clipped_extrapolation(k: float, seed: int) -> None:
    natural, cloaked = torch.rand(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    expected = (natural.double() + k * (cloaked.double() - natural.double())).clamp(0, 1)
    torch.testing.assert_close(
        amplify(natural, cloaked, torch.tensor([k])).double(), expected, atol=1e-6, rtol=0
    )


def test_each_image_has_its_own_k() -> None:
    natural, cloaked = torch.full((3, 3, 2, 2), 0.5), torch.full((3, 3, 2, 2), 0.6)
    amplified = amplify(natural, cloaked, torch.tensor([0.0, 1.0, 3.0]))
    torch.testing.assert_close(amplified[:, 0, 0, 0], torch.tensor([0.5, 0.6, 0.8]))


@settings(deadline=None, max_examples=20)
@given(sigma=st.floats(0.6, 2.1), mix=st.floats(0, 1), seed=st.integers(0, 100))
def test_smoothing_keeps_the_norm(sigma: float, mix: float, seed: int) -> None:
    perturbation = 0.1 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    smoothed = smooth(perturbation, sigma, mix)
    torch.testing.assert_close(smoothed.flatten(1).norm(dim=1), perturbation.flatten(1).norm(dim=1))


def test_smoothing_moves_energy_to_low_frequencies() -> None:
    perturbation = 0.1 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    smoothed = smooth(perturbation, 1.5, 1.0)

    def low_share(image: Tensor) -> float:
        power = torch.fft.fft2(image).abs().square()
        frequency = torch.fft.fftfreq(32).abs()
        low = (frequency[:, None] < 0.1) & (frequency[None, :] < 0.1)
        return float(power[..., low].sum() / power.sum())

    assert low_share(smoothed) > 5 * low_share(perturbation)
    torch.testing.assert_close(smooth(perturbation, 1.5, 0.0), perturbation)


def test_no_perturbation_stays_none() -> None:
    assert torch.equal(smooth(torch.zeros(1, 3, 8, 8), 1.0, 0.7), torch.zeros(1, 3, 8, 8))


def test_feature_distance_is_one_minus_the_mean_cosine() -> None:
    extractors = [Projection("a"), Projection("b")]
    images, natural = torch.rand(2, 3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    features = [extractor.embed(natural) for extractor in extractors]
    expected = []
    for i in range(3):
        cosines = []
        for extractor in extractors:
            one, two = (
                extractor.embed(images[i : i + 1])[0].numpy(),
                extractor.embed(natural[i : i + 1])[0].numpy(),
            )
            cosines.append(one @ two / np.sqrt((one @ one) * (two @ two)))
        expected.append(1 - np.mean(cosines))
    np.testing.assert_allclose(feature_distance(images, features, extractors).numpy(), expected, atol=1e-5)


# Whose photos.


def test_photos_come_from_many_people_first() -> None:
    identities = [Identity("a", ("a0", "a1", "a2"), "training"), Identity("b", ("b0",), "training")]
    assert choose_photos(identities, 3, "image") == [("a0", "a"), ("b0", "b"), ("a1", "a")]
    assert choose_photos(identities, 9, "image") == [("a0", "a"), ("b0", "b"), ("a1", "a"), ("a2", "a")]
    assert choose_photos(identities, 3, "identity") == [("a0", "a"), ("a1", "a"), ("a2", "a")]
    assert choose_photos(identities, 4, "identity") == [("a0", "a"), ("a1", "a"), ("a2", "a"), ("b0", "b")]


def test_evaluated_people_are_never_read(tmp_path: Path) -> None:
    dataset = Blobs()
    PuFaceTrainer(SMALL).train(request(tmp_path / "w.safetensors", dataset=dataset))
    evaluated = {p for i in dataset.identities() if i.role == "evaluation" for p in i.photos}
    assert dataset.read
    assert not dataset.read & evaluated


def test_attacks_on_people_get_whole_people(tmp_path: Path) -> None:
    card = PuFaceTrainer(SMALL).train(request(tmp_path / "w.safetensors", attacks=(Stripes(),)))
    assert card["attacks"] == ["stripes"]


# Training.


@pytest.mark.slow
def test_training_removes_the_cloak_and_spares_natural_photos(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    params = SMALL.model_copy(
        update={"steps": 400, "evaluate_every": 100, "lr": 1e-2, "smooth_share": 0.0, "width": 8}
    )
    # Three held-out identities: at this rate the figure differs from seed to seed, and this seed is not a close call.
    card = PuFaceTrainer(params).train(request(out, seed=5))
    assert card["quality"]["recovered"] > 0.8
    assert card["quality"]["purified_psnr"] > card["quality"]["cloaked_psnr"] + 3
    assert card["quality"]["natural_psnr"] > 28
    # The card's figure, measured again from the file on identities the training had no photo of.
    dataset = Blobs()
    photos = [(i.photos[0], i.id) for i in dataset.identities() if i.role == "evaluation"]
    crops = dataset.crops([photo for photo, _ in photos]).float() / 255
    faces = Faces(crops, tuple(p for p, _ in photos), tuple(i for _, i in photos))
    cloaks = torch.stack(list(Checkers().cloak(faces, Context(seed=9)).values()))
    purified = purify(load_network(out, torch.device("cpu")), cloaks)
    features = [Projection().embed(crops)]
    before = float(feature_distance(cloaks, features, [Projection()]).mean())
    after = float(feature_distance(purified, features, [Projection()]).mean())
    assert after < 0.3 * before


class MeanChange(Lpips):
    """A stand-in for LPIPS that knows no convolution: the mean absolute change."""

    def penalty(self, images: Tensor, reference: Tensor) -> Tensor:
        return (images - reference).abs().mean((1, 2, 3))


@pytest.fixture
def perceptual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "load_lpips", lambda: MeanChange({}, (), "0" * 64))


@pytest.mark.usefixtures("perceptual")
def test_a_perceptual_weight_leaves_natural_photos_closer_to_themselves(tmp_path: Path) -> None:
    found = []
    for weight in (0.0, 30.0):
        params = SMALL.model_copy(
            update={"steps": 60, "lr": 1e-2, "image_weight": 0.0, "perceptual_weight": weight}
        )
        found.append(PuFaceTrainer(params).train(request(tmp_path / f"{weight}.safetensors"))["quality"])
    without, weighed = found
    assert without["natural_lpips"] is None  # the photos are too small for the real one
    assert weighed["natural_lpips"] < 0.02
    assert weighed["natural_psnr"] > without["natural_psnr"] + 3


@pytest.mark.usefixtures("perceptual")
def test_the_perceptual_loss_is_that_of_the_natural_photos_of_the_batch(tmp_path: Path) -> None:
    weight = 0.7
    losses = []
    for params in (SMALL, SMALL.model_copy(update={"perceptual_weight": weight})):
        one = training._Training(params, "puface", request(tmp_path / "w.safetensors"))
        images, natural = torch.rand(2, 8, 3, SIDE, SIDE, generator=torch_generator(1, "images"))
        features = [Projection().embed(natural)]
        network = one._network()
        losses.append(float(one._loss(network, images, natural, features, [Projection()]).detach()))
    assert one.recipe.untouched == 2  # a quarter of eight
    change = (one._purified(network, images).clamp(0, 1) - natural).abs().mean((1, 2, 3))
    assert losses[1] - losses[0] == pytest.approx(weight * float(change[:2].detach().sum()) / 8, rel=1e-4)


def test_a_perceptual_weight_of_no_photo_is_refused() -> None:
    with pytest.raises(ValidationError, match="natural_share 0 of 32 leaves none"):
        PuFaceTrainer.Params(perceptual_weight=1, natural_share=0)


def test_a_perceptual_weight_without_lpips_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_lpips", lambda: Unavailable("It is not here."))
    params = SMALL.model_copy(update={"perceptual_weight": 1.0})
    with pytest.raises(UsageError, match=r"perceptual_weight weighs LPIPS\. It is not here\."):
        PuFaceTrainer(params).train(request(tmp_path / "w.safetensors"))
    assert not list(tmp_path.iterdir())


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        out = tmp_path / name / "w.safetensors"
        out.parent.mkdir()
        PuFaceTrainer(SMALL).train(request(out))
        digests.append(sha256_of(out))
    assert digests[0] == digests[1]


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one = PuFaceTrainer(SMALL).train(request(tmp_path / "1.safetensors", seed=1))
    two = PuFaceTrainer(SMALL).train(request(tmp_path / "2.safetensors", seed=2))
    assert one["sha256"] != two["sha256"]


@pytest.mark.parametrize("killed_at", [1, 5, 8, 11])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, killed_at: int) -> None:
    whole = PuFaceTrainer(SMALL).train(request(tmp_path / "whole.safetensors"))

    def die(what: str, done: int, _total: int) -> None:
        if what == "train" and done == killed_at:
            raise KeyboardInterrupt

    out = tmp_path / "killed.safetensors"
    with pytest.raises(KeyboardInterrupt):
        PuFaceTrainer(SMALL).train(request(out, report=die))
    assert not out.exists()
    calls = Checkers.calls
    steps: list[int] = []

    def note(what: str, done: int, _total: int) -> None:
        if what == "train":
            steps.append(done)

    resumed = PuFaceTrainer(SMALL).train(request(out, report=note))
    assert Checkers.calls == calls, "cloaks were made again"
    assert steps[0] == (killed_at - 1) // 4 * 4 + 1
    assert resumed["sha256"] == whole["sha256"]
    assert not out.with_suffix(".checkpoint").exists()


def test_the_card_says_how_it_was_made(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    attacks = (Stripes(), Checkers(Checkers.Params(height=10)))
    params = SMALL.model_copy(update={"k_min": (1.0, 2.0), "k_max": (3.0, 4.0), "cloaks": (8, 6)})
    content = PuFaceTrainer(params).train(request(out, attacks=attacks))
    card = SHELF.read(out)
    assert card.model_dump(mode="json") == content
    assert card.sha256 == sha256_of(out)
    assert card.attacks == ("checkers:height=10", "stripes")
    assert card.amplification == {"stripes": (1, 3), "checkers:height=10": (2, 4)}
    assert card.training_identities == "blobs/training"
    assert (card.domain, card.extractors, card.seed) == ("test", ("projection",), 3)
    assert 0 < card.steps <= 12
    words = card.command.replace("'", "").split()
    assert words[:2] == ["bench", "train"]
    words.remove("--with-development")
    made_with = words[3:-2]
    assert made_with[::2] == ["--dataset", "--attack", "--attack", "--backbone", "--seed"]
    assert made_with[1::2] == ["blobs", "stripes", "checkers:height=10", "projection", "3"]
    assert words[-2:] == ["--out", "w.safetensors"]
    again = factory.build(PuFaceTrainer, syntax.parse(words[2]))
    assert again.params == params


def test_trainings_may_share_their_cloaks(tmp_path: Path) -> None:
    """Other losses need no other cloaks; another seed does."""
    shelf = tmp_path / "cloaks"
    alone = PuFaceTrainer(SMALL).train(request(tmp_path / "alone.safetensors"))
    one = PuFaceTrainer(SMALL).train(request(tmp_path / "1.safetensors", cloaks=shelf))
    assert one["sha256"] == alone["sha256"]
    calls = Checkers.calls
    other = SMALL.model_copy(update={"feature_weight": 0.0})
    two = PuFaceTrainer(other).train(request(tmp_path / "2.safetensors", cloaks=shelf))
    assert Checkers.calls == calls
    assert two["sha256"] != one["sha256"]
    PuFaceTrainer(SMALL).train(request(tmp_path / "3.safetensors", cloaks=shelf, seed=4))
    assert Checkers.calls > calls


def test_borrowed_perturbations_lie_on_other_photos() -> None:
    rng = np.random.default_rng(0)
    natural = torch.full((6, 3, 8, 8), 100, dtype=torch.uint8)
    natural[0] = 50  # the only photo that was cloaked
    cloaks = {"dots": ([0], natural[:1] + 7)}
    recipe = Recipe(40, 0.0, 0.0, 1.0, {"dots": (1.0, 1.0)})
    rows, images = recipe.draw(natural, cloaks, rng)
    assert set(rows) == set(range(6))
    torch.testing.assert_close((images - natural[rows].float() / 255), torch.full_like(images, 7 / 255))
    rows, _ = Recipe(40, 0.0, 0.0, 0.0, {"dots": (1.0, 1.0)}).draw(natural, cloaks, rng)
    assert set(rows) == {0}


@pytest.mark.parametrize("joint", [False, True])
def test_adaptive_examples_move_features_behind_the_purifier_within_their_bound(joint: bool) -> None:
    natural = torch.rand(5, 3, SIDE, SIDE, generator=torch_generator(0, "natural")) * 0.8 + 0.1
    extractor = Projection()
    features = [extractor.embed(natural)]
    eps = torch.tensor([0.01, 0.02, 0.03, 0.04, 0.05])
    start = torch.rand(natural.shape, generator=torch_generator(0, "start")) * 2 - 1

    def halved(images: Tensor) -> Tensor:
        return images / 2 + 0.25

    cloaks = adaptive_examples(
        halved,
        natural,
        [extractor.embed(halved(natural))],
        [extractor],
        eps=eps,
        steps=8,
        joint=joint,
        start=start,
    )
    change = (cloaks - natural).abs().flatten(1).max(dim=1).values
    torch.testing.assert_close(change, eps, atol=1e-6, rtol=0)
    noise = natural + eps.view(-1, 1, 1, 1) * start.sign()
    behind = feature_distance(halved(cloaks), [extractor.embed(halved(natural))], [extractor])
    assert bool(
        (behind > feature_distance(halved(noise), [extractor.embed(halved(natural))], [extractor])).all()
    )
    assert bool((feature_distance(cloaks, features, [extractor]) > 0).all())


def test_training_against_itself_is_on_the_card_and_resumes(tmp_path: Path) -> None:
    params = SMALL.model_copy(update={"adaptive_share": 0.5, "adaptive_steps": 2})
    whole = PuFaceTrainer(params).train(request(tmp_path / "whole.safetensors"))
    plain = PuFaceTrainer(SMALL).train(request(tmp_path / "plain.safetensors"))
    assert whole["attacks"] == sorted([*plain["attacks"], "adaptive"])
    assert whole["sha256"] != plain["sha256"]

    def die(what: str, done: int, _total: int) -> None:
        if what == "train" and done == 7:
            raise KeyboardInterrupt

    out = tmp_path / "killed.safetensors"
    with pytest.raises(KeyboardInterrupt):
        PuFaceTrainer(params).train(request(out, report=die))
    assert PuFaceTrainer(params).train(request(out))["sha256"] == whole["sha256"]


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_networks_of_every_stride_are_written_and_read(tmp_path: Path, stride: int) -> None:
    out = tmp_path / "w.safetensors"
    card = PuFaceTrainer(SMALL.model_copy(update={"stride": stride})).train(request(out))
    network = load_network(out, torch.device("cpu"))
    assert (network.stride, card["stride"]) == (stride, stride)
    assert network(torch.rand(1, 3, SIDE, SIDE)).shape == (1, 3, SIDE, SIDE)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    steps: list[int] = []

    def note(what: str, done: int, _total: int) -> None:
        if what == "train":
            steps.append(done)

    # At this rate the loss soars after the first step, so the first measurement stays the best.
    params = SMALL.model_copy(update={"steps": 40, "evaluate_every": 1, "patience": 3, "lr": 0.5})
    card = PuFaceTrainer(params).train(request(tmp_path / "w.safetensors", report=note))
    assert steps[-1] == card["steps"] + 3
    assert steps[-1] < 40


class Counting(Projection):
    """Counts the images whose embedding carries a gradient."""

    passes = 0

    def embed(self, images: Tensor) -> Tensor:
        self.passes += images.requires_grad
        return super().embed(images)


@pytest.mark.parametrize(("per_step", "passes"), [(0, 24), (1, 12), (2, 24)])
def test_a_step_looks_through_as_many_extractors_as_asked(tmp_path: Path, per_step: int, passes: int) -> None:
    extractors = (Counting("a"), Counting("b"))
    params = SMALL.model_copy(update={"extractors_per_step": per_step})
    PuFaceTrainer(params).train(request(tmp_path / "w.safetensors", backbones=extractors))
    assert extractors[0].passes + extractors[1].passes == passes
    assert extractors[0].passes > 0
    assert extractors[1].passes > 0


def test_bfloat16_trains_to_other_weights_read_as_float32(tmp_path: Path) -> None:
    full = PuFaceTrainer(SMALL).train(request(tmp_path / "32.safetensors"))
    params = SMALL.model_copy(update={"precision": "bfloat16"})
    half = PuFaceTrainer(params).train(request(tmp_path / "16.safetensors"))
    assert half["sha256"] != full["sha256"]
    network = load_network(tmp_path / "16.safetensors", torch.device("cpu"))
    assert network.up.weight.dtype == torch.float32


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": ()}, "name at least one, --attack"),
        ({"backbones": ()}, "name at least one, --backbone"),
        ({"dataset": Blobs(identities=5)}, "3 training identities"),
        ({"out": Path("w.pt")}, r"w\.pt must end in \.safetensors"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    parts = {"out": tmp_path / "w.safetensors"} | changes
    with pytest.raises(UsageError, match=message):
        PuFaceTrainer(SMALL).train(request(**parts))  # type: ignore[arg-type]


def test_an_attack_made_of_others_is_refused_with_the_way_to_train_against_it(tmp_path: Path) -> None:
    from attacks.adaptive import Adaptive

    with pytest.raises(UsageError, match=r"'adaptive', which is made of other methods.*adaptive_share"):
        PuFaceTrainer(SMALL).train(request(tmp_path / "w.safetensors", attacks=(Adaptive(),)))


def test_per_attack_values_must_match_the_attacks(tmp_path: Path) -> None:
    params = SMALL.model_copy(update={"cloaks": (1, 2, 3)})
    with pytest.raises(UsageError, match="cloaks has 3 values for 1 attacks"):
        PuFaceTrainer(params).train(request(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    "values",
    [
        {"k_min": (2.0,), "k_max": (1.0,)},
        {"k_min": (-1.0,)},
        {"k_max": (1.0, 2.0)},
        {"cloaks": (0,)},
        {"depth": 3},
    ],
)
def test_parameters_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PuFaceTrainer.Params.model_validate(values)
