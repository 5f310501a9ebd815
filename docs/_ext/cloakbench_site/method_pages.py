"""One page a plugin, made from its class: parameters, threat model, paper, weights, licences.

The words come from the code; the page written by hand, where there is one, tells how the method was built and where it
departs from its paper, and is linked.
"""

import importlib.util
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import contracts
from bench.errors import UsageError
from bench.plugins import factory, registry
from bench.plugins import factory as methods
from cloakbench_site.markdown import code, fenced, prose, table

SECTIONS: Mapping[str, tuple[str, str]] = {
    "attacks": (
        "Attacks",
        "What identities do to their photos before they post them. For anyone who chooses a cloak to run.",
    ),
    "defenses": (
        "Defences",
        "What a tracker does to get the faces back. For anyone who chooses a defence to run.",
    ),
    "backbones": (
        "Backbones",
        "Face-recognition networks: trackers, surrogates and extractors. For anyone who chooses one, with its licence.",
    ),
    "datasets": (
        "Datasets",
        "Faces of identities, or drawn ones. For anyone who chooses whom a run is about.",
    ),
    "protocols": ("Protocols", "Which question a run asks. For anyone who chooses what to measure."),
    "trainers": ("Trainers", "What makes weights. For anyone who trains their own."),
}
"""Kind → the heading of its pages and a line about them."""

_WRITTEN: Mapping[tuple[str, str], str] = {
    ("defenses", "keyless-restorer"): "methods/erasablemask.md",
    ("backbones", "onnx"): "howto/own-model.md",
    ("protocols", "tracker"): "protocol.md",
}
"""Plugins whose written page has not their name, besides the plain defences."""

_OPTIONS = {
    "attacks": "--attack",
    "defenses": "--defense",
    "backbones": "--backbone",
    "datasets": "--dataset",
}
_LEFT_OUT = {"file", "sha256", "command"}


def page_name(kind: str, name: str) -> str:
    """Return the staged name of a plugin's page."""
    return f"reference/{kind}/{name}.md"


def pages(root: Path) -> dict[str, str]:
    """Return staged name → Markdown of every registered plugin's page and of each kind's list."""
    made: dict[str, str] = {}
    for kind in SECTIONS:
        names = list(registry.EVERY[kind].entries())
        for name in names:
            made[page_name(kind, name)] = method_page(kind, name, root)
        made[page_name(kind, "index")] = _list_page(kind, names)
    return made


def _list_page(kind: str, names: list[str]) -> str:
    title, line = SECTIONS[kind]
    rows = [(f"[{name}]({name}.md)", prose(registry.EVERY[kind].entries()[name].summary())) for name in names]
    toctree = "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
    return f"# {title}\n\n{line}\n\n" + table(("name", "what it is"), rows) + "\n" + toctree


def method_page(kind: str, name: str, root: Path) -> str:
    """Return the page of one registered plugin.

    Args:
        kind: one of `registry.CLASSES`.
        name: its registered name.
        root: the repository, to find the page written by hand.
    """
    cls = registry.of(kind).load(name)
    try:
        method = factory.create(kind, name)
    except UsageError:
        method = None  # it has a parameter without default; what depends on parameters is left out
    return "\n".join(part for part in _parts(kind, name, cls, method, root) if part)


def _parts(
    kind: str, name: str, cls: type[contracts.Method], method: contracts.Method | None, root: Path
) -> Iterator[str]:
    singular = {"defenses": "defence"}.get(kind, registry.EVERY[kind].singular)
    yield f"# {name}\n"
    yield f"*{singular.capitalize()}. Made from the code of this version, as `bench list {name}` is.*\n"
    yield prose(inspect.getdoc(cls) or "") + "\n"
    yield from _more(kind, name, root)
    yield "## Facts\n"
    yield table(("fact", "value"), [(key, value) for key, value in _facts(cls, method) if value])
    yield "## Parameters\n"
    yield _parameters(cls) or "None.\n"
    if option := _OPTIONS.get(kind):
        yield _written_example(option, name, cls)
    if isinstance(method, contracts.Attack):
        yield "## Threat model\n\nUnder the default parameters.\n"
        yield _model_table(method.threat)
    card = getattr(method, "card", None) if isinstance(method, contracts.Backbone) else None
    if card is not None:
        yield "## Card of the weights\n"
        yield _model_table(card)
    yield from _weights(cls, name)


def _more(kind: str, name: str, root: Path) -> Iterator[str]:
    """Yield the link to the page written by hand."""
    folder = "protocols" if kind == "protocols" else "methods"
    known = _WRITTEN.get((kind, name))
    candidates = [known] if known else [f"{folder}/{name}.md"]
    if kind == "datasets":
        candidates.append("datasets.md")
    if kind in ("attacks", "defenses"):
        candidates.append("methods/baselines.md" if kind == "defenses" else "protocol.md")
    if kind == "backbones":
        candidates += ["models.md", "datasets.md"]
    for candidate in candidates:
        if (root / "docs" / candidate).is_file():
            what = (
                "How it works, what is known, and where it departs from its paper"
                if "methods/" in candidate
                else "More"
            )
            yield f"{what}: [{candidate.removesuffix('.md')}](../../{candidate}).\n"
            return


