"""The user's side of `bench apf protect`: gradients made here, perturbations fetched, photos never sent.

Whatever goes wrong is one sentence, and no file is written before the whole answer is verified.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from attacks.apf import wire
from attacks.apf.cloud import Gradient, Perturbation
from bench.contracts import CROP_SIZE
from bench.errors import DataError, UsageError

_LARGEST_ANSWER = 1 << 28
_LARGEST_ABOUT = 1 << 16


@dataclass(frozen=True)
class Server:
    """Where a server is and how long to wait for it.

    Attributes:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT``.
        timeout: seconds without a byte before giving up.
    """

    url: str
    timeout: float = 60.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
            raise UsageError(f"'{self.url}' is not the address of a server, e.g. http://127.0.0.1:8700.")

    def about(self) -> wire.About:
        """Return what the server says of itself.

        Raises:
            DataError: it cannot be reached, or does not answer as an APF server of this version.
        """
        answer = self._ask("GET", wire.ABOUT_PATH, b"", _LARGEST_ABOUT)
        try:
            return wire.About.model_validate_json(answer)
        except ValidationError as error:
            raise DataError(
                f"{self.url} does not answer as an APF server does. Check the address."
            ) from error

    def transfer(self, gradient: Gradient, largest: int) -> Perturbation:
        """Return the server's perturbations; only `gradient` is sent.

        Args:
            gradient: of all photos at once.
            largest: bytes the server takes, as it says itself.

        Raises:
            UsageError: the request would be larger.
            DataError: the server cannot be reached, refuses, or its answer is not whole and valid.
        """
        payload = wire.encode_gradient(gradient)
        if len(payload) > largest:
            # A server that refuses while it is still being sent to may look like one that broke off.
            raise UsageError(
                f"the request for {len(gradient)} photos is larger than the {largest:,} bytes {self.url} takes. "
                "Protect fewer photos at once."
            )
        return wire.decode_perturbation(
            self._ask("POST", wire.TRANSFER_PATH, payload, _LARGEST_ANSWER), gradient
        )

    def _ask(self, verb: str, path: str, payload: bytes, largest: int) -> bytes:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        headers = {wire.VERSION_HEADER: str(wire.VERSION), "Content-Type": "application/octet-stream"}
        try:
            connection.request(verb, path, payload or None, headers)
            with connection.getresponse() as response:
                answer = response.read(largest + 1)
            self._check_whole(response, answer, largest)
        except TimeoutError as error:
            raise DataError(
                f"The server {self.url} did not answer within {self.timeout:g} seconds. Try again, or raise --timeout."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise DataError(
                f"The server {self.url} cannot be reached or broke off: {reason}. Start it with `bench apf serve`."
            ) from error
        finally:
            connection.close()
        self._check_answer(response, answer)
        return answer

    def _check_whole(self, response: http.client.HTTPResponse, answer: bytes, largest: int) -> None:
        """Refuse an answer that is cut short or never ends; read(n) of http.client does not."""
        if len(answer) > largest:
            raise DataError(f"The answer of {self.url} is larger than {largest:,} bytes.")
        declared = response.headers.get("Content-Length", "")
        if declared.isdigit() and int(declared) != len(answer):
            raise DataError(
                f"The answer of {self.url} is truncated: {len(answer)} of {declared} bytes arrived. Try again."
            )

    def _check_answer(self, response: http.client.HTTPResponse, answer: bytes) -> None:
        version = response.headers.get(wire.VERSION_HEADER)
        if version is None and response.status == http.client.SERVICE_UNAVAILABLE:
            raise DataError(f"The server {self.url} has too much to do. Try again later.")
        if version is None:
            raise DataError(f"{self.url} does not answer as an APF server does. Check the address.")
        if version != str(wire.VERSION):
            raise DataError(
                f"{self.url} speaks version {version[:20]!r} of the protocol, this program {wire.VERSION}. "
                "Install the same release of cloakbench on both sides."
            )
        if response.status != http.client.OK:
            raise DataError(f"The server {self.url} refused: {_sentence(answer)}")


def _sentence(answer: bytes) -> str:
    """Return the server's reason, made safe to print."""
    try:
        reason = str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return "it gave no reason."
    return printable(reason)


def printable(text: str) -> str:
    """Return what a server said, made safe to print: short and without control characters."""
    return "".join(c for c in text if c.isprintable())[:300]


# -- photos --------------------------------------------------------------------------------------------------


def read_crops(files: Sequence[Path]) -> Tensor:
    """Return N×3×112×112 uint8 crops: files of that size as they are, others aligned to the largest face.

    Raises:
        DataError: a file cannot be decoded or shows no face; the message names it.
        UsageError: the detector is needed and not installed.
    """
    crops = [torch.from_numpy(np.ascontiguousarray(_crop(file).transpose(2, 0, 1))) for file in files]
    return torch.stack(crops)


def _crop(file: Path) -> np.ndarray:
    from bench.faces.alignment import align
    from bench.faces.photos import read_photo

    pixels = read_photo(file)
    if pixels.shape[:2] == (CROP_SIZE, CROP_SIZE):
        return pixels
    from bench.faces.detection import detector

    try:
        found = detector().detect(pixels)
        if found is None:
            raise DataError("it shows no face that the detector finds")
        return align(pixels, found.points)
    except DataError as error:
        raise DataError(f"{file}: {error}. Leave it out, or give an aligned 112×112 crop.") from error


def outputs(files: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Return where each protected photo goes: its name with the suffix .png.

    Raises:
        UsageError: two would have one name, or a file is there already, be it a photo to protect.
    """
    planned: dict[Path, Path] = {}
    given = {file.resolve() for file in files}
    for file in files:
        path = folder / f"{file.stem}.png"
        if path in planned:
            raise UsageError(
                f"{planned[path]} and {file} would both be written to {path}. Rename one of them."
            )
        if path.resolve() in given:
            raise UsageError(
                f"{path} is one of the photos to protect, and is not overwritten. Choose another --out."
            )
        if path.exists():
            raise UsageError(f"{path} exists and is not overwritten. Remove it, or choose another --out.")
        planned[path] = file
    return tuple(planned)


def eight_bits(images: Tensor) -> Tensor:
    """Return N×3×H×W images in [0, 1] as uint8, as they are written."""
    return images.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def check_changed(crops: Tensor, protected: Tensor, files: Sequence[Path]) -> None:
    """Check that no photo would be written as protected that is not changed at all.

    Args:
        crops: N×3×H×W uint8, before.
        protected: the same, after.
        files: the photo of each.

    Raises:
        DataError: names the photos that are as they were.
    """
    pairs = zip(files, crops, protected, strict=True)
    same = [str(file) for file, before, after in pairs if torch.equal(before, after)]
    if same:
        raise DataError(
            f"The server's answer changes nothing in {', '.join(same)}, so that nothing would be protected and nothing "
            "was written. Ask another server, or leave these photos out."
        )


def write_photos(pixels: Tensor, paths: Sequence[Path]) -> None:
    """Write N×3×H×W uint8 images as PNG: all to temporary names first, then all renamed.

    Raises:
        DataError: a file cannot be written.
    """
    from PIL import Image

    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        for path, image in zip(temporary, pixels, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, format="PNG")
                file.flush()
                os.fsync(file.fileno())
        for path, final in zip(temporary, paths, strict=True):
            path.replace(final)
    except OSError as error:
        raise DataError(f"the protected photos cannot be written: {error}.") from error
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
