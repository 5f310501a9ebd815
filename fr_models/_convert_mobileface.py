"""becauseofAI/MobileFace, symbol and parameter file of MXNet → ONNX, batch norm folded in float64.

Read are the operators that its three networks use. Where these subtract and scale their pixels themselves the two
nodes are dropped, as a card's preprocessing does the same; so is an L2 normalisation at the end, as embeddings here are
not normalised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bench.data.mxnet_files import Symbol, read_arrays, read_symbols
from bench.errors import DataError
from fr_models._onnx_writer import INPUT, OnnxWriter, Pair, batch_norm, folded

MEAN, SCALE = 127.5, 1 / 128
"""What the networks that standardise their pixels subtract and multiply with; what their cards say."""

EPSILON = 1e-3
"""Of batch norm, where a node does not say: MXNet's own."""

SIDE = 112

Array = npt.NDArray[Any]
T = TypeVar("T")


def convert(sources: tuple[Path, ...], target: Path) -> None:
    """Write the network of a symbol and a parameter file (`bench.contracts.Convert`).

    Raises:
        DataError: a source cannot be read, an operator or a setting is not among those read here, or the arrays
            do not fit the graph.
    """
    symbol_file, parameter_file = sources
    network = _Network(read_symbols(symbol_file), read_arrays(parameter_file), symbol_file)
    output = network.write()
    network.writer.save(
        target, output, height=SIDE, width=SIDE, dimension=network.dimension, channels=network.channels
    )


@dataclass(frozen=True)
class _Linear:
    """A convolution or matrix product that is not written yet, so that a batch norm can be folded into it.

    Attributes:
        source: place of the node it reads.
        weight: outputs first.
        bias: (outputs,), or None.
        write: (name of what it reads, weight, bias) → name of what it makes.
    """

    source: int
    weight: Array
    bias: Array | None
    write: Callable[[str, Array, Array | None], str]


@dataclass(frozen=True)
class _AtLeast:
    """A lower bound that is not written yet, so that an upper one can join it."""

    source: int
    bound: float


