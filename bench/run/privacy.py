"""What must not leave the machine in a report: where files lie. Runs record no host and no user beside that."""

import re
from collections.abc import Iterable

from bench.plugins import syntax
from bench.run.folder import RunFacts

# Not the slashes of an address (https://…), of a rate (a/b), nor what was shortened before.
_POSIX = re.compile(r"(?<![\w./…~])(?:~[\w.-]*)?/(?!/)[^\s'\"`|,;:()\[\]{}<>]+")
_WINDOWS = re.compile(r"(?<!\w)(?:[A-Za-z]:|\\)\\[^\s'\"`|,;:()\[\]{}<>]+")


class Paths:
    """Shortens every absolute path in a text to its last name: ``…/photos``.

    Args:
        known: paths that are looked for as they are, as they may hold spaces.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        found = {text for text in known if _is_path(text)}
        self.known = sorted(found, key=lambda text: (-len(text), text))

    @classmethod
    def of(cls, facts: RunFacts) -> "Paths":
        """Return what shortens the paths that a run was given, and all others."""
        spec = facts.requested
        texts = (*spec.attacks, *spec.defenses, *spec.backbones, spec.dataset, spec.protocol)
        words = {word for text in texts for word in syntax.words(text)}
        return cls([*words, *(file for method in facts.methods for file, _ in method.files)])

    def shortened(self, text: str) -> str:
        """Return a text without absolute paths."""
        for path in self.known:
            text = text.replace(path, _last(path))
        text = _POSIX.sub(lambda match: _last(match[0]), text)
        return _WINDOWS.sub(lambda match: _last(match[0].replace("\\", "/")), text)


def _is_path(text: str) -> bool:
    return bool(re.match(r"/|~|[A-Za-z]:\\|\\\\", text)) and len(text) > 1


def _last(path: str) -> str:
    tail = re.search(r"[.!?]*$", path)
    end = tail[0] if tail else ""
    name = re.split(r"[/\\]", path.removesuffix(end).rstrip("/\\"))[-1]
    return f"…/{name}{end}"
