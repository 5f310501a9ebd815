"""WebP against OpenCV's build of the same library."""

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from bench.contracts import Context
from bench.quality.metrics import psnr
from defenses.webp import WebP


def compressed(faces, quality):
    return WebP(WebP.Params(quality=quality)).purify(faces, Context())


@pytest.mark.parametrize("quality", [20, 80, 95])
def test_it_is_what_opencv_encodes_and_decodes(images, quality):
    faces = images.random()
    for original, result in zip(faces.images, compressed(faces, quality), strict=True):
        bgr = images.pixels(original)[:, :, ::-1]
        done, code = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
        assert done
        expected = cv2.imdecode(code, cv2.IMREAD_COLOR)[:, :, ::-1]
        difference = np.abs(images.pixels(result).astype(int) - expected)
        # Two builds of libwebp with other defaults of effort.
        assert difference.mean() < 1


def test_less_quality_loses_more(images):
    faces = images.random(3)
    # Without colour, which lossy WebP keeps at half resolution whatever the quality.
    faces = faces.with_images((faces.images.mean(1, keepdim=True) * 255).round().expand(-1, 3, -1, -1) / 255)
    quality = [float(psnr(faces.images, compressed(faces, q)).mean()) for q in (10, 50, 80, 100)]
    assert quality == sorted(quality)
    assert quality[-1] > 35
    assert quality[0] < quality[-1] - 3


@pytest.mark.parametrize("quality", [-1, 101])
def test_values_out_of_range_are_refused(quality):
    with pytest.raises(ValidationError):
        WebP.Params(quality=quality)
