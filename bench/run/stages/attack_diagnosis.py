"""What an attack's own surrogates make of a sample of its cloaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.faces.pixels import decode_pixels
from bench.plugins.process import calling
from bench.quality import diagnosis
from bench.run.bound import BoundBackbone
from bench.run.device import Machine
from bench.run.graph import Advance, Node, Payloads


@dataclass(frozen=True, eq=False)
class AttackDiagnosis(Node):
    """Probes of some cloaks of a shard by each surrogate.

    Attributes:
        photos: a shard of natural photos.
        cloaks: the cloaks of that shard.
        chosen: image ids to look at.
        surrogates: the attack's.
        seed: of random starts and noise.
    """

    stage: ClassVar[str] = "diagnose"
    photos: Node
    cloaks: Node
    chosen: tuple[str, ...]
    surrogates: tuple[BoundBackbone, ...]
    seed: int

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.photos, self.cloaks)

    @property
    def images(self) -> int:
        return len(self.chosen)

    @property
    def size(self) -> int:
        return 256 * len(self.chosen) * len(self.surrogates)

    @property
    def core_seconds(self) -> float:
        return self.work * 5 * sum(each.core_seconds for each in self.surrogates)  # two gradients

    def key_fields(self) -> Mapping[str, Any]:
        return {
            "surrogates": [surrogate.key_fields for surrogate in self.surrogates],
            "chosen": self.chosen,
            "seed": self.seed,
        }

    def run(self, payloads: Payloads, machine: Machine, advance: Advance) -> bytes:
        """Return `bench.quality.diagnosis` probes as JSON."""
        photos, cloaks = (decode_pixels(payloads[node.address]) for node in self.inputs)
        surrogates = [(surrogate.name, surrogate.on(machine)) for surrogate in self.surrogates]
        with calling(f"one of the surrogates {', '.join(name for name, _ in surrogates)}"):
            probes = diagnosis.probe_attack(
                photos,
                cloaks,
                self.chosen,
                surrogates,
                seed=self.seed,
                device=machine.device,
                advance=advance,
            )
        return diagnosis.probes_to_bytes(probes)
