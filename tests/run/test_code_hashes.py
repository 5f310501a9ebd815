import ast
import hashlib
import importlib
import importlib.util
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.contracts import CONTRACT_VERSION, Binding
from bench.errors import UsageError
from bench.plugins import factory, registry
from bench.run import code_hashes as hashes
from bench.run import remembered
from bench.run.bound import BoundMethod, Plugin
from bench.run.code_hashes import code_digest, code_hashes, module_hash
from bench.run.digest import digest, environment, package_versions

METHOD = '''
"""What it does."""
import math
from typing import TYPE_CHECKING

import numpy as np
from elsewhere_demo import other

from . import constants, twin
from .sub.deep import depth
from .outlet import shown
from demo_package.helper import assist

if TYPE_CHECKING:
    from .unrelated import X


class Method:
    """A method."""

    SIZE = 3
    """How large."""

    def work(self, size=2):
        """Work."""
        assert size > 0, "size is small"
        if size > 100:
            raise ValueError(f"{size} is large")
        size += 1
        name = "data"
        return assist(constants.K) + depth() + np.sum(size) + len(name) + shown() + twin.unused()

    @property
    def double(self):
        return 2
'''

FILES = {
    "__init__.py": "",
    "method.py": METHOD,
    "constants.py": "K = 3\n",
    "helper.py": "from demo_package.far import away\n\n\ndef assist(x):\n    return away(x)\n",
    "twin.py": "def assist(x):\n    return x\n\n\ndef unused():\n    return 0\n",
    "far.py": "def away(x):\n    return x + 1\n",
    "outlet.py": "from .far import away\nfrom .one import shown\nfrom .two import shown as second\n",
    "one.py": "def shown():\n    return 1\n",
    "two.py": "def shown():\n    return 2\n",
    "sub/__init__.py": "from ..ambient import AIR\n",
    "sub/deep.py": "from ..constants import K\n\n\ndef depth():\n    return K\n",
    "ambient.py": "AIR = 1\n",
    "unrelated.py": "X = 1\n",
}


class Package:
    """A package on disk whose files can be edited."""

    def __init__(self, folder, name="demo_package"):
        self.folder = folder / name

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def replace(self, name, *changes):
        """Make changes, each (old, new), in one file."""
        text = (self.folder / name).read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        self.write(name, text)

    def digest(self, module="method"):
        """Return the digest as another process would: nothing is remembered of the files."""
        hashes.forget()
        importlib.invalidate_caches()
        return code_digest(f"{self.folder.name}.{module}")


