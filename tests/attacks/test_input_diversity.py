import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks._input_diversity import LEAST_SIDE, diversified, draw_diversity
from bench.randomness import torch_generator

SIDE = 112


def pictures(count, side=SIDE, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_no_diversity_leaves_a_picture_as_it_is():
    images = pictures(3)
    torch.testing.assert_close(diversified(images, torch.zeros(3, 3)), images, atol=1e-5, rtol=0)
    # Where the shrunk photo lies does not matter as long as it is not shrunk.
    drawn = torch.tensor([[0.0, 0.9, 0.1]]).expand(3, -1)
    torch.testing.assert_close(diversified(images, drawn), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (7, 7), (14, 3), (1, 14)])
def test_the_smallest_is_opencvs_resize_padded_with_black(down, right):
    import cv2

    assert LEAST_SIDE * SIDE == 98
    image = pictures(1)
    found = diversified(image, torch.tensor([[1.0, down / 14, right / 14]]))[0]
    expected = np.zeros((SIDE, SIDE, 3), np.float32)
    small = cv2.resize(image[0].permute(1, 2, 0).numpy(), (98, 98), interpolation=cv2.INTER_LINEAR)
    expected[down : down + 98, right : right + 98] = small
    # A row or column beside the photo takes a little of its edge: bilinear, and OpenCV's resize does not look out.
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=2e-5)


@given(
    shrink=st.floats(0, 1),
    down=st.floats(0, 1),
    right=st.floats(0, 1),
)
@settings(max_examples=15, deadline=None)
def test_it_is_the_affine_map_that_shrinks_and_shifts_within_the_frame(shrink, down, right):
    from scipy.ndimage import affine_transform

    image = pictures(1, 32)
    found = diversified(image, torch.tensor([[shrink, down, right]]))[0, 1].numpy()
    side = 1 - (1 - LEAST_SIDE) * shrink
    top, left = (32 * (1 - side) * share for share in (down, right))
    # scipy wants output → input between pixel centres.
    offset = [(0.5 - edge) / side - 0.5 for edge in (top, left)]
    expected = affine_transform(
        image[0, 1].numpy(), [1 / side, 1 / side], offset, order=1, mode="grid-constant", cval=0
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_outside_is_black_and_the_photo_stays_inside():
    white = torch.ones(4, 1, SIDE, SIDE)
    corners = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=torch.float)
    seen = diversified(white, corners)[:, 0]
    for image, (_, down, right) in zip(seen, corners.int().tolist(), strict=True):
        rows, columns = (slice(14, None) if shift else slice(0, 98) for shift in (down, right))
        torch.testing.assert_close(image[rows, columns], torch.ones(98, 98), atol=1e-5, rtol=0)
        outside = torch.ones(SIDE, SIDE)
        outside[rows, columns] = 0
        assert float((image * outside).abs().max()) < 1e-5
        assert float(image.sum()) == pytest.approx(98 * 98, rel=1e-4)


def test_the_gradient_is_that_of_a_linear_map():
    images, drawn = pictures(2, 24).double(), torch.tensor([[0.4, 0.2, 0.9], [0.0, 0.0, 0.0]])
    weight = pictures(2, 24, seed=1).double()
    leaf = images.clone().requires_grad_()
    (diversified(leaf, drawn) * weight).sum().backward()
    other = pictures(2, 24, seed=2).double()
    # ⟨Ax, w⟩ = ⟨x, Aᵀw⟩ for every x, not only the one differentiated at.
    torch.testing.assert_close((diversified(other, drawn) * weight).sum(), (other * leaf.grad).sum())
    torch.testing.assert_close(leaf.grad[1], weight[1])


def test_draws_depend_on_the_generators_alone():
    def generators(*names):
        return [torch_generator(7, "diversity", name) for name in names]

    together = draw_diversity(generators("a", "b", "c"), 0.5)
    torch.manual_seed(1)
    for k, name in enumerate("abc"):
        assert torch.equal(draw_diversity(generators(name), 0.5)[0], together[k])
    assert torch.equal(draw_diversity(generators("c", "a"), 0.5), together[[2, 0]])


def test_as_many_are_changed_as_the_probability_says():
    generator = torch.Generator().manual_seed(0)
    for probability in (0.0, 0.3, 1.0):
        drawn = draw_diversity([generator] * 2000, probability)
        assert drawn.shape == (2000, 3)
        assert 0 <= float(drawn.min()) <= float(drawn.max()) < 1
        changed = (drawn != 0).any(1)
        assert float(changed.float().mean()) == pytest.approx(probability, abs=0.035)
        if probability:
            # Shrinking and both shifts are uniform and not tied to whether there is any.
            np.testing.assert_allclose(drawn[changed].mean(0).numpy(), 0.5, atol=0.05)
