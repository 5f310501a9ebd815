"""`bench list` and `bench show`."""

import json
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import PluginKind, PluginName, json_option
from bench.errors import unknown
from bench.plugins import registry

if TYPE_CHECKING:
    from bench.contracts import Method


@click.command("list", epilog="Example: bench list attacks")
@click.argument("kind", required=False, type=PluginKind())
@json_option
def list_plugins(kind: str | None, as_json: bool) -> None:
    """List the plugins of KIND (attacks, defenses, backbones, datasets, protocols, ...), or of all kinds."""
    kinds = tuple(registry.EVERY) if kind is None else (kind if kind in registry.EVERY else f"{kind}s",)
    if kind is not None and kinds[0] not in registry.EVERY:
        raise unknown("kind of plugin", kind, registry.EVERY)
    found = {name: registry.EVERY[name].entries() for name in kinds}
    if as_json:
        document = {
            name: [{"name": e.name, "from": e.distribution, "what": e.summary()} for e in entries.values()]
            for name, entries in found.items()
        }
        click.echo(json.dumps(document, indent=1))
        return
    for name, entries in found.items():
        if kind is None:
            click.echo(click.style(name, bold=True))
        width = max(map(len, entries), default=0)
        for entry in entries.values():
            origin = "" if entry.distribution == "cloakbench" else f" [{entry.distribution}]"
            click.echo(f"  {entry.name:{width}}  {entry.summary()}{origin}")


@click.command(epilog="Example: bench show fawkes")
@click.argument("name", type=PluginName(*registry.CLASSES))
@click.option(
    "--kind",
    type=click.Choice([one.singular for one in registry.CLASSES.values()]),
    help="Where a name is used by several kinds (none is an attack and a defence).",
)
@json_option
def show(name: str, kind: str | None, as_json: bool) -> None:
    """Show plugin NAME: parameters with types, ranges and defaults; threat model; paper."""
    from bench.plugins import factory  # torch is a second

    kinds = factory.kinds_of_text(name) if kind is None else [f"{kind}s"]
    documents = [describe(one, factory.create(one, name)) for one in kinds]
    if as_json:  # one document: a list where several kinds have the name
        click.echo(json.dumps(documents if documents[1:] else documents[0], indent=1))
        return
    for document in documents:
        _print(document)


def describe(kind: str, method: "Method") -> dict[str, Any]:
    """Return what ``bench show`` prints of a plugin."""
    import inspect

    from bench import contracts
    from bench.plugins import factory as methods

    document: dict[str, Any] = {
        "kind": registry.EVERY[kind].singular,
        "name": method.name,
        "canonical": methods.canonical(method),
        "what": inspect.getdoc(type(method)) or "",
        "paper": method.paper,
        "parameters": [
            {
                "name": key,
                "type": methods.describe_type(info),
                "default": methods.default_text(info),
                "description": info.description or "",
            }
            for key, info in type(method.params).model_fields.items()
        ],
    }
    if parts := method.parts():
        document["made_of"] = [methods.canonical(part) for part in parts]
    if isinstance(method, contracts.Attack):
        document["threat_model"] = method.threat.model_dump()
        document["requires_fit"], document["scope"], document["erasable"] = (
            method.requires_fit,
            method.scope,
            method.erasable,
        )
    if isinstance(method, contracts.Defense):
        document["requires_fit"] = method.requires_fit
        document["deterministic"], document["differentiable"] = method.deterministic, method.differentiable
    if isinstance(method, contracts.Backbone):
        document["card"] = method.card.model_dump(mode="json")
    if isinstance(method, contracts.Dataset):
        document["domain"], document["pool"], document["note"] = (
            method.domain,
            method.default_pool,
            method.note,
        )
    if isinstance(method, contracts.Protocol):
        document["heads"] = list(method.heads)
    return document


def _print(document: dict[str, Any]) -> None:
    click.echo(click.style(f"{document['name']} ({document['kind']})", bold=True))
    click.echo(document["what"])
    if document["paper"]:
        click.echo(f"\nPaper: {document['paper']}")
    if document["parameters"]:
        click.echo("\nParameters")
        for item in document["parameters"]:
            click.echo(
                f"  {item['name']} ({item['type']}; default {item['default']})\n      {item['description']}"
            )
    skipped = {"kind", "name", "canonical", "what", "paper", "parameters"}
    for key, value in document.items():
        if key not in skipped:
            _print_field(key.replace("_", " "), value)


def _print_field(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        click.echo(f"\n{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
        return
    click.echo(f"\n{name.capitalize()}")
    for key, item in value.items():
        if item not in ("", None, [], ()):
            click.echo(f"  {key}: {item}")
