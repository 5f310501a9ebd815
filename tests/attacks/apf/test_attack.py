"""APF: the networks' shapes, the boundary a photo cannot pass, and the attack around them."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from attacks.apf.attack import APF
from attacks.apf.card import SHELF, ApfCard
from attacks.apf.cloud import CloudSide, Gradient, Perturbation
from attacks.apf.end import Diversity, other_photos
from attacks.apf.network import ApfNetwork, TransferNetwork, load_network, save_network
from bench.authoring.checks import fake_backbones, run_checks, sample_faces
from bench.contracts import Binding, Context, Faces
from bench.data.files import sha256_of
from bench.errors import DataError, UsageError
from bench.plugins import factory, registry
from bench.quality.metrics import linf

CPU = torch.device("cpu")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def small_network(seed=0, size=112, width=2):
    network = ApfNetwork(width, size)
    network.draw(torch.Generator().manual_seed(seed))
    network.enhancement.universal.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(seed + 1))
    return network.requires_grad_(False)


# -- networks ------------------------------------------------------------------------------------------------


def test_the_networks_have_the_papers_shapes_and_number_of_parameters():
    network = ApfNetwork(64)
    assert parameters(network) == 3_471_825
    assert parameters(network.enhancement) == 3 * 3 + 3 + 2
    assert "enhancement.universal" in dict(network.named_buffers())
    encoder = [tuple(layer.weight.shape) for layer in network.transfer.encoder]
    decoder = [tuple(layer.weight.shape) for layer in network.transfer.decoder]
    assert encoder == [(64, 3, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (512, 256, 3, 3)]
    assert decoder == [(512, 256, 3, 3), (512, 128, 3, 3), (256, 64, 3, 3), (128, 3, 3, 3)]
    assert all(layer.bias is not None for layer in [*network.transfer.encoder, *network.transfer.decoder])


def test_the_transfer_network_is_the_u_net_written_out():
    network = TransferNetwork(3).requires_grad_(False)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    down = [x]
    for layer in network.encoder:
        down.append(F.leaky_relu(F.conv2d(down[-1], layer.weight, layer.bias, stride=2, padding=1), 0.2))

    def up(layer, value):
        return F.conv_transpose2d(value, layer.weight, layer.bias, stride=2, padding=1, output_padding=1)

    value = down[4]
    for layer, skip in zip(network.decoder[:3], (down[3], down[2], down[1]), strict=True):
        value = torch.cat([F.leaky_relu(up(layer, value), 0.2), skip], 1)
    torch.testing.assert_close(network(x), up(network.decoder[3], value))


def test_the_enhancement_starts_as_u_and_is_added_to_the_transfer():
    network = small_network()
    torch.testing.assert_close(network.enhancement()[0], network.enhancement.universal)
    gradients = torch.rand(2, 3, 112, 112) * 2 - 1
    alone, both = network(gradients, 2), network(gradients, 3)
    torch.testing.assert_close(both - alone, network.enhancement().expand_as(alone), atol=1e-5, rtol=1e-4)
    network.enhancement.alpha.fill_(2.0)
    network.enhancement.beta.fill_(0.5)
    torch.testing.assert_close(network.enhancement()[0], 2 * network.enhancement.universal + 0.5)


def test_weights_come_back_from_their_file(tmp_path):
    network, path = small_network(), tmp_path / "w.safetensors"
    save_network(network, path)
    again = load_network(path, CPU)
    assert (again.width, again.size) == (2, 112)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.half().float())
    first = path.read_bytes()
    save_network(again, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("harm", ["missing", "cut", "another", "not finite", "another shape"])
def test_weights_that_are_not_what_they_should_be_are_refused(tmp_path, harm):
    path = tmp_path / "w.safetensors"
    network = small_network()
    if harm == "not finite":
        network.enhancement.alpha.fill_(math.nan)
    save_network(network, path)
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif harm == "another":
        save_file({"x": torch.zeros(3)}, path)
    elif harm == "another shape":
        tensors = load_file(path)
        tensors["enhancement.alpha"] = torch.zeros(2, dtype=torch.float16)
        metadata = '{"architecture": "apf", "size": 112, "width": 2}'
        save_file(tensors, path, {"network": metadata})
    with pytest.raises(DataError, match="bench train apf"):
        load_network(path, CPU)


# -- the boundary --------------------------------------------------------------------------------------------


def photos(count=2, side=112, seed=0):
    """Photos of every brightness: smooth, 8-bit, from black to white."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    coarse[:, :, 0, 0], coarse[:, :, 4, 4] = 0, 1
    smooth = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
    return smooth.mul(255).round() / 255


