"""A third-party package of tiny methods, for tests of the harness: quick, seeded, and blind to faces.

`tests/conftest.py` registers them by entry points, as any installed package would.
"""

import os
import time
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from bench.contracts import (
    Attack,
    Backbone,
    BackboneCard,
    BackbonePool,
    Hardening,
    MethodParams,
    PersonMask,
    Purifier,
    ThreatModel,
    WholePhoto,
)
from bench.datasets.synthetic import Synthetic
from bench.faces.alignment import TEMPLATE
from bench.randomness import torch_generator

POOL = BackbonePool(name="tiny", groups=(("tiny-a",), ("tiny-b",), ("tiny-c",)))


class TinyFaces(Synthetic):
    """The embedded default with fewer identities and a pool of tiny backbones."""

    name = "tiny"
    default_pool: ClassVar[str] = "tiny"
    note: ClassVar[str] = "tiny: no figure says anything about faces"

    class Params(Synthetic.Params):
        """Fewer of everything."""

        identities: int = Field(6, ge=2, description="identities to evaluate")
        photos: int = Field(6, ge=1, description="photos of each of them")
        training_identities: int = Field(4, ge=0, description="other identities")
        training_photos: int = Field(2, ge=1, description="photos of each of those")

    def whole_photo(self, image):
        """Return the crop on a canvas of 150×140."""
        canvas = np.full((140, 150, 3), 90, np.uint8)
        canvas[15:127, 20:132] = self.crops([image])[0].permute(1, 2, 0).numpy()
        return WholePhoto(canvas, TEMPLATE + np.array((20, 15)))


class _TinyBackbone(Backbone):
    """Projects 14×14 grey pixels onto a few random directions."""

    dimension: ClassVar[int] = 16

    def __init__(self, params=None):
        super().__init__(params)
        self.card = BackboneCard(
            name=self.name,
            licence="Apache-2.0",
            domain="synthetic",
            training_data="tiny/training",
            family="tiny" if self.name != "tiny-c" else "",
            embedding_dim=self.dimension,
        )
        self.projection = None

    def load(self, device):
        generator = torch_generator(0, self.name)
        self.projection = torch.randn(14 * 14, self.dimension, generator=generator).to(device)

    def embed(self, images):
        return _grey(images) @ self.projection

    def trainable(self, device):
        return _Projection(self.projection.clone().to(device))


def _grey(images):
    grey = F.avg_pool2d(images.mean(1, keepdim=True), 8).flatten(1)
    return grey - grey.mean(1, keepdim=True)


class _Projection(torch.nn.Module):
    """The projection as a network that can be trained."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, images):
        return _grey(images) @ self.weights


class TinyA(_TinyBackbone):
    """The first."""

    name = "tiny-a"


class TinyB(_TinyBackbone):
    """The second, with longer embeddings."""

    name = "tiny-b"
    dimension: ClassVar[int] = 24


class TinyC(_TinyBackbone):
    """The third, convolutional: its kernels round differently for different batch shapes."""

    name = "tiny-c"
    dimension: ClassVar[int] = 32

    def load(self, device):
        generator = torch_generator(0, self.name)
        shapes = ((16, 3, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3))
        self.projection = [0.2 * torch.randn(shape, generator=generator).to(device) for shape in shapes]

    def embed(self, images):
        values = 2 * images - 1
        for weight in self.projection:
            values = torch.tanh(F.conv2d(values, weight, stride=3))
        return values.mean((2, 3))


class Noise(Attack):
    """Adds seeded noise; sleeps TINY_DELAY seconds an image, which no key knows of."""

    name = "tiny-noise"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted", constraint="σ = 0.2")

    def cloak(self, faces, ctx):
        edits = {}
        for image, image_id in zip(faces.images, faces.ids, strict=True):
            time.sleep(float(os.environ.get("TINY_DELAY", "0")))
            noise = torch.randn(image.shape, generator=ctx.generator("noise", image_id))
            edits[image_id] = (image + 0.2 * noise).clamp(0, 1)
            ctx.advance(1)
        return edits


class Failing(Attack):
    """Fails on its first photo."""

    name = "tiny-failing"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        raise RuntimeError(f"no cloak for {faces.ids[0]}")


class Breaking(Attack):
    """Breaks the contract of `cloak` in the way requested."""

    name = "tiny-breaking"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted")

    class Params(MethodParams):
        """Which rule it breaks."""

        rule: Literal["range", "nan", "shape", "dtype", "stranger", "mapping"] = Field(
            description="the rule", default="range"
        )

    params: Params

    def cloak(self, faces, ctx):
        image, name = faces.images[0], faces.ids[0]
        return {
            "range": {name: image + 1},
            "nan": {name: image * float("nan")},
            "shape": {name: image[:, :100]},
            "dtype": {name: image.double()},
            "stranger": {"somebody/00": image},
            "mapping": [image],
        }[self.params.rule]


class PersonMean(Attack):
    """Posts the mean of an identity's photos instead of each; needs all of them at once."""

    name = "tiny-identity-mean"
    scope: Literal["identity"] = "identity"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        if len(set(faces.identities)) != 1:
            raise RuntimeError("got several identities at once")
        return dict.fromkeys(faces.ids, faces.images.mean(0))


