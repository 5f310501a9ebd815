"""DnCNN against convolutions written out in NumPy, and against the PSNR its weights came with.

What it shares with FFDNet (finding, reading and keeping weights, micro-batches) is tested here for both.
"""

import hashlib
import io
import json
import sys
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from bench.assets import catalogue
from bench.contracts import MICRO_BATCH, Binding, Context, Faces
from bench.data.files import VARIABLE, data_folder
from bench.errors import DataError
from bench.randomness import torch_generator
from defenses import dncnn, ffdnet
from defenses.dncnn import DnCNN
from defenses.ffdnet import FFDNet

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import foreign_files

CPU = torch.device("cpu")
BINDING = Binding("lfw", "real", (), "tracker")

BOTH = pytest.mark.parametrize(("module", "cls"), [(dncnn, DnCNN), (ffdnet, FFDNet)], ids=["dncnn", "ffdnet"])


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Return a function from a module to a file of random weights, in the published layout."""
    folder = tmp_path_factory.mktemp("weights")

    def made(module):
        path = folder / f"{module.WEIGHTS.name}.safetensors"
        if path.exists():
            return path
        generator = torch_generator(0, "test", module.WEIGHTS.name)
        channels = module.WEIGHTS.channels
        tensors = {}
        for layer, (inputs, outputs) in enumerate(pairwise(channels)):
            deviation = (2 / (9 * inputs)) ** 0.5
            weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * deviation
            tensors[f"model.{2 * layer}.weight"] = weight
            tensors[f"model.{2 * layer}.bias"] = torch.randn(outputs, generator=generator) * 0.05
        save_file(tensors, path)
        return path

    return made


def random_faces(count, height=16, width=16, seed=0):
    ids = tuple(f"photo-{i}" for i in range(count))
    return Faces(torch.rand(count, 3, height, width, generator=torch_generator(seed, "faces")), ids, ids)


def convolved(image, tensors):
    """Return C'×H×W from C×H×W by a chain of 3×3 convolutions in float64, written out."""
    last = len(tensors) // 2 - 1
    x = np.asarray(image, np.float64)
    for layer in range(last + 1):
        weight = tensors[f"model.{2 * layer}.weight"].numpy().astype(np.float64)
        windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
        x = np.einsum("chwij,ocij->ohw", windows, weight, optimize=True)
        x += tensors[f"model.{2 * layer}.bias"].numpy()[:, None, None]
        if layer < last:
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("strength", [0.5, 1, 2])
def test_it_subtracts_what_a_chain_of_convolutions_predicts(drawn, strength):
    faces = random_faces(2, 9, 12)
    tensors = load_file(drawn(dncnn))
    found = DnCNN(DnCNN.Params(strength=strength)).purify(faces, Context(files=(drawn(dncnn),)))
    for image, denoised in zip(faces.images.numpy(), found.numpy(), strict=True):
        expected = np.clip(image - strength * convolved(image, tensors), 0, 1)
        assert (expected % 1 > 0).mean() > 0.1  # not all of it is clipped
        np.testing.assert_allclose(denoised, expected, atol=2e-5)


def test_at_strength_zero_images_stay(drawn):
    faces = random_faces(2)
    found = DnCNN(DnCNN.Params(strength=0)).purify(faces, Context(files=(drawn(dncnn),)))
    assert torch.equal(found, faces.images)


@pytest.mark.parametrize("strength", [-0.1, 2.1])
def test_strengths_out_of_range_are_refused(strength):
    with pytest.raises(ValidationError):
        DnCNN.Params(strength=strength)


def test_the_networks_have_the_published_depth_and_width():
    assert (len(dncnn.WEIGHTS.channels) - 1, set(dncnn.WEIGHTS.channels[1:-1])) == (20, {64})
    assert (len(ffdnet.WEIGHTS.channels) - 1, set(ffdnet.WEIGHTS.channels[1:-1])) == (12, {96})


# -- what both share -------------------------------------------------------------------------------------------


@BOTH
def test_an_image_has_the_same_bytes_in_any_company(module, cls, drawn):
    ctx = Context(files=(drawn(module),))
    faces = random_faces(MICRO_BATCH + 3)
    together = cls().purify(faces, ctx)
    backwards = cls().purify(faces.subset(range(len(faces))[::-1]), ctx).flip(0)
    alone = [cls().purify(faces.subset([i]), ctx)[0] for i in (0, MICRO_BATCH, len(faces) - 1)]
    assert torch.equal(together, backwards)
    assert torch.equal(together[[0, MICRO_BATCH, -1]], torch.stack(alone))
    assert torch.equal(together, cls().purify(faces, Context(seed=9, files=ctx.files)))


