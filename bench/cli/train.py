"""`bench train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import device_option, json_option, threads_option
from bench.cli.output import print_json, reporting

if TYPE_CHECKING:
    from bench.contracts import TrainRequest


@click.command(
    epilog="""\b
Examples:
  bench train puface --dataset lfw --attack pgd:eps=15 --attack fawkes \\
      --backbone mobileface-v2 --backbone mobileface-v3 --out puface.safetensors
  bench train backbone:arch=iresnet18,steps=2000 --dataset synthetic --out mine.safetensors
"""
)
@click.argument("trainer", metavar="TRAINER")
@click.option(
    "--dataset",
    default="synthetic",
    show_default=True,
    help="Its training identities are learnt from, but for those of the development split.",
)
@click.option("--attack", "attacks", multiple=True, metavar="METHOD", help="Attack to train against.")
@click.option(
    "--backbone", "backbones", multiple=True, metavar="METHOD", help="Surrogate and feature extractor."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .safetensors file to write.")
@click.option(
    "--cloaks",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep training cloaks here, for other trainings to share. [default: with the checkpoint]",
)
@click.option(
    "--with-development",
    is_flag=True,
    help="Learn from the development split's identities too. Choices made there with these weights are then made on "
    "identities they were trained on.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seeds everything.")
@device_option
@threads_option
@json_option
def train(trainer: str, out: Path, as_json: bool, **values: Any) -> None:
    """Train weights with TRAINER, one of `bench list trainers`, e.g. puface:steps=900.

    A training that was killed goes on from its checkpoint when the same command is given again. The card
    (data, command, seed, measured quality) is written beside the weights.
    """
    from bench.plugins import factory

    if out.suffix != ".safetensors":
        raise click.BadParameter(f"'{out}' does not end in .safetensors", param_hint="--out")
    chosen = factory.trainer(trainer)
    for needed, option in ((chosen.needs_attacks, "attack"), (chosen.needs_backbones, "backbone")):
        if needed and not values[f"{option}s"]:
            raise click.UsageError(f"{trainer} needs at least one --{option}.")
    with reporting() as report:
        card = chosen.train(_request(out, report, values))
    if as_json:
        print_json({"weights": str(out), "card": dict(card)})
        return
    click.echo(f"{out} written; card beside it.")
    for key, value in card.items():
        click.echo(f"  {key}: {value}")


def _request(out: Path, report: Any, values: dict[str, Any]) -> "TrainRequest":
    from bench.contracts import TrainRequest
    from bench.plugins import factory
    from bench.run.device import use_device
    from bench.run.roles import for_training

    device, _ = use_device(values["device"], values["threads"])
    backbones = tuple(factory.backbone(text) for text in values["backbones"])
    for backbone in backbones:
        backbone.load(device)
    dataset = factory.dataset(values["dataset"])
    return TrainRequest(
        dataset=dataset,
        out=out,
        attacks=tuple(factory.attack(text) for text in values["attacks"]),
        backbones=backbones,
        seed=values["seed"],
        device=device,
        report=report,
        cloaks=values["cloaks"],
        learnt_from=for_training(
            dataset, factory.canonical(dataset), with_development=values["with_development"]
        ),
    )
