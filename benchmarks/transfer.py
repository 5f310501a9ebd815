"""How far PGD's cloaks move backbones that the attack never saw: the table of docs/methods/pgd.md.

    python -m benchmarks.transfer

One photo each of LFW identities that are never evaluated; options may be chosen by it. Needs the data folder with
LFW and the real backbones; a few minutes of one thread.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from bench.contracts import Backbone, Context, Dataset, Faces
from bench.plugins import factory
from bench.quality.metrics import psnr, to_8_bits
from bench.randomness import numpy_generator

SURROGATES = ("mobileface-v2", "mobileface-v3")
TRACKERS = ("mobilefacenet-relu6", "mobilefacenet-casia")
FAR = 0.001
"""False accept rate of the threshold below which a cloak's photo counts as no longer matched."""

PACK = "eps=13,steps=20,step=.975,momentum=1"
"""Yang et al.'s schedule (20 steps of 1.5·ε/20, momentum 1) at the ε that is as visible as the first attack."""

DIVERSE = "diversity=1,resize=.9"

ATTACKS = (
    "pgd:eps=15",
    "pgd:eps=14,steps=20",
    f"pgd:eps=14,steps=20,{DIVERSE}",
    "pgd:eps=13,steps=20,smooth=1",
    "pgd:eps=14,steps=20,lgc=4",
    "pgd:eps=14,steps=20,dfanet=.01",
    f"pgd:eps=13,steps=20,{DIVERSE},smooth=1",
    f"pgd:{PACK}",
    f"pgd:{PACK},{DIVERSE}",
    f"pgd:{PACK},smooth=1",
    f"pgd:{PACK},lgc=4",
    f"pgd:{PACK},dfanet=.01",
    f"pgd:{PACK},dfanet=.1",
    f"pgd:{PACK},{DIVERSE},smooth=1,lgc=4",
)
"""About as visible one as the other; the first is what the others are compared with."""

Values = NDArray[np.float64]


def photos(dataset: Dataset, count: int) -> Faces:
    """Return one photo each of `count` training identities, drawn once and for all."""
    training = [identity for identity in dataset.identities() if identity.role == "training"]
    drawn = numpy_generator(0, "benchmarks/transfer", dataset.name).choice(
        len(training), count, replace=False
    )
    chosen = [training[k] for k in sorted(drawn)]
    ids = tuple(identity.photos[0] for identity in chosen)
    return Faces(dataset.crops(ids).float() / 255, ids, tuple(identity.id for identity in chosen))


def loaded(names: Sequence[str]) -> tuple[Backbone, ...]:
    """Return backbones, ready on the CPU."""
    found = tuple(factory.backbone(name) for name in names)
    for backbone in found:
        backbone.load(torch.device("cpu"))
    return found


def cosines(backbone: Backbone, cloaks: Tensor, clean: Tensor) -> Values:
    """Return the cosine between the embeddings of each cloak and of its photo."""
    moved, own = (F.normalize(backbone.embed_batch(images).double(), dim=1) for images in (cloaks, clean))
    found: Values = (moved * own).sum(1).numpy()
    return found


def lost(backbone: Backbone, values: Values) -> float:
    """Return the share of cosines below the backbone's threshold at `FAR`."""
    (threshold,) = (t.cosine for t in backbone.card.thresholds if t.far == FAR)
    return float((values < threshold).mean())


def change(values: Values, base: Values) -> str:
    """Return the mean difference of paired values with its 95 % interval (t)."""
    difference = values - base
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / len(difference) ** 0.5
    return f"{difference.mean():+.3f} ± {half:.3f}"


def line(
    attack: str, visible: Tensor, found: Mapping[Backbone, Values], base: Mapping[Backbone, Values]
) -> str:
    """Return an attack's line of the table: PSNR, then for each tracker mean cosine, change, share lost."""
    cells = [f"`{attack}`", f"{float(visible.mean()):.1f}"]
    for tracker, values in found.items():
        compared = "" if values is base[tracker] else f" ({change(values, base[tracker])})"
        cells += [f"{values.mean():.3f}{compared}", f"{100 * lost(tracker, values):.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", default=ATTACKS)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    faces = photos(factory.dataset("lfw"), args.photos)
    ctx = Context(seed=args.seed, backbones=loaded(SURROGATES))
    trackers = loaded(TRACKERS)
    columns = [f"cosine `{t.name}` | not matched, %" for t in trackers]
    print("| attack | PSNR, dB | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|---|" * len(trackers))
    base: Mapping[Backbone, Values] = {}
    for name in args.attacks:
        edits = factory.attack(name).cloak(faces, ctx)
        cloaks = to_8_bits(torch.stack([edits[i] for i in faces.ids]))
        found = {tracker: cosines(tracker, cloaks, faces.images) for tracker in trackers}
        base = base or found
        print(line(name, psnr(cloaks, faces.images), found, base), flush=True)


if __name__ == "__main__":
    main()
