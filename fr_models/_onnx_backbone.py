"""A backbone whose weights are an ONNX file of the data folder; its card says all about it.

What lives here: preprocessing, loading, the two ways to embed. What must not: any particular network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contracts import CROP_SIZE, Backbone, Binding, MethodParams, Preprocessing
from bench.data.files import locate
from bench.errors import DataError
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
    card says that is faster, on a CPU only; the two agree to rounding.
    """

    def __init__(self, params: MethodParams | None = None) -> None:
        super().__init__(params)
        self._network: OnnxNetwork | None = None
        self._session: Any = None

    def weights_path(self) -> Path:
        """Return the path of the ONNX file.

        Raises:
            DataError: it is missing or not that of the card.
        """
        fix = f"Run 'bench fetch {self.name}', or point CLOAKBENCH_DATA to a folder that has it."
        card = self.card
        return locate(card.file, card.sha256, equivalents=card.equivalents, fix=fix)

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Name the ONNX file: its digest enters the key."""
        del binding
        return (self.weights_path(),)

    def load(self, device: torch.device) -> None:
        """Read the network and try it once.

        Raises:
            DataError: the file is missing, not that of the card, cannot be read, or does not fit the card's
                size and dimension.
        """
        path = self.weights_path()
        network = read_onnx(path).to(device)
        self._try(network, device, path)
        self._network = network
        self._session = None
        if self.card.embed_with == "onnxruntime" and device.type == "cpu":
            self._session = _open_session(path)

    def _try(self, network: OnnxNetwork, device: torch.device, path: Path) -> None:
        """Run two blank images through `network` and compare with the card."""
        wanted = (self.card.preprocessing.height, self.card.preprocessing.width)
        stated = network.input_shape[2:]
        if any(s not in (None, w) for s, w in zip(stated, wanted, strict=True)):
            size = " × ".join("?" if s is None else str(s) for s in stated)
            raise DataError(
                f"{path} takes images of {size} (height × width), its card says {wanted[0]} × {wanted[1]}. "
                f"Set height and width, and crop where only a part of the face is wanted."
            )
        blank = torch.zeros(2, 3, CROP_SIZE, CROP_SIZE, device=device)
        try:
            with torch.inference_mode():
                vectors = network(prepare(blank, self.card.preprocessing))
        except (RuntimeError, ValueError, IndexError) as error:
            where = " ".join(getattr(error, "__notes__", ()))
            raise DataError(f"{path} does not run on two images: {error} {where}".rstrip() + ".") from error
        if tuple(vectors.shape) != (2, self.card.embedding_dim):
            raise DataError(
                f"{path} returns {tuple(vectors.shape)} for two images, "
                f"expected (2, {self.card.embedding_dim}). "
                f"Fix embedding_dim, or export the network with an open batch axis."
            )

    def _loaded(self) -> OnnxNetwork:
        if self._network is None:
            raise RuntimeError(f"backbone '{self.name}' is used before load()")
        return self._network

    def embed(self, images: Tensor) -> Tensor:
        """Return N×D float32 embeddings, differentiable with respect to `images` (N×3×112×112 in [0, 1])."""
        network = self._loaded()
        return network(prepare(images, self.card.preprocessing))  # type: ignore[no-any-return]

    def trainable(self, device: torch.device) -> nn.Module:
        """Return the graph in torch with its weights as parameters; see `Backbone.trainable`.

        Batch norm is folded (`OnnxNetwork.trainable`), so training mode changes no value. What computes
        embeddings otherwise (`embed_with`) plays no part.

        Raises:
            DataError: the file is missing, not that of the card, or cannot be read.
        """
        network = read_onnx(self.weights_path()) if self._network is None else self._network
        return Prepared(network.trainable(), self.card.preprocessing).to(device).train()

    def embed_batch(self, images: Tensor) -> Tensor:
        """Return N×D embeddings without gradient, by the path the card names."""
        if self._session is None:
            return super().embed_batch(images)
        with torch.inference_mode():
            pixels = prepare(images, self.card.preprocessing).contiguous().numpy()
        name = self._session.get_inputs()[0].name
        return torch.from_numpy(self._session.run(None, {name: pixels})[0])


def _open_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the cores torch computes on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions share no public base
        raise DataError(f"onnxruntime cannot read {path}: {error}. Set embed_with to torch.") from error
    if isinstance(session.get_inputs()[0].shape[0], int):
        raise DataError(f"{path} fixes its batch size, which onnxruntime obeys. Set embed_with to torch.")
    return session
