import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import DataError
from bench.quality import image_columns, per_image
from bench.stats.rates import image_means, summarize_images

ROWS = st.lists(
    st.tuples(
        st.floats(0, 60, width=32),
        st.floats(0, 1, width=32),
        st.one_of(st.just(np.nan), st.floats(0, 1)),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def frame(rows):
    columns = {
        "image": [f"i{k}" for k in range(len(rows))],
        "psnr": np.array([row[0] if row[3] else np.inf for row in rows], dtype=np.float32),
        **{name: np.array([row[1] for row in rows], dtype=np.float32) for name in ("ssim", "dssim", "linf")},
        "lpips": np.array([row[2] for row in rows], dtype=np.float64),
        "changed": np.array([row[3] for row in rows], dtype=bool),
    }
    return pd.DataFrame(columns)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_means_are_those_of_the_frame(rows):
    made = frame(rows)
    columns = image_columns.from_bytes(per_image.to_bytes(made))
    changed = columns.pop("changed")
    found = image_means(columns, changed)
    assert repr(found) == repr(summarize_images(per_image.from_bytes(per_image.to_bytes(made))))
    assert found.n_images == len(made)
    own = made[made["changed"]]
    for name in per_image.COLUMNS[1:-1]:
        expected = None if own.empty or own[name].isna().any() else own[name].astype(float).mean()
        assert found.means[name] == (None if expected is None else pytest.approx(expected))
        if name != "lpips":
            assert found.largest[name] == made[name].max()


def test_no_images_have_no_means():
    columns = image_columns.from_bytes(per_image.to_bytes(frame([])))
    changed = columns.pop("changed")
    found = image_means(columns, changed)
    assert (found.n_images, found.share_unchanged, found.reason) == (0, None, "no images")
    assert found.means == dict.fromkeys(per_image.COLUMNS[1:-1])


def test_other_columns_and_other_files_are_refused():
    sink = io.BytesIO()
    frame([(1, 1, 1, True)]).drop(columns="lpips").to_parquet(sink, index=False)
    with pytest.raises(DataError, match=r"^file has columns image, .*, expected image, psnr"):
        image_columns.from_bytes(sink.getvalue(), "file")
    with pytest.raises(DataError, match=r"^file is not a Parquet file"):
        image_columns.from_bytes(b"PAR1", "file")
