import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from attacks.erasablemask.networks import (
    ARCHITECTURE,
    PATTERN_SIDE,
    Generator,
    Restorer,
    Shape,
    drawn_networks,
    enlarged,
    key_pattern,
    load_networks,
    save_networks,
    spread,
)
from bench.errors import DataError
from bench.quality.metrics import psnr

CPU = torch.device("cpu")
SMALL = Shape(condition=6, width=4, blocks=1)


def inputs(count=3, seed=0, condition=6):
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 112, 112, generator=draw)
    looks = torch.rand(count, 3, 112, 112, generator=draw)
    told = torch.nn.functional.normalize(torch.randn(count, condition, generator=draw), dim=1)
    return images, looks, told, torch.stack([key_pattern(bytes([k + 1])) for k in range(count)])


def loud(shape, seed=0, gain=30.0):
    """Networks whose mask would be far beyond its bounds if nothing held it."""
    generator, restorer = drawn_networks(shape, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        generator.net.out.weight.mul_(gain)
        generator.net.out.bias[3].add_(3)
    return generator, restorer


# -- the key ---------------------------------------------------------------------------------------------------


def test_a_keys_pattern_is_the_same_signs_every_time():
    pattern = key_pattern(b"secret")
    assert pattern.shape == (3, PATTERN_SIDE, PATTERN_SIDE) == (3, 28, 28)
    assert set(pattern.unique().tolist()) == {-1.0, 1.0}
    torch.manual_seed(5)
    assert torch.equal(key_pattern(b"secret"), pattern)
    assert torch.equal(key_pattern(b""), torch.zeros(3, 28, 28))


def test_patterns_of_different_keys_have_nothing_in_common():
    keys = [f"key {k}".encode() for k in range(30)] + [b"\x00", b"\x00\x00", b"key 0 ", b"KEY 0"]
    patterns = torch.stack([key_pattern(key).flatten() for key in keys])
    correlations = (patterns @ patterns.T / patterns.shape[1]).fill_diagonal_(0)
    # 2352 signs: a standard deviation of 0.021; 561 pairs within 5 of them.
    assert float(correlations.abs().max()) < 5 / 2352**0.5
    assert float(patterns.mean(1).abs().max()) < 5 / 2352**0.5
    assert float(correlations[correlations != 0].std()) == pytest.approx(2352**-0.5, rel=0.15)


def test_every_sign_covers_its_square():
    pattern = key_pattern(b"secret")
    assert torch.equal(spread(pattern[None])[0], pattern.repeat_interleave(4, 1).repeat_interleave(4, 2))


# -- the mask --------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1000),
    decibels=st.floats(15, 45),
    linf=st.floats(1, 120),
    pattern=st.floats(0.5, 8),
)
@settings(max_examples=12, deadline=None)
def test_no_mask_is_beyond_its_bounds(seed, decibels, linf, pattern):
    shape = Shape(condition=6, width=4, blocks=1, psnr=decibels, linf=linf, pattern=pattern)
    images, looks, told, patterns = inputs(seed=seed)
    generator, _ = loud(shape, seed)
    with torch.no_grad():
        change = generator(images, looks, told, patterns)
    mask = change - pattern / 255 * spread(patterns)
    errors = mask.double().square().mean((1, 2, 3))
    assert (-10 * errors.log10() >= decibels - 1e-3).all()
    assert float(mask.abs().max()) <= linf / 255 + 1e-6
    assert float(change.abs().max()) <= (linf + pattern) / 255 + 1e-6
    # As a photo: clamping only brings it nearer.
    assert (psnr((images + mask).clamp(0, 1), images) >= decibels - 1e-3).all()


def test_a_loud_mask_uses_its_budget_and_a_small_one_is_left_alone():
    images, looks, told, patterns = inputs()
    shape = Shape(condition=6, width=4, blocks=1, psnr=30, linf=60)
    with torch.no_grad():
        mask = loud(shape)[0](images, looks, told, 0 * patterns)
        torch.testing.assert_close(
            mask.square().mean((1, 2, 3)).sqrt(), torch.full((3,), shape.rms), rtol=1e-3, atol=0
        )
        quiet = loud(Shape(condition=6, width=4, blocks=1, psnr=15, linf=2))[0]
        raw = quiet.net(torch.cat([images, looks], 1) - 0.5, told)
        expected = enlarged(2 / 255 * raw[:, :3].tanh() * raw[:, 3:].sigmoid())
        torch.testing.assert_close(quiet(images, looks, told, 0 * patterns), expected)
    assert shape.rms == pytest.approx(10**-1.5)


def test_the_key_is_on_top_of_the_mask():
    images, looks, told, patterns = inputs()
    generator, _ = loud(SMALL)
    with torch.no_grad():
        difference = generator(images, looks, told, patterns) - generator(images, looks, told, 0 * patterns)
    torch.testing.assert_close(difference, 2 / 255 * spread(patterns), atol=1e-6, rtol=0)


def test_the_target_decides_the_mask():
    images, looks, told, patterns = inputs()
    generator, _ = loud(SMALL)
    with torch.no_grad():
        mask = generator(images, looks, told, patterns)
        assert not torch.allclose(generator(images, looks.flip(0), told, patterns), mask, atol=1e-3)
        assert not torch.equal(generator(images, looks, -told, patterns), mask)


def test_networks_are_drawn_from_the_generator_alone():
    def states(seed):
        torch.manual_seed(seed + 100)
        return [n.state_dict() for n in drawn_networks(SMALL, torch.Generator().manual_seed(seed))]

    for one, two, other in zip(states(1), states(1), states(2), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)


# -- the restorer ----------------------------------------------------------------------------------------------


