"""How far cloaks move backbones that the attack never saw: tables of docs/methods/pgd.md, lowkey.md and fawkes.md.

    python -m benchmarks.transfer
    python -m benchmarks.transfer --visibility lowkey lowkey:perceptual=dssim

One photo each of LFW identities that are never evaluated; options may be chosen by it. Attacks that imitate someone get
the harness's pool of target identities. Needs the data folder with LFW and the real backbones; a few minutes of one
thread.
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
from bench.quality.lpips import Lpips, Unavailable, load_lpips
from bench.quality.metrics import dssim, linf, psnr, to_8_bits
from bench.randomness import numpy_generator
from bench.run.photo_sets import training_photos

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


def photos(dataset: Dataset, count: int, each: int = 1) -> Faces:
    """Return the first photos of `count` training identities with at least `each`, drawn once and for all."""
    training = [
        identity
        for identity in dataset.identities()
        if identity.role == "training" and len(identity.photos) >= each
    ]
    drawn = numpy_generator(0, "benchmarks/transfer", dataset.name).choice(
        len(training), count, replace=False
    )
    chosen = [(photo, training[k].id) for k in sorted(drawn) for photo in training[k].photos[:each]]
    return faces_of(dataset, chosen)


def faces_of(dataset: Dataset, chosen: Sequence[tuple[str, str]]) -> Faces:
    """Return the crops of (image id, identity id)."""
    ids, identities = zip(*chosen, strict=True)
    return Faces(dataset.crops(ids).float() / 255, ids, identities)


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


def visibility(cloaks: Tensor, clean: Tensor, lpips: Lpips) -> list[str]:
    """Return the largest L∞, and the means of DSSIM and LPIPS."""
    distance, structure = lpips.distance(cloaks, clean).mean(), dssim(cloaks, clean)
    return [
        f"{float(linf(cloaks, clean).max()):.0f}",
        f"{float(structure.mean()):.4f} ({float(structure.max()):.4f})",
        f"{float(distance):.3f}",
    ]


def line(
    attack: str,
    visible: Tensor,
    found: Mapping[Backbone, Values],
    base: Mapping[Backbone, Values],
    further: Sequence[str] = (),
) -> str:
    """Return an attack's line of the table: PSNR, `further`, then for each tracker mean cosine, change, share lost."""
    cells = [f"`{attack}`", f"{float(visible.mean()):.1f}", *further]
    for tracker, values in found.items():
        compared = "" if values is base[tracker] else f" ({change(values, base[tracker])})"
        cells += [f"{values.mean():.3f}{compared}", f"{100 * lost(tracker, values):.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", default=ATTACKS)
    parser.add_argument("--photos", type=int, default=24, help="identities")
    parser.add_argument("--each", type=int, default=1, help="photos of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--visibility", action="store_true", help="L∞, DSSIM and LPIPS as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = factory.dataset("lfw")
    faces = photos(dataset, args.photos, args.each)
    lpips = load_lpips() if args.visibility else None
    if isinstance(lpips, Unavailable):
        raise SystemExit(lpips.reason)
    pool = faces_of(dataset, training_photos(dataset.identities(), "targets", 0))
    ctx = Context(seed=args.seed, backbones=loaded(SURROGATES), targets=pool)
    trackers = loaded(TRACKERS)
    more = " L∞ | DSSIM mean (max) | LPIPS |" if lpips else ""
    columns = [f"cosine `{t.name}` | not matched, %" for t in trackers]
    print(f"| attack | PSNR, dB |{more} " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * more.count("|") + "---|---|" * len(trackers))
    base: Mapping[Backbone, Values] = {}
    for name in args.attacks:
        edits = factory.attack(name).cloak(faces, ctx)
        cloaks = to_8_bits(torch.stack([edits[i] for i in faces.ids]))
        found = {tracker: cosines(tracker, cloaks, faces.images) for tracker in trackers}
        base = base or found
        seen = visibility(cloaks, faces.images, lpips) if lpips else ()
        print(line(name, psnr(cloaks, faces.images), found, base, seen), flush=True)


if __name__ == "__main__":
    main()
