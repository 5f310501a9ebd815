r"""What a smaller or an 8-bit purifier costs and what it loses: processor time beside attack success.

    bench run --dataset lfw --identities 40 --attack pgd:eps=15 --defense none --defense puface \
        --defense ./benchmarks/puface_int8.py:PuFaceInt8 --backbone mobilefacenet-relu6 \
        --backbone mobilefacenet-casia --head nn --threads 1 --out runs/int8
    python -m benchmarks.purifier --run runs/int8 --csv benchmarks/purifier.csv --figure docs/images/purifier-cost.png

Rates of widths, depths and strides are those of `results/ablations.csv`, whose networks were trained for a sixth of the
steps of the shipped ones; rates of the shipped network, and of its weights in 8 bits, are those of the run. Times are
ratios of processor time to the default network, in turn, one thread.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from bench.contracts import CROP_SIZE, Context
from bench.faces.pixels import Pixels, decode_pixels, encode_pixels
from bench.figures import Drawing, FigureOptions, style
from bench.figures.files import save
from bench.run.stages import purify as purify_stage
from benchmarks.puface_int8 import CALIBRATED_ON, PuFaceInt8, quantised, run
from benchmarks.ratios import interleaved, processor_seconds, summary
from defenses.puface.network import PurifierNetwork, load_network, purify
from defenses.puface.purifier import SHELF, PuFace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
ABLATIONS = ROOT / "results/ablations.csv"
SHIPPED = "puface-real-mobileface-perceptual.safetensors"
"""The weights that trackers of the MobileFaceNet family get."""

ROUNDS = 11
MEAN = "(mean of all)"
FACTORS = ("width", "depth", "stride")
_BESIDE = {"width": (4, 3), "depth": (-4, 3), "stride": (4, 3)}
"""Points between a mark and its number in the figure; of neighbours one on either side."""
_DODGE = 0.05


@dataclass(frozen=True)
class Shape:
    """The shape of a purifier's network.

    Attributes:
        width: channels inside.
        depth: 3×3 convolutions.
        stride: side of the input over the side inside.
    """

    width: int = 48
    depth: int = 10
    stride: int = 2

    def network(self) -> PurifierNetwork:
        """Return a frozen network of this shape with drawn weights: what it costs does not depend on them."""
        drawn = PurifierNetwork(self.width, self.depth, torch.Generator().manual_seed(0), self.stride)
        torch.nn.init.normal_(drawn.up.weight, std=0.01, generator=torch.Generator().manual_seed(1))
        return drawn.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def multiply_adds(self, side: int = CROP_SIZE) -> int:
        """Return the multiply-adds of an image's convolutions, biases and sums apart."""
        network = PurifierNetwork(self.width, self.depth, torch.Generator(), self.stride)
        inside = (side // self.stride) ** 2
        kernels = sum(one.numel() for name, one in network.named_parameters() if name.endswith("weight"))
        # A transposed convolution uses each number of its kernel once for each pixel that it is given.
        return kernels * inside


@dataclass(frozen=True)
class Row:
    """One purifier: what it costs and what was measured of it.

    Attributes:
        factor: what was varied: ``width``, ``depth``, ``stride``, ``default`` or ``arithmetic``.
        width, depth, stride: of the network.
        arithmetic: ``float32``, or ``int8`` by onnxruntime.
        parameters: of the network.
        multiply_adds: of an image's convolutions.
        milliseconds: processor time an image of the default network × `ratio`.
        ratio, ratio_low, ratio_high: processor time over the default network's, median of rounds and its 95 % interval.
        attack, backbone: whose rate it is, or the mean.
        identities: how many were measured.
        asr, asr_low, asr_high: attack success rate and its 95 % interval.
        normal_accuracy, normal_accuracy_low, normal_accuracy_high: likewise, of identities that do not cloak.
        psnr: of its output against that of the same weights in float32, dB; None for float32.
    """

    factor: str
    width: int
    depth: int
    stride: int
    arithmetic: str
    parameters: int
    multiply_adds: int
    milliseconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    attack: str = MEAN
    backbone: str = MEAN
    identities: int = 0
    asr: float = math.nan
    asr_low: float = math.nan
    asr_high: float = math.nan
    normal_accuracy: float = math.nan
    normal_accuracy_low: float = math.nan
    normal_accuracy_high: float = math.nan
    psnr: float | None = None


# -- costs ----------------------------------------------------------------------------------------------------


def pictures(count: int) -> Tensor:
    """Return drawn images, N×3×112×112 in [0, 1]: a convolution takes as long on any."""
    return torch.rand(count, 3, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0))


def shipped() -> PurifierNetwork:
    """Return the network of `SHIPPED`."""
    return load_network(SHELF.folder / SHIPPED, torch.device("cpu"))


def bare(network: PurifierNetwork, images: Tensor, size: int) -> Callable[[], None]:
    """Return a function that computes a network's convolutions and nothing else: no ReLU, no sum, no copy.

    Args:
        network: frozen.
        images: N×3×H×W.
        size: images at a time.
    """
    batches = [batch.contiguous(memory_format=torch.channels_last) for batch in images.split(size)]

    def convolutions() -> None:
        with torch.inference_mode():
            for batch in batches:
                x = network.down(batch)
                for layer in network.body:
                    x = layer(x)
                network.up(x)

    return convolutions


