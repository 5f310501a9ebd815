"""Verification on given pairs, the protocol of generative cloaks (AMT-GAN and after): everyone has a given target.

A photo of each evaluated identity is cloaked to pass for one identity that the protocol names, instead of one that the
attack draws, and is compared with photos of that identity (impersonation) and of its own (dodging), at thresholds set
on others. `docs/protocols/pairs.md` states it in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field

from bench.contracts import Binding, Split
from bench.data.two_columns import read_two_columns
from bench.errors import UsageError
from bench.protocols.verification import VerificationProtocol
from bench.randomness import numpy_generator

TARGETS = 4
"""Target identities of the published protocol, each imitated by a quarter of the sources."""


POOL = 50
"""Identities that targets are drawn from, those with most photos; as many as there are targets where that is more."""


class PairsProtocol(VerificationProtocol):
    """Impersonation and dodging where the protocol says who imitates whom."""

    name = "pairs"
    paper = "Hu et al., AMT-GAN (CVPR 2022, arXiv 2203.03121): sources in four groups, each with its target identity"
    question = "impersonation, FAR 1 %"

    class Params(VerificationProtocol.Params):
        """Whom cloaks imitate."""

        max_gallery: int = Field(
            1,
            ge=1,
            description="photos of an identity that are cloaked",
            json_schema_extra={"unit": "photos"},
        )
        targets: int = Field(
            TARGETS,
            ge=1,
            description="identities that are imitated, drawn of the training identities with most photos, each by as "
            "many evaluated ones; published: 4",
            json_schema_extra={"unit": "identities"},
        )
        given: str = Field(
            "",
            description="a CSV of the columns identity,target that says who imitates whom; empty: they are drawn",
            json_schema_extra={"path": True},
        )

    params: Params

    def files(self, binding: Binding) -> tuple[Path, ...]:
        """Return the file that says who imitates whom, where there is one."""
        del binding
        return (Path(self.params.given),) if self.params.given else ()

    def given_targets(
        self, split: Split, impostors: Mapping[str, tuple[str, ...]], pool: Sequence[str], split_seed: int
    ) -> Mapping[str, str]:
        """Return evaluated identity → whom its cloaks imitate: as the file says, else drawn.

        Raises:
            UsageError: the file leaves somebody out, or fewer can be imitated than are wanted.
            DataError: the file cannot be read.
        """
        del impostors
        if self.params.given:
            return self._from_file(split)
        count = self.params.targets
        if len(pool) < count:
            raise UsageError(
                f"protocol '{self.name}' with targets={count} needs so many training identities of two photos or more, "
                f"and there are {len(pool)}. Lower targets, or use a dataset with more."
            )
        steadiest = pool[: max(count, POOL)]
        order = numpy_generator(split_seed, "pairs").permutation(len(steadiest))
        targets = [steadiest[number] for number in order[:count]]
        # By a draw of each identity's own, so that its group does not follow from its name.
        draw = {name: numpy_generator(split_seed, "pairs", name).random() for name in split.gallery}
        sources = sorted(draw, key=lambda name: (draw[name], name))
        return {name: targets[place % count] for place, name in enumerate(sources)}

    def _from_file(self, split: Split) -> Mapping[str, str]:
        path = self.params.given
        missing = sorted(split.gallery.keys() - self._in_file.keys())
        if missing:
            raise UsageError(
                f"'{path}' names no target of {len(missing)} of {len(split.gallery)} evaluated identities, first "
                f"'{missing[0]}'. Add a line for each: identity,target."
            )
        return {name: self._in_file[name] for name in split.gallery}

    @cached_property
    def _in_file(self) -> Mapping[str, str]:
        return read_two_columns(Path(self.params.given), "pairs", ("identity", "target"))