def test_before_training_the_restorer_takes_off_the_pattern_alone():
    images, _, _, patterns = inputs()
    _, restorer = drawn_networks(SMALL, torch.Generator().manual_seed(0))
    with torch.no_grad():
        restorer.net.out.weight.zero_()
        restored = restorer(images + 2 / 255 * spread(patterns), patterns)
    torch.testing.assert_close(restored, images, atol=1e-6, rtol=0)


def test_the_lock_is_a_line_of_the_correlation_with_what_is_seen():
    images, _, _, patterns = inputs()
    _, restorer = drawn_networks(SMALL, torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = restorer.look(images - 0.5)
        assert seen.shape == patterns.shape
        logits = restorer.fits(images, patterns)
        for row in range(len(images)):
            one = seen[row].flatten().double()
            # Patterns are of length √n; what is seen is measured against its own root mean square, not its mean.
            cosine = float(one @ patterns[row].flatten().double() / (one.norm() * 2352**0.5))
            assert float(logits[row]) == pytest.approx(10 * cosine - 2, abs=1e-3)
        assert torch.equal(restorer.fits(images, 0 * patterns), torch.full((3,), -2.0))
        # A photo that shows the pattern itself opens.
        restorer.look = torch.nn.AvgPool2d(4)
        marked = 0.5 + 0.1 * spread(patterns)
        torch.testing.assert_close(restorer.fits(marked, patterns), torch.full((3,), 8.0), atol=1e-2, rtol=0)
        assert (restorer.fits(marked, patterns.roll(1, 0)) < -1).all()


# -- files -----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read_back_to_half_precision(tmp_path):
    shape = Shape(condition=6, width=4, blocks=2, psnr=31.5, linf=17, pattern=3)
    networks = loud(shape)
    path = tmp_path / "w.safetensors"
    save_networks(*networks, path)
    read = load_networks(path, CPU)
    images, looks, told, patterns = inputs()
    for own, other in zip(networks, read, strict=True):
        assert other.shape == shape
        assert not other.training
        for name, tensor in own.state_dict().items():
            found = other.state_dict()[name]
            assert found.dtype == torch.float32
            assert torch.equal(found, tensor.half().float())
            assert not dict(other.named_parameters())[name].requires_grad
    with torch.no_grad():
        for own, other in zip(networks, read, strict=True):
            own.load_state_dict(other.state_dict())
        torch.testing.assert_close(
            read[0](images, looks, told, patterns),
            networks[0](images, looks, told, patterns),
            atol=1e-5,
            rtol=0,
        )
        torch.testing.assert_close(
            read[1](images, patterns), networks[1](images, patterns), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            read[1].fits(images, patterns), networks[1].fits(images, patterns), atol=1e-4, rtol=0
        )


def test_the_file_is_half_the_size_and_the_same_bytes_each_time(tmp_path):
    networks = loud(Shape(condition=6))
    for name in ("one", "two"):
        save_networks(*networks, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    count = sum(p.numel() for network in networks for p in network.parameters())
    assert 2 * count < (tmp_path / "one").stat().st_size < 2 * count + 20_000


def rewritten(path, edit_facts=None, edit_tensors=None):
    """Networks' file with something changed."""
    save_networks(*loud(SMALL), path)
    tensors = load_file(path)
    facts = {"architecture": ARCHITECTURE, "condition": 6, "width": 4, "blocks": 1}
    if edit_tensors:
        tensors = edit_tensors(tensors)
    save_file(tensors, path, {"shape": edit_facts(facts) if edit_facts else json.dumps(facts)})


def without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            {"edit_facts": lambda f: json.dumps({**f, "architecture": "other-1"})},
            "does not hold the networks",
        ),
        ({"edit_facts": lambda f: json.dumps(without(f, "architecture"))}, "does not hold the networks"),
        ({"edit_facts": lambda _f: "[]"}, "does not hold the networks"),
        ({"edit_facts": lambda _f: "{"}, "cannot be read as safetensors"),
        ({"edit_facts": lambda f: json.dumps({**f, "colour": "red"})}, "does not hold the networks"),
        ({"edit_facts": lambda f: json.dumps(without(f, "condition"))}, "does not hold the networks"),
        ({"edit_facts": lambda f: json.dumps({**f, "width": "wide"})}, "does not hold the networks"),
        ({"edit_facts": lambda f: json.dumps({**f, "width": 8})}, "does not fit its own shape"),
        ({"edit_tensors": lambda t: without(t, "restorer/lock")}, "does not fit its own shape"),
        ({"edit_tensors": lambda t: {**t, "generator/more": torch.ones(1)}}, "does not fit its own shape"),
    ],
)
def test_a_foreign_file_is_refused_with_the_mend(tmp_path, edits, message):
    path = tmp_path / "w.safetensors"
    rewritten(path, **edits)
    with pytest.raises(DataError, match=rf"w\.safetensors {message}") as caught:
        load_networks(path, CPU)
    assert "again" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_corrupt_file_is_refused_with_the_mend(tmp_path, content):
    path = tmp_path / "w.safetensors"
    save_networks(*loud(SMALL), path)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(DataError, match=r"w\.safetensors cannot be read as safetensors.*again"):
        load_networks(path, CPU)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(DataError, match=r"w\.safetensors does not exist.*bench train erasablemask"):
        load_networks(tmp_path / "w.safetensors", CPU)


def test_any_architecture_has_both_networks():
    for width, blocks in ((1, 0), (3, 2)):
        shape = Shape(condition=5, width=width, blocks=blocks)
        images, looks, told, patterns = inputs(2, condition=5)
        with torch.no_grad():
            assert Generator(shape)(images, looks, told, patterns).shape == images.shape
            assert Restorer(shape)(images, patterns).shape == images.shape
