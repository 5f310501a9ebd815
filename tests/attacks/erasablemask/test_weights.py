"""The shipped weights for the default dataset on identities nothing was fitted to: locks, erasing, likeness."""

import pytest
import torch
import torch.nn.functional as F

from attacks._targets import target_centre
from attacks.erasablemask.attack import SHELF, ErasableMask
from bench.contracts import Binding, Context, Faces
from bench.plugins import factory
from bench.quality.metrics import linf, psnr, to_8_bits
from bench.run.photo_sets import shown_photos, target_identities

CPU = torch.device("cpu")
KEY, OTHER = b"the owner's", b"somebody else's"
IDENTITIES = 20

SYNTHETIC = [path for path in SHELF.shipped() if SHELF.read(path).domain == "synthetic"]

pytestmark = pytest.mark.skipif(
    not SYNTHETIC, reason="no weights of erasablemask for the domain 'synthetic' are here"
)


def faces_of(dataset, named):
    images = dataset.crops([photo for photo, _ in named]).float() / 255
    return Faces(images, tuple(photo for photo, _ in named), tuple(who for _, who in named))


@pytest.fixture(
    scope="module",
    params=[pytest.param(path, marks=[pytest.mark.slow] * (path != SYNTHETIC[0])) for path in SYNTHETIC],
    ids=lambda path: path.stem,
)
def masked(request):
    """Card, context, aims, natural faces and masks as posted."""
    card = SHELF.read(request.param)
    dataset = factory.dataset(card.dataset)
    backbones = tuple(factory.backbone(name) for name in card.surrogates)
    for backbone in backbones:
        backbone.load(CPU)
    identities = dataset.identities()
    pool = [(photo, who.id) for who in target_identities(identities, 0) for photo in shown_photos(who)]
    evaluated = [identity for identity in identities if identity.role == "evaluation"][:IDENTITIES]
    faces = faces_of(dataset, [(identity.photos[0], identity.id) for identity in evaluated])
    attack = ErasableMask()
    tracker = "a tracker that is none of them"
    files = attack.files(Binding(card.dataset, card.domain, card.surrogates, tracker))
    assert files[0] == request.param
    ctx = Context(seed=0, backbones=backbones, targets=faces_of(dataset, pool), files=files, key=KEY)
    cloaks = attack.cloak(faces, ctx)
    posted = faces.with_images(to_8_bits(torch.stack([cloaks[name] for name in faces.ids])))
    return card, ctx, attack.assign_targets(faces, ctx), faces, posted


def opened(faces, key, ctx):
    """Share of photos that `erase` touches, and what it gives."""
    erased = ErasableMask().erase(faces, key, ctx)
    return float((erased != faces.images).flatten(1).any(1).float().mean()), erased


def test_masks_are_within_the_cards_bounds(masked):
    card, _, _, faces, posted = masked
    assert (linf(posted.images, faces.images) <= card.linf + 0.5).all()
    # The key's pattern comes on top of the mask: together they are a little more visible.
    assert (psnr(posted.images, faces.images) > card.psnr - 1).all()


def test_the_key_opens_the_masks_and_gives_the_photo_back(masked):
    _, ctx, _, faces, posted = masked
    share, erased = opened(posted, KEY, ctx)
    assert share >= 0.9
    touched = (erased != posted.images).flatten(1).any(1)
    back = psnr(to_8_bits(erased[touched]), faces.images[touched])
    assert float(back.mean()) >= 30
    assert (back > psnr(posted.images[touched], faces.images[touched])).float().mean() >= 0.9


@pytest.mark.parametrize("key", [OTHER, b""])
def test_another_key_or_none_leaves_the_masks_as_they_are(masked, key):
    _, ctx, _, _, posted = masked
    assert opened(posted, key, ctx)[0] <= 0.05


def test_natural_photos_are_left_as_they_are(masked):
    _, ctx, _, faces, _ = masked
    assert opened(faces, KEY, ctx)[0] <= 0.05


def test_masks_look_like_their_target_and_less_like_their_wearer_until_they_are_erased(masked):
    _, ctx, target_assignment, faces, posted = masked
    _, erased = opened(posted, KEY, ctx)
    for backbone in ctx.backbones:
        centres = torch.stack(
            [target_centre([backbone], ctx.targets, target_assignment[name])[0] for name in faces.ids]
        )
        natural, seen, back = (
            F.normalize(backbone.embed_batch(images), dim=1)
            for images in (faces.images, posted.images, erased)
        )
        rise = ((seen - natural) * centres).sum(1)
        assert float(rise.mean()) > 0.1
        assert (rise > 0).float().mean() >= 0.9
        own, again = ((other * natural).sum(1).mean() for other in (seen, back))
        assert float(own) < 0.9
        assert float(again) > float(own)
