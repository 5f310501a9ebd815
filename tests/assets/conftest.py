"""A web server in the place of publishers (`publishers.py`), for this process and for those that tests start."""

import sys
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent))
from publishers import adapter, serving


@pytest.fixture
def publishers(monkeypatch):
    """Run the server; requests of this process for any public address go there."""
    with serving() as has:
        monkeypatch.setattr(requests.sessions, "HTTPAdapter", adapter(has.base))
        yield has
