"""A backbone whose weights are an ONNX file of the data folder; its card says all about it.

What lives here: preprocessing, loading, the two ways to embed. What must not: any particular network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contracts import CROP_SIZE, Backbone, Binding, MethodParams, Preprocessing
from bench.data.files import locate
from bench.errors import DataError, UsageError
from fr_models._onnx_file import external_files, load_model
from fr_models._onnx_graph import UnreadableNetworkError, embedding_output
from fr_models._onnx_reader import OnnxNetwork, read_onnx


def prepare(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return what the network wants: crop, resize, channel order, (255·x − mean) · scale.

    Args:
        images: N×3×112×112 RGB in [0, 1].
        preprocessing: of the weights.

    Returns:
        N×3×height×width float32; differentiable with respect to `images`.

    Raises:
        ValueError: the images are not 112×112 crops.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, CROP_SIZE, CROP_SIZE):
        raise ValueError(f"images are {tuple(images.shape)}; expected N×3×{CROP_SIZE}×{CROP_SIZE}")
    if preprocessing.crop is not None:
        top, left, height, width = preprocessing.crop
        images = images[:, :, top : top + height, left : left + width]
    size = (preprocessing.height, preprocessing.width)
    if tuple(images.shape[2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    if preprocessing.channels == "BGR":
        images = images.flip(1)
    return (255 * images - preprocessing.mean) * preprocessing.scale


class Prepared(nn.Module):
    """A network behind its preprocessing: N×3×112×112 RGB in [0, 1] to N×D.

    Attributes:
        network: what is trained.
        preprocessing: of its weights.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """Return N×D float32 embeddings of N×3×112×112 images in [0, 1]."""
        pixels = prepare(images, self.preprocessing)
        return self.network(pixels.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


class OnnxBackbone(Backbone):
    """Base of backbones read from an ONNX file; a subclass gives `name` and `card`.

    `embed` runs the graph in torch, on any device, with gradients. `embed_batch` runs onnxruntime where the
    card says that is faster, on a CPU only; the two agree to rounding. A file that only onnxruntime can read
    serves as a tracker on a CPU: once loaded, `differentiable` is False and `black_box` says why.
    """

    def __init__(self, params: MethodParams | None = None) -> None:
        super().__init__(params)
        self._network: OnnxNetwork | None = None
        self._session: _Session | None = None

    def weights_path(self) -> Path:
        """Return the path of the ONNX file.

        Raises:
            DataError: it is missing or not that of the card.
        """
        fix = f"Run 'bench fetch {self.name}', or point CLOAKBENCH_DATA to a folder that has it."
        card = self.card
        return locate(card.file, card.sha256, equivalents=card.equivalents, fix=fix)

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the ONNX file and those beside it that hold weights of it: their digests enter the key."""
        del binding
        path = self.weights_path()
        return (path, *external_files(path))

    def load(self, device: torch.device) -> None:
        """Read the network and try it once.

        Raises:
            DataError: the file is missing, not that of the card, cannot be read, or does not fit the card's
                size and dimension; or only onnxruntime can read it and `device` is no CPU.
        """
        path = self.weights_path()
        self._network = self._session = None
        try:
            network = read_onnx(path).to(device)
        except UnreadableNetworkError as reason:
            self._load_black_box(path, device, reason)
            return
        self._check_size(network.input_shape, path)
        self._try(network, network.input_shape, device, path)
        self._network = network
        if self.card.embed_with == "onnxruntime" and device.type == "cpu":
            self._session = _open_session(path, network.published, "Set embed_with to torch.")

    def _load_black_box(self, path: Path, device: torch.device, reason: UnreadableNetworkError) -> None:
        """Take a file that is not read here to onnxruntime, which gives embeddings and no gradient."""
        why = str(reason).rstrip(".")
        if device.type != "cpu":
            raise DataError(
                f"{why}; onnxruntime may read it, on a CPU only: give --device cpu, or simplify the network when "
                "exporting it."
            ) from reason
        session = _open_session(path, "", f"It is not read with gradients either: {why}.")
        self._check_size(session.input_shape, path)
        self._try(session, session.input_shape, device, path)
        self._session, self.differentiable, self.black_box = session, False, why

    def _check_size(self, shape: tuple[int | None, ...], path: Path) -> None:
        """Compare the input's height and width with the card."""
        wanted = (self.card.preprocessing.height, self.card.preprocessing.width)
        if any(s not in (None, w) for s, w in zip(shape[2:], wanted, strict=True)):
            size = " × ".join("?" if s is None else str(s) for s in shape[2:])
            raise DataError(
                f"{path} takes images of {size} (height × width), its card says {wanted[0]} × {wanted[1]}. "
                f"Set height and width, and crop where only a part of the face is wanted."
            )

    def _try(
        self,
        network: Callable[[Tensor], Tensor],
        shape: tuple[int | None, ...],
        device: torch.device,
        path: Path,
    ) -> None:
        """Run two blank images through `network` and compare with the card."""
        fixed = shape[0] is not None and shape[0] != 2
        fix = f" Its batch is fixed at {shape[0]}: export it with an open batch axis." if fixed else ""
        blank = torch.zeros(2, 3, CROP_SIZE, CROP_SIZE, device=device)
        try:
            with torch.inference_mode():
                vectors = _rows(network(prepare(blank, self.card.preprocessing)))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            where = " ".join(getattr(error, "__notes__", ()))
            raise DataError(
                f"{path} does not run on two images: {error} {where}".rstrip() + "." + fix
            ) from error
        if tuple(vectors.shape) != (2, self.card.embedding_dim):
            raise DataError(
                f"{path} returns {tuple(vectors.shape)} for two images, "
                f"expected (2, {self.card.embedding_dim}). "
                + (fix.strip() or "Fix embedding_dim, or export the network with an open batch axis.")
            )

    def _loaded(self) -> OnnxNetwork | _Session:
        loaded = self._network or self._session
        if loaded is None:
            raise RuntimeError(f"backbone '{self.name}' is used before load()")
        return loaded

    def embed(self, images: Tensor) -> Tensor:
        """Return N×D float32 embeddings, differentiable with respect to `images` (N×3×112×112 in [0, 1]).

        Raises:
            UsageError: a gradient is wanted and only onnxruntime can read the file.
        """
        network = self._loaded()
        if not self.differentiable and images.requires_grad and torch.is_grad_enabled():
            raise UsageError(f"backbone '{self.card.name}' has no gradient: {self.black_box}.")
        return _rows(network(prepare(images, self.card.preprocessing)))

    def trainable(self, device: torch.device) -> nn.Module:
        """Return the graph in torch with its weights as parameters; see `Backbone.trainable`.

        Batch norm is folded (`OnnxNetwork.trainable`), so training mode changes no value. What computes
        embeddings otherwise (`embed_with`) plays no part.

        Raises:
            DataError: the file is missing, not that of the card, or corrupt.
            UsageError: only onnxruntime can read it.
        """
        try:
            network = read_onnx(self.weights_path()) if self._network is None else self._network
        except UnreadableNetworkError as reason:
            raise UsageError(
                f"backbone '{self.card.name}' cannot be trained: {str(reason).rstrip('.')}. Use a head that keeps the "
                "backbone as it is."
            ) from reason
        return Prepared(network.trainable(), self.card.preprocessing).to(device).train()

    def embed_batch(self, images: Tensor) -> Tensor:
        """Return N×D embeddings without gradient, by the path the card names."""
        if self._session is None:
            return super().embed_batch(images)
        with torch.inference_mode():
            return _rows(self._session(prepare(images, self.card.preprocessing)))


def _rows(vectors: Tensor) -> Tensor:
    """Return N×D of N×D×1×1 embeddings, anything else as it is."""
    trailing = vectors.ndim > 2 and set(vectors.shape[2:]) == {1}
    return vectors.flatten(1) if trailing else vectors


class _Session:
    """A network in onnxruntime, on the CPU: N×3×H×W float32 in, the embedding out, no gradient.

    Attributes:
        input_shape: N, C, H, W as the file states them; None where it leaves them open.
    """

    def __init__(self, session: Any, output: str) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = output
        stated = session.get_inputs()[0].shape
        self.input_shape = tuple(size if isinstance(size, int) else None for size in stated)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the embeddings of preprocessed images."""
        given = {self._input: pixels.detach().contiguous().numpy()}
        return torch.from_numpy(self._session.run([self._output], given)[0])


def _open_session(path: Path, output: str, fix: str) -> _Session:
    """Open a network in onnxruntime.

    Args:
        path: the ONNX file.
        output: name of the embedding among its outputs; looked for when empty.
        fix: what to do where onnxruntime does not read it, in a sentence.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DataError(f"{path} needs onnxruntime ({error}): pip install onnxruntime. {fix}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the cores torch computes on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions share no public base
        raise DataError(f"onnxruntime cannot read {path}: {error}. {fix}") from error
    image = session.get_inputs()[0]
    if isinstance(image.shape[0], int):
        raise DataError(f"{path} fixes its batch size, which onnxruntime obeys. {fix}")
    if image.type != "tensor(float)":
        raise DataError(f"{path} takes {image.type}, not float32, as images. {fix}")
    return _Session(session, output or embedding_output(load_model(path, weights=False).graph, path).name)
