"""How photos are handed to an attack: in batches, or an identity's together."""

from collections.abc import Iterator

from bench.faces.pixels import Pixels


def scopes(scope: str, pixels: Pixels, batch_size: int) -> Iterator[list[int]]:
    """Yield the rows of one call after another.

    Args:
        scope: `Attack.scope`.
        pixels: photos, whole scopes.
        batch_size: at most this many images a call where the scope is the image.
    """
    if scope == "image":
        yield from batches(len(pixels.ids), batch_size)
        return
    for identity in dict.fromkeys(pixels.identities):
        yield [row for row, name in enumerate(pixels.identities) if name == identity]


def batches(count: int, batch_size: int) -> Iterator[list[int]]:
    """Yield the numbers below `count`, at most `batch_size` together."""
    for start in range(0, count, batch_size):
        yield list(range(start, min(start + batch_size, count)))
