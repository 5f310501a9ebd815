"""EdgeFace-XXS: the checkpoint's reading, the graph's writing, both on hostile and on the real file."""

import hashlib
import io
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from bench.data.files import data_folder
from bench.errors import DataError
from bench.plugins import factory
from fr_models._edgenext_checkpoint import read_checkpoint
from fr_models._edgenext_onnx import HEADS, XX_SMALL, convert, model_bytes
from fr_models._onnx_reader import read_onnx
from fr_models.edgeface_xxs import CHECKPOINT, EdgeFaceXXS

needs_checkpoint = pytest.mark.skipif(
    not (data_folder() / "upstream" / CHECKPOINT.name).exists(),
    reason="CLOAKBENCH_DATA has no upstream folder",
)
MARKER = {"called": False}


def timm_network():
    return timm.create_model(
        "edgenext_xx_small",
        num_classes=512,
        dims=tuple(stage.width for stage in XX_SMALL),
        heads=(HEADS,) * 4,
        depths=tuple(stage.depth for stage in XX_SMALL),
        global_block_counts=tuple(int(bool(stage.scales)) for stage in XX_SMALL),
    ).eval()


def random_tensors():
    """Return tensors of the network's names and shapes, of a size that keeps every branch alive."""
    rng = np.random.default_rng(0)
    state = timm_network().state_dict()
    return {
        f"model.{name}": (rng.standard_normal(value.shape) / max(value[0].numel(), 1) ** 0.5).astype(
            np.float32
        )
        if value.ndim > 1
        else rng.normal(0.5, 0.2, value.shape).astype(np.float32)
        for name, value in state.items()
    }


class _Named:
    """Pickles as a name of torch and its arguments, as torch's own tensors do."""

    def __init__(self, name, arguments):
        self.name, self.arguments = name, arguments


class _Storage:
    """Pickles as a reference to the numbers of a member of the archive."""

    def __init__(self, kind, key, count):
        self.kind, self.key, self.count = kind, key, count


class _Pickler(pickle._Pickler):
    """Writes the layout of ``torch.save`` without torch: its quantised tensors are on their way out."""

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return ("storage", _Global(value.kind), value.key, "cpu", value.count)
        return None

    def save_global(self, value, name=None):
        module, _, own = str(getattr(value, "called", "")).rpartition(".")
        if not module:
            return super().save_global(value, name)
        self.write(f"c{module}\n{own}\n".encode())
        return self.memoize(value)


class _Global:
    def __init__(self, called):
        self.called = called if "." in called else f"torch.{called}"


def _save_named(pickler, value):
    pickler.save_global(_Global(value.name))
    pickler.save(value.arguments)
    pickler.write(pickle.REDUCE)


_Pickler.dispatch = {
    **pickle._Pickler.dispatch,
    _Named: _save_named,
    _Global: lambda pickler, value: pickler.save_global(value),
}


def tensor(key, shape, quantiser=None, kind="FloatStorage", count=None):
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    storage = _Storage(kind, key, int(np.prod(shape)) if count is None else count)
    name = "torch._utils._rebuild_qtensor" if quantiser else "torch._utils._rebuild_tensor_v2"
    more = (quantiser,) if quantiser else ()
    return _Named(name, (storage, 0, shape, strides, *more, False, {}))


def checkpoint(path, content, storages, compression=zipfile.ZIP_STORED):
    written = io.BytesIO()
    _Pickler(written, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", written.getvalue())
        for key, values in storages.items():
            archive.writestr(f"net/data/{key}", np.asarray(values).tobytes())
    return path


QUANTISER = (_Global("per_tensor_affine"), 0.25, -3)


def layer(**more):
    packed = (
        tensor("0", (2, 3), QUANTISER, "QInt8Storage"),
        _Named("torch._utils._rebuild_parameter", (tensor("1", (2,)), False, {})),
    )
    return {
        "fc._packed_params._packed_params": packed,
        "fc._packed_params.dtype": _Global("qint8"),
        "fc.scale": tensor("2", (1,)),
        "norm.weight": tensor("3", (4,)),
        **more,
    }


STORAGES = {
    "0": np.array([-128, -3, 0, 1, 2, 127], np.int8),
    "1": np.array([0.5, -1], np.float32),
    "2": np.ones(1, np.float32),
    "3": np.arange(4, dtype=np.float32),
}


def test_quantised_layers_are_dequantised_and_scales_of_outputs_left_out(tmp_path):
    found = read_checkpoint(checkpoint(tmp_path / "c.pt", layer(), STORAGES))
    assert sorted(found) == ["fc.bias", "fc.weight", "norm.weight"]
    np.testing.assert_array_equal(found["fc.weight"], [[-31.25, 0, 0.75], [1, 1.25, 32.5]])
    np.testing.assert_array_equal(found["fc.bias"], [0.5, -1])
    assert found["fc.weight"].dtype == np.float32


def call_me():
    MARKER["called"] = True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (layer(evil=_Named(f"{__name__}.call_me", ())), "which is no part of EdgeFace's checkpoint"),
        (layer(evil=_Named("posix.system", ("true",))), "posix.system"),
        (layer(evil=_Named("torch.load", ("x",))), "torch.load"),
        (layer(long=tensor("3", (5,), count=4)), "lies outside its storage|repeats"),
        (layer(long=tensor("3", (400,), count=400)), "no readable checkpoint"),
        (layer(gone=tensor("9", (4,))), "no readable checkpoint"),
        (layer(odd=tensor("3", (4,), kind="ComplexStorage")), "ComplexStorage"),
        (layer(wide=_Named("torch._utils._rebuild_tensor_v2",
                           (_Storage("FloatStorage", "3", 4), 0, (1 << 40,), (0,)))), "repeats"),
        ([1, 2], "no tensors by name"),
    ],
)  # fmt: skip
def test_a_lying_or_hostile_checkpoint_is_refused_and_nothing_of_it_runs(content, message, tmp_path):
    path = checkpoint(tmp_path / "c.pt", content, STORAGES)
    with pytest.raises(DataError, match=message):
        read_checkpoint(path)
    assert not MARKER["called"]


