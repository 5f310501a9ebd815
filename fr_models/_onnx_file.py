"""ONNX files as they lie on disk: loading, weights in other files, one digest over all.

What lives here: all that touches the file, and its refusal where it is corrupt. What must not: what a graph computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from bench.data.files import sha256_of
from bench.errors import DataError


def load_model(path: Path, *, weights: bool = True) -> Any:
    """Return the ``onnx.ModelProto`` of a file.

    Args:
        path: the file.
        weights: whether weights in files beside it are read too.

    Raises:
        DataError: the file is missing, empty, corrupt, holds no network, or names weights outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise DataError(f"{path} is not a file. Give the path of an ONNX network.")
    if not path.stat().st_size:
        raise DataError(f"{path} is no readable ONNX file: it is empty. Fetch or export it again.")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise DataError(f"{path} is no readable ONNX file ({error}). Fetch or export it again.") from error
    if not model.graph.node:
        raise DataError(f"{path} holds no ONNX network (its graph has no nodes). Fetch or export it again.")
    if weights:
        _outside_names(model, path)
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except (ValueError, OSError, RuntimeError, onnx.checker.ValidationError) as error:
            raise DataError(
                f"{path}: its weights in other files cannot be read ({error}). Fetch or export them again."
            ) from error
    return model


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside an ONNX file that hold weights of it, sorted; remembered while it stays the same.

    Raises:
        DataError: the file is corrupt, or names weights that are missing or outside its folder.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file. Give the path of an ONNX network.")
    state = path.stat()
    files = tuple(path.parent / name for name in _external_names(path, state.st_size, state.st_mtime_ns))
    for file in files:
        if not file.is_file():
            raise DataError(f"{path} has weights in '{file.name}', which is not beside it. Put it there.")
    return files


def digest_of(path: Path) -> str:
    """Return the SHA-256 of an ONNX file; where it has weights in other files, one over all their digests."""
    others = external_files(path)
    if not others:
        return sha256_of(path)
    lines = [f"{sha256_of(file)}\n" for file in (path, *others)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache(maxsize=256)
def _external_names(path: Path, _size: int, _mtime_ns: int) -> tuple[str, ...]:
    return _outside_names(load_model(path, weights=False), path)


def _outside_names(model: Any, path: Path) -> tuple[str, ...]:
    """Return the names of the files with weights, relative to the folder of `path`, sorted."""
    from onnx import TensorProto

    names = set()
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        stated = {entry.key: entry.value for entry in tensor.external_data}
        names.add(_inside(stated.get("location", ""), tensor.name, path))
    return tuple(sorted(names))


def _inside(name: str, tensor: str, path: Path) -> str:
    parts = PurePosixPath(name)
    folder = path.parent.resolve()
    safe = (
        name and "\\" not in name and "\0" not in name and not parts.is_absolute() and ".." not in parts.parts
    )
    if not safe or not (folder / name).resolve().is_relative_to(folder):
        raise DataError(
            f"{path}: the weights '{tensor}' are in '{name}', outside its folder, where nothing is read. "
            "Export it again with its weights beside it."
        )
    return name


def _tensors(model: Any) -> Iterator[Any]:
    """Yield every tensor of the graph, of its subgraphs and of its functions."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _of_graph(graph)
