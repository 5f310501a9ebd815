"""Where the time of a finished run goes, stage by stage, with the passes through networks that it cannot do without.

    python -m benchmarks.breakdown RUN [--store STORE] [--csv FILE]

Seconds are those of the run's own record (`timings.csv`), by the clock of whoever computed each artefact; "the rest" is
planning, imports, tables and files, where `--total` says how long the whole command took. Floors are measured here:
passes forward and back of the very networks, in the layout and batch that the stage has, nothing around them. So run
both on one idle machine, with the same threads.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

import torch

from bench.contracts import CROP_SIZE, MICRO_BATCH, Backbone
from bench.run.bound import BoundBackbone
from bench.run.folder import RunFolder
from bench.run.graph import STAGES, Node
from bench.run.planning import Options, Prepared, prepare_again
from bench.run.stages.cloak import Cloak
from bench.run.stages.embed import EMBED_BATCH, Embed
from bench.run.stages.joined import JoinedCloaks
from benchmarks.ratios import processor_seconds

ROUNDS = 7


@dataclass(frozen=True)
class Part:
    """One stage of a run.

    Attributes:
        stage: its name.
        images: how many it computed.
        seconds: that it took.
        floor: seconds of the passes through networks among them; None where there are none, or none are counted.
    """

    stage: str
    images: int
    seconds: float
    floor: float | None


def parts(prepared: Prepared) -> Iterator[Part]:
    """Yield the stages of a finished run, in their order.

    Args:
        prepared: the run, planned again on the machine that made it.
    """
    by_stage: dict[str, list[Node]] = {}
    for node in prepared.artefacts:
        by_stage.setdefault(node.stage, []).append(node)
    for stage in sorted(by_stage, key=STAGES.index):
        nodes = by_stage[stage]
        records = [prepared.store.record(node.stage, node.address) for node in nodes]
        found = [record for record in records if record is not None]
        floors = [floor(node) for node in nodes]
        known = [each for each in floors if each is not None]
        yield Part(
            stage,
            sum(record.images for record in found),
            sum(record.seconds for record in found),
            sum(known) if len(known) == len(nodes) else None,
        )


def floor(node: Node) -> float | None:
    """Return the seconds of the passes through networks that a node cannot do without; None where none are counted."""
    if isinstance(node, Embed) and not node.channel:
        return node.images * forward(node.tracker.backbone)
    if isinstance(node, Cloak):
        helpers = [node.attack.backbones[name] for name in node.attack.binding.backbones]
        return node.images * node.attack.method.passes * sum(map(both_ways, helpers))
    if isinstance(node, JoinedCloaks):
        return 0.0  # put together of parts, which are counted
    return None


@cache
def forward(backbone: BoundBackbone) -> float:
    """Return the seconds an image takes to be embedded, in the batches of that stage."""
    network, images = _loaded(backbone), torch.rand(EMBED_BATCH, 3, CROP_SIZE, CROP_SIZE)
    return _an_image(lambda: network.embed_batch(images), EMBED_BATCH)


@cache
def both_ways(backbone: BoundBackbone) -> float:
    """Return the seconds an image takes forward and back to its pixels, in the batches of an attack."""
    network, images = _loaded(backbone), torch.rand(MICRO_BATCH, 3, CROP_SIZE, CROP_SIZE)
    images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        x = images.detach().requires_grad_()
        torch.autograd.grad(network.embed(x).square().sum(), x)

    return _an_image(step, MICRO_BATCH)


def _loaded(backbone: BoundBackbone) -> Backbone:
    network = backbone.plugin.method
    network.load(torch.device("cpu"))
    return network


def _an_image(action: Callable[[], object], images: int) -> float:
    action()
    return median(processor_seconds(action) for _ in range(ROUNDS)) / images


def markdown(found: Sequence[Part], total: float | None) -> Iterator[str]:
    """Yield a table: seconds, their share, milliseconds an image, and the floor's share of the stage."""
    whole = total or sum(part.seconds for part in found)
    yield "| stage | images | seconds | of all | an image | passes through networks |"
    yield "|---|---:|---:|---:|---:|---:|"
    for part in found:
        an_image = f"{1000 * part.seconds / part.images:.1f} ms" if part.images else ""
        below = (
            ""
            if part.floor is None or not part.seconds
            else f"{part.floor:.1f} s, {100 * part.floor / part.seconds:.0f} %"
        )
        share = f"{100 * part.seconds / whole:.0f} %"
        yield f"| {part.stage} | {part.images:,} | {part.seconds:.1f} | {share} | {an_image} | {below} |"
    if total:
        rest = total - sum(part.seconds for part in found)
        yield f"| the rest | | {rest:.1f} | {100 * rest / whole:.0f} % | | |"


def main() -> int:
    """Print the table, and write it as CSV where that is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--total", type=float, help="seconds of the whole command")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    prepared = prepare_again(RunFolder(given.run), Options(store=given.store))
    found = list(parts(prepared))
    print(*markdown(found, given.total), sep="\n")
    if given.csv:
        with given.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("stage", "images", "seconds", "floor"))
            writer.writerows((part.stage, part.images, part.seconds, part.floor) for part in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
