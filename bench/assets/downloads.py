"""Downloading one file over HTTP: resumed after a cut, tried again with growing pauses, checked by its digest.

`ResumingDownloader` is a downloader for pooch, whose own begins anew each time. What has arrived is kept as
``NAME.part`` with a note of what it belongs to (``NAME.part.json``: address, the server's ETag or date, the file's
size), so that the next attempt, or the next command, asks for the rest only (``Range`` with ``If-Range``, RFC 9110).
Where neither the server's word nor a whole digest could tell a mix of two files, it begins anew. Addresses may lead to
other hosts: the digest decides what is taken. Proxies of the environment are used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from bench.data.files import VARIABLE
from bench.errors import DataError

if TYPE_CHECKING:
    import requests

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are here and those in all (0: not known)."""

FROM = "--from URL_OR_FOLDER"

_CHUNK = 1 << 16
_WORTH = 1 << 20
"""Bytes; an attempt that brings so many was no failure."""

FULL_DIGEST = 64
"""Hexadecimal digits of a whole SHA-256."""

LARGEST = 4 << 30
"""Bytes that are taken of a file whose size nobody has stated; the largest known here have a tenth of that."""

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers of a server that may be another in a while."""


class NotThereError(DataError):
    """The server says that it has no such file."""


class WrongBytesError(DataError):
    """A file is not the one that is wanted, by its digest."""


class DiskFullError(DataError):
    """There is no room for what is fetched."""


class UnreachableError(DataError):
    """A host gives no answer at all.

    Attributes:
        host: its name.
        reason: why, in a few words.
    """

    def __init__(self, host: str, reason: str) -> None:
        self.host, self.reason = host, reason
        super().__init__(
            f"{host} cannot be reached ({reason}). Check the network, name a proxy (HTTPS_PROXY), or give a copy with "
            f"{FROM}."
        )


class _CutError(Exception):
    """An attempt ended before the file did; another may go on from there.

    Attributes:
        answered: whether the server answered at all.
        pause: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, *, answered: bool = True, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.answered, self.pause = answered, pause


