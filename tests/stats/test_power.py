import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from statsmodels.stats.power import TTestPower

from bench.stats.power import Assumptions, identities_needed, minimum_detectable_difference, power_of


def by_statsmodels(difference, sd, n, alpha=0.05):
    return float(TTestPower().power(difference / sd, n, alpha))


@pytest.mark.parametrize(
    ("difference", "sd", "n", "alpha"), [(0.05, 0.3, 158, 0.05), (0.2, 0.3, 20, 0.01), (0.1, 0.4, 50, 0.05)]
)
def test_power_agrees_with_statsmodels(difference, sd, n, alpha):
    assert power_of(difference, sd, n, alpha) == pytest.approx(
        by_statsmodels(difference, sd, n, alpha), abs=1e-6
    )
    assert power_of(-difference, sd, n, alpha) == power_of(difference, sd, n, alpha)


def test_power_is_the_share_of_t_tests_that_reject():
    differences = np.random.default_rng(5).normal(0.15, 0.3, size=(20_000, 25))
    rejected = (stats.ttest_1samp(differences, 0, axis=1).pvalue <= 0.05).mean()
    assert power_of(0.15, 0.3, 25) == pytest.approx(rejected, abs=0.012)


def test_power_far_from_the_null_is_a_number():
    assert 0.6 < power_of(0.5, 0.0625, 2) < 0.65  # SciPy's lower tail is NaN here
    assert power_of(0.9, 0.02, 500) == 1.0


def test_power_of_no_difference_is_the_level():
    assert power_of(0.0, 0.3, 40, 0.05) == pytest.approx(0.05)


@settings(max_examples=20)
@given(
    st.floats(0.05, 0.6),
    st.integers(8, 1000),
    st.sampled_from([0.01, 0.05]),
    st.sampled_from([0.5, 0.8, 0.9]),
)
def test_the_smallest_difference_is_found_with_the_power_asked_for(sd, n, alpha, power):
    least = minimum_detectable_difference(sd, n, alpha, power)
    assert by_statsmodels(least, sd, n, alpha) == pytest.approx(power, abs=1e-4)


@settings(max_examples=20)
@given(st.floats(0.02, 0.5), st.floats(0.05, 0.5))
def test_identities_needed_are_just_enough(difference, sd):
    n = identities_needed(difference, sd)
    assert power_of(difference, sd, n) >= 0.8
    assert n == 2 or power_of(difference, sd, n - 1) < 0.8
    assert identities_needed(-difference, sd) == n


def test_a_spread_of_zero_shows_any_difference():
    assert minimum_detectable_difference(0.0, 20) == 0.0


@pytest.mark.parametrize(
    "arguments", [(-0.1, 20), (0.3, 1), (0.3, 20, 0.05, 0.04), (0.3, 20, 0.0), (0.3, 20, 0.05, 1.0)]
)
def test_power_out_of_range_is_refused(arguments):
    with pytest.raises(ValueError, match="power needs"):
        minimum_detectable_difference(*arguments)


def test_no_number_of_identities_shows_nothing():
    with pytest.raises(ValueError, match="difference of 0"):
        identities_needed(0.0, 0.3)


def test_assumed_spread_is_that_of_simulated_people():
    rng = np.random.default_rng(0)
    n, probes, mean, intraclass = 400_000, 6, 0.3, 0.25
    # One rate, seen twice with luck of its own, correlates by its share of the variance; match that share.
    size = 1 / intraclass - 1
    true = rng.beta(mean * size, (1 - mean) * size, n)
    one, two = (rng.binomial(probes, true) / probes for _ in range(2))
    r = intraclass / (intraclass + (1 - intraclass) / probes)
    assumed = Assumptions(rate=mean, probes=probes, intraclass=intraclass, correlation=r)
    assert assumed.sd_of_differences() == pytest.approx((one - two).std(), rel=0.01)
    assert np.corrcoef(one, two)[0, 1] == pytest.approx(r, abs=0.01)


def test_assumptions_outside_0_to_1_are_refused():
    with pytest.raises(ValidationError, match="leave"):
        Assumptions(rate=0.9, difference=0.2)


def test_the_command_says_it_in_a_sentence_and_a_table(cli):
    code, out, err = cli("power", "--difference", "0.05", "--identities", "120", "--rate", "0.4")
    assert (code, err) == (0, "")
    sd = Assumptions(rate=0.4, difference=0.05).sd_of_differences()
    least = minimum_detectable_difference(sd, 120)
    assert f"finds a difference of {100 * least:.1f} points with power 80 % at level 5 %" in out
    assert f"a difference of 5 points needs {identities_needed(0.05, sd)} identities" in out
    assert f"   120  {100 * least:.1f}\n" in out


def test_the_commands_json_has_the_same(cli):
    code, out, _ = cli("power", "--difference", "0.1", "--rate", "0.95", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["assumptions"]["difference"] == -0.1  # there is no room above
    sd = Assumptions(rate=0.95, difference=-0.1).sd_of_differences()
    assert document["minimum_detectable_difference"] == pytest.approx(minimum_detectable_difference(sd, 158))
    assert list(document["by_identities"]) == ["20", "50", "100", "158", "300", "500", "1000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--difference", "0.6", "--rate", "0.5"), "no rate is 0.6 above or below --rate 0.5"),
        (("--power", "0.04"), "must be above --alpha 0.05"),
        (("--difference", "0"), "0<x<1"),
        (("--identities", "1"), "x>=2"),
        (("--run", "no-such-folder"), "not a finished run"),
    ],
)
def test_the_command_refuses_what_cannot_be_planned(cli, arguments, message):
    code, out, err = cli("power", *arguments)
    assert code == 2
    assert message in err
    assert out == ""


def test_the_command_reads_the_spread_from_a_finished_run(cli, finished):
    code, out, err = cli("power", "--run", finished.run, "--json")
    assert code == 0, err
    cells = json.loads(out)["cells"]
    compared = {(row["attack"], row["defense"], row["head"]) for row in cells}
    assert len(compared) == len(cells) == 10  # 3 attacks × 2 defences × 2 heads less none × none
    assert ("none", "none", "nn") not in compared
    for row in cells:
        if row["sd_of_differences"]:
            expected = minimum_detectable_difference(row["sd_of_differences"], row["identities"])
            assert row["minimum_detectable_difference"] == pytest.approx(expected)
        else:
            assert row["minimum_detectable_difference"] is None
    code, out, _ = cli("power", "--run", finished.run)
    assert code == 0
    assert out.count(" identities; ") + out.count("NA (nobody differs") == 10
