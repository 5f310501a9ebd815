"""The warnings of a leaderboard, taken apart again."""

import re
from typing import Any

from bench.analysis.warning_rules import RULES

_NEXT = re.compile(rf"(?:^|; )({'|'.join(map(re.escape, RULES))}): ")


def split_warnings(text: Any) -> list[tuple[str, str]]:
    """Return the (code, sentence) of each warning in a row's column ``warnings``; none where it is empty.

    Sentences may hold a semicolon, so only one before a code of `warning_rules.RULES` parts two warnings.
    """
    if not isinstance(text, str):
        return []
    pieces = _NEXT.split(text)[1:]
    return list(zip(pieces[::2], pieces[1::2], strict=True))