def gradient_of(images, eps=8, seed=0):
    noise = torch.randint(-eps, eps + 1, images.shape, generator=torch.Generator().manual_seed(seed))
    return Gradient.between((images + noise / 255).clamp(0, 1), images, eps)


def every_way_to_send(photo):
    """A photo as everything a caller may have it as."""
    bytes_ = (photo * 255).round().to(torch.uint8)
    faces = Faces(photo, tuple("ab"), tuple("pp"))
    yield from (photo, bytes_, photo.numpy(), bytes_.numpy(), bytes_.numpy().tobytes(), faces, photo.double())
    yield from (bytes_.to(torch.int8), (bytes_.int() - 128).to(torch.int8), [photo], {"values": photo}, None)

    class Disguised(_base_of_gradient()):
        values = (bytes_.int() - 128).to(torch.int8)
        eps = 8

    yield object.__new__(Disguised)


def _base_of_gradient():
    return Gradient.__mro__[1]


@pytest.mark.parametrize("way", range(13))
def test_the_cloud_side_takes_no_photo_whatever_it_comes_as(way):
    cloud = CloudSide(small_network(), 3, CPU)
    thing = list(every_way_to_send(photos()))[way]
    with pytest.raises(TypeError, match="takes a Gradient and nothing else"):
        cloud.transfer(thing)


def test_there_are_as_many_ways_as_are_tried():
    assert len(list(every_way_to_send(photos()))) == 13


def test_a_photo_cannot_become_a_gradient():
    photo = photos()
    as_int8 = (photo * 255 - 128).to(torch.int8)
    black = torch.zeros_like(photo)
    for kind in (Gradient, Perturbation):
        for arguments in ((), (photo,), (as_int8, 8)):
            with pytest.raises(TypeError, match="not made from numbers"):
                kind(*arguments)
    with pytest.raises(ValueError, match="differ by up to 255 grey levels, more than eps = 8"):
        Gradient.between(photo, black, 8)
    with pytest.raises(ValueError, match="eps of a Gradient is a whole number"):
        Gradient.between(photo, black, 255)
    with pytest.raises(ValueError, match="eps of a Gradient is a whole number"):
        Gradient.between(photo, photo, True)
    with pytest.raises(TypeError, match="tensor of floats"):
        Gradient.between((photo * 255).byte(), photo, 8)
    with pytest.raises(TypeError, match="tensor of floats"):
        Gradient.between(photo, photo.numpy(), 8)
    with pytest.raises(ValueError, match="outside"):
        Gradient.between(photo * 255, photo, 8)
    with pytest.raises(ValueError, match="outside"):
        Gradient.between(photo / 0, photo, 8)
    with pytest.raises(ValueError, match="were made from"):
        Gradient.between(photo, photo[:1], 8)
    with pytest.raises(TypeError, match=r"holds int8 grey levels, got torch\.uint8"):
        Gradient._checked((photo * 255).byte(), 8)
    with pytest.raises(ValueError, match="within ±8 grey levels has a value of ±128"):
        Gradient._checked(as_int8, 8)


def test_a_gradient_cannot_change():
    gradient = gradient_of(photos())
    before = gradient.values
    gradient.values.fill_(100)
    assert torch.equal(gradient.values, before)
    for name in ("values", "eps", "_bytes", "_shape", "_eps", "photo"):
        with pytest.raises(AttributeError):
            setattr(gradient, name, photos())
    perturbation = CloudSide(small_network(), 2, CPU).transfer(gradient)
    for held in (gradient, perturbation):
        slots = [getattr(held, name) for name in _base_of_gradient().__slots__]
        assert not any(isinstance(slot, torch.Tensor | np.ndarray | bytearray) for slot in slots)
    with pytest.raises((AttributeError, TypeError)):
        copy.deepcopy(gradient)
    with pytest.raises((AttributeError, TypeError)):
        pickle.loads(pickle.dumps(gradient))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 16), st.integers(0, 10**6))
