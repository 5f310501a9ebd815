"""What a tracker's backbone multiplies in.

bfloat16 is for GPUs: half the memory traffic, several times the products. It keeps eight bits of each factor, so that
scores move in their third digit and a decision that hangs on it may change (docs/performance.md has the share). Every
row says so (`RunFacts.caution`), and rows of two precisions are not ranked together.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]


def multiplying_in(precision: Precision, device: "torch.device") -> AbstractContextManager[object]:
    """Return a context in which torch multiplies in a precision: products and convolutions, not sums and norms."""
    if precision == "float32":
        return nullcontext()
    import torch

    return torch.autocast(device.type, getattr(torch, precision))