@BOTH
def test_no_images_give_none(module, cls, drawn):
    assert cls().purify(random_faces(0), Context(files=(drawn(module),))).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(("module", "inputs", "outputs"), [(dncnn, 3, 3), (ffdnet, 13, 12)])
def test_gradients_are_those_of_the_function(module, inputs, outputs):
    weight = torch.randn(outputs, inputs, 3, 3, generator=torch_generator(0, "test", "weight")).double()

    def network(x):
        return torch.nn.functional.conv2d(x, weight, padding=1).tanh()

    images = random_faces(1, 5, 6).images.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module.denoise(network, x, 1.5), images, fast_mode=True)


@BOTH
def test_gradients_reach_every_image_after_a_first_use_without(module, cls, drawn, tmp_path):
    fresh = tmp_path / "weights.safetensors"
    fresh.write_bytes(drawn(module).read_bytes())
    faces = random_faces(3)
    with torch.inference_mode():
        without = cls().purify(faces, Context(files=(fresh,)))
    images = faces.images.clone().requires_grad_()
    purified = cls().purify(faces.with_images(images), Context(files=(fresh,)))
    torch.testing.assert_close(purified.detach(), without)
    (gradient,) = torch.autograd.grad(purified.square().sum(), images)
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())


@BOTH
def test_it_leaves_input_and_global_random_state_alone_and_reports_its_images(module, cls, drawn):
    faces = random_faces(3)
    before, state = faces.images.clone(), torch.get_rng_state()
    steps = []
    cls().purify(faces, Context(files=(drawn(module),), advance=steps.append))
    assert torch.equal(faces.images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(steps) == 3


@BOTH
def test_weights_are_read_once_and_again_when_the_file_changes(module, cls, drawn, tmp_path):
    del cls
    path = tmp_path / "weights.safetensors"
    path.write_bytes(drawn(module).read_bytes())
    first = module.WEIGHTS.load(path, CPU)
    assert module.WEIGHTS.load(path, CPU) is first
    changed = load_file(path)
    changed["model.0.bias"] = changed["model.0.bias"] + 1
    save_file(changed, path)
    torch.testing.assert_close(module.WEIGHTS.load(path, CPU)[0].bias, first[0].bias + 1)


@BOTH
def test_absent_weights_are_named_with_the_mend(module, cls, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    fix = rf"{module.WEIGHTS.file}' is not in the data folder.*Run 'bench fetch {cls.name}'"
    with pytest.raises(DataError, match=fix):
        cls().files(BINDING)
    with pytest.raises(DataError, match=r"gone\.safetensors cannot be read.*bench fetch"):
        cls().purify(random_faces(1), Context(files=(tmp_path / "gone.safetensors",)))


@BOTH
def test_other_weights_are_refused(module, cls, drawn, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    path = tmp_path / module.WEIGHTS.file
    path.parent.mkdir(parents=True)
    path.write_bytes(drawn(module).read_bytes())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"{found}, expected {module.WEIGHTS.sha256}"):
        cls().files(BINDING)
    other = ffdnet if module is dncnn else dncnn
    with pytest.raises(DataError, match=rf"does not hold the {cls.name} network.*bench fetch"):
        cls().purify(random_faces(1), Context(files=(drawn(other),)))
    path.write_bytes(b"no weights")
    with pytest.raises(DataError, match=rf"does not hold the {cls.name} network"):
        cls().purify(random_faces(1), Context(files=(path,)))


@BOTH
def test_the_catalogue_fetches_what_the_defence_pins(module, cls):
    entry = {entry.name: entry for entry in catalogue.catalogue("weights")}[cls.name]
    assert [(file.path, file.sha256) for file in entry.files] == [
        (module.WEIGHTS.file, module.WEIGHTS.sha256)
    ]


def published(module, tensors, path):
    """Write tensors as their authors did; in FFDNet's, the pixels of a block come down its columns."""
    mat = foreign_files.Mat(path)
    names = [f"model.{2 * place}.weight" for place in range(len(tensors) // 2)]
    layers = [] if module is dncnn else [mat.layer("SubP", scale=0.5), mat.layer("concat")]
    for name in names:
        weight, bias = (tensors[each].numpy() for each in (name, name.replace("weight", "bias")))
        if module is ffdnet and name == names[0]:
            blocks = [4 * c + 2 * row + column for c in range(3) for column in (0, 1) for row in (0, 1)]
            weight = weight[:, [*blocks, 12]]
        if module is ffdnet and name == names[-1]:
            weight, bias = weight[blocks], bias[blocks]
        layers += [mat.layer("conv", (weight, bias), stride=1, pad=1), mat.layer("relu", leak=0)]
    layers.pop()
    mat.finish(layers if module is dncnn else [*layers, mat.layer("SubP", scale=2)])


@pytest.fixture
def pinned(monkeypatch):
    """Return a function that makes a module's source be a file; gives the recipe."""

    def pin(module, path):
        (recipe,) = module.WEIGHTS.entry.files[0].recipes
        (source,) = recipe.sources
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        changed = recipe.model_copy(update={"sources": (source.model_copy(update={"sha256": digest}),)})
        monkeypatch.setattr(module, "WEIGHTS", replace(module.WEIGHTS, recipe=changed))
        return changed

    return pin


@BOTH
def test_what_its_authors_published_becomes_its_tensors(module, cls, drawn, pinned, tmp_path):
    del cls
    source, target, again = (tmp_path / name for name in ("net.mat", "a.safetensors", "b.safetensors"))
    published(module, load_file(drawn(module)), source)
    recipe = pinned(module, source)
    recipe.convert((source,), target)
    made, expected = load_file(target), load_file(drawn(module))
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())
    recipe.convert((source,), again)
    assert again.read_bytes() == target.read_bytes()


@BOTH
def test_other_networks_of_matconvnet_are_refused(module, cls, drawn, pinned, tmp_path):
    del cls
    other = ffdnet if module is dncnn else dncnn
    source = tmp_path / "net.mat"
    published(other, load_file(drawn(other)), source)
    (recipe,) = module.WEIGHTS.entry.files[0].recipes
    with pytest.raises(DataError, match=rf"net\.mat has SHA-256 .*, expected {recipe.sources[0].sha256}"):
        recipe.convert((source,), tmp_path / "a.safetensors")
    recipe = pinned(module, source)
    with pytest.raises(DataError, match=r"net\.mat is another network"):
        recipe.convert((source,), tmp_path / "a.safetensors")
    strided = load_file(drawn(module)) | {"model.2.bias": torch.zeros(5)}
    source.unlink()
    published(module, strided, source)
    recipe = pinned(module, source)
    with pytest.raises(DataError, match=r"net\.mat is another network: convolution 2 holds"):
        recipe.convert((source,), tmp_path / "a.safetensors")


@pytest.mark.real_data
@BOTH
def test_the_published_file_becomes_the_one_that_is_pinned(module, cls, tmp_path):
    del cls
    (recipe,) = module.WEIGHTS.entry.files[0].recipes
    (source,) = (data_folder() / "upstream" / each.name for each in recipe.sources)
    if not source.exists():
        pytest.skip(f"{VARIABLE} has no {source.name}")
    assert hashlib.sha256(source.read_bytes()).hexdigest() == recipe.sources[0].sha256
    recipe.convert((source,), tmp_path / "made.safetensors")
    made = (tmp_path / "made.safetensors").read_bytes()
    assert (len(made), hashlib.sha256(made).hexdigest()) == (module.WEIGHTS.bytes, module.WEIGHTS.sha256)


@BOTH
def test_nobody_knows_whose_photos_trained_it(module, cls):
    del module
    assert (cls().trained_on(BINDING), cls().training_identities(BINDING)) == ((), "unknown")


# -- the published weights -------------------------------------------------------------------------------------


def photos(count):
    """Return count×3×250×250 photos as they are in the archive, spread over it."""
    with tarfile.open(data_folder() / "lfw" / "lfw-deepfunneled.tar") as archive:
        members = [member for member in archive if member.name.endswith(".jpg")]
        chosen = members[:: len(members) // count][:count]
        opened = [Image.open(io.BytesIO(archive.extractfile(member).read())) for member in chosen]
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in opened])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def psnr(images, originals):
    return float((-10 * (images.clamp(0, 1) - originals).square().flatten(1).mean(1).log10()).mean())


@pytest.mark.real_data
@BOTH
def test_the_published_weights_denoise_as_their_sidecar_says(module, cls):
    if not all((data_folder() / name).exists() for name in ("lfw", module.WEIGHTS.file)):
        pytest.skip(f"{VARIABLE} has no lfw or no {module.WEIGHTS.file}")
    (path,) = cls().files(BINDING)
    sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert sidecar["sha256"] == module.WEIGHTS.sha256
    said = sidecar["psnr_check"]["sigma15"]
    clean = photos(2)
    noise = torch.randn(clean.shape, generator=torch_generator(0, "test", "denoising"))
    noisy = clean + noise * 15 / 255  # not clipped, as in the sidecar
    parameter = {"dncnn": 1.0, "ffdnet": 15.0}[cls.name]
    with torch.inference_mode():
        network = module.WEIGHTS.load(path, CPU)
        denoised = torch.cat([module.denoise(network, image[None], parameter) for image in noisy])
    assert psnr(noisy, clean) == pytest.approx(said["noisy_db"], abs=0.3)
    assert psnr(denoised, clean) == pytest.approx(said["denoised_db"], abs=1)
