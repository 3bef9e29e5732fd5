"""Section 10: the chance of an unprotected group, against counting and against drawing."""

from fractions import Fraction
from itertools import combinations

import pytest

from privacy.secagg import group_risk
from privacy.secagg.beacon import WITHHELD_MAX
from privacy.secagg.context import default_threshold
from privacy.secagg.group_risk import chance_of_more, choices, risk, tolerated
from privacy.secagg.groups import partition
from privacy.secagg.messages import SiteId


@pytest.mark.parametrize(("size", "threshold", "most"), [(3, 3, 2), (4, 3, 1), (100, 67, 33), (64, 43, 21)])
def test_tolerated_is_the_rule_of_section_2(size, threshold, most):
    assert tolerated(size, threshold) == most
    assert 2 * threshold > size + most
    assert not 2 * threshold > size + most + 1


def test_the_chance_is_what_counting_gives():
    groups = list(combinations(range(10), 4))
    for most in range(4):
        bad = sum(1 for group in groups if sum(site < 5 for site in group) > most)
        assert chance_of_more(10, 5, 4, most) == Fraction(bad, len(groups))
    assert chance_of_more(10, 5, 4, 4) == 0


def test_the_chance_is_what_the_beacon_gives():
    sites = [SiteId(f"site-{number:02}") for number in range(12)]
    colluding = set(sites[:4])
    trials = 4000
    bad = sum(len(colluding & set(partition(sites, n.to_bytes(32, "big"), 4)[0])) > 2 for n in range(trials))
    expected = float(chance_of_more(12, 4, 4, 2)) * trials
    assert expected == pytest.approx(266.7, abs=0.1)
    assert abs(bad - expected) < 5 * expected**0.5


def test_what_withholding_gains():
    assert choices(600, 0) == 1
    assert choices(600, 1) == 601
    assert choices(600) == 180_301
    assert WITHHELD_MAX == 2


def test_the_risk_grows_with_all_that_a_coordinator_can_try_and_is_never_above_one():
    threshold = default_threshold(600)
    once = risk(600, 60, group_size=100, threshold=threshold)
    assert once == pytest.approx(2**-24.3, rel=0.05)
    assert risk(600, 60, group_size=100, threshold=threshold, attempts=16) == pytest.approx(16 * once)
    assert risk(600, 60, group_size=64, threshold=threshold) > once > risk(600, 60, group_size=128, threshold=threshold)
    assert risk(600, 300, group_size=64, threshold=threshold) == 1.0
    assert risk(600, 20, group_size=64, threshold=threshold) == 0.0


def test_the_table_is_printed(capsys):
    group_risk.main()
    lines = capsys.readouterr().out.splitlines()
    assert "| 600 | 60 | 100 | 6 of 100 to 100 | 33 | 2^-24 |" in lines
    assert "| 600 | 30 | 100 | 6 of 100 to 100 | 33 | 0 |" in lines