def purified(network: PurifierNetwork, images: Tensor) -> Callable[[], None]:
    """Return a function that purifies images as a run does."""

    def whole() -> None:
        with torch.inference_mode():
            purify(network, images)

    return whole


def stage(images: Tensor) -> Callable[[], None]:
    """Return a function that does what the stage of a run does with stored images, but for the store's own files."""
    ids = tuple(map(str, range(len(images))))
    stored = encode_pixels(Pixels((images * 255).round().to(torch.uint8), ids, ids))
    ctx = Context(files=(SHELF.folder / SHIPPED,))

    def whole() -> None:
        encode_pixels(purify_stage.purify(PuFace(), decode_pixels(stored), ctx, len(images)))

    return whole


def costs(rounds: int = ROUNDS, count: int = 16) -> Iterator[Row]:
    """Yield a row without rates for each shape of `results/ablations.csv`, the default first."""
    images = pictures(count)
    base = purified(Shape().network(), images)
    base()
    milliseconds = 1000 * median(processor_seconds(base) for _ in range(rounds)) / count
    for factor, shape in shapes():
        network = shape.network()
        times = [1.0] if factor == "default" else interleaved(purified(network, images), base, rounds)
        value, low, high = summary(times)
        yield Row(
            factor=factor,
            **asdict(shape),
            arithmetic="float32",
            parameters=sum(one.numel() for one in network.parameters()),
            multiply_adds=shape.multiply_adds(),
            milliseconds=milliseconds * value,
            ratio=value,
            ratio_low=low,
            ratio_high=high,
        )


def shapes(table: Path = ABLATIONS) -> Iterator[tuple[str, Shape]]:
    """Yield the default shape, then each that the ablations vary in one factor."""
    yield "default", Shape()
    levels = pd.read_csv(table, dtype={"level": str})
    for factor in FACTORS:
        own = levels[(levels["factor"] == factor) & ~levels["is_base"]]
        for level in own["level"].unique():
            yield factor, replace(Shape(), **{factor: int(level)})


# -- rates ----------------------------------------------------------------------------------------------------


def with_ablation(row: Row, table: pd.DataFrame) -> Row:
    """Return a row of `costs` with the rates of its level, in the mean over attacks and trackers."""
    factor = "width" if row.factor == "default" else row.factor
    level = str(getattr(row, factor))
    found = table[
        (table["factor"] == factor)
        & (table["level"] == level)
        & (table["attack"] == MEAN)
        & (table["backbone"] == MEAN)
    ]
    return _with_rates(row, found.iloc[0], int(found.iloc[0]["n_identities"]))


def _with_rates(row: Row, measured: pd.Series[Any], identities: int) -> Row:
    names = ("asr", "normal_accuracy")
    rates = {
        f"{name}{end}": float(measured[f"{name}{end}"]) for name in names for end in ("", "_low", "_high")
    }
    return replace(row, identities=identities, **rates)  # type: ignore[arg-type]  # all are floats


def eight_bits(
    run_folder: Path, default: Row, calibration: Tensor, given: Tensor, rounds: int = ROUNDS
) -> Iterator[Row]:
    """Yield rows of the shipped weights in float32 and in 8 bits, for each attack and tracker of a run.

    Args:
        run_folder: of the command above.
        default: row of the default network, for its cost.
        calibration: N×3×H×W photos that ranges are found on; the run's own are found in it.
        given: N×3×H×W other photos, to time and compare the two on.
        rounds: of the timing.
    """
    model = quantised(shipped(), calibration)
    with torch.inference_mode():
        plain, coarse = purify(shipped(), given), run(model, given)
    times = interleaved(lambda: run(model, given), purified(shipped(), given), rounds)
    value, low, high = summary(times)
    exact = replace(default, factor="arithmetic")
    rounded = replace(
        exact,
        arithmetic="int8",
        milliseconds=default.milliseconds * value,
        ratio=value,
        ratio_low=low,
        ratio_high=high,
        psnr=psnr(plain, coarse),
    )
    table = pd.read_csv(run_folder / "leaderboard.csv")
    cloaked = table[table["attack"] != "none"]
    for row, ours in (
        (exact, cloaked["defense"] == "puface"),
        (rounded, cloaked["defense"] == PuFaceInt8.name),
    ):
        for _, measured in cloaked[ours].iterrows():
            named = replace(row, attack=measured["attack"], backbone=measured["backbone"])
            yield _with_rates(named, measured, int(measured["n_identities"]))


def training_photos(count: int) -> Tensor:
    """Return one photo of each of so many training identities of LFW, N×3×112×112 in [0, 1]."""
    from bench.plugins import factory
    from bench.run import calls

    lfw = factory.dataset("lfw")
    chosen = calls.identities(lfw, "training")[:count]
    return calls.crops(lfw, [identity.photos[0] for identity in chosen]).float() / 255


