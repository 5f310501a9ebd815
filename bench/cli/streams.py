"""Standard output and error on terminals and pipes that cannot show every character: replaced, never an error."""

import codecs
import io
import sys
import unicodedata

HANDLER = "cloakbench.replace"
"""Name of the error handler by which characters are replaced."""

ASCII = "cloakbench-ascii"
"""ASCII by another name: under its own, click takes it for a mistake and writes UTF-8."""

_WRITTEN = {
    "→": "->", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": ",", "•": "*", "±": "+/-", "≤": "<=", "≥": ">=",
    "≠": "!=", "∞": "inf", "ε": "eps", "α": "alpha", "σ": "sigma", "μ": "mu", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def plain(text: str) -> str:
    """Return a text in ASCII: as it would be typed, without accents, else ``?`` for a character.

    >>> plain("L∞ ≤ 8 … → Zoë ✓")
    'Linf <= 8 ... -> Zoe ?'
    """
    return "".join(_plain(character) for character in text)


def _plain(character: str) -> str:
    if character.isascii():
        return character
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _WRITTEN.get(character) or bare or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def _find(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != ASCII:
        return None
    own = codecs.lookup("ascii")
    return codecs.CodecInfo(
        own.encode, own.decode, own.streamreader, own.streamwriter, own.incrementalencoder, own.incrementaldecoder,
        name=ASCII,
    )  # fmt: skip


codecs.register_error(HANDLER, _replace)
codecs.register(_find)


def forgive() -> None:
    """Have standard output and error replace what their encoding lacks, by `plain`; the encoding stays."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=ASCII if ascii_only else None, errors=HANDLER)
