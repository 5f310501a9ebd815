"""Five landmarks of a face, for photos that come without any: MTCNN with facenet-pytorch's weights.

Zhang et al., Joint face detection and alignment using multi-task cascaded convolutional networks, IEEE SPL
23(10), 2016. The weights are in facenet-pytorch's wheel (extra ``cloakbench[detector]``): no download.
Results are not cached here; the pipeline stores the crops made from them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError, UsageError
from bench.faces.alignment import Landmarks, Pixels

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

DETECTOR_VERSION = "facenet-pytorch-2.5.3/mtcnn/1"
"""Part of a dataset's fingerprint where landmarks are detected: raise it when they would differ."""

MIN_FACE = 20
"""Smallest face side looked for, in pixels of the image that is searched."""

MAX_SIDE = 1024
"""Larger photos are searched at this size of the longer side; points come back in the photo's own pixels."""

Choice = Literal["largest", "central"]


class FaceDetector:
    """MTCNN on one device.

    Attributes:
        device: where it computes.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        import torch

        self.device = torch.device(device)
        self._mtcnn = _load_mtcnn(self.device)

    def detect(self, image: Image | Pixels, choose: Choice = "largest") -> Landmarks | None:
        """Return the landmarks of one face of the photo, or None where no face is found.

        Args:
            image: an RGB photo, H×W×3 uint8 or as Pillow reads it.
            choose: which of several faces: the one with the largest box, or the one whose box lies nearest
                to the centre of the photo.

        Raises:
            ValueError: the array is not H×W×3 uint8.
            DataError: the detector failed on this photo.
        """
        pixels = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGB"))
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"expected H×W×3 uint8, got {pixels.shape} {pixels.dtype}")
        k = -(-max(pixels.shape[:2]) // MAX_SIDE)
        searched = _reduced(pixels, k)
        if min(searched.shape[:2]) < MIN_FACE:
            return None
        try:
            boxes, scores, points = self._mtcnn.detect(searched, landmarks=True)
        except (RuntimeError, IndexError) as error:
            # The package stumbles where every candidate box lies outside the photo.
            raise DataError(f"the face detector failed ({error}). Give landmarks for this photo.") from error
        if boxes is None:
            return None
        chosen = _chosen(np.asarray(boxes, dtype=np.float64), searched.shape[:2], choose)
        # Small pixel i is the mean of k large ones around k·i + (k − 1)/2.
        return Landmarks(
            np.asarray(points[chosen], dtype=np.float64) * k + (k - 1) / 2, float(scores[chosen])
        )


def _reduced(pixels: Pixels, k: int) -> Pixels:
    if k == 1:
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(k))


def _chosen(boxes: NDArray[np.float64], size: tuple[int, ...], choose: Choice) -> int:
    if choose == "largest":
        return int(np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    centre = np.array([size[1] - 1, size[0] - 1]) / 2
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    return int(np.argmin(((middles - centre) ** 2).sum(1)))


@lru_cache(maxsize=2)
def detector(device: str = "cpu") -> FaceDetector:
    """Return the detector on `device`, loaded once a process.

    Raises:
        UsageError: facenet-pytorch is not installed.
    """
    return FaceDetector(device)


def _load_mtcnn(device: torch.device) -> Any:
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise UsageError(
            "photos without landmarks need the face detector, which is not installed. Run "
            "pip install 'cloakbench[detector]', or give a CSV of landmarks (landmarks=FILE)."
        ) from error
    return MTCNN(min_face_size=MIN_FACE, select_largest=True, device=device).eval()
