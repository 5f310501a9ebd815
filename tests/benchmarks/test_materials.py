import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from benchmarks.dependencies import ROOT, declared, installed
from benchmarks.licences import licence


@pytest.mark.slow
def test_the_list_has_every_package_with_version_and_licence_and_no_path(tmp_path):
    out = tmp_path / "sbom.json"
    subprocess.run([sys.executable, "-m", "benchmarks.materials", out], cwd=ROOT, check=True)
    text = out.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    for path in (ROOT, ROOT.resolve(), sys.prefix, sys.base_prefix):
        assert str(path) not in text
    assert not re.search(r"file:|localhost|//\d+\.\d+\.\d+\.\d+", text)
    listed = {canonicalize_name(each["name"]): each for each in json.loads(text)["components"]}
    packages = installed(declared())
    assert {"torch", "markupsafe", "pytest"} <= packages.keys()
    assert {
        name: (listed[name]["version"], listed[name]["licenses"][0]["expression"]) for name in packages
    } == {name: (version(name), licence(name, package)) for name, package in packages.items()}
