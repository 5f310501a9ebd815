"""A backbone whose numbers are odd as its parameter says; its rows are of the right pictures."""

from typing import ClassVar

import torch
from pydantic import Field

from bench.authoring.fakes import FakeBackbone

ODD = {
    "sound": lambda vectors: vectors,
    "nan": lambda vectors: vectors * float("nan"),
    "infinite": lambda vectors: vectors / 0,
    "zero": torch.zeros_like,
    "constant": torch.ones_like,
    "huge": lambda vectors: vectors.sign() * vectors.abs().clamp(0.1, 1) * 3e37,
    "tiny": lambda vectors: vectors * 1e-37,
}


class Odd(FakeBackbone):
    """Embeds as a fake does, with odd numbers."""

    name: ClassVar[str] = "odd"

    class Params(FakeBackbone.Params):
        """What is odd."""

        how: str = Field("sound", description="name of an oddity", json_schema_extra={"unit": ""})

    def embed(self, images):
        return ODD[self.params.how](super().embed(images))