def test_a_compressed_or_broken_archive_is_refused(tmp_path):
    with pytest.raises(DataError, match="compressed or too large"):
        read_checkpoint(checkpoint(tmp_path / "c.pt", layer(), STORAGES, zipfile.ZIP_DEFLATED))
    whole = checkpoint(tmp_path / "d.pt", layer(), STORAGES).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(whole[: rng.integers(len(whole) + 1)] if rng.random() < 0.3 else whole)
        for place in rng.integers(max(len(broken), 1), size=3):
            broken[place : place + 1] = bytes([rng.integers(256)])
        (tmp_path / "e.pt").write_bytes(broken)
        with suppress(DataError):  # anything else fails the test
            read_checkpoint(tmp_path / "e.pt")
    with pytest.raises(DataError, match="is not a file"):
        read_checkpoint(tmp_path / "gone.pt")


def test_the_graph_is_timms_network_in_onnxruntime_and_in_torch_with_its_gradient(tmp_path):
    tensors = random_tensors()
    network = timm_network()
    network.load_state_dict({n.removeprefix("model."): torch.from_numpy(v) for n, v in tensors.items()})
    path = tmp_path / "net.onnx"
    path.write_bytes(model_bytes(tensors, Path("c.pt")))
    assert path.read_bytes() == model_bytes(tensors, Path("c.pt"))
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    found, expected = read_onnx(path)(ours), network(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    by_runtime = session.run(None, {"image": images.numpy()})[0]
    np.testing.assert_allclose(by_runtime, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    aim = torch.linspace(-1, 1, 512)
    (gradient,) = torch.autograd.grad((found * aim).sum(), ours)
    (of_timm,) = torch.autograd.grad((expected * aim).sum(), theirs)
    torch.testing.assert_close(gradient, of_timm, rtol=1e-3, atol=1e-3 * float(of_timm.abs().max()))


def test_a_checkpoint_of_another_network_is_refused():
    tensors = random_tensors()
    with pytest.raises(DataError, match=r"c\.pt is not EdgeFace-XXS: it has 'model\.more' too"):
        model_bytes(tensors | {"model.more": np.zeros(1, np.float32)}, Path("c.pt"))
    with pytest.raises(DataError, match=r"'model\.stem\.0\.bias' is of shape \(3,\), expected \(24,\)"):
        model_bytes(tensors | {"model.stem.0.bias": np.zeros(3, np.float32)}, Path("c.pt"))
    del tensors["model.head.fc.weight"]
    with pytest.raises(DataError, match=r"'model\.head\.fc\.weight' is missing"):
        model_bytes(tensors, Path("c.pt"))


@pytest.mark.real_data
@needs_checkpoint
def test_the_published_checkpoint_gives_the_cards_file(tmp_path):
    target = tmp_path / "edgeface-xxs.onnx"
    convert((data_folder() / "upstream" / CHECKPOINT.name,), target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == EdgeFaceXXS.card.sha256


@pytest.mark.real_data
@needs_checkpoint
def test_embeddings_of_real_faces_are_those_of_the_file_by_another_program(tmp_path):
    other = data_folder() / EdgeFaceXXS.card.file
    if not other.is_file():
        pytest.skip("CLOAKBENCH_DATA has no weights/fr/edgeface-xxs.onnx")
    ours = tmp_path / "edgeface-xxs.onnx"
    convert((data_folder() / "upstream" / CHECKPOINT.name,), ours)
    dataset = factory.dataset("lfw")
    names = [identity.photos[0] for identity in dataset.identities()[:8]]
    pixels = ((dataset.crops(names).float() - 127.5) / 127.5).numpy()
    vectors = []
    for path in (ours, other):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        vectors.append(session.run(None, {session.get_inputs()[0].name: pixels})[0])
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-5
    assert np.abs(read_onnx(ours)(torch.from_numpy(pixels)).numpy() - vectors[1]).max() < 1e-5
