"""The harness knows no method by name: what it needs to know of one is declared by the method."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
from bench.plugins import factory, registry

ROOT = Path(bench.__file__).parent

KINDS = (registry.ATTACKS, registry.DEFENSES, registry.BACKBONES)

OWN = {
    (known.kind, name)
    for known in KINDS
    for name, entry in known.entries().items()
    if entry.distribution == "cloakbench" and name != "none"
}

ORDINARY = {
    "adaptive", "crop", "detector", "ensemble", "fusion", "gamma", "gaussian", "jpeg", "later", "median", "noise",
    "onnx", "resize", "views", "webp",
}  # fmt: skip
"""Names that are words or file formats as well; they are looked for only where they are written as methods."""

PROSE = {"epilog", "help", "paper", "_EXAMPLES", "EXAMPLES", "_EPILOG"}
"""Help that shows how a command is used, and citations, may name methods."""


def without_prose(tree: ast.Module) -> ast.Module:
    """Return a tree without docstrings, examples of commands and citations."""

    class Stripper(ast.NodeTransformer):
        def visit_Expr(self, node):
            return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

        def visit_Assign(self, node):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            return None if names & PROSE else self.generic_visit(node)

        def visit_keyword(self, node):
            return None if node.arg in PROSE else self.generic_visit(node)

    return Stripper().visit(tree)


def names_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string and identifier."""
    for node in ast.walk(tree):
        texts: list[str] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = [node.value]
        elif isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            texts = [node.name]
        elif isinstance(node, ast.arg):
            texts = [node.arg]
        elif isinstance(node, ast.alias):
            texts = [node.name]
        yield from ((getattr(node, "lineno", 0), text) for text in texts)


def made_by_name(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of strings that a method is made or looked up by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in {"attack", "defense", "backbone", "create", "load", "normal"}:
                yield from (
                    (node.lineno, argument.value)
                    for argument in node.args
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                )


def found_in(source: str) -> list[str]:
    tree = without_prose(ast.parse(source))
    distinct = sorted({name for _, name in OWN} - ORDINARY)
    anywhere = re.compile("|".join(rf"(?<![a-z]){re.escape(n)}(?![a-z])" for n in distinct), re.IGNORECASE)
    ordinary = "|".join(sorted(ORDINARY))
    written = re.compile(rf"(?<![\w-])(?:(?:{ordinary}):\w+=|--(?:attack|defense|backbone) (?:{ordinary})\b)")
    whole = re.compile(rf"(?:{ordinary})(?::.*)?")
    found = [f"{line}: {text}" for line, text in names_in(tree) if anywhere.search(spaced(text))]
    found += [f"{line}: {text}" for line, text in names_in(tree) if written.search(text)]
    return found + [f"{line}: {text}" for line, text in made_by_name(tree) if whole.fullmatch(text)]


def spaced(text: str) -> str:
    """Return an identifier as names of methods are written, and other texts as they are."""
    return text.replace("_", "-") if text.isidentifier() else text


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_module_of_the_harness_names_a_method(path):
    assert found_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'x = factory.defense("puface")', 'GRID = ("jpeg:quality=95",)', 'x = create("defenses", "jpeg")',
        "def _apf_server(): ...", 'fix = "bench run --attack none --defense jpeg"', "from defenses import dncnn",
        'if name == "mobilefacenet-relu6": ...', "mobilefacenet_relu6 = 1",
    ],
)  # fmt: skip
def test_a_name_is_seen(source):
    assert found_in(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""For example fawkes."""', '_EXAMPLES = "bench run --attack fawkes"', 'option(help="e.g. jpeg:quality=75")',
        "CROP_SIZE = 112", 'format = "jpeg"', "noise = rng.normal()",
    ],
)  # fmt: skip
def test_words_formats_and_examples_are_not_names(source):
    assert not found_in(source)


def test_examples_are_run_against_a_baseline_that_needs_nothing():
    for known in (registry.ATTACKS, registry.DEFENSES):
        method = factory.create(known.kind, known.baseline())
        assert method.name != "none"
        assert method.assets() == ()
