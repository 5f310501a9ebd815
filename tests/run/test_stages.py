import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.authoring.fakes import FakeBackbone
from bench.contracts import Attack, Context, Embedded, Purifier, ThreatModel
from bench.errors import MethodError
from bench.faces import pixels as faces_pixels
from bench.faces.pixels import Pixels
from bench.run import embeddings
from bench.run.digest import digest
from bench.run.stages.cloak import cloak
from bench.run.stages.embed import EMBED_BATCH, embed
from bench.run.stages.purify import purify
from bench.run.store import Store

CPU = torch.device("cpu")


def pixels(count, size=112, identities=2):
    images = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(count))
    ids = tuple(f"image-{row}" for row in range(count))
    return Pixels(images.to(torch.uint8), ids, tuple(f"identity-{row % identities}" for row in range(count)))


class Made(Attack):
    """Returns what the test says."""

    name = "made"
    threat = ThreatModel(goal="none", constraint="whatever the test says")

    def __init__(self, make, scope="image"):
        super().__init__()
        self.make, self._scope, self.given = make, scope, []

    @property
    def scope(self):
        return self._scope

    def cloak(self, faces, ctx):
        self.given.append(faces.ids)
        return self.make(faces)


class Purified(Purifier):
    name = "purified"

    def __init__(self, make):
        super().__init__()
        self.make, self.given = make, []

    def purify(self, faces, ctx):
        assert torch.is_inference_mode_enabled()
        self.given.append(faces.ids)
        return self.make(faces)


def every(change):
    return lambda faces: {name: change(image) for name, image in zip(faces.ids, faces.images, strict=True)}


@given(st.floats(0, 1, width=32))
def test_a_value_is_rounded_to_the_nearest_grey_level(value):
    rounded = faces_pixels.to_bytes_range(torch.tensor([value])).item()
    assert abs(rounded - 255 * value) <= 0.5 + 1e-4


def test_every_grey_level_survives_being_a_face():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    one = Pixels(levels, ("a",), ("p",))
    assert torch.equal(faces_pixels.to_bytes_range(one.faces(CPU).images), levels)


def test_a_cloak_leaves_rounded_to_8_bits():
    source = pixels(3, 4)
    cloaked = cloak(Made(every(lambda image: (image + 0.7 / 255).clamp(0, 1))), source, Context(), 2)
    assert cloaked.images.dtype == torch.uint8
    expected = (source.images.int() + 1).clamp(max=255)
    assert torch.equal(cloaked.images.int(), expected)
    assert (cloaked.ids, cloaked.identities) == (source.ids, source.identities)


def test_only_what_was_changed_comes_back_in_the_order_of_the_source():
    source = pixels(5, 4)

    def some(faces):
        edits = every(lambda image: 1 - image)(faces)
        return {name: edits[name] for name in reversed(faces.ids) if name in ("image-1", "image-4")}

    cloaked = cloak(Made(some), source, Context(), 5)
    assert cloaked.ids == ("image-1", "image-4")
    assert cloaked.identities == ("identity-1", "identity-0")
    assert torch.equal(cloaked.images, 255 - source.images[[1, 4]])
    nothing = cloak(Made(lambda faces: {}), source, Context(), 5)
    assert (nothing.ids, tuple(nothing.images.shape)) == ((), (0, 3, 4, 4))


def test_an_attack_gets_batches_of_images_or_whole_people():
    image_wise, identity_wise = Made(lambda faces: {}), Made(lambda faces: {}, "identity")
    cloak(image_wise, pixels(5, 4), Context(), 2)
    cloak(identity_wise, pixels(5, 4), Context(), 2)
    assert [len(given) for given in image_wise.given] == [2, 2, 1]
    assert identity_wise.given == [("image-0", "image-2", "image-4"), ("image-1", "image-3")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda faces: faces.images, "attack 'made' returned Tensor, not a mapping image id"),
        (
            lambda faces: {"somebody": faces.images[0]},
            "attack 'made' edited 'somebody', which it was not given",
        ),
        (every(lambda image: image.double()), "'image-0' returned torch.float64"),
        (
            every(lambda image: image[:, 1:]),
            r"returned torch.float32 \(3, 3, 4\), not torch.float32 \(3, 4, 4\)",
        ),
        (every(lambda image: None), "returned NoneType"),
        (every(lambda image: image + 2), r"values in \[2.*, not in \[0, 1\]"),
        (every(lambda image: image - 2), r"not in \[0, 1\]"),
        (every(lambda image: image * float("nan")), r"not in \[0, 1\]"),
    ],
)
def test_edits_that_break_the_contract_are_refused(make, message):
    with pytest.raises(MethodError, match=message):
        cloak(Made(make), pixels(2, 4), Context(), 2)


def test_a_purifier_gets_every_image_once_and_leaves_8_bits():
    source, defense = pixels(5, 4), Purified(lambda faces: faces.images * 0.5)
    purified = purify(defense, source, Context(), 2)
    assert [len(given) for given in defense.given] == [2, 2, 1]
    assert (purified.ids, purified.identities) == (source.ids, source.identities)
    difference = purified.images.double() - source.images.double() / 2
    assert difference.abs().max() <= 0.5
    empty = purify(defense, source.only(frozenset()), Context(), 2)
    assert tuple(empty.images.shape) == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda faces: faces.images[1:], r"\(1, 3, 4, 4\), not torch.float32 \(2, 3, 4, 4\)"),
        (lambda faces: faces.images + 1, r"not in \[0, 1\]"),
        (lambda faces: faces.images.half(), "torch.float16"),
        (lambda faces: faces.images / 0 * 0, r"not in \[0, 1\]"),
    ],
)
def test_a_purifier_that_breaks_the_contract_is_refused(make, message):
    with pytest.raises(MethodError, match=f"defence 'purified' returned .*{message}"):
        purify(Purified(make), pixels(2, 4), Context(), 2)


