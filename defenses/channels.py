"""What happens to photos online, for protocol robustness: compression, smaller copies, crops, blur, noise, tone."""

from bench.contracts import ChannelGrid

ONLINE = ChannelGrid(
    chains=(
        "none",
        "jpeg:quality=95",
        "jpeg",
        "jpeg:quality=50",
        "jpeg:quality=30",
        "resize:side=80",
        "resize",
        "crop:share=0.95",
        "crop",
        "gaussian:sigma=0.5",
        "gaussian",
        "gaussian:sigma=2",
        "noise:sigma=4",
        "noise",
        "gamma:value=0.8",
        "gamma:value=1.25",
        "resize:side=96+jpeg:quality=71+jpeg:quality=71",
    )
)
"""Canonical: a bare name has its default (jpeg 75, resize 56, crop 0.9, blur 1, noise 8).

The last is what a social network does: a smaller copy, compressed when it is uploaded and when it is shared.
"""
