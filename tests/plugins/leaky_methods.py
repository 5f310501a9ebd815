"""Methods that leak on purpose, for tests of the audit; named by path."""

from typing import ClassVar, Literal

from pydantic import Field

from bench.contracts import Identity
from bench.datasets.synthetic import Synthetic
from bench.plugins import registry


class LeakyFaces(Synthetic):
    """Faces of which some serve training instead, as many as are requested, and some photos are there twice."""

    name = "leaky"
    default_pool: ClassVar[str] = "tiny"
    note: ClassVar[str] = ""

    class Params(Synthetic.Params):
        """Who is evaluated, and what is there twice."""

        identities: int = Field(8, ge=2, description="people")
        photos: int = Field(6, ge=1, description="photos of each of them")
        training_identities: int = Field(2, ge=0, description="other identities")
        training_photos: int = Field(2, ge=1, description="photos of each of those")
        first: int = Field(0, ge=0, description="identities before this one are for training")
        twins: Literal["none", "identity", "identities"] = Field(
            "none", description="which photos are there twice"
        )

    params: Params

    def _plain(self):
        return Synthetic(Synthetic.Params(**self.params.model_dump(exclude={"first", "twins"})))

    def identities(self):
        identities = self._plain().identities()
        moved = {identity.id for identity in identities if identity.role == "evaluation"}
        moved = set(sorted(moved)[: self.params.first])
        return tuple(
            Identity(identity.id, identity.photos, "training" if identity.id in moved else identity.role)
            for identity in identities
        )

    def fingerprint(self):
        # As LFW's: the photos decide it, not who is evaluated.
        return f"{self.params.twins} {self._plain().fingerprint()}"

    def crops(self, ids):
        return self._plain().crops([self._shown(image) for image in ids])

    def _shown(self, image):
        if self.params.twins == "identity" and image.startswith("synthetic-eval"):
            return f"{image.partition('/')[0]}/00"
        if self.params.twins == "identities" and image == "synthetic-train-0000/00":
            return "synthetic-eval-0007/02"
        return image


class KnownLeakyFaces(LeakyFaces):
    """The same, and it says so."""

    name = "known-leaky"
    note: ClassVar[str] = "made for tests; holds 64 near-duplicate photos"


class LeakyBackground(registry.PROTOCOLS.load("tracker")):
    """Takes an evaluated identity for an impostor."""

    name = "leaky-background"

    def impostors(self, identities, split_seed):
        return {"synthetic-eval-0007": ("synthetic-eval-0007/00",), "synthetic-train-0000": ()}


SHIPPED = registry.BACKBONES.load("synthetic-mobilefacenet")


class RenamedCopy(SHIPPED):
    """The weights of another backbone under a name of its own."""

    name = "renamed-copy"
    card = SHIPPED.card.model_copy(update={"name": "renamed-copy", "family": ""})
