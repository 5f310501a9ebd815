"""What a run was made with: each method's code and files by digest, and how that compares with what is here now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.contracts import Binding, Frozen, Method, with_parts
from bench.data.files import sha256_of
from bench.errors import DataError
from bench.plugins import factory, syntax
from bench.run.code_hashes import code_digest
from bench.run.digest import digest

if TYPE_CHECKING:
    from bench.run.resolve import Resolved


class MethodFacts(Frozen):
    """One method of a run, as it was when the run was made."""

    kind: str = Field(description="attacks, defenses, backbones, datasets or protocols")
    text: str = Field(description="as it was requested")
    name: str = Field(description="canonical")
    source: str = Field(description="digest of its code and of the project code it imports")
    files: tuple[tuple[str, str], ...] = Field(
        (), description="(file, SHA-256): its own file where it is one, parameters that are files, weights"
    )


class MadeWith(Frozen):
    """What decides a run's artefacts besides what is requested, so that two machines can say in what they differ."""

    environment: Mapping[str, Any] = Field(description="see `bench.run.digest.environment`")
    stages: Mapping[str, str] = Field(description="stage → digest of the harness's own code for it")
    methods: tuple[MethodFacts, ...] = Field(description="code and files of every method")
    photos: str = Field(description="digest of the photos and all that decides their crops")

    def differences(self, now: MadeWith) -> list[str]:
        """Return, one sentence each, in what another machine differs."""
        stages = [stage for stage, code in self.stages.items() if now.stages.get(stage) != code]
        return [
            *environment_differences({"environment": self.environment}, {"environment": now.environment}),
            *(f"the code of stage '{stage}' is another" for stage in stages),
            *(f"the code of '{name}' is another" for name in changed_code(self.methods, now.methods)),
            *changed_files(self.methods, now.methods).values(),
            *(["the photos are others"] if self.photos != now.photos else []),
        ]


def describe_methods(run: Resolved) -> tuple[MethodFacts, ...]:
    """Return every method of a run with the digests of its code and files, helpers included.

    Raises:
        UsageError: a method has no fitting weights.
        DataError: weights are missing or corrupt.
    """
    requested = run.requested
    helpers = {
        name
        for method in (*run.attacks.values(), *run.defenses.values())
        for tracker in run.backbones
        for name in run.helpers(method, tracker)
    }
    texts = {
        "attacks": requested.attacks,
        "defenses": requested.defenses,
        "backbones": (*(requested.backbones or run.backbones), *sorted(helpers), *_substitutes(run)),
        "datasets": (requested.dataset,),
        "protocols": (requested.protocol,),
    }
    return tuple(_facts(run, kind, text) for kind, named in texts.items() for text in dict.fromkeys(named))


def _substitutes(run: Resolved) -> Iterator[str]:
    """Yield the texts of the backbones that defences put in the place of a tracker's."""
    yield from (run.texts.get(("backbones", name), name) for name in sorted(run.substitutes))


def _facts(run: Resolved, kind: str, text: str) -> MethodFacts:
    method = factory.create(kind, text)
    files = tuple(sorted({*_named_files(method, text), *_weights(run, kind, method)}))
    name, source = factory.canonical(method), _source(method)
    return MethodFacts(kind=kind, text=text, name=name, source=source, files=files)


def _source(method: Method) -> str:
    own, parts = code_digest(type(method)), [_source(part) for part in method.parts()]
    return digest([own, *parts]) if parts else own


def _named_files(method: Method, text: str) -> Iterator[tuple[str, str]]:
    """Yield the files a method's text names: the plugin itself, parameters marked as paths, those of its parts."""
    for kind, inner in factory.nested(method):
        yield from _named_files(factory.create(kind, inner), inner)
    name = "" if method.joins else syntax.parse(text).name
    if ".py:" in name:
        path = name.rpartition(":")[0]
        yield path, sha256_of(Path(path))
    for key, info in type(method.params).model_fields.items():
        extra, value = info.json_schema_extra, str(getattr(method.params, key) or "")
        if isinstance(extra, dict) and extra.get("path") and value and Path(value).expanduser().is_file():
            yield value, sha256_of(Path(value).expanduser())


def _weights(run: Resolved, kind: str, method: Method) -> Iterator[tuple[str, str]]:
    if kind == "backbones":
        name = factory.canonical(method)
        for path in method.files(Binding(run.spec.dataset, run.dataset.domain, (), name)):
            yield path.name, sha256_of(path)
    elif kind in ("attacks", "defenses"):
        for tracker in run.backbones:
            for part, binding in with_parts(method, run.binding(method, tracker)):
                for path in part.files(binding):
                    yield path.name, sha256_of(path)


def check_files_are_there(recorded: tuple[MethodFacts, ...], *, unchanged: bool = True) -> None:
    """Check the files that methods were named by, before anything is loaded.

    Args:
        recorded: the methods of a run.
        unchanged: whether the files must be as they were, too.

    Raises:
        DataError: a plugin's file or a file among its parameters is missing or has changed.
    """
    for method in recorded:
        texts = syntax.words(method.text)
        for file, sha256 in method.files:
            if file not in texts:
                continue  # weights are found by the method itself
            path = Path(file).expanduser()
            if not path.is_file():
                raise DataError(
                    f"'{method.text}' of the run needs the file '{file}', which is not here. Give the command in the "
                    "folder the run was started in, or put the file back."
                )
            if unchanged and (found := sha256_of(path)) != sha256:
                raise DataError(
                    f"'{file}' of '{method.text}' has changed since the run: SHA-256 {found}, then {sha256}. Put the "
                    "file back as it was."
                )


def check_weights_are_the_same(recorded: tuple[MethodFacts, ...], now: tuple[MethodFacts, ...]) -> None:
    """Check that methods find the weights they found when the run was made.

    Raises:
        DataError: weights are others now.
    """
    for sentence in changed_files(recorded, now).values():
        raise DataError(f"{sentence}. Put the same weights back.")


def changed_files(recorded: tuple[MethodFacts, ...], now: tuple[MethodFacts, ...]) -> dict[str, str]:
    """Return method → in which file it differs from the run's, for methods whose files are others now.

    Files are compared as sets of (name, SHA-256): weights of two trackers may share a name.
    """
    here = {(method.kind, method.text): set(method.files) for method in now}
    found: dict[str, str] = {}
    for method in recorded:
        then, today = set(method.files), here.get((method.kind, method.text), set())
        for file, sha256 in sorted(then - today):
            others = sorted(other for name, other in today - then if name == file)
            found.setdefault(
                method.name,
                f"'{method.text}' of the run had the file '{file}' with SHA-256 {sha256}; now it is "
                f"{' and '.join(others) or 'absent'}",
            )
        for file, sha256 in sorted(today - then):
            found.setdefault(
                method.name,
                f"'{method.text}' has the file '{file}' with SHA-256 {sha256} now, which it had not in the run",
            )
    return found


def changed_code(recorded: tuple[MethodFacts, ...], now: tuple[MethodFacts, ...]) -> list[str]:
    """Return the names of methods whose code is another than when the run was made."""
    here = {(method.kind, method.text): method.source for method in now}
    return [method.name for method in recorded if here.get((method.kind, method.text), "") != method.source]


def environment_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return, one sentence each, in what two machines (``environment.json``) differ."""
    one, other = _flat(then), _flat(now)
    return [
        f"{key}: {one.get(key, 'not recorded')} then, {other.get(key, 'not recorded')} now"
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: str(value)}
    return found