def forget(*packages):
    hashes.forget()
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path, monkeypatch):
    found = Package(tmp_path)
    for name, text in FILES.items():
        found.write(name, text)
    (tmp_path / "elsewhere_demo.py").write_text("other = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield found
    forget("demo_package", "elsewhere_demo")


@pytest.mark.parametrize(
    "changes",
    {
        "docstring": [('"""What it does."""', '"""What it does, said better."""'), ('"""Work."""', "")],
        "attribute docstring": [('"""How large."""', '"""How large it is."""')],
        "text of an assert": [(', "size is small"', ', "size must be positive"')],
        "no text of an assert": [(', "size is small"', "")],
        "f-string in a raise": [('f"{size} is large"', 'f"{size} is more than {100}"')],
        "text in a raise": [('f"{size} is large"', '"too large"')],
        "annotations": [("size=2)", "size: int = 2) -> float"), ("        name =", "        name: str =")],
        "comment": [("import math\n", "import math  # for later\n")],
        "lines": [
            ("    return assist", "\n        # why\n        return assist"),
            ("        name", "\n        name"),
        ],
        "layout": [("return assist(constants.K) +", "return (assist(constants.K)\n            ) +")],
        "import added": [("import math\n", "import math\nimport json\nfrom . import far\n")],
        "import removed": [("import math\n", ""), ("from elsewhere_demo import other\n", "")],
        "imports in another order": [
            ("from .sub.deep import depth\n", ""),
            ("import numpy", "from .sub.deep import depth\nimport numpy"),
        ],
        "import for types": [("import X\n", "import X\n    from .unrelated import Y\n")],
        "no import for types": [("if TYPE_CHECKING:\n    from .unrelated import X\n", "")],
        "alias": [("import assist", "import assist as aid"), ("return assist", "return aid")],
        "alias of a package": [("numpy as np", "numpy"), ("np.sum", "numpy.sum")],
        "module instead of name": [
            ("from demo_package.helper import assist", "import demo_package.helper as h"),
            ("return assist", "return h.assist"),
        ],
        "name instead of package": [
            ("import numpy as np", "from numpy import sum as total"),
            ("np.sum", "total"),
        ],
        "name instead of module": [
            ("import constants, twin", "import twin\nfrom .constants import K"),
            ("constants.K", "K"),
        ],
        "where a name is handed on": [
            ("from .outlet import shown", "from .one import shown\nfrom . import outlet")
        ],
    }.items(),
    ids=lambda item: item[0],
)
def test_what_cannot_change_a_byte_does_not_count(package, changes):
    before = package.digest()
    package.replace("method.py", *changes[1])
    assert package.digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("method.py", "+ depth", "- depth"),  # an operator
        ("method.py", "+ depth", "- 1 + depth"),
        ("method.py", "SIZE = 3", "SIZE = 4"),
        ("method.py", "size=2", "size=3"),  # a default
        ("method.py", "size > 100", "size >= 100"),
        ("method.py", "ValueError", "TypeError"),
        ("method.py", "assert size > 0", "assert size > 1"),
        ("method.py", "        size += 1\n", ""),
        ("method.py", '"data"', '"date"'),
        ("method.py", "    @property\n", ""),
        ("method.py", "np.sum", "np.prod"),
        ("method.py", "numpy as np", "torch as np"),  # another package
        ("method.py", "helper import assist", "twin import assist"),  # a function of this name elsewhere
        ("method.py", "return assist", "return twin.assist"),
        ("method.py", "import shown", "import second as shown"),
        ("outlet.py", "from .one import shown\nfrom .two import shown as second",
         "from .two import shown\nfrom .one import shown as second"),
        ("constants.py", "3", "4"),
        ("helper.py", "away(x)", "away(-x)"),
        ("far.py", "+ 1", "+ 2"),
        ("sub/deep.py", "return K", "return -K"),
        ("ambient.py", "1", "2"),
    ],
)  # fmt: skip
def test_what_can_change_a_byte_counts_in_every_module_imported_directly_or_not(package, file, old, new):
    before = package.digest()
    package.replace(file, (old, new))
    assert package.digest() != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # An argument of an import's name hides it.
        (
            "from .one import shown\ndef f(shown): return shown()",
            "from .one import shown as s\ndef f(shown): return s()",
        ),
        # Where a name is bound again, the place of its import decides.
        (
            "def f():\n from .one import shown\n return shown()\nfrom .two import shown\ndef g(): return shown()",
            "def f():\n return shown()\nfrom .two import shown\ndef g():\n from .one import shown\n return shown()",
        ),
        ("from .one import shown\nshown = abs", "shown = abs\nfrom .one import shown"),
        (
            "try:\n from .one import shown\nexcept ImportError:\n from .two import shown",
            "try:\n from .two import shown\nexcept ImportError:\n from .one import shown",
        ),
        ("from .one import *\nfrom .two import *\nshown()", "from .two import *\nfrom .one import *\nshown()"),
        # A module handed over whole.
        ("from . import one, two\nprint(one)", "from . import one, two\nprint(two)"),
        # A field of a dataclass is none where it is a ClassVar.
        ("class A:\n x: int = 1", "class A:\n x: ClassVar[int] = 1"),
        ("class A:\n x: int = 1", "class A:\n x = 1"),
        # Annotations that dataclasses, pydantic and decorators read.
        ("class A:\n x: InitVar[int] = 1", "class A:\n x: int = 1"),
        ("class A:\n x: int\n _: KW_ONLY\n y: int", "class A:\n x: int\n _: int\n y: int"),
        ("@k.register\ndef f(x: int): return 1", "@k.register\ndef f(x: str): return 1"),
        # Modules that look alike and import different ones.
        ("from . import a, b\na.shown() - b.shown()", "from . import a, b\nb.shown() - a.shown()"),
        # An import of a builtin's name.
        ("T = max([5])\nfrom .one import shown as max", "from .one import shown as max\nT = max([5])"),
        ("def f():\n from .one import shown as abs\nabs(1)", "from .one import shown as abs\nabs(1)"),
        # What a star gives comes before or after.
        ("from .two import shown\nfrom .one import *\nshown()", "from .one import *\nfrom .two import shown\nshown()"),
        ("from .alpha import *\np()", "from .beta import *\np()"),
        # Names that are looked up: in a class, by text, on a module.
        ("from . import one, two\nclass M:\n from .one import shown",
         "from . import one, two\nclass M:\n from .two import shown"),
        ("from .one import shown\nfrom .two import shown as g\nglobals()['shown']()",
         "from .two import shown\nfrom .one import shown as g\nglobals()['shown']()"),
        ("from . import alpha\ngetattr(alpha, 'p')()", "from . import beta\ngetattr(beta, 'p')()"),
        ("from . import alpha\ndef f(o=alpha): return o.p()", "from . import beta\ndef f(o=beta): return o.p()"),
        # What a method declares of its cost, which its code may compute with.
        ("class A:\n passes = 3", "class A:\n passes = 50"),
        # A text that a raised error computes with.
        ("def f(t): raise Found(t['near'])", "def f(t): raise Found(t['far'])"),
    ],
)  # fmt: skip
def test_names_that_only_look_alike_are_told_apart(package, one, other):
    package.write("a.py", "from .one import shown as f\n\n\ndef shown():\n    return f()\n")
    package.write("b.py", "from .two import shown as f\n\n\ndef shown():\n    return f()\n")
    package.write("alpha.py", "from .one import shown as p\nfrom .two import shown as q\n")
    package.write("beta.py", "from .one import shown as q\nfrom .two import shown as p\n")
    package.write("method.py", one)
    before = package.digest()
    package.write("method.py", other)
    assert package.digest() != before


