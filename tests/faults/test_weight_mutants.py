"""Files of weights that were damaged or lie: read, or refused in one sentence; no crash, and no code of theirs run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

CHANGES = 8
"""Bytes that differ in a mutant, at most."""

READER = """
import sys
from pathlib import Path

import torch

from bench.data.checkpoints import read_tensors
from bench.errors import DataError
from fr_models._onnx_file import digest_of
from fr_models._onnx_reader import read_onnx

torch.set_num_threads(1)
read = refused = 0
for path in map(Path, sys.argv[1:]):
    readers = (digest_of, read_onnx) if path.suffix == ".onnx" else (read_tensors,)
    for reads in readers:
        try:
            found = reads(path)
        except DataError as error:
            refused += 1
            text = str(error)
            assert path.name in text, (path, text)
            assert len(text) < 4000, (path, len(text))
        else:
            read += 1
print(read, refused)
"""


def network(path):
    """Write a small network as an ONNX file: convolution, norm, slope, pooling, product."""
    rng = np.random.default_rng(0)

    def some(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    constants = {
        "w": some(4, 3, 3, 3), "b": some(4), "g": np.abs(some(4)), "s": some(4), "m": some(4), "v": np.abs(some(4)) + 1,
        "a": some(4, 1, 1), "p": some(4, 5), "axes": np.array([1, -1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "g", "s", "m", "v"], ["n"]),
        helper.make_node("PRelu", ["n", "a"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["l"]),
        helper.make_node("Reshape", ["l", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "p"], ["y"]),
    ]
    constants["shape"] = np.array([-1, 4], np.int64)
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def checkpoint(path):
    torch.save({"state_dict": {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}, "epoch": 3}, path)


def tensors(path):
    safetensors.torch.save_file({"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}, path)


KINDS = {"net.onnx": network, "net.pt": checkpoint, "net.safetensors": tensors}


def mutants(folder, kind, count, seed):
    """Write mutants: bytes changed (headers more often), a part cut out, cut short, doubled, or zeroed."""
    KINDS[kind](folder / kind)
    whole = (folder / kind).read_bytes()
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        payload = bytearray(whole)
        begin, end = sorted(int(value) for value in rng.integers(0, len(payload), 2))
        match int(rng.integers(0, 6)):
            case 0:
                del payload[begin:]
            case 1:
                del payload[begin:end]
            case 2:
                payload[begin:begin] = payload[begin:end]
            case 3:
                payload[begin:end] = bytes(end - begin)
            case kind_of_change:
                reach = min(len(payload), 400) if kind_of_change == 4 else len(payload)
                for _ in range(int(rng.integers(1, CHANGES + 1))):
                    payload[int(rng.integers(0, reach))] = int(rng.integers(0, 256))
        path = folder / f"{number:05d}{Path(kind).suffix}"
        path.write_bytes(payload)
        made.append(path)
    return made


@pytest.mark.system
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "seed"), [(60, 0), *(pytest.param(500, seed, marks=pytest.mark.slow) for seed in range(1, 5))]
)
def test_no_mutant_of_a_file_of_weights_crashes_its_reader(bounded, tmp_path, kind, count, seed):
    done = bounded(READER, mutants(tmp_path, kind, count, seed))
    assert done.returncode == 0, done.stderr[-2000:]
    _read, refused = map(int, done.stdout.split())
    assert refused > count // 10


class Harmful:
    """Would leave a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_no_code_of_a_pickle_is_ever_run(tmp_path, how, ending):
    from bench.data.checkpoints import convert, read_tensors
    from bench.errors import DataError

    mark, file = tmp_path / "mark", tmp_path / f"harm{ending}"
    content = {"state_dict": {"w": torch.ones(2)}, "harm": Harmful(mark)}
    if how == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError):
        read_tensors(file)
    try:
        convert(file, tmp_path / "safe.safetensors")
    except DataError:
        assert not (tmp_path / "safe.safetensors").exists()
    assert not mark.exists()
