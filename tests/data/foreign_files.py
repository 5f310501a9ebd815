"""Other programs' files, written by the descriptions in `bench.data`: what their readers are tried on."""

import math
import struct

import h5py
import numpy as np

# -- MXNet's parameters ----------------------------------------------------------------------------------------

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
FLAGS = {"f4": 0, "f8": 1, "f2": 2, "u1": 3, "i4": 4, "i1": 5, "i8": 6}


def array_bytes(array, version):
    shape = array.shape
    if version == 0:
        head = struct.pack(f"<I{array.ndim}I", array.ndim, *shape)
    else:
        storage = struct.pack("<i", 0) if version in (V2, V3) else b""
        head = struct.pack("<I", version) + storage + struct.pack(f"<i{array.ndim}q", array.ndim, *shape)
    flag = FLAGS[array.dtype.str[1:]]
    return head + struct.pack("<iii", 1, 0, flag) + array.tobytes()


def parameter_file(arrays, version=V2, names=None):
    names = list(arrays) if names is None else names
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    parts += [array if isinstance(array, bytes) else array_bytes(array, version) for array in arrays.values()]
    parts += [struct.pack("<Q", len(names))]
    parts += [struct.pack("<Q", len(name.encode())) + name.encode() for name in names]
    return b"".join(parts)


# -- dlib's networks ------------------------------------------------------------------------------------------


def integer(value):
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def floating(value):
    mantissa, exponent = math.frexp(value)
    return integer(int(mantissa * 2**24)) + integer(exponent - 24)


def text(value):
    return integer(len(value)) + value.encode()


def sides(*four):
    return b"".join(map(integer, four))


def tensor(values, *four):
    return integer(2) + sides(*four) + np.asarray(values, "<f4").tobytes()


def alias(*four):
    return integer(1) + sides(*four)


EMPTY = tensor([], 0, 0, 0, 0)


def convolution(weight, bias, stride=1, padding=1):
    outputs, inputs, height, width = weight.shape
    values = np.concatenate([weight.ravel(), bias])
    return (
        text("con_4")
        + tensor(values, len(values), 1, 1, 1)
        + b"".join(map(integer, (outputs, height, width, stride, stride, padding, padding)))
        + alias(outputs, inputs, height, width)
        + alias(1, outputs, 1, 1)
        + floating(1) * 4
    )


def affine(factor, offset):
    count = len(factor)
    parts = alias(1, count, 1, 1) * 2
    values = np.concatenate([factor, offset])
    return text("affine_") + tensor(values, 2 * count, 1, 1, 1) + parts + integer(0)


def matrix(values):
    inputs, outputs = values.shape
    parts = alias(inputs, outputs, 1, 1) + alias(0, 0, 0, 0)
    head = text("fc_2") + integer(outputs) + integer(inputs)
    return head + tensor(values.ravel(), inputs, outputs, 1, 1) + parts + integer(1) + floating(1) * 4


def network(*contents, means=(122.75, 117.0, 104.25), side=150, loss="loss_metric_2"):
    """Return a file of layers, innermost first; None is a mark."""
    versions = [3, *(1 if content is None else 2 for content in contents[1:])]
    whole = integer(1) + text(loss) + floating(0.25) + floating(0.5)
    whole += b"".join(map(integer, reversed(versions)))
    whole += text("input_rgb_image_sized") + b"".join(map(floating, means)) + integer(side) * 2
    for place, content in enumerate(contents):
        if content is not None:
            whole += content + b"110" + EMPTY * 3 + (integer(1) if place == 0 else b"")
    return whole


# -- MatConvNet's networks -------------------------------------------------------------------------------------


def _letters(value):
    return np.array([[ord(letter)] for letter in value], np.uint16)


class Mat:
    """A file in the making; what a cell holds lies in a group of its own."""

    def __init__(self, path):
        self.file = h5py.File(path, "w", userblock_size=512)
        self.cells = self.file.create_group("#refs#")

    def cell(self, parent, name, items):
        references = np.array([[item.ref] for item in items], h5py.ref_dtype)
        return parent.create_dataset(name, data=references, dtype=h5py.ref_dtype)

    def layer(self, kind, arrays=(), **numbers):
        group = self.cells.create_group(f"layer{len(self.cells)}")
        group["type"] = _letters(kind)
        for name, value in numbers.items():
            group[name] = np.array([[value]], np.float64)
        if arrays:
            self.cell(group, "weights", [self.array(array) for array in arrays])
        else:
            group["weights"] = np.zeros(2, np.uint64)
            group["weights"].attrs["MATLAB_empty"] = np.uint8(1)
        return group

    def array(self, array):
        """Write an array of torch's order as MATLAB would: sides the other way round, packed where it is large."""
        laid_out = array.swapaxes(-1, -2) if array.ndim == 4 else array[None]
        packed = {"compression": "gzip", "chunks": True} if array.size > 100 else {}
        return self.cells.create_dataset(f"array{len(self.cells)}", data=laid_out, **packed)

    def finish(self, layers):
        self.cell(self.file.create_group("net"), "layers", layers)
        self.file.close()