HEAD = (
    "import logging\nfrom pydantic import Field, BaseModel\n"
    "from typing import TypeVar, overload\nlog = logging.getLogger('x')\n"
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("class P(BaseModel):\n x: int = Field(1, description='a')", "class P(BaseModel):\n x: int = Field(1)"),
        ("x = Field(1, json_schema_extra={'unit': 'px'})", "x = Field(1, json_schema_extra={'unit': 'pixels'})"),
        ("def f(x): log.info('a %s', x)", "def f(x): log.info('b %s', x)"),
        ("class A:\n paper = 'x'", "class A:\n paper = 'y'"),
        ("X = 1", "X = 1\nT = TypeVar('T')"),
        ("def f(x): return x", "@overload\ndef f(x: int) -> int: ...\ndef f(x): return x"),
        ("X = 1", "X = 1\n__all__ = ['X']"),
        ("X = 1", "X = 1\nif __name__ == '__main__':\n import json\n print(X)"),
    ],
)  # fmt: skip
def test_words_types_and_scripts_do_not_count(package, one, other):
    package.write("method.py", HEAD + one)
    before = package.digest()
    package.write("method.py", HEAD + other)
    assert package.digest() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("helper.py", "aid.py"),
        ("helper.py", "room/helper.py"),
        ("method.py", "room/method.py"),
        ("far.py", "sub/f.py"),
    ],
)
def test_a_module_that_is_renamed_or_moved_does_not_count(package, old, new):
    before = package.digest()
    was, now = (name.removesuffix(".py").replace("/", ".") for name in (old, new))
    package.write("room/__init__.py", '"""What lives here."""\n')
    package.folder.joinpath(new).parent.mkdir(exist_ok=True)
    package.folder.joinpath(old).rename(package.folder / new)
    for path in package.folder.rglob("*.py"):
        text = (
            path.read_text().replace("from .", "from demo_package.")
            if path.name == "method.py"
            else path.read_text()
        )
        text = text.replace("demo_package. import", "demo_package import")
        text = text.replace(f"from .{was} import", f"from .{now} import")
        path.write_text(text.replace(f"demo_package.{was} import", f"demo_package.{now} import"))
    assert package.digest(now if old == "method.py" else "method") == before


def test_what_is_not_imported_does_not_count(package):
    before = package.digest()
    package.replace("unrelated.py", ("1", "2"))
    (package.folder.parent / "elsewhere_demo.py").write_text("other = 2\n")  # enters by its version
    assert package.digest() == before


def test_code_that_was_edited_after_its_import_has_no_digest(package):
    importlib.import_module("demo_package.method")
    before = code_digest("demo_package.method")
    package.replace("far.py", ("x + 1", "x + 10"))
    with pytest.raises(UsageError, match=r"far\.py changed since it was imported.*start anew"):
        code_digest("demo_package.method")
    assert before != package.digest()


