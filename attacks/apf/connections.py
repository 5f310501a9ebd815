"""Connections of `bench apf serve`: who sends nothing is closed, so that nobody is shut out by who only waits.

Here: limits on connections, as uvicorn's protocol class. Not here: what is answered (`attacks.apf.server`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_TIMEOUT = 10.0
"""Seconds within which the head of a request must be there, from the connection's beginning or the last answer."""

PER_ADDRESS = 16
"""Connections of one address at once; of more, those that have waited longest for their client are closed."""

AT_ONCE = 256
"""Connections of all addresses at once; likewise."""


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 whose idle and slow connections make room."""

    header_timeout = HEADER_TIMEOUT
    per_address = PER_ADDRESS
    at_once = AT_ONCE
    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and close those beyond the limits that are waiting for their client."""
        super().connection_made(transport)
        self._watch()
        everybody = [other for other in self.connections if isinstance(other, GuardedProtocol)]
        address = self.client[0] if self.client else ""
        own = [other for other in everybody if other.client and other.client[0] == address]
        for others, most in ((own, self.per_address), (everybody, self.at_once)):
            for other in sorted((one for one in others if one.is_idle), key=_since)[
                : max(0, len(others) - most)
            ]:
                if other is not self:
                    other.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._alarm is not None:
            self._alarm.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request, not for ever."""
        super().on_response_complete()
        self._watch()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _watch(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self.since = self.loop.time()
        self._alarm = self.loop.call_later(self.header_timeout, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.is_idle and not self.transport.is_closing():
            self.transport.close()


def _since(connection: Any) -> float:
    return float(connection.since)