@dataclass(frozen=True)
class Patience:
    """How long a download is tried.

    Attributes:
        connect_s: until a host answers.
        read_s: without a byte after which an attempt is given up.
        least_rate: bytes a second, over `read_s`, below which an attempt is given up.
        attempts: in a row that bring next to nothing.
        unanswered: attempts where the host does not answer.
        pause_s: before the second attempt; doubled before each further one.
        longest_pause_s: at most so long.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    least_rate: float = 100.0
    attempts: int = 6
    unanswered: int = 3
    pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def pause(self, failures: int, requested: float) -> float:
        """Return the seconds to wait after so many failures in a row."""
        return min(self.longest_pause_s, max(requested, self.pause_s * 2.0 ** (failures - 1)))


@dataclass
class ResumingDownloader:
    """Downloads one file, as pooch calls it.

    Attributes:
        part: where the file grows.
        sha256: expected digest or its first digits; "" for none.
        session: of requests; one for all files.
        report: told of the bytes that are here.
        patience: how long it is tried.
        sleep: waits for seconds.
        size: bytes that the file has, 0 where nobody has stated them; a stream that goes on beyond them, or beyond
            `LARGEST`, is left.
    """

    part: Path
    sha256: str
    session: requests.Session
    report: Progress = lambda _name, _done, _total: None
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], None] = time.sleep
    size: int = 0

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        """Bring the file of `url` to `output_file`; see `pooch.HTTPDownloader`.

        Raises:
            NotThereError: the server has no such file.
            UnreachableError: no server answers.
            WrongBytesError: the digest is another, or there are more bytes than the file has; nothing is kept.
            DiskFullError: the file has no room here.
            DataError: the connection broke off again and again; what arrived is kept.
        """
        del pooch, check_only
        resumed = self._kept(url) > 0
        self._complete(url)
        try:
            self._check(url)
        except WrongBytesError:
            if not resumed:
                raise
            self._complete(url)  # the first bytes may have been of another version
            self._check(url)
        self._note.unlink(missing_ok=True)
        self.part.replace(output_file)

    # -- the part and what it belongs to ---------------------------------------------------------------------

    @property
    def _note(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    @property
    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _belongs(self) -> Mapping[str, Any]:
        try:
            content = json.loads(self._note.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            return {}

    def _kept(self, url: str) -> int:
        """Return how many bytes are here to go on from: none where the part is or may be of another file.

        Without a validator the server's rest may be of another version: only a whole digest would tell.
        """
        note = self._belongs()
        sure = bool(note.get("validator")) or len(self.sha256) == FULL_DIGEST
        return self._size if sure and note.get("url") == url else 0

    def _drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _check(self, url: str) -> None:
        """Hold the whole file against its digest; without one, it is as long as the server said.

        Raises:
            WrongBytesError: it has another; it is gone.
        """
        found = digest_of(self.part)
        if not found.startswith(self.sha256):
            self._drop()
            begins = "" if len(self.sha256) == len(found) else "one that begins "
            raise WrongBytesError(
                f"{url} has SHA-256 {found}, expected {begins}{self.sha256}. Nothing was kept; the publisher's file "
                f"has changed or the way is not to be trusted. Give a copy with {FROM}."
            )

    # -- attempts --------------------------------------------------------------------------------------------

    def _complete(self, url: str) -> None:
        failures = 0
        furthest = self._kept(url)
        while True:
            try:
                self._attempt(url)
                return
            except _CutError as cut:
                kept = self._kept(url)
                failures = 1 if kept - furthest >= _WORTH else failures + 1
                furthest = max(furthest, kept)
                limit = self.patience.attempts if cut.answered or kept else self.patience.unanswered
                if failures >= limit:
                    raise self._given_up(url, cut) from cut
                self.sleep(self.patience.pause(failures, cut.pause))

    def _given_up(self, url: str, cut: _CutError) -> DataError:
        if not cut.answered:
            return UnreachableError(urlsplit(url).netloc, str(cut))
        kept = self._kept(url)
        if not kept:
            self._drop()
        rest = (
            f"{kept:,} bytes are kept: the same command goes on from there."
            if kept
            else "Try it again later."
        )
        return DataError(f"{url} cannot be had whole: {cut}. {rest} Or give a copy with {FROM}.")

    def _attempt(self, url: str) -> None:
        """Ask for what is missing and store what comes.

        Raises:
            _CutError: it is not whole yet.
        """
        import requests
        import urllib3

        start = self._kept(url)
        try:
            with self.session.get(
                url,
                headers=self._headers(start),
                stream=True,
                timeout=(self.patience.connect_s, self.patience.read_s),
            ) as response:
                self._refuse_downgrade(response)
                self._store(url, response, self._place(url, response, start))
        except requests.exceptions.SSLError as error:
            host = urlsplit(url).netloc
            raise DataError(
                f"{host} shows a certificate that is not accepted here: {_words(error)}."
            ) from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise _CutError(_reason(error), answered=False) from error
        except (urllib3.exceptions.HTTPError, requests.exceptions.ChunkedEncodingError) as error:
            raise _CutError(_reason(error)) from error
        except requests.RequestException as error:
            raise DataError(
                f"{url} cannot be asked for: {_words(error)}. Give a copy with {FROM}."
            ) from error

    def _headers(self, start: int) -> dict[str, str]:
        # "identity": what arrives must be the file's own bytes, or no range of them would fit.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator := self._belongs().get("validator"):
                headers["If-Range"] = validator
        return headers

    @staticmethod
    def _refuse_downgrade(response: requests.Response) -> None:
        for hop in response.history:
            target = urljoin(hop.url, hop.headers.get("Location", ""))
            if hop.url.startswith("https:") and not target.startswith("https:"):
                raise DataError(f"{hop.url} leads to {target}, which is not encrypted; it is not followed.")

    def _place(self, url: str, response: requests.Response, start: int) -> tuple[int, int]:
        """Judge the answer; return where its bytes belong, and the file's size (0: not stated).

        Raises:
            NotThereError: it says that there is no such file.
            _CutError: it may be another in a while.
            DataError: it will not give the file.
        """
        status = response.status_code
        noted = self._belongs().get("total") or 0
        if status == 416:  # nothing behind what is here
            whole = response.headers.get("Content-Range", "").rpartition("/")[2] == str(start)
            if not whole or noted not in (0, start):
                self._drop()
                raise _CutError("the part that was here does not fit the file any more")
            return start, start
        if status in _BUSY:
            raise _CutError(f"the server answers {status}", pause=_retry_after(response))
        if status in (404, 410):
            raise NotThereError(f"{url} answers {status}: there is no such file. Give a copy with {FROM}.")
        if status not in (200, 206):
            raise DataError(f"{url} answers {status}. Give a copy with {FROM}.")
        if status == 206:
            span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if span.partition("-")[0] != str(start):
                self._drop()
                raise _CutError("the server gives another range than it was asked for")
            size = int(total) if total.isdecimal() else noted
            if noted not in (0, size) or not self._same(response):
                self._drop()
                raise _CutError("the server gives the rest of another file than before")
            return start, size
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else 0

    def _same(self, response: requests.Response) -> bool:
        """Say whether an answer may be of the file that was begun: it names no other version (If-Range is heeded)."""
        before, now = self._belongs().get("validator"), _validator(response)
        return not (before and now) or before == now

    def _store(self, url: str, response: requests.Response, place: tuple[int, int]) -> None:
        start, total = place
        name = self.part.name.removesuffix(".part")
        self.report(name, start, total)
        if response.status_code == 416:
            return
        self._bound(url, total)
        if not start:
            self._drop()
        require_space(self.part.parent, total - start, name)
        if not start:
            note = {"url": url, "validator": _validator(response), "total": total}
            self._note.write_text(json.dumps(note), encoding="utf-8")
        with self.part.open("ab") as file:
            self._receive(url, response, file, (start, total))
        if total and self._size != total:
            raise _CutError(f"it ended after {self._size:,} of {total:,} bytes")

    def _bound(self, url: str, size: int) -> None:
        """Check that a file is no larger than it may be.

        Raises:
            WrongBytesError: it is; nothing is kept.
        """
        if size > (self.size or LARGEST):
            self._drop()
            most = f"the {self.size:,} that the file has" if self.size else f"the {LARGEST:,} that are taken"
            raise WrongBytesError(
                f"{url} gives more bytes than {most}. Nothing was kept; the publisher's file has changed or the way "
                f"is not to be trusted. Give a copy with {FROM}."
            )

    def _receive(self, url: str, response: requests.Response, file: Any, place: tuple[int, int]) -> None:
        start, total = place
        name = self.part.name.removesuffix(".part")
        done = seen = start
        since = time.monotonic()
        for content in _pieces(response):
            done += len(content)
            self._bound(url, done)
            file.write(content)
            if total and done > total:
                raise _CutError(f"more than the {total:,} bytes that the server stated")
            self.report(name, done, total)
            if (now := time.monotonic()) - since > self.patience.read_s:
                if done - seen < self.patience.least_rate * self.patience.read_s:
                    raise _CutError(f"only {done - seen} bytes came in {now - since:.0f} s")
                since, seen = now, done


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield the bytes of an answer as they come, undecoded."""
    if response.raw.chunked:  # one by one, as `read1` does not see that the last chunk is missing
        yield from response.raw.read_chunked(_CHUNK, decode_content=False)
        return
    while content := response.raw.read1(_CHUNK, decode_content=False):
        yield content