def test_code_that_was_edited_before_its_import_counts_as_it_is(package):
    before = code_digest("demo_package.method")
    package.replace("far.py", ("x + 1", "x + 10"))
    assert before != code_digest("demo_package.method") == package.digest()


def test_a_result_is_refused_where_its_code_was_edited_meanwhile(package):
    key = {"stage": "cloak", "attack": {"parts": [{"code": code_digest("demo_package.method")}]}}
    hashes.check_unchanged(key)
    package.replace("far.py", ("x + 1", "x + 10"))
    with pytest.raises(UsageError, match=r"far\.py changed"):
        hashes.check_unchanged(key)


def test_a_plan_looks_at_code_once_and_whoever_stores_looks_again(package, monkeypatch):
    before = code_digest("demo_package.method")
    looked = []
    real = hashes.sources.state
    monkeypatch.setattr(hashes.sources, "state", lambda path: looked.append(path) or real(path))
    with hashes.looked_at_once():
        assert code_digest("demo_package.method") == before
        once = len(looked)
        assert once
        package.replace("far.py", ("x + 1", "x + 10"))
        assert code_digest("demo_package.method") == before
        assert len(looked) == once
        with pytest.raises(UsageError, match=r"far\.py changed"):
            hashes.check_unchanged({"code": before})
    assert package.digest() != before


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Copies of this project's own attacks and defences, in packages of other names."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("attacks", "defenses"):
        source = Path(importlib.import_module(name).__file__).parent
        shutil.copytree(
            source, folder / f"copied_{name}", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
        for path in (folder / f"copied_{name}").glob("*.py"):
            path.write_text(path.read_text().replace(f"from {name}", f"from copied_{name}"))
    sys.path.insert(0, str(folder))
    yield {name: Package(folder, f"copied_{name}") for name in ("attacks", "defenses")}
    sys.path.remove(str(folder))
    forget("copied_attacks", "copied_defenses")


REAL = [("attacks", "pgd"), ("attacks", "fawkes"), ("defenses", "jpeg")]


@pytest.mark.parametrize(("kind", "module"), REAL)
def test_a_copy_in_another_package_has_the_same_code(real, kind, module):
    assert real[kind].digest(module) == code_digest(f"{kind}.{module}")


def spots(text):
    """Return (line, column, end) of every number, by the tree."""
    tree = ast.parse(text)
    return [
        (node.lineno, node.col_offset, node.end_col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float)
    ]


@pytest.mark.parametrize(("kind", "module"), REAL)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_number_of_a_real_module_counts_and_words_beside_it_do_not(real, kind, module, data):
    package, name = real[kind], f"{module}.py"
    text = (package.folder / name).read_text()
    lines = text.splitlines(keepends=True)
    numbers = [spot for spot in spots(text) if lines[spot[0] - 1].isascii()]
    line, start, end = data.draw(st.sampled_from(numbers))
    remarked = [*lines]
    remarked[line - 1] = lines[line - 1].rstrip("\n") + "  # a remark\n\n"
    changed = [*lines]
    changed[line - 1] = lines[line - 1][:start] + "1234567" + lines[line - 1][end:]
    before = package.digest(module)
    try:
        package.write(name, "".join(remarked).replace("from __future__ import annotations\n", ""))
        assert package.digest(module) == before
        package.write(name, "".join(changed))
        assert package.digest(module) != before
    finally:
        package.write(name, text)


def test_a_class_is_digested_by_its_module(package):
    from_text = package.digest()
    module = importlib.import_module("demo_package.method")
    assert code_digest(module.Method) == from_text


def test_the_numerical_modules_a_method_imports_are_followed_and_no_others():
    closure = hashes._Closure(["attacks.pgd"])
    followed = {name for name, code in closure.modules.items() if code}
    assert {"attacks.pgd", "attacks._micro_batch", "bench.quality.metrics"} <= followed
    assert not followed & hashes.NOT_NUMERICAL


@pytest.mark.parametrize("module", sorted({*hashes.NOT_NUMERICAL, "bench.randomness"}))
def test_modules_with_a_part_of_their_own_in_keys_are_where_they_are_said_to_be(module):
    assert importlib.util.find_spec(module) is not None


def test_how_random_numbers_are_drawn_is_in_every_digest():
    assert set(code_hashes("bench.randomness")) <= set(code_hashes("bench.run.stages.cloak"))


@pytest.mark.parametrize("name", ["bench.run.no_such_module", "no_such_package", "bench.run.digest.digest"])
def test_a_root_that_is_no_module_is_refused(name):
    with pytest.raises(UsageError, match=f"'{name}' is no module"):
        code_digest("bench.run.spec", name)


def test_more_roots_are_part_of_the_digest():
    assert code_digest("bench.run.spec") != code_digest("bench.run.spec", "bench.protocols.heads")
    assert code_digest("bench.run.spec", "bench.protocols.heads") == code_digest(
        "bench.protocols.heads", "bench.run.spec"
    )


RECORDED = {
    1: {
        "bench.contracts": "faffe76855f4e8c0e74c13f7267cc40ee30f64391f791ebf5ec2bb02201cfb4b",
        "bench.plugins.process": "6bbcd601e718b0be381a89ce90eac7b111d04a97802468f3b58dfcc9fc74129d",
        "bench.run.calls": "3d03565399390617e12fd8c60c1ff6aaf5f3106a6d5ecd78bfe4dc4b4b0db139",
        "bench.run.graph": "d63eb46cab30cedbacf8d90aba2a3d2911532367edc4966f8cfcd330b132c658",
        "bench.run.pipeline": "1daecafede82703b60ad58300f5a4f4409343ee3188a2913b9dffcc2bd3ef676",
    }
}
"""Contract version → hashes of the modules that stand behind it, as no key holds their code."""


@pytest.mark.parametrize("module", RECORDED[max(RECORDED)])
def test_the_contract_is_the_one_its_version_stands_for(module):
    assert RECORDED[CONTRACT_VERSION][module] == module_hash(module), (
        f"{module} changed: raise CONTRACT_VERSION if a stored byte can differ, then record this hash"
    )


@pytest.fixture
def from_file(tmp_path, monkeypatch):
    """A plugin loaded from a file, with a module beside it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "demo_beside.py").write_text("K = 1\n")
    (tmp_path / "mine.py").write_text(
        "import demo_beside\nfrom bench.contracts import Purifier\n\n\nclass Mine(Purifier):\n"
        "    name = 'mine'\n\n    def purify(self, faces, ctx):\n        return faces.images * demo_beside.K\n"
    )
    yield tmp_path, registry.DEFENSES.load(f"{tmp_path}/mine.py:Mine")
    hashes.forget()
    sys.modules.pop("demo_beside", None)


@pytest.mark.parametrize(
    ("file", "old", "new"), [("mine.py", "* demo", "/ demo"), ("demo_beside.py", "1", "2")]
)
def test_a_plugin_from_a_file_counts_with_the_modules_beside_it(from_file, file, old, new):
    folder, cls = from_file
    before = code_digest(cls)
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    hashes.forget()
    assert code_digest(cls) != before


def written(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


PURIFIER = "from bench.contracts import Purifier\n"
WORKS = "    name = 'd'\n\n    def purify(self, faces, ctx):\n        return faces.images * K\n"
PLUGIN = f"{PURIFIER}\n\nclass D(Purifier):\n{WORKS}"


@pytest.mark.parametrize(
    ("files", "edited", "text"),
    [
        # Beside the file without __init__.py, and a package on the path.
        ({"f.py": f"from demo_ns.core import K\n{PLUGIN}"}, "demo_ns/core.py", "f.py:D"),
        ({"f.py": f"from demo_lib.core import K\n{PLUGIN}", "demo_lib/__init__.py": ""},
         "demo_lib/core.py", "f.py:D"),
        # A base class in another package of the author; the file only hands the class on.
        ({"f.py": "from demo_plug.m import D\n", "demo_plug/__init__.py": "",
          "demo_plug/m.py": "from demo_lib.base import Base\n\n\nclass D(Base):\n    K = 1\n",
          "demo_lib/base.py": f"from .core import K\n{PURIFIER}\n\nclass Base(Purifier):\n{WORKS}"},
         "demo_lib/core.py", "f.py:D"),
    ],
)  # fmt: skip
def test_whatever_of_the_users_a_plugin_is_made_of_counts(tmp_path, monkeypatch, files, edited, text):
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path, {**files, edited: "K = 0.5\n"})
    cls = registry.DEFENSES.load(f"{tmp_path}/{text}")
    before = code_digest(cls)
    written(tmp_path, {edited: "K = 0.25\n"})
    hashes.forget()
    assert code_digest(cls) != before
    forget("demo_ns", "demo_lib", "demo_plug")


def test_the_module_that_names_a_class_counts_with_the_class(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path, {"demo_maker.py": f"{PURIFIER}K = 1\n\n\nclass D(Purifier):\n{WORKS}"})
    written(tmp_path, {"f.py": "from demo_maker import D\n\nD.K = 0.5\n"})
    method = factory.create("defenses", f"{tmp_path}/f.py:D")
    fields = BoundMethod(Plugin("defenses", "d", method), Binding("x", "real", (), "k"), {}, 0).key_fields()
    assert (
        fields["code"] == code_digest(type(method), *factory.modules_of(method)) != code_digest(type(method))
    )
    forget("demo_maker")


def test_a_part_that_cannot_be_imported_is_none(package):
    package.write("opt/__init__.py", "raise ImportError('needs more')\n")
    package.write("opt/z.py", "q = 1\n")
    package.write("method.py", "try:\n    from .opt.z import q\nexcept ImportError:\n    q = None\n")
    assert package.digest()


def test_a_package_above_a_folder_without_init_counts(package):
    package.write("over/__init__.py", "A = 1\n")
    package.write("over/ns/z.py", "Z = 1\n")
    package.write("method.py", "from .over.ns import z\n\nK = z.Z\n")
    before = package.digest()
    package.write("over/__init__.py", "A = 2\n")
    assert package.digest() != before


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder on the path with one package, and what was found before forgotten."""
    info = tmp_path / "path" / "one-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: one\nVersion: 1\n")
    (info / "top_level.txt").write_text("one_top")
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.setattr(remembered, "_folder", lambda: tmp_path / "found")
    return info.parent


