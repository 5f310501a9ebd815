from importlib.metadata import Distribution

import pytest

from benchmarks.dependencies import declared, installed
from benchmarks.licences import faults, licence

BSD = "Redistribution and use in source and\nbinary forms, with or without modification, are permitted"
CLASSIFIER = "Classifier: License :: OSI Approved :: "


@pytest.fixture
def package(tmp_path):
    """Return a function that makes an installed package of lines of metadata and the wording of its licence."""

    def make(*lines: str, wording: str = "") -> Distribution:
        info = tmp_path / "one-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "\n".join(["Metadata-Version: 2.4", "Name: one", "Version: 1", *lines, ""])
        )
        (info / "LICENSE.txt").write_text(wording)
        (info / "RECORD").write_text("one-1.dist-info/LICENSE.txt,,\n")
        return Distribution.at(info)

    return make


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: GPL"], "MIT OR Apache-2.0"),
        (["License: Apache 2.0"], "Apache-2.0"),
        (["License: MPL-2.0 AND MIT"], "MPL-2.0 AND MIT"),
        (["License: UNKNOWN", f"{CLASSIFIER}MIT License"], "MIT"),
        (["License: Permission is hereby granted", "        to anyone", f"{CLASSIFIER}MIT License"], "MIT"),
        ([f"{CLASSIFIER}MIT License", f"{CLASSIFIER}GNU General Public License (GPL)"], ""),
        (["License: Proprietary"], ""),
        ([], ""),
    ],
)
def test_a_licence_has_its_spdx_name(package, lines, expected):
    assert licence("one", package(*lines)) == expected


@pytest.mark.parametrize(
    ("third", "expected"),
    [("", "BSD-2-Clause"), ("may be used to endorse\nor promote products", "BSD-3-Clause")],
)
def test_the_wording_tells_which_bsd_licence_it_is(package, third, expected):
    assert licence("one", package(f"{CLASSIFIER}BSD License", wording=f"{BSD}\n{third}")) == expected


def test_a_licence_in_another_encoding_is_read_too(package):
    found = package(f"{CLASSIFIER}BSD License")
    (file,) = (each for each in found.files if each.name == "LICENSE.txt")
    file.locate().write_bytes(f"Copyright \xe9\n{BSD}".encode("latin-1"))
    assert licence("one", found) == "BSD-2-Clause"


def test_bsd_without_its_wording_is_unknown(package):
    assert licence("one", package("License: BSD", wording="see the web")) == ""


@pytest.mark.parametrize(
    ("name", "expression", "allowed"),
    [
        ("one", "GPL-3.0-only", False),
        ("one", "MIT OR GPL-3.0-only", True),
        ("one", "MIT AND GPL-3.0-only", False),
        ("one", "MIT AND (GPL-3.0-only OR BSD-3-Clause)", True),
        ("one", "Apache-2.0 WITH LLVM-exception", True),
        ("one", "GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("one", "LicenseRef-NVIDIA-Proprietary", False),
        ("nvidia-one", "LicenseRef-NVIDIA-Proprietary", True),
        ("one", "MPL-2.0", False),
        ("certifi", "MPL-2.0", True),
        ("certifi-other", "MPL-2.0", False),
        ("tqdm2", "MPL-2.0", False),
        ("cuda-toolkit-other", "LicenseRef-NVIDIA-Proprietary", False),
    ],
)
def test_what_is_not_allowed_is_named_with_its_licence(package, name, expression, allowed):
    found = faults({name: package(f"License-Expression: {expression}")})
    assert [line.split(";")[0] for line in found] == ([] if allowed else [f"{name}: {expression}"])


def test_of_an_unknown_licence_one_is_told_what_to_do(package):
    (fault,) = faults({"one": package()})
    assert fault.startswith("one: no licence is stated; read the licence in the package's files")
    assert fault.endswith("benchmarks/licences.py")


def test_every_dependency_is_under_an_allowed_licence():
    packages = installed(declared())
    assert {"torch", "numpy", "certifi", "markupsafe", "pytest"} <= packages.keys()
    assert not faults(packages)