def require_space(folder: Path, needed: int, what: str) -> None:
    """Check that a disk has room.

    Raises:
        DiskFullError: it has not; says how much is free and how much is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"{folder} has {free:,} bytes free, {what} needs {needed:,}. Free some space, or point "
            f"{VARIABLE} elsewhere."
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file that may be written again under the same name: nothing is remembered."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _validator(response: requests.Response) -> str:
    """Return what tells this version of a file from others, "" where the server says nothing that does."""
    etag: str = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _retry_after(response: requests.Response) -> float:
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else 0.0


def _reason(error: Exception) -> str:
    """Return in a few words why a connection failed."""
    names = {type(each).__name__ for each in _causes(error)}
    known = {
        "NameResolutionError": "its name is not known here",
        "ProxyError": "the proxy does not answer",
        "ConnectTimeoutError": "no answer in time",
        "ReadTimeoutError": "no byte came for too long",
        "ReadTimeout": "no byte came for too long",
        "IncompleteRead": "the connection broke off",
        "NewConnectionError": "the connection is refused",
        "ConnectionResetError": "the connection was cut",
        "RemoteDisconnected": "the connection was cut",
    }
    return next((words for name, words in known.items() if name in names), type(error).__name__)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error with all that it wraps."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [*each.args, each.__cause__, each.__context__, getattr(each, "reason", None)]
    return found


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
