"""The pools of helper backbones: who may be surrogate or extractor against whom.

A group holds backbones that are too alike to be fair to each other; a tracker's own group never helps.
"""

from __future__ import annotations

from bench.contracts import BackbonePool

REAL = BackbonePool(
    name="real",
    groups=(("mobilefacenet-relu6", "mobilefacenet-casia"), ("mobileface-v2", "mobileface-v3")),
    trackers=("dlib-resnet", "edgeface-xxs"),
)
"""For real faces: a tracker of one pair has the other pair against it, which shares no family with it.

This is the two-way split of DESIGN 6. Trackers of other families stand beside the groups: as helpers they would
change the surrogates of every cell of the four.
"""

REAL_SIBLINGS = BackbonePool(name="real-siblings", groups=REAL.groups, within=True)
"""The other way round: the tracker's nearest kin is against it, so no surrogate of an attack that has pool ``real``."""

SYNTHETIC = BackbonePool(
    name="synthetic",
    groups=(("synthetic-mobilefacenet",), ("synthetic-iresnet",), ("synthetic-mobilefacenet-wide",)),
)
"""For the embedded default's drawn faces: each tracker has the other two against it."""
