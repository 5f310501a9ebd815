"""Which of the two paths embeds faster: torch or onnxruntime. Decides `embed_with` of the cards.

Both run in one process on the same images in alternating rounds, so only their ratio counts; it is the
median over the rounds. Processor time is measured, not the clock: other work on the machine disturbs it less.

    python benchmarks/embedding_paths.py --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.contracts import MICRO_BATCH
from bench.plugins import factory
from bench.run.stages.embed import EMBED_BATCH
from fr_models._onnx_backbone import OnnxBackbone

NAMES = ("mobilefacenet-relu6", "mobilefacenet-casia", "mobileface-v2", "mobileface-v3")


def load(name: str, path: str) -> OnnxBackbone:
    """Return the backbone, loaded to embed by `path`, whatever its card says."""
    backbone = factory.backbone(name)
    assert isinstance(backbone, OnnxBackbone)
    backbone.card = backbone.card.model_copy(update={"embed_with": path})
    backbone.load(torch.device("cpu"))
    return backbone


def seconds(run: Callable[[Tensor], object], images: Tensor) -> float:
    """Return the processor time of one call, of all threads together."""
    start = time.process_time()
    run(images)
    return time.process_time() - start


def input_gradient(backbone: OnnxBackbone) -> Callable[[Tensor], Tensor]:
    """Return a function that computes one input gradient, as attacks do."""

    def run(images: Tensor) -> Tensor:
        leaf = images.clone().requires_grad_()
        return torch.autograd.grad(backbone.embed(leaf).square().sum(), leaf)[0]

    return run


def main() -> None:
    """Print one line a backbone and batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"threads {args.threads}, median of {args.rounds} rounds; processor ms an image")
    print("backbone               batch   torch  onnxruntime  torch/onnxruntime  gradient  faster       card")
    for name in args.names:
        in_torch, in_onnxruntime = load(name, "torch"), load(name, "onnxruntime")
        gradient = input_gradient(in_torch)
        card = factory.backbone(name).card.embed_with
        for size in (MICRO_BATCH, EMBED_BATCH):
            images = torch.rand(size, 3, 112, 112, generator=torch.Generator().manual_seed(0))
            runs = (in_torch.embed_batch, in_onnxruntime.embed_batch, gradient)
            for run in runs:
                seconds(run, images)
            rounds = [[seconds(run, images) for run in runs] for _ in range(args.rounds)]
            ratio = statistics.median(torch_s / onnx_s for torch_s, onnx_s, _ in rounds)
            t, o, g = (1000 / size * statistics.median(column) for column in zip(*rounds, strict=True))
            faster = "torch" if ratio < 1 else "onnxruntime"
            print(f"{name:22} {size:5} {t:7.2f} {o:12.2f} {ratio:18.2f} {g:9.2f}  {faster:11}  {card}")


if __name__ == "__main__":
    main()
