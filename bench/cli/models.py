"""`bench models`: list, convert, verify and calibrate backbones."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import PluginName, device_option, json_option, threads_option
from bench.cli.output import counting, print_json

if TYPE_CHECKING:
    from bench.assets.backbones import BackboneState
    from bench.contracts import Backbone, Dataset

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
    """List backbones: those whose weights are here, those that `bench fetch` gets, those to be brought by hand.

    Of each its dimension, family, year of release, training data and licence.
    """
    from bench.assets import backbones

    found = backbones.states()
    if as_json:
        print_json([_as_document(one) for one in found])
        return
    for state, heading in _HEADINGS.items():
        group = [one for one in found if one.state == state]
        if group:
            click.echo(click.style(heading, bold=True))
        for one in group:
            for line in _lines(one):
                click.echo(line)


_HEADINGS = {
    "here": "Here",
    "broken": "Broken: a file is there that is not the card's",
    "absent": "Absent: `bench fetch NAME` gets the weights, and asks where a publisher has terms",
    "by hand": "By hand: the publisher hands out the weights in a way that only a person can follow",
}
"""State of `bench.assets.backbones` → what stands above the backbones in it."""

_WORTH_LISTING = {
    *("name", "embedding_dim", "family", "released", "licence", "training_data", "domain"),
    *("lfw_accuracy", "note"),
}


def _as_document(one: "BackboneState") -> dict[str, Any]:
    return {
        **one.card.model_dump(mode="json", include=_WORTH_LISTING),
        "weights": one.state,
        "fix": one.fix,
        "terms": one.terms,
    }


def _lines(one: "BackboneState") -> Iterator[str]:
    card = one.card
    facts = [f"{card.embedding_dim}-D", f"family {card.family}" if card.family else ""]
    facts += [
        f"released {card.released}" if card.released else "",
        "" if card.domain == "real" else card.domain,
    ]
    facts += ["" if card.lfw_accuracy is None else f"LFW {100 * card.lfw_accuracy:.2f} % (stated)"]
    facts += ["asks you to agree to its terms" if one.terms else ""]
    yield f"  {one.name}: {', '.join(filter(None, facts))}"
    yield f"      trained on {card.training_data}; licence: {card.licence}"
    # What is absent is got in one way, which the heading says.
    more = (card.note, "" if one.state == "absent" else one.fix)
    yield from (f"      {line}" for line in more if line)


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


@models.command(
    epilog="""\b
Examples:
  bench models calibrate mobileface-v2 --dataset lfw
  bench models calibrate model.onnx --dataset folder:PHOTOS
"""
)
@click.argument("name", type=PluginName("backbones"))
@click.option(
    "--dataset",
    default="lfw",
    show_default=True,
    help="Its training identities give the impostor pairs; everybody where it has none, as folder:PHOTOS.",
)
@device_option
@threads_option
@json_option
def calibrate(name: str, dataset: str, as_json: bool, **machine: Any) -> None:
    """Calibrate backbone NAME's thresholds for FAR 10 %, 1 % and 0.1 % on identities that are not evaluated.

    A rate that the identities are too few for is left out, and said.
    """
    from bench.plugins import factory
    from bench.protocols import lfw_pairs

    faces = factory.dataset(dataset)
    rates = _rates_for(faces)
    backbone, device = _loaded(name, machine)
    with counting("photos embedded", None) as advance:
        found = lfw_pairs.calibrate_thresholds(
            backbone,
            faces,
            rates=rates,
            source=f"bench models calibrate {factory.canonical(backbone)} --dataset {factory.canonical(faces)}",
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


def _rates_for(faces: "Dataset") -> tuple[float, ...]:
    """Return the false-accept rates that a dataset has enough identities for; says which are left out, and why.

    All where it has enough for none, so that the refusal names what is lacking.
    """
    from bench.protocols.lfw_pairs import CALIBRATED_ON, calibration_identities
    from bench.protocols.thresholds import FAR_LEVELS, shortage

    identities = calibration_identities(faces)
    if all(identity.role == "evaluation" for identity in identities):
        click.echo(
            f"'{faces.name}' keeps nobody apart for calibration, so all {len(identities)} identities are used: these "
            "thresholds are for other photos than these.",
            err=True,
        )
    lacking = {rate: shortage(rate, min(len(identities), CALIBRATED_ON)) for rate in FAR_LEVELS}
    if all(lacking.values()):
        return FAR_LEVELS
    for rate, lack in lacking.items():
        if lack:
            click.echo(f"FAR {100 * rate:g} % is left out: {lack}.", err=True)
    return tuple(rate for rate, lack in lacking.items() if not lack)


def _loaded(name: str, machine: dict[str, Any]) -> "tuple[Backbone, Any]":
    from bench.plugins import factory
    from bench.run.device import use_device

    backbone = factory.backbone(name)
    device, _ = use_device(machine["device"], machine["threads"])
    backbone.load(device)
    return backbone, device
