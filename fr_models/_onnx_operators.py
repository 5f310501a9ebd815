"""The ONNX operators face-recognition networks are made of, each as one torch function.

What lives here: `OPERATORS`, from operator name to a builder, put together from its families. A builder gets the node
and returns a function of all the node's inputs (None where an optional one is absent). What must not: graphs, files,
weights.
"""

from __future__ import annotations

from collections.abc import Mapping

from fr_models._onnx_arithmetic import ARITHMETIC
from fr_models._onnx_maps import MAPS
from fr_models._onnx_node import Builder
from fr_models._onnx_shapes import SHAPES

OPERATORS: Mapping[str, Builder] = {**ARITHMETIC, **MAPS, **SHAPES}
"""Operators that compute something. Constant, Dropout and Identity vanish when the graph is read."""

SEVERAL_OUTPUTS = frozenset({"Split"})
"""Operators whose every output is read; of others only the first is."""
