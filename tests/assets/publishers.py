"""A web server of the tests' own in the place of publishers: public addresses, and all that can go wrong with them."""

import hashlib
import importlib.util
import threading
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REWRITING = Path(__file__).parent / "rewriting"


def adapter(base):
    """Return what sends this process's requests to the server at `base`."""
    spec = importlib.util.spec_from_file_location("rewriting", REWRITING / "sitecustomize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rewriting(base)


class Publishers:
    """What the server has and does.

    Attributes:
        files: ``HOST/PATH`` → content or the file that holds it.
        faults: ``HOST/PATH`` → what becomes of the next requests for it, first come first; then it is served well.
        seen: ``HOST/PATH`` and ``Range`` of every request.
        ranges: whether parts of files are served.
        etags: whether files have one.
    """

    def __init__(self):
        self.files, self.faults, self.seen = {}, defaultdict(list), []
        self.ranges = self.etags = True
        self.base = ""

    def add(self, url, content):
        self.files[url.partition("://")[2]] = content

    def fault(self, url, *faults):
        self.faults[url.partition("://")[2]] += faults

    def asked(self, url):
        """Return the ranges asked for of an address."""
        return [span for key, span in self.seen if key == url.partition("://")[2]]


def cut(after):
    """Break the connection off after so many bytes of the answer."""

    def act(handler, content, headers):
        handler.begin(200 if "Content-Range" not in headers else 206, headers)
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        handler.connection.close()

    return act


def status(code, **headers):
    """Answer with a status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _content, _headers: handler.begin(code, {"Content-Length": "0", **named})


def redirect(url):
    """Lead to another address."""
    return status(302, Location=url)


def stall(after, seconds=30.0):
    """Send so many bytes, then nothing."""

    def act(handler, content, headers):
        handler.begin(200 if "Content-Range" not in headers else 206, headers)
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        handler.server.waits.wait(seconds)

    return act


def held(after, event):
    """Send so many bytes, and the rest once the event is set."""

    def act(handler, content, headers):
        handler.begin(200 if "Content-Range" not in headers else 206, headers)
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        event.wait(600)
        handler.wfile.write(content[after:])

    return act


def drip(pause):
    """Send one byte after the other."""

    def act(handler, content, headers):
        handler.begin(200 if "Content-Range" not in headers else 206, headers)
        for byte in content:
            if handler.server.waits.wait(pause):
                return
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()

    return act


def trickle(size, pause):
    """Send parts of a size, with a pause after each."""

    def act(handler, content, headers):
        handler.begin(200 if "Content-Range" not in headers else 206, headers)
        for start in range(0, len(content), size):
            handler.wfile.write(content[start : start + size])
            handler.wfile.flush()
            if handler.server.waits.wait(pause):
                return

    return act


def chunked(broken=False):
    """Send without a length, as GitHub does its archives; the end may be missing."""

    def act(handler, content, headers):
        kept = {
            key: value for key, value in headers.items() if key not in ("Content-Length", "Accept-Ranges")
        }
        handler.begin(200, {**kept, "Transfer-Encoding": "chunked"})
        for start in range(0, len(content), 1 << 15):
            part = content[start : start + (1 << 15)]
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            if broken:
                handler.wfile.flush()
                handler.connection.close()
                return
        handler.wfile.write(b"0\r\n\r\n")

    return act


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def begin(self, code, headers):
        self.send_response(code)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        self.close_connection = True
        has = self.server.publishers
        key = self.path.removeprefix("/")
        has.seen.append((key, self.headers.get("Range", "")))
        if key not in has.files and not has.faults[key]:
            self.begin(404, {"Content-Length": "0"})
            return
        content = has.files.get(key, b"")
        content = content.read_bytes() if isinstance(content, Path) else content
        act = has.faults[key].pop(0) if has.faults[key] else None
        part, headers, code = self._part(content)
        try:
            if act is not None:
                act(self, part, headers)
                return
            self.begin(code, headers)
            self.wfile.write(part)
        except OSError:
            pass  # the client went away

    def _part(self, content):
        has = self.server.publishers
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {"ETag": etag} if has.etags else {}
        span = self.headers.get("Range", "")
        same = self.headers.get("If-Range", etag) == etag
        if not (has.ranges and span and same):
            return content, {**headers, "Content-Length": str(len(content))}, 200
        start = int(span.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            return b"", {**headers, "Content-Length": "0", "Content-Range": f"bytes */{len(content)}"}, 416
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return content[start:], {**headers, "Content-Length": str(len(content) - start)}, 206


@contextmanager
def serving():
    """Run the server."""
    has = Publishers()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.publishers, server.waits, server.daemon_threads = has, threading.Event(), True
        has.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield has
        server.waits.set()
        server.shutdown()
        thread.join()
