"""Text from plugins, files and users as it may stand in a table, a page or on a terminal."""

LONGEST = 2_000
"""Characters of a reason that are kept; a plugin may raise an error of megabytes."""


def printable(text: str, longest: int = LONGEST) -> str:
    r"""Return a text of one line without what controls a terminal or the direction of writing, cut where it is long.

    White space becomes one blank; other characters that do not print (ESC, bidi marks, lone surrogates) are escaped.

    >>> printable("a\n\n  b \x1b[31m\u202e")
    'a b \\x1b[31m\\u202e'
    >>> printable("abcdef", longest=4)
    'abcd … (2 more characters)'
    """
    kept = text[: 2 * longest]  # what is escaped grows
    line = " ".join(kept.split())
    shown = "".join(one if one.isprintable() else _escaped(one) for one in line)
    if len(text) <= longest and len(shown) <= longest:
        return shown
    return f"{shown[:longest]} … ({max(len(text), len(shown)) - longest:,} more characters)"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def printable_lines(text: str) -> str:
    r"""Return a text of several lines, each without what controls a terminal; indentation stays.

    >>> printable_lines("a\x1b[31m\n  b")
    'a\\x1b[31m\n  b'
    """
    lines = text.splitlines()
    return "\n".join("".join(one if one.isprintable() else _escaped(one) for one in line) for line in lines)
