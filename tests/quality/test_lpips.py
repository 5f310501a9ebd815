import hashlib
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.data.files import data_folder
from bench.errors import DataError
from bench.quality.lpips import (
    TRUNK_FILE,
    TRUNK_PATH,
    TRUNK_SHA256,
    VARIABLE,
    Lpips,
    Unavailable,
    load_lpips,
    lpips_files,
)


@pytest.fixture(scope="module")
def alexnet_state():
    from torchvision.models import alexnet

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return {k: v for k, v in alexnet(weights=None).state_dict().items() if k.startswith("features")}


@pytest.fixture
def trunk(tmp_path, alexnet_state):
    path = tmp_path / "trunk.pth"
    torch.save(alexnet_state, path)
    return path


@pytest.fixture
def no_trunk_anywhere(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path / "no data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))


def random_pair(n, size=112):
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(n, 3, size, size, generator=generator)
    return a, (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def of_the_package(trunk_state, a, b):
    """Return the distances by the package ``lpips``, with a trunk given by torchvision's names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses torchvision's old argument names
        import lpips

        package = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    own_names = {k.removeprefix("net."): k for k in package.state_dict() if k.startswith("net.")}
    copied = package.state_dict()
    for short, full in own_names.items():
        copied[full] = trunk_state["features." + short.split(".", 1)[1]]
    package.load_state_dict(copied)
    with torch.no_grad():
        return package.eval()(a, b, normalize=True).flatten()


def test_distance_equals_the_package_with_the_same_trunk(trunk, alexnet_state):
    a, b = random_pair(3)
    expected = of_the_package(alexnet_state, a, b)
    ours = load_lpips(trunk)
    assert isinstance(ours, Lpips)
    assert expected.min() > 1e-4
    torch.testing.assert_close(ours.distance(a, b), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.real_data
@pytest.mark.skipif(not (data_folder() / TRUNK_PATH).is_file(), reason="CLOAKBENCH_DATA has no LPIPS trunk")
def test_the_real_trunk_is_found_and_equals_the_package(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    path, _ = lpips_files()
    assert path == data_folder() / TRUNK_PATH
    ours = load_lpips()
    assert (ours.trunk_sha256, ours.trunk_is_torchvisions) == (TRUNK_SHA256, True)
    a, b = random_pair(8)
    b[0] = a[0]
    expected = of_the_package(load_file(path), a, b)
    assert expected[0] == 0
    assert expected[1:].min() > 0.05
    torch.testing.assert_close(ours.distance(a, b), expected, rtol=1e-5, atol=1e-7)


def test_identical_images_are_at_zero_and_chunks_do_not_matter(trunk):
    ours = load_lpips(trunk)
    a, b = random_pair(35, size=64)
    assert torch.equal(ours.distance(a, a), torch.zeros(35))
    whole = ours.distance(a, b)
    assert whole.shape == (35,)
    torch.testing.assert_close(whole[33:], ours.distance(a[33:], b[33:]))


def test_trunk_digest_is_that_of_the_file_and_not_torchvisions(trunk):
    ours = load_lpips(trunk)
    assert ours.trunk_sha256 == hashlib.sha256(trunk.read_bytes()).hexdigest()
    assert not ours.trunk_is_torchvisions
    assert Lpips({}, (), "7be5be79" + 56 * "0").trunk_is_torchvisions


def test_safetensors_pth_and_environment_give_the_same(tmp_path, alexnet_state, trunk, monkeypatch):
    other = tmp_path / "trunk.safetensors"
    save_file(alexnet_state, other)
    monkeypatch.setenv(VARIABLE, str(other))
    a, b = random_pair(2, size=64)
    named = load_lpips(trunk)
    from_environment = load_lpips()
    assert isinstance(from_environment, Lpips)
    assert torch.equal(from_environment.distance(a, b), named.distance(a, b))
    assert from_environment.trunk_sha256 != named.trunk_sha256


def test_trunk_is_taken_from_torchs_cache(tmp_path, alexnet_state, no_trunk_anywhere):
    cached = tmp_path / "empty" / "hub" / "checkpoints" / TRUNK_FILE
    cached.parent.mkdir(parents=True)
    torch.save(alexnet_state, cached)
    assert isinstance(load_lpips(), Lpips)


def test_a_trunk_of_the_data_folder_that_rotted_is_an_error(no_trunk_anywhere):
    path = data_folder() / TRUNK_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(b"rotten")
    with pytest.raises(DataError, match=r"alexnet-features\.safetensors has SHA-256 .* expected b69c1475"):
        load_lpips()


def test_without_a_trunk_the_reason_says_how_to_provide_it(no_trunk_anywhere):
    answer = load_lpips()
    assert isinstance(answer, Unavailable)
    for part in ("`bench fetch lpips`", TRUNK_FILE, "--lpips-trunk", VARIABLE):
        assert part in answer.reason


def test_without_the_package_the_reason_names_it(trunk, monkeypatch):
    monkeypatch.setattr("bench.quality.lpips.PathFinder.find_spec", lambda _name: None)
    answer = load_lpips(trunk)
    assert isinstance(answer, Unavailable)
    assert "'lpips'" in answer.reason


def test_a_named_file_that_is_missing_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="does not exist"):
        load_lpips(tmp_path / "nowhere.pth")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere.pth"))
    with pytest.raises(DataError, match="does not exist"):
        load_lpips()


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors"])
def test_a_file_that_is_no_weights_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"not weights at all")
    with pytest.raises(DataError, match="cannot be read"):
        load_lpips(path)


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "payload.pth"
    torch.save({"features.0.weight": Payload()}, path)
    with pytest.raises(DataError, match="cannot be read"):
        load_lpips(path)


def test_another_network_is_an_error_that_names_the_tensor(tmp_path, alexnet_state):
    path = tmp_path / "other.pth"
    torch.save({**alexnet_state, "features.3.weight": torch.zeros(1, 2)}, path)
    with pytest.raises(DataError, match=r"features\.3\.weight.*\(1, 2\).*\(192, 64, 5, 5\)"):
        load_lpips(path)
    torch.save([1, 2], path)
    with pytest.raises(DataError, match="no state dict"):
        load_lpips(path)


def test_shapes_must_agree(trunk):
    with pytest.raises(ValueError, match="differ"):
        load_lpips(trunk).distance(torch.zeros(1, 3, 64, 64), torch.zeros(2, 3, 64, 64))