class _Network:
    """A graph of MXNet that is written node by node.

    Attributes:
        writer: where to.
        channels: of its images, once it is written: 3, and 1 for the first version, which sees grey.
        dimension: of its embeddings, likewise.
    """

    def __init__(self, symbols: tuple[Symbol, ...], arrays: Mapping[str, Array], path: Path) -> None:
        self.writer = OnnxWriter()
        self._symbols = symbols
        self._arrays = arrays
        self._path = path
        self._readers = Counter(place for symbol in symbols for place in symbol.inputs)
        self._waiting: dict[int, _Linear | _AtLeast] = {}
        self._written: dict[int, str] = {}
        self.channels = 0
        self.dimension = 0

    def write(self) -> str:
        """Write all nodes; return the name of the embedding."""
        for place, symbol in enumerate(self._symbols):
            if symbol.operator == "null":
                if symbol.name not in self._arrays:
                    self._written[place] = INPUT
            elif symbol.operator in _OPERATORS:
                _OPERATORS[symbol.operator](self, place, _Settings(symbol, self._path))
            else:
                read = ", ".join(_OPERATORS)
                raise self._wrong(symbol, f"is not among the operators read: {read}")
        inputs = [
            place
            for place, name in self._written.items()
            if name == INPUT and not self._symbols[place].inputs
        ]
        output = self._value(len(self._symbols) - 1)
        if len(inputs) != 1 or not self.channels or not self.dimension:
            raise DataError(
                f"{self._path}: the graph must lead from one image, by convolutions, to a FullyConnected node."
            )
        return output

    # -- operators ---------------------------------------------------------------------------------------------

    def standardise(self, place: int, settings: _Settings) -> None:
        """Drop a node that subtracts or scales pixels."""
        (source,) = settings.symbol.inputs
        wanted = {"_minus_scalar": MEAN, "_mul_scalar": SCALE}[settings.symbol.operator]
        if self._value(source) != INPUT or settings.number("scalar") != wanted:
            raise self._wrong(settings.symbol, f"does not standardise pixels by {MEAN} and {SCALE}")
        self._written[place] = INPUT

    def convolve(self, place: int, settings: _Settings) -> None:
        """Hold a convolution back."""
        settings.refuse(dilate=((), (1, 1)), layout=("None", "NCHW"))
        filters, groups = settings.whole("num_filter"), settings.whole("num_group", 1)
        kernel = settings.pair("kernel")
        stride, padding = settings.pair("stride", (1, 1)), settings.pair("pad", (0, 0))
        weight, bias = self._layer_arrays(settings, filters)
        if weight.ndim != 4 or weight.shape[2:] != kernel or groups < 1 or filters % groups:
            raise self._wrong(settings.symbol, f"has a weight of shape {weight.shape}, a kernel of {kernel}")

        def write(value: str, weight: Array, bias: Array | None) -> str:
            if value == INPUT:
                self.channels = weight.shape[1] * groups
            return self.writer.conv(value, weight, bias, stride=stride, padding=padding, groups=groups)

        self._waiting[place] = _Linear(settings.symbol.inputs[0], weight, bias, write)

    def connect(self, place: int, settings: _Settings) -> None:
        """Hold a matrix product back."""
        outputs = settings.whole("num_hidden")
        weight, bias = self._layer_arrays(settings, outputs)
        source = settings.symbol.inputs[0]
        if weight.ndim != 2 or self._symbols[source].operator != "Flatten":
            raise self._wrong(settings.symbol, "does not multiply what a Flatten gives with a matrix")
        self.dimension = outputs
        self._waiting[place] = _Linear(source, weight, bias, self.writer.linear)

    def normalise(self, place: int, settings: _Settings) -> None:
        """Fold a batch norm into the layer before it."""
        settings.refuse(axis=("1",), output_mean_var=("False",))
        source, *statistics = settings.symbol.inputs
        before = self._waiting.get(source)
        if not isinstance(before, _Linear) or self._readers[source] != 1 or len(statistics) != 4:
            raise self._wrong(settings.symbol, "does not follow a layer that nothing else reads")
        taken = [self._array(node, (len(before.weight),)) for node in statistics]
        if settings.flag("fix_gamma", default=True):
            taken[0] = np.ones_like(taken[0])
        factor, offset = batch_norm(taken, settings.number("eps", EPSILON))
        weight, bias = folded(before.weight, before.bias, factor, offset)
        self._waiting[place] = replace(before, weight=weight, bias=bias)

    def bound_below(self, place: int, settings: _Settings) -> None:
        """Hold a lower bound back."""
        (source,) = settings.symbol.inputs
        self._waiting[place] = _AtLeast(source, settings.number("scalar"))

    def bound_above(self, place: int, settings: _Settings) -> None:
        """Write an upper bound, with the lower one before it."""
        (source,) = settings.symbol.inputs
        low, before = None, self._waiting.get(source)
        if isinstance(before, _AtLeast) and self._readers[source] == 1:
            low, source = before.bound, before.source
        self._written[place] = self.writer.clip(self._value(source), low, settings.number("scalar"))

    def bend(self, place: int, settings: _Settings) -> None:
        """Write a PReLU."""
        settings.refuse(act_type=("prelu",))
        if "act_type" not in settings.symbol.attributes:
            raise self._wrong(settings.symbol, "is no PReLU")
        source, slopes = settings.symbol.inputs
        self._written[place] = self.writer.prelu(self._value(source), self._array(slopes, None))

    def add(self, place: int, settings: _Settings) -> None:
        """Write a sum."""
        self._written[place] = self.writer.add("Add", [self._value(each) for each in settings.symbol.inputs])

    def flatten(self, place: int, settings: _Settings) -> None:
        """Write a Flatten."""
        (source,) = settings.symbol.inputs
        self._written[place] = self.writer.flatten(self._value(source))

    def leave_long(self, place: int, settings: _Settings) -> None:
        """Drop an L2 normalisation at the end."""
        (source,) = settings.symbol.inputs
        if place != len(self._symbols) - 1:
            raise self._wrong(settings.symbol, "is not the last node")
        self._written[place] = self._value(source)

    # -- what they share ---------------------------------------------------------------------------------------

    def _value(self, place: int) -> str:
        """Return the name of what a node makes, written now where it was held back."""
        if (waiting := self._waiting.get(place)) is not None and place not in self._written:
            value = self._value(waiting.source)
            if isinstance(waiting, _Linear):
                self._written[place] = waiting.write(value, waiting.weight, waiting.bias)
            else:
                self._written[place] = self.writer.clip(value, waiting.bound, None)
        if place not in self._written:
            raise self._wrong(self._symbols[place], "is read as an image and is none")
        return self._written[place]

    def _array(self, place: int, shape: tuple[int, ...] | None) -> Array:
        name = self._symbols[place].name
        found = self._arrays.get(name)
        if found is None or found.dtype != np.float32 or (shape is not None and found.shape != shape):
            what = "missing" if found is None else f"{found.dtype} of shape {found.shape}"
            raise DataError(f"{self._path}: array '{name}' is {what}, not float32 of {shape or 'any shape'}.")
        return found

    def _layer_arrays(self, settings: _Settings, outputs: int) -> tuple[Array, Array | None]:
        biased = not settings.flag("no_bias", default=False)
        _, weight, *bias = settings.symbol.inputs
        if len(bias) != biased:
            raise self._wrong(settings.symbol, f"reads {len(settings.symbol.inputs)} values")
        found = self._array(weight, None)
        if found.ndim < 1 or len(found) != outputs:
            raise self._wrong(settings.symbol, f"has {outputs} outputs and a weight of shape {found.shape}")
        return found, self._array(bias[0], (outputs,)) if biased else None

    def _wrong(self, symbol: Symbol, reason: str) -> DataError:
        return DataError(f"{self._path}: {symbol.operator} node '{symbol.name}' {reason}.")


