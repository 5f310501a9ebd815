"""Runs of many shapes, made once, and what their reports say."""

from html.parser import HTMLParser

import pytest

from bench.leaderboard.view import RunView
from bench.report.content import ReportOptions, collect
from bench.report.html import to_html

VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "wbr"})


class Page(HTMLParser):
    """What a page is made of; `errors` has every tag that is closed wrongly."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.errors, self.tags, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        self.errors += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.errors.append(f"</{tag}> in {self.open[-3:]}")
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="session")
def page_of():
    return Page


_MADE = {}
"""What several modules of tests look at: fixtures of a module cannot be shared, and making these takes seconds."""


@pytest.fixture(scope="module")
def view(evaluate):
    """Return a run of two attacks against one defence, seven identities."""
    if "view" not in _MADE:
        attacks = ("tiny-noise", "tiny-identity-mean")
        prepared = evaluate(attacks=attacks, defenses=("jpeg:quality=20",), dataset="tiny:identities=7")
        _MADE["view"] = RunView.of(prepared.folder.path)
    return _MADE["view"]


@pytest.fixture(scope="module")
def report(view):
    if "report" not in _MADE:
        _MADE["report"] = collect(view, ReportOptions(photos=False))
    return _MADE["report"]


@pytest.fixture(scope="module")
def html(report):
    if "html" not in _MADE:
        _MADE["html"] = to_html(report)
    return _MADE["html"]
