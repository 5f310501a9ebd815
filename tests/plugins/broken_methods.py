"""Methods that keep every contract and yet do not do their work, each in a way of its own."""

from typing import ClassVar

import torch
from tiny_methods import TinyB

from attacks.pgd import PGD
from bench.contracts import Attack, Purifier, ThreatModel


class Idle(Attack):
    """Returns its input."""

    name = "broken-idle"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted", surrogates=1, max_linf=8)

    def pool(self):
        return "auto"

    def cloak(self, faces, ctx):
        return dict(zip(faces.ids, faces.images, strict=True))


class Greedy(PGD):
    """Takes twice what it declares."""

    name = "broken-greedy"

    class Params(PGD.Params):
        """Of PGD."""

        eps: float = 16
        steps: int = 2

    @property
    def threat(self):
        return ThreatModel(goal="untargeted", surrogates=1, max_linf=8)


class Noise(Attack):
    """Adds noise and looks at no surrogate."""

    name = "broken-noise"
    threat: ClassVar[ThreatModel] = ThreatModel(goal="untargeted", surrogates=1, max_linf=120)

    def pool(self):
        return "tiny-b"

    def cloak(self, faces, ctx):
        edits = {}
        for image, name in zip(faces.images, faces.ids, strict=True):
            noise = 2 * torch.rand(image.shape, generator=ctx.generator("noise", name)) - 1
            edits[name] = (image + noise * 120 / 255).clamp(0, 1)
        return edits


class Rounded(TinyB):
    """Rounds its embedding, which has no gradient then."""

    name = "broken-rounded"

    def embed(self, images):
        return (super().embed(images) * 100).round()


class Constant(Purifier):
    """Returns a grey image."""

    name = "broken-constant"

    def purify(self, faces, ctx):
        return torch.full_like(faces.images, 0.5)


class Returning(Purifier):
    """Returns its input."""

    name = "broken-returning"

    def purify(self, faces, ctx):
        return faces.images
