import hashlib
import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import digest as digests
from bench import registry
from bench.digest import digest, environment, package_versions, source_digest

ROOT = '''
"""What it does."""
import math

import numpy
from elsewhere_demo import other

from . import constants
from .sub.deep import depth
from demo_package.helper import assist


class Method:
    """A method."""

    def work(self):
        """Work."""
        return assist(constants.K) + depth()
'''

FILES = {
    "__init__.py": "",
    "method.py": ROOT,
    "constants.py": "K = 3\n",
    "helper.py": "from demo_package.far import away\n\n\ndef assist(x):\n    return away(x)\n",
    "far.py": "def away(x):\n    return x + 1\n",
    "sub/__init__.py": "from ..ambient import AIR\n",
    "sub/deep.py": "from ..constants import K\n\n\ndef depth():\n    return K\n",
    "ambient.py": "AIR = 1\n",
    "unrelated.py": "X = 1\n",
}


class Package:
    """A third-party package on disk whose files can be edited."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "demo_package"
        for name, text in FILES.items():
            self.write(name, text)
        (folder / "elsewhere_demo.py").write_text("other = 1\n")
        monkeypatch.syspath_prepend(folder)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def replace(self, name, old, new):
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def digest(self):
        """Return the digest as another process would: nothing is remembered of the files."""
        digests._source_facts.cache_clear()
        importlib.invalidate_caches()
        return source_digest("demo_package.method")


@pytest.fixture
def package(tmp_path, monkeypatch):
    yield Package(tmp_path, monkeypatch)
    digests._source_facts.cache_clear()
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("demo_package", "elsewhere_demo")
    ]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What it does."""', '"""What it does, said better."""'),
        ('"""Work."""', ""),
        ("import math\n", "import math  # for later\n"),
        ("        return assist", "\n        # why\n        return assist"),
        ("assist(constants.K) + depth()", "(assist(constants.K)\n            + depth())"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(package, old, new):
    before = package.digest()
    package.replace("method.py", old, new)
    assert package.digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("method.py", "+ depth", "- depth"),
        ("constants.py", "3", "4"),
        ("helper.py", "away(x)", "away(-x)"),
        ("far.py", "+ 1", "+ 2"),
        ("sub/deep.py", "return K", "return -K"),
        ("ambient.py", "1", "2"),
    ],
)
def test_code_counts_in_every_module_that_is_imported_directly_or_not(package, file, old, new):
    before = package.digest()
    package.replace(file, old, new)
    assert package.digest() != before


def test_what_is_not_imported_does_not_count(package):
    before = package.digest()
    package.replace("unrelated.py", "1", "2")
    (package.folder.parent / "elsewhere_demo.py").write_text("other = 2\n")  # enters by its version
    assert package.digest() == before


def test_a_class_is_digested_by_its_module(package):
    from_text = package.digest()
    module = importlib.import_module("demo_package.method")
    assert source_digest(module.Method) == from_text


def test_the_harness_modules_a_method_imports_are_followed(monkeypatch):
    from attacks.pgd import PGD

    before = source_digest(PGD)
    real = digests._source_facts

    def edited(path):
        found, imported = real(path)
        return ("edited" if path.name == "_micro_batch.py" else found), imported

    monkeypatch.setattr(digests, "_source_facts", edited)
    assert source_digest(PGD) != before


def test_more_roots_are_part_of_the_digest():
    assert source_digest("bench.spec") != source_digest("bench.spec", "bench.heads")
    assert source_digest("bench.spec", "bench.heads") == source_digest("bench.heads", "bench.spec")


@pytest.fixture
def from_file(tmp_path, monkeypatch):
    """A plugin loaded from a file, with a module beside it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "demo_beside.py").write_text("K = 1\n")
    (tmp_path / "mine.py").write_text(
        "import demo_beside\nfrom bench.contracts import Purifier\n\n\nclass Mine(Purifier):\n"
        "    name = 'mine'\n\n    def purify(self, faces, ctx):\n        return faces.images * demo_beside.K\n"
    )
    yield tmp_path, registry.load_class("defenses", f"{tmp_path}/mine.py:Mine")
    digests._source_facts.cache_clear()
    sys.modules.pop("demo_beside", None)


@pytest.mark.parametrize(
    ("file", "old", "new"), [("mine.py", "* demo", "/ demo"), ("demo_beside.py", "1", "2")]
)
def test_a_plugin_from_a_file_counts_with_the_modules_beside_it(from_file, file, old, new):
    folder, cls = from_file
    before = source_digest(cls)
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    digests._source_facts.cache_clear()
    assert source_digest(cls) != before


SHORT = st.text("abé", max_size=3)
JSON = st.none() | st.booleans() | st.integers() | SHORT | st.lists(st.integers(), max_size=3)


@given(st.dictionaries(SHORT, JSON | st.dictionaries(SHORT, JSON, max_size=3), max_size=4))
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
