"""`bench models`: list, convert, verify and calibrate backbones."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import PluginName, device_option, json_option, threads_option
from bench.cli.output import counting, print_json

if TYPE_CHECKING:
    from bench.contracts import Backbone

TOLERANCE = 0.003
"""A backbone's LFW accuracy may differ this much from its card."""

_EXAMPLES = """\b
Examples:
  bench models list
  bench models verify mobilefacenet-relu6 --dataset lfw
"""


@click.group(epilog=_EXAMPLES)
def models() -> None:
    """List, convert, verify and calibrate backbones; `bench fetch NAME` gets their weights."""


@models.command("list", epilog="Example: bench models list")
@json_option
def list_models(as_json: bool) -> None:
    """List backbones with dimension, training data, licence and whether their weights are here."""
    from bench.plugins import factory, registry

    known = registry.BACKBONES
    rows = [_describe(factory.backbone(name)) for name in known.entries() if not known.load(name).required]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        accuracy = "" if row["lfw_accuracy"] is None else f", LFW {100 * row['lfw_accuracy']:.2f} % (stated)"
        click.echo(f"{row['name']}: {row['weights']}; D = {row['embedding_dim']}{accuracy}")
        click.echo(f"    trained on {row['training_data']}; licence: {row['licence']}")
        for line in filter(None, (row["note"], row["fix"])):
            click.echo(f"    {line}")


def _describe(backbone: "Backbone") -> dict[str, Any]:
    from bench.contracts import Binding
    from bench.errors import BenchError

    card = backbone.card
    try:
        backbone.files(Binding("", card.domain, (), card.name))
        weights, fix = "weights here", ""
    except BenchError as error:
        weights, fix = "absent", str(error)
    keys = {"name", "embedding_dim", "licence", "training_data", "domain", "family", "lfw_accuracy", "note"}
    return {**card.model_dump(include=keys), "weights": weights, "fix": fix}


@models.command(
    epilog="Example: bench models convert adaface_ir50_ms1mv2.ckpt adaface_ir50_ms1mv2.safetensors"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def convert(file: Path, out: Path) -> None:
    """Keep the tensors of the PyTorch checkpoint FILE as OUT (.safetensors); nothing that FILE holds is run."""
    from bench.data import checkpoints

    left_out = checkpoints.convert(file, out)
    click.echo(str(out))
    if left_out:
        click.echo(f"Left out: {', '.join(left_out)}.", err=True)


@models.command(epilog="Example: bench models verify mobilefacenet-relu6 --dataset lfw")
@click.argument("name", type=PluginName("backbones"))
@click.option("--dataset", default="lfw", show_default=True, help="LFW, with its landmarks.")
@click.option(
    "--pairs", type=click.Path(path_type=Path), help="LFW's pairs.txt. [default: in the data folder]"
)
@click.option("--flip", is_flag=True, help="Add the embedding of the mirrored photo to each photo's.")
@device_option
@threads_option
@json_option
def verify(name: str, dataset: str, pairs: Path | None, flip: bool, as_json: bool, **machine: Any) -> None:
    """Measure the LFW 10-fold accuracy of backbone NAME and compare it with what its card states.

    Exit code 1 if it differs by more than 0.3 points from an accuracy that was measured alike.
    """
    from bench.data.files import locate
    from bench.plugins import factory
    from bench.protocols import lfw_pairs

    backbone, device = _loaded(name, machine)
    path = pairs or locate("lfw/pairs.txt", fix="`bench fetch lfw` gets it; or give --pairs FILE.")
    with counting("photos embedded", None) as advance:
        result = lfw_pairs.verify_backbone(
            backbone, factory.dataset(dataset), path, device, advance, flip=flip
        )
    difference = result.difference
    if as_json:
        print_json({**vars(result), "difference": difference})
    else:
        click.echo(
            f"{result.backbone}: {100 * result.accuracy:.2f} % ± {100 * result.std:.2f} on {result.pairs} pairs, "
            f"mean threshold {result.threshold:.4f}"
        )
    if difference is None:
        click.echo("Its card states no accuracy to compare with.", err=True)
    elif result.unlike:
        stated = f"Its card states {100 * (result.expected or 0):.2f} % ({100 * difference:+.2f} points)"
        click.echo(f"{stated}, which is not measured alike: {result.unlike}.", err=True)
    elif abs(difference) > TOLERANCE:
        click.echo(f"Error: {100 * difference:+.2f} points from the card; more than 0.3.", err=True)
        raise SystemExit(1)
    elif not as_json:
        click.echo(f"Card: {100 * (result.expected or 0):.2f} % ({100 * difference:+.2f} points).")


@models.command(epilog="Example: bench models calibrate mobileface-v2 --dataset lfw")
@click.argument("name", type=PluginName("backbones"))
@click.option(
    "--dataset", default="lfw", show_default=True, help="Its training identities give the impostor pairs."
)
@device_option
@threads_option
@json_option
def calibrate(name: str, dataset: str, as_json: bool, **machine: Any) -> None:
    """Calibrate backbone NAME's thresholds for FAR 10 %, 1 % and 0.1 % on identities that are not evaluated."""
    from bench.plugins import factory
    from bench.protocols import lfw_pairs

    backbone, device = _loaded(name, machine)
    with counting("photos embedded", None) as advance:
        found = lfw_pairs.calibrate_thresholds(
            backbone,
            factory.dataset(dataset),
            source=f"bench models calibrate {name} --dataset {dataset}",
            device=device,
            advance=advance,
        )
    if as_json:
        print_json([{**item.threshold.model_dump(), "low": item.low, "high": item.high} for item in found])
        return
    for item in found:
        click.echo(
            f"FAR {100 * item.threshold.far:g} % "
            f"[{100 * (item.threshold.far_low or 0):.4f}, {100 * (item.threshold.far_high or 0):.4f}]: "
            f"cosine {item.threshold.cosine:.4f} [{item.low:.4f}, {item.high:.4f}] "
            f"on {item.threshold.pairs} impostor pairs"
        )


def _loaded(name: str, machine: dict[str, Any]) -> "tuple[Backbone, Any]":
    from bench.plugins import factory
    from bench.run.device import use_device

    backbone = factory.backbone(name)
    device, _ = use_device(machine["device"], machine["threads"])
    backbone.load(device)
    return backbone, device
