"""What decides a result besides code, as digests: values in canonical form, and the environment that computes.

An artefact is addressed by the digest of everything that decides it (DESIGN 5): parameters, code
(`bench.run.code_hashes`), weights, upstream artefacts, seed and environment.
"""

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

NUMERICAL_PACKAGES = (
    "lpips",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pandas",
    "Pillow",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
)
"""Packages whose version can change a number; part of every artefact's key."""

REPORTED_PACKAGES = (*NUMERICAL_PACKAGES, "cloakbench", "facenet-pytorch", "onnx", "pydantic")
"""Packages whose versions a run's folder tells."""


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def package_versions(names: Iterable[str] = NUMERICAL_PACKAGES) -> dict[str, str]:
    """Return the installed version of each package, ``absent`` where it is not installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def _device_name(device: str) -> str:
    import torch

    kind = device.partition(":")[0]
    if kind != "cuda" or not torch.cuda.is_available():
        return kind
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {cudnn}"


def environment(device: str, threads: int) -> Mapping[str, Any]:
    """Return what of this machine can change a number: packages, device type, dtype, threads, CPU kernels."""
    import torch

    return {
        "packages": package_versions(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "machine": platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "device": _device_name(device),
        "dtype": "float32",
        "threads": threads,
    }
