import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.errors import DataError
from bench.stats.intervals import difference_interval, rate_interval, wilson_interval
from bench.stats.rates import (
    gain_of,
    paired,
    per_identity,
    recovery,
    recovery_of,
    reference_error,
    reference_groups,
    summarize_decisions,
    summarize_images,
)


def decisions(results):
    """Build rows from {identity: (fold, {image: [answered right in fold 0, 1, …]})}."""
    rows = [
        (fold, name, image, fold == own, name if right else "?", bool(right))
        for name, (own, images) in results.items()
        for image, rights in images.items()
        for fold, right in enumerate(rights)
    ]
    return pd.DataFrame(rows, columns=["fold", "identity", "image", "protected", "predicted", "correct"])


HAND_WORKED = {
    # protected in fold 0: one of two wrong there; as normal right 1 + 1 and 1 + 0 of two each
    "a": (0, {"a1": [0, 1, 1], "a2": [1, 1, 0]}),
    # protected in fold 1: all four wrong there; as normal always right
    "b": (1, {f"b{i}": [1, 0, 1] for i in range(4)}),
    # protected in fold 2: right there; as normal never right
    "c": (2, {"c1": [0, 0, 1], "c2": [0, 0, 1]}),
}


def test_rates_of_a_hand_worked_cell():
    identities = per_identity(decisions(HAND_WORKED))
    assert list(identities.index) == ["a", "b", "c"]
    assert list(identities["n_probes"]) == [2, 4, 2]
    assert list(identities["asr"]) == [0.5, 1.0, 0.0]
    assert list(identities["normal_accuracy"]) == [0.75, 1.0, 0.0]


def test_summary_of_a_hand_worked_cell():
    found = summarize_decisions(decisions(HAND_WORKED))
    assert (found.n_identities, found.n_probes) == (3, 8)
    assert found.asr.value == pytest.approx(0.5)  # macro: (0.5 + 1 + 0) / 3
    assert found.asr_pooled == pytest.approx(5 / 8)  # 1 + 4 + 0 wrong of 8
    assert found.normal_accuracy.value == pytest.approx(1.75 / 3)
    assert found.normal_accuracy_pooled == pytest.approx((0.75 * 2 + 4) / 8)
    # s² of (0.5, 1, 0) is 1/4, p(1−p)/(s²/3) = 3
    quantile = stats.t.ppf(0.975, 2)
    assert (found.asr.low, found.asr.high) == pytest.approx(wilson_interval(0.5, 3, quantile))


def test_row_order_does_not_matter():
    rows = decisions(HAND_WORKED)
    assert summarize_decisions(rows.sample(frac=1, random_state=0)) == summarize_decisions(rows)


def test_a_single_rotation_has_no_normal_accuracy():
    found = summarize_decisions(decisions({"a": (0, {"a1": [1]}), "b": (0, {"b1": [0]})}))
    assert found.asr.value == 0.5
    assert found.normal_accuracy.value is None
    assert "only rotation" in found.normal_accuracy.reason
    assert math.isnan(found.normal_accuracy_pooled)


@st.composite
def cells(draw):
    folds = draw(st.integers(2, 3))
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=5, unique=True))
    return {
        name: (
            draw(st.integers(0, folds - 1)),
            {
                f"{name}{i}": draw(st.lists(st.booleans(), min_size=folds, max_size=folds))
                for i in range(draw(st.integers(1, 3)))
            },
        )
        for name in names
    }


@settings(max_examples=30, deadline=None)
@given(cells())
def test_rates_are_within_0_and_1_and_follow_a_relabelling(results):
    rows = decisions(results)
    identities = per_identity(rows)
    assert identities[["asr", "normal_accuracy"]].apply(lambda rate: rate.between(0, 1)).to_numpy().all()
    found = summarize_decisions(rows)
    assert 0 <= found.asr.low <= found.asr.value <= found.asr.high <= 1

    other = {name: f"identity-{9 - i}" for i, name in enumerate(sorted(results))}  # reverses the order
    renamed = rows.assign(identity=rows["identity"].map(other))
    permuted = per_identity(renamed).loc[[other[name] for name in identities.index]]
    np.testing.assert_array_equal(permuted.to_numpy(), identities.to_numpy())
    again = summarize_decisions(renamed)
    assert again.asr.value == pytest.approx(found.asr.value)
    assert again.asr.high == pytest.approx(found.asr.high)


def asr(values):
    return pd.Series(values, index=[f"p{i:02d}" for i in range(len(values))], dtype=float)


def rng():
    return np.random.default_rng(0)


def test_recovery_of_known_rates():
    undefended = asr([1.0, 0.9, 0.8, 0.9] * 5)
    baseline = asr([0.0, 0.1, 0.0, 0.1] * 5)
    defended = asr([0.3, 0.1, 0.2, 0.1] * 5)
    found = recovery(undefended, defended, baseline, rng())
    assert found.value == pytest.approx((0.9 - 0.175) / (0.9 - 0.05))
    assert found.low < found.value < found.high
    assert found.reason == ""


def test_recovery_is_not_clipped():
    undefended, baseline = asr([1.0, 0.8] * 10), asr([0.2, 0.3] * 10)
    better = recovery(undefended, asr([0.0, 0.1] * 10), baseline, rng())
    worse = recovery(undefended, asr([1.0, 0.9] * 10), baseline, rng())
    assert better.value == pytest.approx(0.85 / 0.65)
    assert worse.value == pytest.approx(-0.05 / 0.65)


def test_recovery_is_missing_where_the_attack_hardly_hid_anything():
    undefended, baseline = asr([0.2, 0.0, 0.0, 0.1] * 5), asr([0.0, 0.1, 0.0, 0.0] * 5)
    found = recovery(undefended, baseline, baseline, rng())
    assert found.value is None
    assert "raises the error by 0.050" in found.reason
    assert "not above 0.05" in found.reason


