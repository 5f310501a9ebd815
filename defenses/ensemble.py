"""One of several purifiers for each photo, drawn at random, so that nobody who makes a cloak knows which."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import Context, Faces, MethodParams
from bench.errors import UsageError
from bench.plugins.composition import OfPurifiers, fit_part, purify_part
from bench.plugins.factory import purifiers

STREAM = "defense ensemble"
"""Stage of the generators the members are drawn from."""


class Ensemble(OfPurifiers):
    """Sends each photo through one of its purifiers.

    Which one depends on the run's seed and the photo's id alone, each with the same probability: a photo's
    natural and its cloaked version meet the same. An attack that tries the ensemble draws by a seed of its own.
    """

    name: ClassVar[str] = "ensemble"
    deterministic = False

    class Params(MethodParams):
        """Parameters of `Ensemble`."""

        defenses: tuple[str, ...] = Field(
            ("jpeg", "gaussian", "median"),
            description="purifiers to draw from, at least two, joined by ' & '",
            json_schema_extra={"method": "defenses"},
        )

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        texts = (params or self.Params()).defenses
        if len(texts) < 2:
            raise UsageError(
                f"ensemble: defenses=[{' & '.join(texts)}] leaves nothing to draw; name two purifiers or more, "
                "e.g. ensemble:defenses=[puface & median]."
            )
        super().__init__(params, purifiers(texts, f"ensemble:defenses=[{' & '.join(texts)}]"))

    def fit(self, faces: Faces, ctx: Context) -> Mapping[str, Tensor]:
        """Let each member that learns do so on all the photos."""
        return {
            name: value
            for index, member in enumerate(self._members)
            for name, value in fit_part(member, faces, ctx, index).items()
        }

    def drawn(self, ids: tuple[str, ...], ctx: Context) -> list[int]:
        """Return which member each photo meets, as its place among `defenses`."""
        count = len(self._members)
        return [int(torch.randint(count, (1,), generator=ctx.generator(STREAM, name))) for name in ids]

    def purify(self, faces: Faces, ctx: Context) -> Tensor:
        """Return each image as the member drawn for it gives it back, N×3×H×W in [0, 1].

        Raises:
            MethodError: a member returned something else than as many images.
        """
        drawn = self.drawn(faces.ids, ctx)
        purified: dict[int, Tensor] = {}
        for index, member in enumerate(self._members):
            rows = [row for row, choice in enumerate(drawn) if choice == index]
            if rows:
                images = purify_part(member, faces.subset(rows), ctx, index)
                purified.update(zip(rows, images, strict=True))
        ctx.advance(len(faces))
        return torch.stack([purified[row] for row in range(len(faces))]) if purified else faces.images
