"""Sends every request for a public address to the tests' own server: ``https://HOST/PATH`` → ``BASE/HOST/PATH``.

Imported by a process that has this folder on its PYTHONPATH and names BASE by ``TEST_PUBLISHERS``; tests in this
process call `rewriting`. The product knows nothing of it.
"""

import os

import requests.sessions
from requests.adapters import HTTPAdapter


def rewriting(base: str) -> type[HTTPAdapter]:
    """Return an adapter that asks the server at `base`; answers say the public address again."""

    class Rewriting(HTTPAdapter):
        def send(self, request, **options):
            public = request.url
            request.url = f"{base}/{public.partition('://')[2]}"
            try:
                response = super().send(request, **options)
            finally:
                request.url = public
            response.url = public
            return response

    return Rewriting


if "TEST_PUBLISHERS" in os.environ:
    requests.sessions.HTTPAdapter = rewriting(os.environ["TEST_PUBLISHERS"])