class Learning(Attack):
    """Learns the mean training face and blends every photo with it."""

    name = "tiny-learning"
    requires_fit: ClassVar[bool] = True
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted")

    def fit(self, faces, ctx):
        return {"mean": faces.images.mean(0)}

    def cloak(self, faces, ctx):
        return {
            name: (image + ctx.state["mean"]) / 2 for name, image in zip(faces.ids, faces.images, strict=True)
        }


class Imitating(Attack):
    """Posts the first target's face instead of one's own."""

    name = "tiny-imitating"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="targeted", needs_targets=True)

    def cloak(self, faces, ctx):
        return dict.fromkeys(faces.ids, ctx.targets.images[0])

    def assign_targets(self, faces, ctx):
        return dict.fromkeys(faces.ids, ctx.targets.identities[0])


class Sometimes(Attack):
    """Turns every photo with an even number upside down and leaves the others as they are."""

    name = "tiny-sometimes"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted")

    def cloak(self, faces, ctx):
        pairs = zip(faces.ids, faces.images, strict=True)
        return {name: image.flip(1) for name, image in pairs if int(name[-2:]) % 2 == 0}


class Erasable(Attack):
    """Adds noise drawn from the key, which the key takes off again."""

    name = "tiny-erasable"
    erasable: ClassVar[bool] = True
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted")

    def _noise(self, key, image):
        return 0.1 * torch.randn(image.shape, generator=torch_generator(0, key.hex()))

    def cloak(self, faces, ctx):
        pairs = zip(faces.ids, faces.images, strict=True)
        return {name: (image + self._noise(ctx.key, image)).clamp(0, 1) for name, image in pairs}

    def erase(self, faces, key, ctx):
        return torch.stack([(image - self._noise(key, image)).clamp(0, 1) for image in faces.images])


class Mask(PersonMask):
    """Adds an identity's own coarse noise, and a little of how many photos it was learnt from; takes it off again."""

    name = "tiny-mask"
    erasable: ClassVar[bool] = True
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted", constraint="some noise")

    def learn(self, faces, ctx):
        if len(set(faces.identities)) != 1:
            raise RuntimeError("got several identities at once")
        noise = torch.randn((3, 14, 14), generator=ctx.generator("mask", faces.identities[0]))
        ctx.advance(len(faces))
        return {"noise": 0.1 * noise + 0.001 * len(faces)}

    def _of(self, mask):
        return F.interpolate(mask["noise"][None], scale_factor=8)[0]

    def apply(self, faces, mask, ctx):
        return (faces.images + self._of(mask)).clamp(0, 1)

    def take_off(self, faces, mask, ctx):
        return (faces.images - self._of(mask)).clamp(0, 1)


class Negative(Purifier):
    """Gives the negative of every image back, which turns a centred linear embedding round."""

    name = "tiny-negative"

    def purify(self, faces, ctx):
        return 1 - faces.images


class Trained(Purifier):
    """Does nothing, and says of itself what its parameters say."""

    name = "tiny-trained"

    class Params(MethodParams):
        """What it says."""

        attacks: str = Field("", description="attacks it was trained on, joined by ;")
        identities: str = Field("none", description="on whose photos")
        features: str = Field("auto", description="extractors")

    params: Params

    def pool(self):
        return self.params.features

    def trained_on(self, binding):
        return tuple(filter(None, self.params.attacks.split(";")))

    def training_identities(self, binding):
        return self.params.identities

    def purify(self, faces, ctx):
        return faces.images


class _Centred(Backbone):
    """A backbone whose embeddings are moved."""

    name = "tiny-centred"

    def __init__(self, inner, centre):
        super().__init__()
        self.inner, self.centre, self.card = inner, centre, inner.card

    def load(self, device):
        self.inner.load(device)

    def embed(self, images):
        return self.inner.embed(images) - self.centre

    def trainable(self, device):
        return _Moved(self.inner.trainable(device), self.centre.to(device))


class _Moved(torch.nn.Module):
    """A network whose output is moved."""

    def __init__(self, inner, centre):
        super().__init__()
        self.inner, self.centre = inner, centre

    def forward(self, images):
        return self.inner(images) - self.centre


class Centring(Hardening):
    """Subtracts the mean embedding of the training faces."""

    name = "tiny-centring"

    def train(self, tracker, faces, ctx):
        return {"centre": tracker.embed_batch(faces.images).mean(0)}

    def harden(self, tracker, state):
        return _Centred(tracker, state["centre"])