@dataclass(frozen=True)
class _Settings:
    """A node's settings, read as what they should be."""

    symbol: Symbol
    path: Path

    def number(self, key: str, default: float | None = None) -> float:
        return self._read(key, float, default)

    def whole(self, key: str, default: int | None = None) -> int:
        return self._read(key, int, default)

    def flag(self, key: str, *, default: bool) -> bool:
        return self._read(
            key, lambda text: {"True": True, "1": True, "False": False, "0": False}[text], default
        )

    def pair(self, key: str, default: Pair | None = None) -> Pair:
        return self._read(key, _pair, default)

    def refuse(self, **allowed: tuple[object, ...]) -> None:
        """Refuse settings that are there and not as read here: texts, or pairs and ()."""
        for key, valid in allowed.items():
            text = self.symbol.attributes.get(key)
            if text is not None and text not in valid and text not in map(str, valid):
                raise self._wrong(key)

    def _read(self, key: str, convert: Callable[[str], T], default: T | None) -> T:
        text = self.symbol.attributes.get(key)
        if text is None and default is not None:
            return default
        try:
            return convert(text or "")
        except (ValueError, KeyError) as error:
            raise self._wrong(key) from error

    def _wrong(self, key: str) -> DataError:
        value = self.symbol.attributes.get(key, "missing")
        name = f"{self.symbol.operator} node '{self.symbol.name}'"
        return DataError(f"{self.path}: setting {key} of {name} is {value}, which is not read.")


def _pair(text: str) -> Pair:
    first, second = (int(each) for each in text.strip("()[] ").split(","))
    return first, second


_OPERATORS: Mapping[str, Callable[[_Network, int, _Settings], None]] = {
    "_minus_scalar": _Network.standardise,
    "_mul_scalar": _Network.standardise,
    "Convolution": _Network.convolve,
    "FullyConnected": _Network.connect,
    "BatchNorm": _Network.normalise,
    "_maximum_scalar": _Network.bound_below,
    "_minimum_scalar": _Network.bound_above,
    "LeakyReLU": _Network.bend,
    "elemwise_add": _Network.add,
    "Flatten": _Network.flatten,
    "L2Normalization": _Network.leave_long,
}