class Recorded(FakeBackbone):
    """A fake that remembers the shapes it was given."""

    def __init__(self, vectors=lambda vectors: vectors):
        super().__init__()
        self.shapes, self.vectors = [], vectors

    def embed_batch(self, images):
        self.shapes.append(tuple(images.shape))
        return self.vectors(super().embed_batch(images))


def embedded(source, backbone=None, advance=lambda _n: None):
    backbone = backbone or Recorded()
    backbone.load(CPU)
    return embed(backbone, source, CPU, advance)


@pytest.mark.parametrize("count", [1, EMBED_BATCH - 1, EMBED_BATCH, EMBED_BATCH + 1])
def test_every_batch_has_the_same_shape(count):
    backbone, steps = Recorded(), []
    found = embedded(pixels(count), backbone, steps.append)
    assert set(backbone.shapes) == {(EMBED_BATCH, 3, 112, 112)}
    assert found.vectors.shape == (count, 32)
    assert found.vectors.dtype == np.float32
    assert sum(steps) == count


def test_an_embedding_has_the_same_bytes_alone_and_among_others():
    source = pixels(EMBED_BATCH + 3)
    together = embedded(source)
    for row in (0, 7, EMBED_BATCH - 1, EMBED_BATCH, EMBED_BATCH + 2):
        alone = embedded(source.only(frozenset({source.ids[row]})))
        assert alone.vectors.tobytes() == together.vectors[row].tobytes()


def test_no_images_give_no_embeddings():
    assert embedded(pixels(2).only(frozenset())).vectors.shape == (0, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vectors: vectors[:, :5], r"embeddings \(32, 5\) for 32 images, its card says \(32, 32\)"),
        (
            lambda vectors: vectors[1:],
            r"embeddings \(31, 32\) for 32 images",
        ),  # else each is the next photo's
        (lambda vectors: vectors.tolist(), "list, not a tensor"),
        (lambda vectors: vectors.int(), r"torch.int32 embeddings"),
        (lambda vectors: vectors / 0, "not finite"),
    ],
)
def test_embeddings_that_are_not_the_cards_are_refused(change, message):
    with pytest.raises(MethodError, match=message):
        embedded(pixels(2), Recorded(change))


def test_stored_forms_are_read_back(tmp_path):
    source = pixels(3, 4)
    back = faces_pixels.decode_pixels(faces_pixels.encode_pixels(source))
    assert torch.equal(back.images, source.images)
    assert (back.ids, back.identities) == (source.ids, source.identities)
    embedded = Embedded(np.arange(6, dtype=np.float32).reshape(2, 3), ("é", "b"), ("p", "q"))
    again = embeddings.decode_embedded(embeddings.encode_embedded(embedded))
    assert np.array_equal(again.vectors, embedded.vectors)
    assert (again.ids, again.identities) == (embedded.ids, embedded.identities)
    forms = {faces_pixels.encode_pixels(source) for _ in range(20)} | {faces_pixels.encode_pixels(back)}
    assert len(forms) == 1  # the same images are the same bytes
    store = Store(tmp_path)
    store.write("faces", digest({}), faces_pixels.encode_pixels(source), key={}, seconds=0, images=3)
    assert faces_pixels.encode_pixels(
        faces_pixels.decode_pixels(store.read("faces", digest({})))
    ) == faces_pixels.encode_pixels(source)


def test_shards_are_joined_in_order():
    parts = [Embedded(np.full((n, 2), n, np.float32), (f"i{n}",) * n, (f"p{n}",) * n) for n in (1, 2)]
    for most in (3, 5):
        joined = embeddings.join(iter(parts), most)
        assert joined.vectors.tolist() == [[1, 1], [2, 2], [2, 2]]
        assert joined.vectors.dtype == np.float32
        assert joined.ids == ("i1", "i2", "i2")
        assert joined.identities == ("p1", "p2", "p2")


def test_shards_of_which_nothing_is_left_are_joined_too():
    nothing = Embedded(np.zeros((0, 2), np.float32), (), ())
    joined = embeddings.join([nothing, nothing], 4)
    assert joined.vectors.shape == (0, 2)
    assert joined.ids == joined.identities == ()


def test_edits_are_laid_over_shard_by_shard():
    natural = Embedded(np.arange(8, dtype=np.float32).reshape(4, 2), tuple("abcd"), tuple("ppqq"))
    edits = [
        Embedded(np.full((len(ids), 2), 9, np.float32), ids, ("p",) * len(ids)) for ids in (("d", "a"), ())
    ]
    seen = embeddings.overlay(natural, iter(edits), frozenset("acd"))
    assert seen.ids == ("a", "c", "d")
    assert seen.identities == ("p", "q", "q")
    assert seen.vectors.tolist() == [[9, 9], [4, 5], [9, 9]]
    assert natural.vectors[0].tolist() == [0, 1]  # as it was


def test_photos_of_an_identity_share_its_text():
    embedded = Embedded(np.zeros((3, 2), np.float32), ("a", "b", "c"), ("who is it", "who is it", "another"))
    one, same, _ = embeddings.decode_embedded(embeddings.encode_embedded(embedded)).identities
    assert one is same
