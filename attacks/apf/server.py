"""The server of `bench apf serve`: gradients in, perturbations out. It never sees a photo.

An ASGI application (Starlette, run by uvicorn; extra ``cloakbench[serve]``) around `_apf_cloud.CloudSide`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

from attacks.apf import wire
from bench.errors import BenchError, DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from attacks.apf.cloud import CloudSide

READ_TIMEOUT = 30.0
"""Seconds a client has to send its request."""

MAX_WAITING = 32
"""Requests read or answered at once; more are turned away."""


class _RefusedError(Exception):
    """A request that gets an error: HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def application(cloud: CloudSide, about: wire.About, read_timeout: float = READ_TIMEOUT) -> Starlette:
    """Return the ASGI application.

    Args:
        cloud: what answers.
        about: what it says of itself; `max_bytes` of it bounds a request.
        read_timeout: seconds a client has to send its request.

    Raises:
        UsageError: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError as error:
        raise _not_installed() from error

    busy = asyncio.Lock()  # one computation at a time: more would only share the same cores
    room = asyncio.Semaphore(MAX_WAITING)

    async def tell(_request: Request) -> Response:
        return _json(about.model_dump(), 200)

    async def transfer(request: Request) -> Response:
        if room.locked():
            return _error(503, f"The server is at work on {MAX_WAITING} requests. Try again in a minute.")
        async with room:
            return await _transferred(request, cloud, about.max_bytes, read_timeout, busy)

    async def no_such(_request: Request, _error_: Exception) -> Response:
        return _error(404, f"There is only GET {wire.ABOUT_PATH} and POST {wire.TRANSFER_PATH}.")

    async def failed(_request: Request, _error_: Exception) -> Response:
        return _error(500, "The server failed; its own log says why.")

    return Starlette(
        routes=[
            Route(wire.ABOUT_PATH, tell, methods=["GET"]),
            Route(wire.TRANSFER_PATH, transfer, methods=["POST"]),
        ],
        exception_handlers={404: no_such, 405: no_such, 500: failed},
    )


async def _transferred(
    request: Request, cloud: CloudSide, max_bytes: int, read_timeout: float, busy: asyncio.Lock
) -> Response:
    """Read a gradient and answer with its perturbation, or with why not."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response

    try:
        _check_version(request)
        payload = await asyncio.wait_for(_body(request, max_bytes), read_timeout)
        async with busy:
            answer = await run_in_threadpool(_answer, cloud, payload)
    except TimeoutError:
        return _error(408, f"The request did not arrive within {read_timeout:g} seconds.")
    except _RefusedError as refusal:
        return _error(refusal.status, str(refusal))
    except BenchError as error:
        return _error(400, str(error))
    return Response(
        answer, media_type="application/octet-stream", headers={wire.VERSION_HEADER: str(wire.VERSION)}
    )


def _not_installed() -> UsageError:
    return UsageError("the server needs Starlette and uvicorn: pip install 'cloakbench[serve]'.")


def _answer(cloud: CloudSide, payload: bytes) -> bytes:
    gradient = wire.decode_gradient(payload)
    try:
        return wire.encode_perturbation(cloud.transfer(gradient))
    except ValueError as error:
        raise DataError(f"The gradient does not fit: {error}") from error


def _check_version(request: Request) -> None:
    spoken = request.headers.get(wire.VERSION_HEADER, "")
    if spoken != str(wire.VERSION):
        raise _RefusedError(
            400,
            f"The header {wire.VERSION_HEADER} says '{spoken[:20]}', this server speaks version {wire.VERSION}.",
        )


async def _body(request: Request, largest: int) -> bytes:
    """Return the body, read no further than `largest` bytes."""
    refusal = _RefusedError(
        413, f"The request is larger than the {largest:,} bytes this server takes; send fewer photos."
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > largest:
        raise refusal
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > largest:
            raise refusal
    return bytes(body)


def _json(content: object, status: int) -> Response:
    from starlette.responses import Response

    return Response(
        json.dumps(content),
        status_code=status,
        media_type="application/json",
        headers={wire.VERSION_HEADER: str(wire.VERSION)},
    )


def _error(status: int, sentence: str) -> Response:
    return _json({"error": sentence, "version": wire.VERSION}, status)


def serve(application_: Starlette, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer requests until interrupted.

    Args:
        application_: what `application` returned.
        host: address to listen on.
        port: 0 for a free one.
        ready: called with the server's URL once it listens.

    Raises:
        UsageError: uvicorn is not installed, or the address cannot be had.
    """
    try:
        import uvicorn

        from attacks.apf.connections import GuardedProtocol
    except ImportError as error:
        raise _not_installed() from error
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(MAX_WAITING)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot listen on {host}, port {port}: {error}. Choose another --port."
            ) from error
        config = uvicorn.Config(
            application_,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_keep_alive=5,
            http=GuardedProtocol,
        )
        name = f"[{host}]" if family == socket.AF_INET6 else host
        ready(f"http://{name}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