def test_a_gradient_is_the_difference_in_whole_grey_levels(eps, seed):
    images = photos(1, 16, seed)
    noise = np.random.default_rng(seed).integers(-eps, eps + 1, images.shape)
    levels = np.clip((images.numpy() * 255).round() + noise, 0, 255)
    gradient = Gradient.between(torch.from_numpy(levels / 255).float(), images, eps)
    assert gradient.values.dtype == torch.int8
    assert np.array_equal(gradient.values.numpy(), levels - (images.numpy() * 255).round())


@pytest.mark.parametrize("modules", [2, 3])
def test_the_cloud_answers_what_the_network_says_clipped_and_rounded(modules):
    network = small_network()
    gradient = gradient_of(photos(3))
    answer = CloudSide(network, modules, CPU).transfer(gradient)
    plain = network(gradient.values.float() / 8, modules).clamp(-1, 1) * 8
    assert (answer.values.float() - plain).abs().max() <= 0.5 + 1e-3
    assert answer.eps == 8
    assert int(answer.values.int().abs().max()) <= 8


def test_an_answer_does_not_depend_on_its_company():
    images = photos(11)
    cloud = CloudSide(small_network(), 3, CPU)
    together = cloud.transfer(gradient_of(images)).values
    alone = [
        cloud.transfer(Gradient._checked(gradient_of(images).values[i : i + 1], 8)).values for i in range(11)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_a_gradient_of_another_size_is_refused():
    with pytest.raises(ValueError, match="112×112 pixels, got 96×96"):
        CloudSide(small_network(), 3, CPU).transfer(gradient_of(photos(1, 96)))


def test_a_perturbation_is_added_in_whole_grey_levels_and_clipped():
    images = photos(2)
    answer = CloudSide(small_network(), 3, CPU).transfer(gradient_of(images))
    expected = ((images * 255).round().int() + answer.values.int()).clamp(0, 255)
    assert torch.equal((answer.added_to(images) * 255).round().int(), expected)
    with pytest.raises(ValueError, match="the perturbation is for photos"):
        answer.added_to(images[:1])


# -- module 1 ------------------------------------------------------------------------------------------------


def test_the_other_photo_is_the_next_of_the_person_and_a_lone_photo_is_mirrored():
    images = torch.rand(5, 3, 16, 16)
    faces = Faces(images, ("b2", "a1", "b1", "b3", "c1"), ("b", "a", "b", "b", "a"))
    others = other_photos(faces)
    expected = [images[3], images[4], images[0], images[2], images[1]]
    assert torch.equal(others, torch.stack(expected))
    lone = other_photos(faces.subset([1]))
    assert torch.equal(lone[0], images[1].flip(-1))


def test_the_diversity_is_noise_resizing_padding_and_a_turn():
    generators = [torch.Generator().manual_seed(seed) for seed in range(40)]
    images = photos(1).expand(40, -1, -1, -1)
    drawn = Diversity.drawn(generators, images.shape[1:], 0.5)
    assert 0.2 < float(drawn.applied.mean()) < 0.8
    assert float(drawn.noise.abs().max()) <= 5 / 255
    changed = drawn(images)
    kept = drawn.applied == 0
    assert torch.equal(changed[kept], images[kept])
    assert float((changed[~kept] - images[~kept]).abs().flatten(1).mean(1).min()) > 0.005
    scale = drawn.affine[:, 0, :2].norm(dim=1)
    sizes = (112 / scale).round()
    assert set(sizes.tolist()) == {110.0, 111.0}
    angles = torch.rad2deg(torch.atan2(drawn.affine[:, 0, 1], drawn.affine[:, 0, 0]))
    assert 10 < float(angles.abs().max()) <= 15
    wanted = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(drawn(wanted).sum(), wanted)
    assert bool(slope.isfinite().all())


def test_resizing_and_padding_without_a_turn_are_what_interpolation_gives():
    image = photos(1)
    small, left, top = 110, 2, 1
    affine = torch.tensor(
        [[112 / small, 0, (112 - 2 * left) / small - 1], [0, 112 / small, (112 - 2 * top) / small - 1]]
    )
    drawn = Diversity(torch.ones(1), affine[None], torch.zeros_like(image))
    resized = F.interpolate(image, (small, small), mode="bilinear", align_corners=False)
    padded = F.pad(resized, (left, 112 - small - left, top, 112 - small - top))
    inside = slice(4, 108)
    torch.testing.assert_close(
        drawn(image)[..., inside, inside], padded[..., inside, inside], atol=1e-4, rtol=0
    )


# -- the attack ----------------------------------------------------------------------------------------------


def attack(**params):
    return APF(APF.Params(**params))


def distance(probe, images, others):
    with torch.no_grad():
        return (F.normalize(probe.embed(images)) - F.normalize(probe.embed(others))).square().sum(1)


def test_module_1_moves_every_photo_away_from_another_of_the_person():
    faces, (probe, _) = sample_faces(), fake_backbones()
    ctx = Context(seed=1, backbones=(probe,))
    edits = attack(modules=1).cloak(faces, ctx)
    cloaks = torch.stack([edits[i] for i in faces.ids])
    before, after = (distance(probe, images, other_photos(faces)) for images in (faces.images, cloaks))
    assert bool((after > before + 0.05).all())
    assert 7 <= float(linf(cloaks, faces.images).max()) <= 8.001
    levels = cloaks * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_more_steps_go_further_and_the_seed_counts():
    faces, (probe, _) = sample_faces(), fake_backbones()

    def cloaks(seed, **params):
        edits = attack(modules=1, **params).cloak(faces, Context(seed=seed, backbones=(probe,)))
        return torch.stack([edits[i] for i in faces.ids])

    others = other_photos(faces)
    assert distance(probe, cloaks(1), others).mean() > distance(probe, cloaks(1, steps=1), others).mean()
    assert torch.equal(cloaks(1), cloaks(1))
    assert not torch.equal(cloaks(1), cloaks(2))


def write_weights(folder, name="apf-mine", **fields):
    path = folder / f"{name}.safetensors"
    save_network(small_network(), path)
    content = {
        "file": path.name, "sha256": sha256_of(path), "domain": "synthetic", "dataset": "synthetic",
        "dataset_fingerprint": "x", "training_identities": "synthetic/training", "probe": "b", "server": "a",
        "eps": 8, "width": 2, "parameters": 1, "steps": 1, "enhance_steps": 1, "batch": 1, "photos": 2,
        "trainer": "apf", "command": "bench train apf", "seed": 0, "wall_seconds": 0, "machine": "cpu",
        "quality": {
            "identities": 1, "photos": 1, "dodging_server": {}, "dodging_probe": {}, "cosine_server": {},
            "cosine_probe": {}, "mean_change": {},
        },
    }  # fmt: skip
    path.with_suffix(".json").write_text(ApfCard.model_validate(content | fields).model_dump_json())
    return path


def bound(backbones=("a", "b"), tracker="c", domain="synthetic"):
    return Binding("synthetic", domain, backbones, tracker)


def test_the_modules_are_the_two_sides_in_turn(tmp_path):
    weights = write_weights(tmp_path)
    faces, backbones = sample_faces(), fake_backbones()
    for modules in (2, 3):
        method = attack(modules=modules, weights=str(weights))
        files = method.files(bound())
        assert files == (weights, weights.with_suffix(".json"))
        edits = method.cloak(faces, Context(seed=3, backbones=backbones, files=files))
        # The card's probe is 'b', the second by name.
        alone = attack(modules=1).cloak(faces, Context(seed=3, backbones=backbones[1:]))
        gradient = Gradient.between(torch.stack(list(alone.values())), faces.images, 8)
        answer = CloudSide(load_network(weights, CPU), modules, CPU).transfer(gradient)
        assert torch.equal(torch.stack(list(edits.values())), answer.added_to(faces.images))


def test_weights_are_found_by_domain_and_surrogates_and_refused_otherwise(tmp_path):
    weights = str(write_weights(tmp_path))
    assert attack(modules=1).files(bound()) == ()
    for wrong in (bound(("a", "c"), "b"), bound(domain="real"), bound(("a",))):
        with pytest.raises(UsageError, match=r"probe b, server a.*surrogates=a\|b"):
            attack(weights=weights).files(wrong)
    with pytest.raises(UsageError, match="is not a file"):
        attack(weights=str(tmp_path / "none.safetensors")).files(bound())
    with pytest.raises(UsageError, match="bench train apf --dataset synthetic --backbone a --backbone b"):
        attack().files(bound())
    with pytest.raises(UsageError, match="--backbone b --backbone a"):
        attack(probe="b").files(bound())
    with pytest.raises(UsageError, match="unknown apf probe 'z'"):
        attack(probe="z").files(bound())
    with pytest.raises(UsageError, match="were trained for"):
        attack(probe="a", weights=weights).files(bound())


def test_the_tracker_is_no_surrogate_unless_it_is_named(tmp_path):
    weights = str(write_weights(tmp_path))
    for tracker in ("a", "b"):
        with pytest.raises(UsageError, match="ask for it by name"):
            attack(weights=weights).files(bound(tracker=tracker))
        assert attack(weights=weights, surrogates="a|b").files(bound(tracker=tracker))


def test_weights_that_changed_are_refused(tmp_path):
    weights = write_weights(tmp_path)
    method = attack(weights=str(weights))
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(DataError, match="SHA-256"):
        method.files(bound())
    weights.unlink()
    with pytest.raises(UsageError, match="is not a file"):
        method.files(bound())
    card = weights.with_suffix(".json")
    card.write_text("{}")
    weights.touch()
    with pytest.raises(DataError, match="is not the card of weights by `bench train apf`"):
        method.files(bound())
    card.unlink()
    with pytest.raises(DataError, match="has no card"):
        method.files(bound())


def test_without_weights_the_attack_says_what_to_do():
    with pytest.raises(UsageError, match="got no weights for modules 2 and 3"):
        attack().cloak(sample_faces(), Context(backbones=fake_backbones()))
    with pytest.raises(UsageError, match="got no surrogates"):
        attack(modules=1).cloak(sample_faces(), Context())
    with pytest.raises(UsageError, match="unknown apf probe 'z'"):
        attack(modules=1, probe="z").cloak(sample_faces(), Context(backbones=fake_backbones()))


def test_a_named_probe_is_the_one_that_is_used():
    faces, backbones = sample_faces(), fake_backbones()
    named = attack(modules=1, probe="fake-1").cloak(faces, Context(backbones=backbones))
    alone = attack(modules=1).cloak(faces, Context(backbones=backbones[1:]))
    assert all(torch.equal(named[i], alone[i]) for i in faces.ids)


def test_the_threat_model_follows_the_parameters():
    assert attack(modules=1).threat.surrogates == 1
    threat = attack(eps=5).threat
    assert (threat.goal, threat.surrogates, threat.max_linf, threat.needs_targets) == (
        "untargeted",
        2,
        5,
        False,
    )
    assert attack().scope == "identity"
    for wrong in ({"eps": 17}, {"eps": 0}, {"modules": 4}, {"diversity": 1.1}):
        with pytest.raises(ValueError, match=r"less than or equal|greater than or equal|Input should be"):
            attack(**wrong)


def test_module_1_keeps_the_contract():
    findings = run_checks(factory.attack("apf:modules=1,steps=2"))
    assert {f.check: f.detail for f in findings if not f.passed} == {}


def test_the_shipped_weights_are_those_of_their_cards():
    found = [(path, SHELF.read(path)) for path in SHELF.shipped()]
    pool = registry.POOLS.load("synthetic")
    served = {card.surrogates for _, card in found if card.domain == "synthetic"}
    assert served == {pool.helpers(group[0]) for group in pool.groups}
    for path, card in found:
        assert sha256_of(path) == card.sha256
        assert path.stat().st_size < 2_000_000
        assert parameters(load_network(path, CPU)) == card.parameters
        assert card.quality.dodging_server["1+2"] > card.quality.dodging_server["0"]