def psnr(one: Tensor, other: Tensor) -> float:
    """Return the mean PSNR of N×3×H×W images in [0, 1], rounded to 8 bits as they are stored, in dB."""
    first, second = ((images * 255).round() for images in (one, other))
    error = (first - second).square().mean((1, 2, 3)).clamp_min(1e-12)
    return float((10 * torch.log10(255**2 / error)).mean())


# -- the figure -----------------------------------------------------------------------------------------------


def drawing(rows: list[Row]) -> Drawing:
    """Return two panels, attack success against cost: of the ablation's networks, and of the shipped one in 8 bits."""
    with style.context():
        figure = style.new_figure(FigureOptions(width="page"), 2.5)
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.6, 1)})
        _shapes_panel(left, [row for row in rows if row.factor != "arithmetic"])
        _arithmetic_panel(right, [row for row in rows if row.factor == "arithmetic"])
    alt = "; ".join(f"{label(row)}: {row.ratio:.2f} ×, {100 * row.asr:.1f} %" for row in rows)
    caption = "Attack success rate against processor time over that of the default network; 95 % intervals."
    return Drawing(figure, "Purifiers: cost against attack success", caption, f"{caption} {alt}.")


def label(row: Row) -> str:
    """Return what a row is called in the figure."""
    if row.factor == "arithmetic":
        return f"{row.arithmetic}, {row.backbone}"
    return "default" if row.factor == "default" else f"{row.factor} {getattr(row, row.factor)}"


def _shapes_panel(axes: Axes, rows: list[Row]) -> None:
    looks = style.looks((*FACTORS, "default"))
    default = next(row for row in rows if row.factor == "default")
    for factor in FACTORS:
        own = sorted([default, *(row for row in rows if row.factor == factor)], key=lambda row: row.ratio)
        axes.plot(
            [r.ratio for r in own], [100 * r.asr for r in own], looks[factor].line, color=looks[factor].colour
        )
    for row in rows:
        _point(axes, row, looks[row.factor])
        if row.factor != "default":
            place = (row.ratio, 100 * row.asr)
            beside = _BESIDE[row.factor]
            side = "left" if beside[0] > 0 else "right"
            axes.annotate(str(getattr(row, row.factor)), place, beside, textcoords="offset points", ha=side)
    names = {factor: f"{factor} (default {getattr(default, factor)})" for factor in FACTORS}
    axes.legend(*style.marks(looks, {**names, "default": "default"}, lines=True), loc="upper right")
    axes.set_xscale("log", base=2)
    _axes(axes, f"short training, {default.identities} identities, mean of two attacks and two trackers")


def _arithmetic_panel(axes: Axes, rows: list[Row]) -> None:
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    looks = style.looks(backbones)
    for row in rows:
        beside = _DODGE * style.dodge(backbones.index(row.backbone), len(backbones))
        _point(
            axes,
            replace(row, ratio=row.ratio + beside, ratio_low=math.nan, ratio_high=math.nan),
            looks[row.backbone],
        )
    axes.legend(*style.marks(looks, {name: name for name in backbones}), loc="upper center")
    _axes(axes, f"shipped weights, {rows[0].identities} identities, {rows[0].attack}")
    ratios = {row.arithmetic: row.ratio for row in rows}
    axes.set_xlim(0.4, 1.15)
    axes.set_xticks(list(ratios.values()), [f"{name}\n{value:.2f}" for name, value in ratios.items()])
    axes.set_ylim(0, 1.6 * axes.get_ylim()[1])


def _point(axes: Axes, row: Row, which: style.Look) -> None:
    ends = ([100 * row.asr_low], [100 * row.asr_high])
    style.with_intervals(axes, [row.ratio], [100 * row.asr], ends, which, label="")
    axes.plot([row.ratio_low, row.ratio_high], [100 * row.asr] * 2, color=which.colour, linewidth=0.9)


def _axes(axes: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_title(title)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("processor time over the default network's")
    axes.set_ylabel("ASR, %")
    axes.set_ylim(0, None)
    axes.grid(axis="y")


# -- command --------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, and write the table and the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.read_csv(ABLATIONS, dtype={"level": str})
    rows = [with_ablation(row, table) for row in costs(given.rounds)]
    photos = training_photos(CALIBRATED_ON + 32)
    rows += eight_bits(given.run, rows[0], photos[:CALIBRATED_ON], photos[CALIBRATED_ON:], given.rounds)
    write(rows, given.csv)
    for row in rows:
        print(
            f"{label(row)}: {row.ratio:.3f} [{row.ratio_low:.3f}, {row.ratio_high:.3f}], ASR {100 * row.asr:.1f} %"
        )
    if given.figure:
        save(drawing(rows), given.figure)


def write(rows: list[Row], path: Path) -> None:
    """Write rows as CSV, floats to four digits after the point."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = asdict(row).items()
            writer.writerow({name: round(v, 4) if isinstance(v, float) else v for name, v in cells})


if __name__ == "__main__":
    main()