def distributions():
    hashes._distributions.cache_clear()
    try:
        return hashes._distributions()
    finally:
        hashes._distributions.cache_clear()


def test_an_archive_that_is_put_on_the_path_counts_as_installed(installed, tmp_path, monkeypatch):
    assert distributions()["one_top"] == ["one"]
    archive = tmp_path / "two.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("two-1.dist-info/METADATA", "Name: two\nVersion: 1\n")
        file.writestr("two-1.dist-info/top_level.txt", "two_top")
    assert "two_top" not in distributions()
    monkeypatch.syspath_prepend(archive)
    assert distributions()["two_top"] == ["two"]


def test_what_cannot_be_looked_at_is_passed_over_and_nothing_is_kept_of_the_rest(installed, tmp_path):
    (installed / "gone-1.dist-info").symlink_to(tmp_path / "nowhere")
    assert distributions()["one_top"] == ["one"]
    assert not (tmp_path / "found").exists()


def test_versions_of_what_the_code_imports_count(package, monkeypatch):
    before = package.digest()
    package.write("far.py", "import tqdm\n\n\ndef away(x):\n    return tqdm.tqdm(x)\n")
    one = package.digest()
    monkeypatch.setattr(hashes, "_version", lambda top: f"{top} 99")
    assert len({before, one, package.digest()}) == 3


SUMMARY_COLUMNS = st.text("abé", max_size=3)
JSON = st.none() | st.booleans() | st.integers() | SUMMARY_COLUMNS | st.lists(st.integers(), max_size=3)


@given(
    st.dictionaries(SUMMARY_COLUMNS, JSON | st.dictionaries(SUMMARY_COLUMNS, JSON, max_size=3), max_size=4)
)
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    mirrored = dict(reversed(value.items()))
    assert digest(value) == digest(mirrored)
    assert digest([value]) != digest(value)


def test_a_digest_is_sha256_of_canonical_json():
    assert digest({"b": [1, "é"], "a": None}) == hashlib.sha256('{"a":null,"b":[1,"é"]}'.encode()).hexdigest()


def test_the_environment_names_versions_device_type_and_threads():
    facts = environment("cuda:1", 3)
    assert (facts["device"], facts["threads"], facts["dtype"]) == ("cuda", 3, "float32")
    assert facts["packages"]["torch"] == package_versions(["torch"])["torch"] != "absent"
    assert package_versions(["no-such-package"]) == {"no-such-package": "absent"}
    assert digest(facts) != digest(environment("cpu", 3)) != digest(environment("cpu", 4))
