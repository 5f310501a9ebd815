"""Keys of erasable cloaks, as files: 32 random bytes that never leave the file but into an attack's context.

A key file is three lines of text, readable by its owner alone:

    cloakbench-key 1
    secret <64 hexadecimal digits>
    fingerprint <16 hexadecimal digits>

The *fingerprint* is a one-way digest. It may be shown, and it proves that the file is whole.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shlex
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bench.errors import DataError, UsageError

NAME = "cloakbench-key"
VERSION = "1"
SECRET_BYTES = 32

_LONGEST = 4096  # bytes; a key file has 119
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Secret(bytes):
    """Bytes that are not shown where they are printed, so that a printed context or argument tells nothing."""

    def __repr__(self) -> str:
        return "Secret(not shown)"

    __str__ = __repr__


@dataclass(frozen=True, repr=False)
class Key:
    """A secret that shows its fingerprint only, wherever it is printed.

    Attributes:
        secret: the `SECRET_BYTES` bytes that `Attack.cloak` and `Attack.erase` get; made a `Secret`.
    """

    secret: bytes

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", Secret(self.secret))
        if len(self.secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(self.secret)}")

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that tell keys apart and do not tell the secret."""
        return sha256(b"cloakbench-key fingerprint\n" + self.secret).hexdigest()[:16]

    def hidden_in(self, text: str) -> str:
        """Return a text of somebody else's, e.g. of an attack's error, without the secret in it."""
        plain = bytes(self.secret)
        shown = {
            plain.hex(),
            plain.hex().upper(),
            repr(plain)[2:-1],  # also inside a bytearray or a longer text of bytes
            plain.decode("latin-1"),
            plain.decode(errors="replace"),
            base64.b64encode(plain).decode(),
            repr(list(plain))[1:-1],  # of a list, a tuple or a tensor
            str(int.from_bytes(plain)),
        }
        for form in sorted(shown, key=len, reverse=True):
            if len(form) >= SECRET_BYTES:  # the number of a secret of few bits may be any number
                text = text.replace(form, "[secret]")
        return text

    def __repr__(self) -> str:
        return f"Key(fingerprint='{self.fingerprint}')"


def create(path: Path) -> Key:
    """Write a new key of the system's randomness to a new file that its owner alone can read.

    Args:
        path: the file; its folder must exist.

    Raises:
        UsageError: the file exists (a key is never overwritten), or cannot be written.
    """
    key = Key(secrets.token_bytes(SECRET_BYTES))
    try:
        # O_EXCL: neither a file nor a link that appears meanwhile is written through.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"the key file {path} exists, and a key is never overwritten. Use it, or name another file."
        ) from None
    except OSError as error:
        raise UsageError(
            f"the key file {path} cannot be created: {error.strerror}. Name one in a folder you can write to."
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_text(key).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise UsageError(
            f"the key file {path} cannot be written: {error.strerror}. Free some space, or name another file."
        ) from None
    return key


def read(path: Path) -> Key:
    """Return the key in a file.

    Raises:
        DataError: the file is missing, can be read by others, is truncated, no key file or of another version.
    """
    return Key(_parsed(_owners_text(path), path))


def _text(key: Key) -> str:
    return f"{NAME} {VERSION}\nsecret {key.secret.hex()}\nfingerprint {key.fingerprint}\n"


def _owners_text(path: Path) -> str:
    try:
        # Of the file that was opened, not of one that took its name since; a pipe must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _no_key_file(path, "it is not a file")
            if os.name == "posix" and status.st_mode & _OTHERS:
                raise DataError(
                    f"the key file {path} can be read or written by others (mode {stat.S_IMODE(status.st_mode):03o}). "
                    f"Run: chmod 600 {shlex.quote(str(path))}"
                )
            return file.read(_LONGEST).decode("ascii")
    except FileNotFoundError:
        raise DataError(
            f"the key file {path} does not exist. Give the file that `bench cloak` made; without it nobody can erase "
            "these cloaks."
        ) from None
    except IsADirectoryError:
        raise _no_key_file(path, "it is a folder") from None
    except UnicodeDecodeError:
        raise _no_key_file(path, "it is not text") from None
    except OSError as error:
        raise DataError(
            f"the key file {path} cannot be read: {error.strerror}. Fix its permissions."
        ) from None


def _parsed(text: str, path: Path) -> bytes:
    """Return the secret; no part of the text may enter a message."""
    lines = [line.split() for line in text.splitlines()]
    if not lines or lines[0][:1] != [NAME]:
        raise _no_key_file(path, f"it does not begin with '{NAME}'")
    if lines[0][1:] != [VERSION]:
        raise DataError(
            f"the key file {path} is of another version than {VERSION}, the one this CloakBench reads. Use the "
            "CloakBench that made it."
        )
    fields = {line[0]: line[1] for line in lines[1:] if len(line) == 2}
    try:
        key = Key(bytes.fromhex(fields["secret"]))
        whole = key.fingerprint == fields["fingerprint"]
    except (KeyError, ValueError):
        whole = False
    if not whole:
        raise DataError(
            f"the key file {path} is truncated or was changed: secret and fingerprint do not belong together. "
            "Restore it from a copy."
        )
    return key.secret


def _no_key_file(path: Path, why: str) -> DataError:
    return DataError(f"{path} is no key file: {why}. Give the file that `bench cloak` made.")
