"""A look at plugins without torch finds what one with torch finds; what needs torch gets it."""

import json
import subprocess
import sys

import pytest

ALL = """
import json, sys
from bench.plugins import registry, without_torch

def document(name, kind):
    from bench.cli.catalogue import _documents
    from bench.errors import BenchError
    try:
        return _documents(name, kind)
    except BenchError as error:  # what cannot be without a parameter
        return str(error)

def documents():
    return {f"{kind} {name}": document(name, one.singular)
            for kind, one in registry.CLASSES.items() for name in one.entries()}

with without_torch.stand_ins():
    quick = json.loads(json.dumps(documents()))
assert quick and "torch" not in sys.modules
import torch
assert torch.zeros(2).sum() == 0
whole = json.loads(json.dumps(documents()))
assert quick.keys() == whole.keys()
print(json.dumps([name for name in whole if quick[name] != whole[name]]))
"""

MINE = """
import torch
from bench.contracts import Attack, ThreatModel

class Mine(Attack):
    '''Changes nothing.'''
    name = "mine"
    threat = ThreatModel(goal="none", constraint="no change")
    paper = {paper}
    def cloak(self, faces, ctx):
        return {{}}
"""

LOOK = """
import json, sys
from bench.cli.catalogue import _documents
from bench.plugins.without_torch import look
found = look(lambda: _documents(sys.argv[1], "attack"))
print(json.dumps([found[0]["name"], found[0]["paper"], "torch" in sys.modules]))
"""


def python(code, *words):
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


INSTALLED = """
import json, sys
from bench.plugins.without_torch import look
sys.path.insert(0, sys.argv[1])

def find():
    import outer
    return outer.KNOWN

assert look(find) == 7 and "torch" not in sys.modules
import torch
import outer
print(json.dumps([issubclass(outer.Net, torch.nn.Module), issubclass(outer.Small, torch.nn.Module)]))
"""


def test_every_registered_plugin_is_described_alike_with_and_without_torch():
    assert python(ALL) == []


@pytest.mark.parametrize(
    ("paper", "expected", "needs_torch"),
    [
        ("'A paper'", "A paper", False),
        ("str(int(torch.ones(3).sum()))", "3", True),  # computes while it is imported
        ("torch.__version__.split('.')[0] + ' or so'", "2 or so", True),
    ],
)
def test_what_computes_with_torch_when_it_is_imported_gets_it(tmp_path, paper, expected, needs_torch):
    (tmp_path / "mine.py").write_text(MINE.format(paper=paper))
    assert python(LOOK, f"{tmp_path}/mine.py:Mine") == ["mine", expected, needs_torch]


@pytest.mark.parametrize(
    "words", [("list", "fawkes"), ("list", "puface", "--json"), ("fetch", "--list", "--json")]
)
def test_commands_that_only_look_do_not_import_torch(words):
    code = (
        "import sys, json\nfrom bench.cli import main\nmain()\n"
        "print(json.dumps([name for name in ('torch', 'torchvision') if name in sys.modules]))"
    )
    assert python(code, *words) == []


def test_what_is_here_and_whole_is_not_fetched_and_takes_no_torch(tmp_path, monkeypatch):
    from bench.quality import lpips_trunk

    (file,) = lpips_trunk.ENTRY.files
    weights = tmp_path / file.path
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"not the weights")
    monkeypatch.setenv("CLOAKBENCH_DATA", str(tmp_path))
    code = (
        "import sys, json\nfrom bench.cli import fetch\n"
        "rows = fetch._rows\n"
        "fetch._rows = lambda *a: [row | {'state': 'present'} for row in rows(*a)]\n"
        "from bench.cli import main\nmain()\nprint(json.dumps('torch' in sys.modules))"
    )
    assert python(code, "fetch", "lpips") is False
    done = subprocess.run(
        [sys.executable, "-m", "bench", "fetch", "--list", "lpips", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [row["state"] for row in json.loads(done.stdout)] == ["corrupt"]


def test_no_installed_package_that_saw_a_stand_in_is_left(tmp_path):
    folder = tmp_path / "site-packages"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "__init__.py").write_text("from inner.nets import Net\n")
    (folder / "inner" / "nets.py").write_text("from torch import nn\nclass Net(nn.Module):\n    pass\n")
    (folder / "outer.py").write_text("from inner import Net\nKNOWN = 7\nclass Small(Net):\n    pass\n")
    assert python(INSTALLED, str(folder)) == [True, True]


KNOWN = """
import json, sys
from bench.plugins.without_torch import stand_ins

def fails(ask):
    try:
        ask()
    except TypeError:
        return True
    return False

with stand_ins({"torch.cuda.is_available": lambda: False}) as standing:
    import torch
    from torch import nn
    found = [
        torch.cuda.is_available(), torch.cuda.is_initialized(), bool(nn.Module),
        fails(lambda: bool(torch.backends.mkldnn.enabled)), fails(lambda: not torch.ones(2).all()),
        fails(lambda: [*torch.ones(2)]), fails(lambda: int(torch.get_num_threads())),
    ]
    standing.go()
    found.append("torch" in sys.modules)
from bench.plugins import without_torch
print(json.dumps([*found, without_torch._answers]))
"""


def test_what_torch_would_answer_is_told_beforehand_or_refused():
    assert python(KNOWN) == [False, False, True, True, True, True, True, False, {}]


LAZY = """
import json, sys
from bench.plugins.without_torch import stand_ins
sys.path.insert(0, sys.argv[1])
with stand_ins():
    import lazy
gone = "lazy" not in sys.modules
import lazy
print(json.dumps([gone, lazy.total()]))
"""


def test_a_package_that_only_imports_torch_is_not_left_with_a_stand_in(tmp_path):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "lazy.py").write_text("import torch\ndef total():\n    return float(torch.ones(3).sum())\n")
    assert python(LAZY, str(folder)) == [True, 3.0]


def test_a_mistake_is_named_as_ever(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench", "list", "fawkes:stepz=3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown parameter of fawkes 'stepz'" in done.stderr
    assert "Traceback" not in done.stderr
