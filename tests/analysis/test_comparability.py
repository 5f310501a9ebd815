"""Which runs may be compared."""

import pytest

from bench.analysis.comparability import incomparable_fields, require_comparable
from bench.errors import UsageError
from bench.run.folder import RunFacts
from bench.run.spec import RunSpec


def facts(run="one", **fields):
    spec = RunSpec(**{key: fields.pop(key) for key in list(fields) if key in RunSpec.model_fields})
    return RunFacts(
        **{"run": run, "requested": spec, "spec": spec, "fingerprint": "f", "lpips_trunk": "t", **fields}
    )


def test_other_methods_backbones_heads_and_seeds_are_compared():
    other = facts(
        "two", attacks=("fawkes",), defenses=("jpeg",), backbones=("b",), heads=("linear",), seeds=(3,)
    )
    require_comparable(facts(), other)
    assert incomparable_fields(facts(), other) == []


@pytest.mark.parametrize(
    ("change", "field", "values"),
    [
        ({"benchmark_version": "0"}, "benchmark version", ("1", "0")),
        ({"protocol": "tracker:min_probes=3"}, "protocol", ("tracker", "tracker:min_probes=3")),
        ({"dataset": "lfw"}, "dataset", ("synthetic", "lfw")),
        ({"fingerprint": "g"}, "fingerprint of the photos", ("f", "g")),
        ({"fingerprint": ""}, "fingerprint of the photos", ("f", "none recorded")),
        ({"split_seed": 4}, "split seed", ("0", "4")),
        ({"identities": 10}, "number of identities", ("all", "10")),
        ({"lpips_trunk": "u"}, "LPIPS trunk", ("t", "u")),
    ],
)
def test_what_differs_is_named_with_both_values(change, field, values):
    other = facts("two", **change)
    (found,) = incomparable_fields(facts(), other)
    assert (found.field, found.first, found.second) == (field, *values)
    with pytest.raises(
        UsageError, match=f"runs one and two cannot be compared.*{field}: {values[0]} and {values[1]}"
    ):
        require_comparable(facts(), other)


def test_every_field_that_differs_is_named():
    other = facts("two", dataset="lfw", split_seed=1)
    assert [each.field for each in incomparable_fields(facts(), other)] == ["dataset", "split seed"]


def test_a_run_without_lpips_has_nothing_to_compare_by_it():
    require_comparable(facts(), facts("two", lpips_trunk=""))


def test_two_old_runs_of_one_digest_have_the_same_photos():
    require_comparable(facts(fingerprint=""), facts(fingerprint=""))
    with pytest.raises(UsageError, match="not recorded and none recorded"):
        require_comparable(facts(fingerprint=""), facts("two", fingerprint=""))
