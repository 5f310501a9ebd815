"""APF's privacy boundary: what leaves the user's device, what comes back, and the side that sees only these.

A photo cannot be given to `CloudSide`: it takes a `Gradient`, and a `Gradient` is made from the difference of
two photos that are at most ε apart. In one process and in two (`bench apf serve`) these very classes work.
This stops mistakes. It does not stop a caller who means to hide a photo in the gradient.
"""

from __future__ import annotations

from typing import Final, Literal, NoReturn, Self, final

import torch
from torch import Tensor

from attacks._micro_batch import in_micro_batches
from attacks.apf.network import ApfNetwork
from bench.quality.metrics import GREY_LEVELS

LARGEST_EPS: Final = 16
"""Largest ε of a gradient in grey levels. The larger, the more of a photo could be hidden in one."""


class _Bounded:
    """Frozen int8 images within ±ε grey levels; `_checked` is the only way to one.

    They are held as bytes: a tensor could be written to after the check.
    """

    __slots__ = ("_bytes", "_eps", "_shape")
    _bytes: bytes
    _eps: int
    _shape: tuple[int, ...]

    def __init__(self, *_: object, **__: object) -> None:
        raise TypeError(f"a {type(self).__name__} is not made from numbers; see attacks.apf.cloud.")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot change: {name}")

    @classmethod
    def _checked(cls, values: Tensor, eps: int) -> Self:
        """Return an instance that holds a copy of `values`.

        Raises:
            TypeError: `values` is no int8 tensor.
            ValueError: it is not N×3×H×W, a value is beyond ±eps, or eps is not 1 … 16.
        """
        what = cls.__name__
        if type(values) is not Tensor or values.dtype != torch.int8:
            found = str(values.dtype) if isinstance(values, Tensor) else type(values).__name__
            raise TypeError(f"a {what} holds int8 grey levels, got {found}.")
        if isinstance(eps, bool) or not isinstance(eps, int) or not 1 <= eps <= LARGEST_EPS:
            raise ValueError(
                f"eps of a {what} is a whole number of grey levels, 1 … {LARGEST_EPS}, got {eps!r}."
            )
        if values.ndim != 4 or values.shape[1] != 3 or 0 in values.shape:
            raise ValueError(f"a {what} is N×3×H×W with no side 0, got {tuple(values.shape)}.")
        levels = values.detach().cpu()
        if (largest := int(levels.int().abs().max())) > eps:
            raise ValueError(f"a {what} within ±{eps} grey levels has a value of ±{largest}.")
        made = object.__new__(cls)
        object.__setattr__(made, "_bytes", levels.contiguous().numpy().tobytes())
        object.__setattr__(made, "_shape", tuple(levels.shape))
        object.__setattr__(made, "_eps", eps)
        return made

    @property
    def values(self) -> Tensor:
        """A copy of the N×3×H×W int8 grey levels."""
        return torch.frombuffer(bytearray(self._bytes), dtype=torch.int8).reshape(self._shape)

    @property
    def eps(self) -> int:
        """The bound in grey levels."""
        return self._eps

    def __len__(self) -> int:
        return self._shape[0]


@final
class Gradient(_Bounded):
    """What leaves the user's device: the change module 1 makes to each photo, int8 grey levels within ±ε."""

    __slots__ = ()

    @classmethod
    def between(cls, adversarial: Tensor, photos: Tensor, eps: int) -> Gradient:
        """Return `adversarial` − `photos`, rounded to whole grey levels.

        Args:
            adversarial: N×3×H×W float in [0, 1].
            photos: likewise, the photos they were made from.
            eps: bound in grey levels, 1 … 16.

        Raises:
            TypeError: one of them is no tensor of floats.
            ValueError: shapes differ, a pixel is not in [0, 1], or the two are further apart than eps.
        """
        for what, images in (("adversarial", adversarial), ("photos", photos)):
            if type(images) is not Tensor or not images.is_floating_point():
                found = str(images.dtype) if isinstance(images, Tensor) else type(images).__name__
                raise TypeError(f"{what} must be a tensor of floats in [0, 1], got {found}.")
            if images.numel() and not (float(images.min()) >= 0 and float(images.max()) <= 1):
                raise ValueError(f"{what} has pixels outside [0, 1].")
        if adversarial.shape != photos.shape:
            raise ValueError(f"{tuple(adversarial.shape)} photos were made from {tuple(photos.shape)}.")
        change = ((adversarial - photos) * GREY_LEVELS).detach().round()
        if change.numel() and (largest := float(change.abs().max())) > eps:
            raise ValueError(f"the two differ by up to {largest:.0f} grey levels, more than eps = {eps}.")
        return cls._checked(change.to(torch.int8), eps)


@final
class Perturbation(_Bounded):
    """What comes back: the change to make to each photo, int8 grey levels within ±ε."""

    __slots__ = ()

    def added_to(self, photos: Tensor) -> Tensor:
        """Return `photos` (N×3×H×W in [0, 1]) with the change, clipped to [0, 1].

        Raises:
            ValueError: it is for photos of another number or size.
        """
        if tuple(photos.shape) != self._shape:
            raise ValueError(f"the perturbation is for photos {self._shape}, got {tuple(photos.shape)}.")
        return (photos + self.values.to(photos) / GREY_LEVELS).clamp(0, 1)


class CloudSide:
    """Modules 2 and 3, as the server runs them; it has no way to a photo.

    Args:
        network: the weights.
        modules: 2 for the U-Net alone, 3 with the universal perturbation.
        device: where `network` is.
    """

    def __init__(self, network: ApfNetwork, modules: Literal[2, 3], device: torch.device) -> None:
        self._network, self._modules, self._device = network, modules, device

    @property
    def size(self) -> int:
        """Side in pixels of the gradients it takes."""
        return self._network.size

    def transfer(self, gradient: Gradient) -> Perturbation:
        """Return the perturbations for the photos that `gradient` belongs to.

        Computed in micro-batches of one shape, so a gradient has the same answer in any company.

        Raises:
            TypeError: it is no `Gradient`: photos, tensors and faces do not pass.
            ValueError: it is of another size than the network.
        """
        if type(gradient) is not Gradient:
            raise TypeError(
                f"the cloud side takes a Gradient and nothing else, got {type(gradient).__name__}."
            )
        values = gradient.values
        if tuple(values.shape[-2:]) != (self.size, self.size):
            height, width = values.shape[-2:]
            raise ValueError(f"gradients must be {self.size}×{self.size} pixels, got {height}×{width}.")
        with torch.no_grad():
            levels = in_micro_batches(lambda rows: self._levels(rows, gradient.eps), values.to(self._device))
        return Perturbation._checked(levels, gradient.eps)

    def _levels(self, values: Tensor, eps: int) -> Tensor:
        scaled = (values.float() / eps).contiguous(memory_format=torch.channels_last)
        perturbations: Tensor = self._network(scaled, self._modules)
        return (perturbations.float().clamp(-1, 1) * eps).round().to(torch.int8)
