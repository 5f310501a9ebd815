"""The head that trains the backbone: against autograd by hand, and what it must not do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.errors import MethodError
from bench.protocols.finetuning import SCALE, FineTuned, Recipe, as_photos, class_means, train
from bench.randomness import torch_generator

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, learning_rate=3e-3, batch=4)


class TinyNet(nn.Module):
    """A convolution, batch norm, dropout and a linear layer."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.convolution = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(6, 8)
        for parameter in (*self.convolution.parameters(), *self.linear.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x):
        maps = torch.tanh(self.norm(self.convolution(x - 0.5)))
        return self.linear(self.dropout(maps.square().mean((2, 3))))


def made_up(by_each_identity=4, identities=3, seed=0):
    """Photos of identities that differ in texture: period of stripes and their colour, with noise."""
    rng = np.random.default_rng(seed)
    photos, labels = [], []
    for identity in range(identities):
        stripes = np.sin(np.arange(12) * (identity + 1))[None, None] * np.eye(3)[identity % 3][:, None, None]
        for _ in range(by_each_identity):
            image = 128 + 40 * stripes + 45 * rng.standard_normal((3, 12, 12))
            photos.append(image.clip(0, 255).round().astype(np.uint8))
            labels.append(identity)
    return np.stack(photos), np.array(labels)


def head(recipe=RECIPE, seed=0, network=TinyNet):
    return FineTuned(network, recipe, seed, CPU)


def by_hand(network, photos, labels, recipe, seed):
    """The definition, photo by photo: cross-entropy of SCALE·cos, AdamW, prototypes from class means."""
    images = torch.from_numpy(photos).float() / 255
    with torch.no_grad():
        vectors = F.normalize(network(images))
        means = [F.normalize(vectors[labels == k].mean(0), dim=0) for k in range(labels.max() + 1)]
    layer = nn.Parameter(torch.stack(means))
    optimiser = torch.optim.AdamW([*network.parameters(), layer], lr=recipe.learning_rate)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(photos), generator=torch_generator(seed, "finetune", str(epoch))).tolist()
        for start in range(0, len(order), recipe.batch):
            losses = []
            for row in order[start : start + recipe.batch]:
                cosines = F.cosine_similarity(network(images[row : row + 1]), layer)
                losses.append(torch.logsumexp(SCALE * cosines, 0) - SCALE * cosines[labels[row]])
            optimiser.zero_grad()
            torch.stack(losses).mean().backward()
            optimiser.step()
    return layer.detach()


def test_training_is_adamw_on_cosine_softmax_from_class_means():
    photos, labels = made_up()
    ours, theirs = TinyNet().eval(), TinyNet().eval()
    prototypes = train(ours, photos, labels, RECIPE, 5, CPU)
    layer = by_hand(theirs, photos, labels, RECIPE, 5)
    torch.testing.assert_close(prototypes, F.normalize(layer), atol=1e-4, rtol=1e-3)
    start = dict(TinyNet().named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), parameter, atol=2e-4, rtol=1e-3)
        assert not torch.allclose(parameter, start[name], atol=1e-3)


def test_scores_are_probabilities_of_the_trained_network_and_minus_infinity_without_photos():
    photos, labels = made_up()
    probes, _ = made_up(seed=1)
    scores = head().fit(photos, labels * 2, 6)(probes)  # classes 1, 3 and 5 have no photo
    assert scores.dtype == np.float32
    assert np.isneginf(scores[:, 1::2]).all()
    np.testing.assert_allclose(scores[:, ::2].sum(1), 1, atol=1e-6)
    network = TinyNet().eval()
    prototypes = train(network, photos, labels, RECIPE, 0, CPU)
    vectors = F.normalize(network(torch.from_numpy(probes).float() / 255)).detach()
    expected = (SCALE * vectors @ prototypes.T).softmax(1).numpy()
    np.testing.assert_allclose(scores[:, ::2], expected, atol=1e-5)


def test_training_recognises_people_the_untrained_network_confuses():
    photos, labels = made_up(by_each_identity=10)
    probes, truth = made_up(by_each_identity=20, seed=1)
    before = class_means(F.normalize(TinyNet().eval()(torch.from_numpy(photos) / 255)), torch.tensor(labels))
    untrained = F.normalize(TinyNet().eval()(torch.from_numpy(probes) / 255)) @ before.T
    recipe = Recipe(epochs=60, learning_rate=5e-2, batch=8)
    trained = head(recipe).fit(photos, labels, 3)(probes)
    wrong_before = (untrained.argmax(1).numpy() != truth).mean()
    wrong_after = (trained.argmax(1) != truth).mean()
    assert wrong_after < 0.5 * wrong_before
    assert wrong_before > 0.2


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not():
    photos, labels = made_up()
    first = head(seed=1).fit(photos, labels, 3)(photos)
    torch.rand(3)  # global randomness plays no part
    assert np.array_equal(first, head(seed=1).fit(photos, labels, 3)(photos))
    assert not np.array_equal(first, head(seed=2).fit(photos, labels, 3)(photos))


def test_statistics_of_batch_norm_stay_and_every_training_starts_afresh():
    photos, labels = made_up()
    made = []

    def network():
        made.append(TinyNet())
        return made[-1].train()

    both = head(network=network)
    first = both.fit(photos, labels, 3)(photos)
    both.fit(255 - photos, labels, 3)
    assert np.array_equal(both.fit(photos, labels, 3)(photos), first)
    assert len(made) == 3
    assert torch.equal(made[0].norm.running_mean, torch.zeros(6))
    assert not torch.equal(made[0].norm.weight, torch.ones(6))


@pytest.mark.parametrize("present", [[], [1]])
def test_fewer_than_two_people_train_nothing(present):
    def network():
        raise AssertionError("nothing to train")

    photos, _ = made_up(by_each_identity=1)
    scores = head(network=network).fit(photos[: len(present)], np.array(present, dtype=int), 3)(photos)
    expected = np.full((3, 3), -np.inf)
    expected[:, present] = 1
    assert np.array_equal(scores, expected)


def test_a_training_that_diverges_is_a_method_error_with_the_mend():
    photos, labels = made_up()
    with pytest.raises(MethodError, match="Lower finetune_learning_rate, now 1e"):
        head(Recipe(epochs=4, learning_rate=1e30, batch=4)).fit(photos, labels, 3)


def test_photos_are_the_grey_levels():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert np.array_equal(as_photos(levels.float() / 255), levels.numpy())