def test_recovery_needs_the_bound_not_only_the_value_above_the_limit():
    undefended = asr([1.0] * 3 + [0.0] * 27)  # gain 0.1, but from three identities
    found = recovery(undefended, asr([0.0] * 30), asr([0.0] * 30), rng())
    assert found.value is None
    assert "raises the error by 0.100" in found.reason


def test_a_gain_that_is_the_same_for_everyone_decides_by_its_interval_too():
    four, many = (gain_of(asr([1.0] * n), asr([0.0] * n)) for n in (4, 60))
    assert four == difference_interval([1.0] * 4, [0.0] * 4)
    assert many.low > 0.9
    little = gain_of(asr([0.1] * 6), asr([0.0] * 6))
    assert little.low < 0.05 < little.value
    assert recovery(asr([0.1] * 6), asr([0.0] * 6), asr([0.0] * 6), rng()).value is None


def test_identities_that_share_photos_have_the_interval_of_groups():
    rows = [(0, f"p{i}", f"p{i}/{k}", True, (i // 3 + k) % 3 == 0) for i in range(12) for k in range(4)]
    frame = pd.DataFrame(rows, columns=["fold", "identity", "image", "protected", "correct"])
    frame["reference"] = frame["identity"].map(lambda name: f"t{int(name[1:]) // 3 if name != 'p11' else 0}")
    found = summarize_decisions(frame).asr
    own = per_identity(frame)["asr"]
    groups = reference_groups(frame)
    assert sorted(groups.value_counts()) == [2, 3, 3, 4]
    by_group = own.groupby(groups)
    expected = rate_interval(by_group.mean(), 48, sizes=by_group.size())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(own.mean())


def test_recovery_without_variation_has_a_value_and_says_why_it_has_no_interval():
    found = recovery(asr([1.0] * 4), asr([0.5] * 4), asr([0.0] * 4), rng())
    assert (found.value, found.low) == (0.5, None)
    assert "no variation" in found.reason
    assert recovery(asr([1.0]), asr([0.5]), asr([0.0]), rng()).value is None


def test_recovery_depends_on_identities_not_on_their_order():
    values = np.random.default_rng(4).random((3, 30)) * [[1], [0.5], [0.1]]
    first, second, third = (asr(v) for v in values)
    assert recovery(first, second[::-1], third.sample(frac=1, random_state=1), rng()) == recovery(
        first, second, third, rng()
    )


def test_cells_of_different_identities_are_not_compared():
    with pytest.raises(DataError, match="'z'"):
        paired(pd.Series({"a": 0.0, "z": 1.0}), pd.Series({"a": 0.0}))


def asr_of(rows):
    return per_identity(rows)["asr"]


def test_references_of_a_cell():
    def cell(wrong):
        return decisions(
            {
                f"p{i}": (
                    i % 2,
                    {f"p{i}-{j}": [not (i % 2 == f and j < wrong) for f in (0, 1)] for j in range(4)},
                )
                for i in range(6)
            }
        )

    assert reference_error(summarize_decisions(cell(0)), "none × none").value == 0.0
    assert reference_error(summarize_decisions(cell(0)), "none × none").high > 0
    assert reference_error(summarize_decisions(cell(1)), "none × defence").value == 0.25
    assert recovery_of(asr_of(cell(1)), asr_of(cell(4)), asr_of(cell(0)), rng()).value == 0.75


def test_a_reference_that_failed_is_named():
    rows = decisions(HAND_WORKED)
    assert reference_error(None, "none × none").reason == "reference cell none × none is not there"
    assert reference_error(summarize_decisions(rows), "none × none").value == pytest.approx(0.5)
    assert (
        recovery_of(asr_of(rows), asr_of(rows), None, rng()).reason
        == "reference cell none × none is not there"
    )
    assert (
        recovery_of(asr_of(rows), None, asr_of(rows), rng()).reason
        == "reference cell attack × none is not there"
    )


def test_image_measures_are_means_over_changed_images():
    found = summarize_images(
        pd.DataFrame(
            {
                "image": ["x", "y", "z", "w"],
                "changed": [True, False, True, True],
                "psnr": [30.0, np.inf, 36.0, 33.0],
                "linf": [8.0, 0.0, 16.0, 12.0],
            }
        )
    )
    assert found.means == {"psnr": 33.0, "linf": 12.0}
    assert (found.n_images, found.share_unchanged, found.reason) == (4, 0.25, "")


def test_a_measure_missing_for_an_image_has_no_mean():
    found = summarize_images(
        pd.DataFrame({"changed": [True] * 2, "lpips": [0.1, np.nan], "ssim": [0.5, 0.7]})
    )
    assert found.means == {"lpips": None, "ssim": pytest.approx(0.6)}


def test_image_measures_of_nothing_give_a_reason():
    none = summarize_images(None, "attack none changes nothing")
    assert (none.means, none.share_unchanged, none.reason) == ({}, None, "attack none changes nothing")
    same = summarize_images(pd.DataFrame({"changed": [False, False], "psnr": [np.inf, np.inf]}))
    assert same.means == {"psnr": None}
    assert (same.share_unchanged, same.reason) == (1.0, "no image was changed")
    empty = summarize_images(pd.DataFrame({"changed": [], "psnr": []}))
    assert (empty.means, empty.share_unchanged, empty.reason) == ({"psnr": None}, None, "no images")
    with pytest.raises(ValueError, match="reason"):
        summarize_images(None)
    with pytest.raises(DataError, match="'changed'"):
        summarize_images(pd.DataFrame({"psnr": [1.0]}))