def _facts(cls: type[contracts.Method], method: contracts.Method | None) -> Iterator[tuple[str, str]]:
    yield "paper", prose(cls.paper) or "none: a plain baseline or a part of the harness"
    yield "in the code", code(f"{cls.__module__}.{cls.__qualname__}")
    yield "shorthand", code(f"{cls.name}:{cls.shorthand.upper()}") if cls.shorthand else ""
    if issubclass(cls, contracts.Attack):
        yield "is fitted in each run", _yes(cls.requires_fit)
        yield "can be taken off with a key", _yes(cls.erasable)
    if isinstance(method, contracts.Attack):
        yield (
            "one cloak depends on",
            {"image": "its own photo", "identity": "all gallery photos of the identity"}[method.scope],
        )
    if issubclass(cls, contracts.Defense):
        yield "changes", "the tracker itself" if issubclass(cls, contracts.Hardening) else "the photos"
        yield "is fitted in each run", _yes(cls.requires_fit)
        yield "deterministic", _yes(cls.deterministic)
        yield "gradients pass through it", _yes(cls.differentiable)
    if issubclass(cls, contracts.Backbone):
        yield "gradients pass through it", _yes(cls.differentiable)
    if issubclass(cls, contracts.Dataset):
        yield "kind of faces", cls.domain
        yield "pool of helper backbones", code(cls.default_pool)
        yield "caution", prose(cls.note)
    if issubclass(cls, contracts.Protocol):
        yield "heads", ", ".join(code(head) for head in cls.heads)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def parameters(cls: type[contracts.Method]) -> list[tuple[str, str, str, str, str]]:
    """Return name, type and range, default, unit and description of every parameter."""
    rows = []
    for name, info in cls.Params.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        unit = str(extra.get("unit") or "")
        kind = methods.describe_type(info).removesuffix(f", {unit}" if unit else "")
        default = "required" if info.is_required() else code(methods.default_text(info))
        rows.append((code(name), code(kind), default, unit, prose(info.description or "")))
    return rows


def _parameters(cls: type[contracts.Method]) -> str:
    return table(("parameter", "type and range", "default", "unit", "meaning"), parameters(cls))


def _written_example(option: str, name: str, cls: type[contracts.Method]) -> str:
    settable = [
        (key, info)
        for key, info in cls.Params.model_fields.items()
        if not info.is_required() and methods.default_text(info) not in ("", "none")
    ]
    shown = [
        f"{key}={value}"
        for key, info in settable[:2]
        if not set(value := methods.default_text(info)) & set(" ,[]|:")
    ]
    if not shown:
        return ""
    return "Written on the command line, with the default values written out:\n\n" + fenced(
        f"bench run {option} {name}:{','.join(shown)}", "bash"
    )


def _model_table(model: contracts.Frozen) -> str:
    fields = type(model).model_fields
    rows = []
    for key, value in model.model_dump(mode="json").items():
        if value in ("", None, [], ()):
            continue
        rows.append((key.replace("_", " "), _shown(value), prose(fields[key].description or "")))
    return table(("field", "value", "meaning"), rows)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return _yes(value)
    if isinstance(value, list):
        return "<br>".join(_shown(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(
            f"{key.replace('_', ' ')} {_shown(item)}" for key, item in value.items() if item is not None
        )
    return code(value) if isinstance(value, str) and _is_name(value) else prose(str(value))


def _inline(value: Any) -> str:
    """Return what stands inside another value, on one line."""
    if isinstance(value, list):
        return ", ".join(_inline(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{_shown(key)} {_inline(item)}" for key, item in value.items() if item is not None)
    return _shown(value)


def _is_name(value: str) -> bool:
    return " " not in value and len(value) > 0


def cards(cls: type[contracts.Method], name: str) -> dict[str, dict[str, Any]]:
    """Return the cards of the weights that are shipped for a method, by the file's stem."""
    spec = importlib.util.find_spec(cls.__module__.partition(".")[0])
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0]) / "weights"
    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem == name or path.stem.startswith(f"{name}-"):
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    longer = [
        other
        for kind in registry.CLASSES
        for other in registry.EVERY[kind].entries()
        if other.startswith(f"{name}-")
    ]
    return {stem: card for stem, card in found.items() if not any(stem.startswith(other) for other in longer)}


def _weights(cls: type[contracts.Method], name: str) -> Iterator[str]:
    found = cards(cls, name)
    if not found:
        return
    yield "## Weights that are shipped\n"
    yield (
        "The card beside each file, as its training wrote it. The files are the project's own, under its licence "
        "(Apache-2.0); what they were trained on keeps the terms of its owners "
        "([responsible use](../../responsible-use.md)).\n"
    )
    for stem, card in found.items():
        rows = [(key.replace("_", " "), _shown(value)) for key, value in card.items() if key not in _LEFT_OUT]
        yield f"### {stem}\n"
        yield table(("field", "value"), [("SHA-256", code(card.get("sha256", ""))), *rows])
        if command := card.get("command"):
            yield "The command that made it:\n\n" + fenced(str(command), "bash")
