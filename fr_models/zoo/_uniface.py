"""What the networks of yakhyo/uniface share: addresses, stated digests, preprocessing, and what is not known of them.

yakhyo/uniface @ d1df3872748acc1e166d4c8c120c4a71a5ea1dc8: uniface/constants.py (addresses, SHA-256),
uniface/recognition (112×112, (x − 127.5) / 127.5, RGB; AdaFace BGR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.contracts import BackboneCard, Preprocessing, Recipe, Source
from fr_models._onnx_backbone import OnnxBackbone
from fr_models._published import UNTESTED

Repository = Literal["uniface", "adaface-onnx", "edgeface-onnx"]

PINNED_IN = "yakhyo/uniface @ d1df3872748acc1e166d4c8c120c4a71a5ea1dc8, uniface/constants.py"
"""Where addresses and digests are stated."""

EMBEDDING_DIM = 512


@dataclass(frozen=True)
class Release:
    """A file of a release called ``weights`` of one of yakhyo's repositories.

    Attributes:
        file: its name.
        sha256: as `PINNED_IN` states it.
        repository: of the three.
    """

    file: str
    sha256: str
    repository: Repository = "uniface"

    @property
    def recipe(self) -> Recipe:
        """The file as it is."""
        url = f"https://github.com/yakhyo/{self.repository}/releases/download/weights/{self.file}"
        return Recipe(sources=(Source(name=self.file, url=url, sha256=self.sha256),))

    def card(
        self,
        name: str,
        *,
        licence: str,
        training_data: str,
        family: str,
        lfw_accuracy: float | None,
        released: str = "",
        channels: Literal["RGB", "BGR"] = "RGB",
        note: str = "",
    ) -> BackboneCard:
        """Return the card of the network in this file.

        Args:
            name: it is registered under.
            licence: of the weights, as stated.
            training_data: as stated.
            family: of backbones that are marked related.
            lfw_accuracy: as stated by who trained it.
            released: when the weights were published, in whichever format; "" where that is not known.
            channels: order in which the network wants them.
            note: what else a reader must know.
        """
        return BackboneCard(
            name=name,
            file=f"weights/uniface/{self.file}",
            sha256=self.sha256,
            released=released,
            licence=licence,
            source=f"yakhyo/{self.repository}, release weights, {self.file}; digest as stated in {PINNED_IN}",
            training_data=training_data,
            family=family,
            embedding_dim=EMBEDDING_DIM,
            preprocessing=Preprocessing(mean=127.5, scale=1 / 127.5, channels=channels),
            lfw_accuracy=lfw_accuracy,
            note="; ".join(filter(None, (UNTESTED, note))),
        )


class UnifaceNetwork(OnnxBackbone):
    """Base of a network that yakhyo/uniface hands out; a subclass gives `name`, `card` and `recipes`."""
