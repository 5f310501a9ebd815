"""How visible changes are: image measures of a shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.errors import UsageError
from bench.faces.pixels import Pixels, decode_pixels, join_pixels
from bench.quality import per_image
from bench.quality.lpips import Lpips
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class Measure(Node):
    """One row an image: the changed image against the one it was made from.

    Attributes:
        original: a shard of images.
        changed: what was made of them; it may lack some.
        given: ids of images that count as unchanged where `changed` lacks them.
        lpips_trunk: SHA-256 of the trunk of LPIPS; "" to do without.
    """

    stage: ClassVar[str] = "measure"
    image_bytes: ClassVar[int] = 64
    original: Node
    changed: Node
    given: tuple[str, ...] = ()
    lpips_trunk: str = ""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.original, self.changed)

    @property
    def images(self) -> int:
        return self.changed.images

    @property
    def core_seconds(self) -> float:
        return self.work * (0.03 if self.lpips_trunk else 0.005)

    def key_fields(self) -> Mapping[str, Any]:
        return {"lpips_trunk": self.lpips_trunk, "given": self.given}

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `bench.quality.per_image` rows as Parquet."""
        before, after = (decode_pixels(payloads[node.address]) for node in self.inputs)
        after = _with_left_out(before, after, frozenset(self.given))
        rows = per_image.measure(before, after, self._lpips(machine), machine.device)
        advance(len(rows))
        return per_image.to_bytes(rows)

    def _lpips(self, machine: Machine) -> Lpips | None:
        if not self.lpips_trunk:
            return None
        lpips = machine.lpips
        if not isinstance(lpips, Lpips) or lpips.trunk_sha256 != self.lpips_trunk:
            raise UsageError(
                f"the LPIPS trunk of this plan has SHA-256 {self.lpips_trunk}, which is not loaded here. Give the file "
                "by --lpips-trunk."
            )
        return lpips


def _with_left_out(before: Pixels, after: Pixels, given: frozenset[str]) -> Pixels:
    """Return `after` with the images of `given` it lacks, as they are in `before`."""
    left_out = before.only(given - frozenset(after.ids))
    return join_pixels([after, left_out]) if left_out.ids else after
