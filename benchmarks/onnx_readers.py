"""The project's ONNX reader against onnx2torch: what each reads, and time forward and back as a ratio in one process.

Run: ``pip install onnx2torch``, then ``python -m benchmarks.onnx_readers FILE.onnx …``. One thread; processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fr_models._onnx_reader import read_onnx

IMAGES = 8
ROUNDS = 5


def seconds(network: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Return the processor time of one forward and backward pass."""
    leaf = images.clone().requires_grad_()
    start = time.process_time()
    network(leaf).square().sum().backward()
    return time.process_time() - start


def compare(path: Path) -> str:
    """Return a line on one file whose input is N×3×112×112."""
    from onnx2torch import convert

    ours = read_onnx(path)
    images = torch.randn(IMAGES, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    try:
        theirs = convert(str(path)).eval()
        difference = float((ours(images) - theirs(images)).abs().max())
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return f"{path.name}: not read by onnx2torch ({error})"
    times = [(seconds(ours, images), seconds(theirs, images)) for _ in range(ROUNDS)]
    one, other = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{path.name}: {one:.3f} s, onnx2torch {other / one:.1f} times that; largest difference {difference:.1e}"


def main() -> None:
    """Compare on each file named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # onnx2torch's own
    for path in parser.parse_args().files:
        print(compare(path))


if __name__ == "__main__":
    main()
