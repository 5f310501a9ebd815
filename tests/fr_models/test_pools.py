"""Trackers beside the groups of a pool: they are measured, and change nothing for the others."""

import pytest

from bench.contracts import BackbonePool
from bench.plugins import factory, registry
from fr_models.pools import REAL, REAL_SIBLINGS

FIRST, SECOND = ("mobilefacenet-casia", "mobilefacenet-relu6"), ("mobileface-v2", "mobileface-v3")


@pytest.mark.parametrize("tracker", [*FIRST, *SECOND])
def test_the_four_have_the_helpers_that_published_cells_were_measured_with(tracker):
    assert REAL.helpers(tracker) == (SECOND if tracker in FIRST else FIRST)
    assert set(REAL_SIBLINGS.helpers(tracker)) == {*FIRST, *SECOND} - {tracker, *REAL.helpers(tracker)}


@pytest.mark.parametrize("tracker", REAL.trackers)
def test_a_tracker_of_another_family_has_the_first_group_against_it_and_helps_nobody(tracker):
    assert tracker in registry.BACKBONES.entries()
    assert REAL.helpers(tracker) == FIRST
    assert not any(tracker in group for group in REAL.groups)
    families = {factory.backbone(name).card.family for name in (*FIRST, *SECOND)}
    assert factory.backbone(tracker).card.family not in {*families, ""}


def test_helpers_are_of_groups_only():
    pool = BackbonePool(name="p", groups=(("a", "b"), ("c",)), trackers=("d", "e"))
    without = BackbonePool(name="p", groups=pool.groups)
    for tracker in ("a", "b", "c", "d", "e", "z"):
        assert pool.helpers(tracker) == without.helpers(tracker)
        assert not {"d", "e"} & {*pool.helpers(tracker)}
