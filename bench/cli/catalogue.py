"""`bench list`."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import PluginName, json_option
from bench.cli.output import print_json
from bench.errors import unknown
from bench.plugins import registry, without_torch
from bench.printable import printable_lines

if TYPE_CHECKING:
    from bench.contracts import Method


kind_option = click.option(
    "--kind",
    type=click.Choice([one.singular for one in registry.CLASSES.values()]),
    help="Where a name is used by several kinds (none is an attack and a defence).",
)


@click.command(
    "list",
    epilog="\b\nExamples:\n  bench list attacks\n  bench list fawkes\n  bench list none --kind defense",
)
@click.argument(
    "what", metavar="[KIND | PLUGIN]", required=False, type=PluginName(*registry.CLASSES, or_kind=True)
)
@kind_option
@json_option
def list_plugins(what: str | None, kind: str | None, as_json: bool) -> None:
    """List the plugins of KIND (attacks, defenses, backbones, datasets, protocols, ...), or of all kinds.

    Of backbones alone it says whether their weights are here (`bench models list`: how to get them), of pools alone who
    is in them.

    With PLUGIN, a name or ./file.py:Class, describe that one: parameters with types, ranges and defaults; threat
    model; paper.
    """
    if what is not None and kind is None and _as_kind(what) is None:
        _refuse_kind_misspelt(what)
    if what is None or (kind is None and _as_kind(what)):
        wanted = what or kind
        _list(tuple(registry.EVERY) if wanted is None else (str(_as_kind(wanted)),), as_json=as_json)
    else:
        _describe_all(what, kind, as_json=as_json)


def _as_kind(text: str) -> str | None:
    """Return the kind of plugin that a word names, in the singular or plural; None where it names none."""
    return next((kind for kind in registry.EVERY if text in (kind, registry.EVERY[kind].singular)), None)


def _refuse_kind_misspelt(text: str) -> None:
    """Refuse a word that is nearer to a kind than to the name of a plugin.

    Raises:
        UsageError: it is.
    """
    names = [name for kind in registry.EVERY for name in registry.EVERY[kind].entries()]
    near = difflib.get_close_matches(text, [*registry.EVERY, *names], n=1)
    if near and near[0] in registry.EVERY and text not in names:
        raise unknown("kind of plugin", text, registry.EVERY)


def _list(kinds: Sequence[str], *, as_json: bool) -> None:
    found = {name: registry.EVERY[name].entries() for name in kinds}
    more = _MORE.get(kinds[0], _nothing) if len(kinds) == 1 else _nothing
    if as_json:
        document = {
            name: [
                {"name": e.name, "from": e.distribution, "what": e.summary(), **more(e.name)}
                for e in entries.values()
            ]
            for name, entries in found.items()
        }
        print_json(document)
        return
    for name, entries in found.items():
        if len(found) > 1:
            click.echo(click.style(name, bold=True))
        width = max(map(len, entries), default=0)
        for entry in entries.values():
            origin = "" if entry.distribution == "cloakbench" else f" [{entry.distribution}]"
            said = more(entry.name)
            state = f"{said.get('weights', ''):8} " if name == "backbones" and len(found) == 1 else ""
            click.echo(f"  {entry.name:{width}}  {state}{entry.summary()}{origin}")
            for line in _below(said):
                click.echo(f"  {'':{width}}  {line}")


def _nothing(_name: str) -> dict[str, Any]:
    return {}


def _weights_of(name: str) -> dict[str, Any]:
    """Return whether a backbone's weights are here; nothing where a file of the user's has to be given."""
    from bench.assets import backbones

    found = backbones.state_of(name)
    return {} if found is None else {"weights": found.state}


def _members_of(name: str) -> dict[str, Any]:
    """Return who is in a pool."""
    pool = registry.POOLS.load(name)
    return pool.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)


_MORE: Mapping[str, Callable[[str], dict[str, Any]]] = {"backbones": _weights_of, "pools": _members_of}
"""Kind → what is said of each of its plugins beside its summary, where that kind alone is asked for."""


def _below(more: dict[str, Any]) -> Iterator[str]:
    """Yield the lines below a plugin's summary."""
    for key, value in more.items():
        if isinstance(value, list):
            groups = [", ".join(one) if isinstance(one, list) else str(one) for one in value]
            yield f"{key}: {(' | ' if any(isinstance(one, list) for one in value) else ', ').join(groups)}"


def _describe_all(name: str, kind: str | None, *, as_json: bool) -> None:
    documents = without_torch.look(lambda: _documents(name, kind))
    if as_json:  # one document: a list where several kinds have the name
        print_json(documents if documents[1:] else documents[0])
        return
    for document in documents:
        _print(document)


def _documents(name: str, kind: str | None) -> list[dict[str, Any]]:
    """Return what is printed of the plugins of a name, of one kind where it is given."""
    from bench.plugins import factory

    kinds = factory.kinds_of_text(name) if kind is None else [f"{kind}s"]
    return [describe(one, factory.create(one, name)) for one in kinds]


def describe(kind: str, method: "Method") -> dict[str, Any]:
    """Return what ``bench list NAME`` prints of a plugin."""
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
        document |= {"requires_fit": method.requires_fit, "scope": method.scope, "erasable": method.erasable}
    if isinstance(method, contracts.Defense):
        document["requires_fit"] = method.requires_fit
        document["deterministic"], document["differentiable"] = method.deterministic, method.differentiable
    if isinstance(method, contracts.Backbone):
        document["card"] = method.card.model_dump(mode="json")
    if isinstance(method, contracts.Dataset):
        document |= {"domain": method.domain, "pool": method.default_pool, "note": method.note}
    if isinstance(method, contracts.Protocol):
        document["heads"] = list(method.heads)
    return document


def _print(document: dict[str, Any]) -> None:
    document = _without_controls(document)
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


def _without_controls(value: Any) -> Any:
    """Return a document whose texts, which a plugin wrote, cannot control the terminal."""
    if isinstance(value, dict):
        return {key: _without_controls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_controls(item) for item in value]
    return printable_lines(value) if isinstance(value, str) else value


def _print_field(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        click.echo(f"\n{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
        return
    click.echo(f"\n{name.capitalize()}")
    for key, item in value.items():
        if item not in ("", None, [], ()):
            click.echo(f"  {key}: {item}")
