"""Section 10.3: the groups that follow from a beacon, and what each of them runs under."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import ContextRefused
from privacy.secagg.context import GroupPlace
from privacy.secagg.groups import _below, draw_groups, group_sizes, partition, scaled
from privacy.secagg.messages import SiteId
from tests.fakes.grouped_round import grouped

BEACON = bytes(range(32))


def names(count):
    return [SiteId(f"site-{number:04}") for number in range(count)]


@given(st.integers(3, 300), st.integers(3, 128), st.binary(min_size=32, max_size=32))
def test_everybody_is_in_one_group_and_sizes_are_as_promised(count, group_size, beacon):
    sites = names(max(count, group_size))
    groups = partition(sites, beacon, group_size)
    assert sorted(site for group in groups for site in group) == sites
    assert all(list(group) == sorted(group) for group in groups)
    sizes = [len(group) for group in groups]
    assert tuple(sizes) == group_sizes(len(sites), group_size)
    assert group_size <= min(sizes) <= max(sizes) < 2 * group_size
    assert max(sizes) - min(sizes) <= 1


def test_the_same_beacon_gives_the_same_groups_and_another_one_others():
    sites = names(40)
    assert partition(sites, BEACON, 10) == partition(sites, BEACON, 10)
    assert partition(sites, BEACON, 10) != partition(sites, bytes(32), 10)


def test_every_site_is_as_likely_in_every_group():
    """6000 beacons, 6 sites, 2 groups of 3: site 0 is with each other site in 2 of 5, as often as in either group."""
    sites = names(6)
    beside, number = Counter(), Counter()
    for trial in range(6000):
        groups = partition(sites, trial.to_bytes(32, "big"), 3)
        own = next(index for index, group in enumerate(groups) if sites[0] in group)
        number[own] += 1
        beside.update(groups[own])
    assert all(abs(number[index] - 3000) < 5 * 39 for index in (0, 1))
    assert all(abs(beside[site] - 2400) < 5 * 38 for site in sites[1:])


def test_words_that_would_favour_small_numbers_are_passed_over():
    # 2^32 = 1 mod 3: with the largest word, 0 would come once more than 1 and 2.
    assert _below(3, iter([2**32 - 1, 5])) == 2
    assert _below(3, iter([2**32 - 2])) == (2**32 - 2) % 3


@pytest.mark.parametrize(("of_all", "size", "sites", "part"), [(9, 4, 12, 3), (401, 67, 600, 45), (401, 66, 599, 45)])
def test_a_part_is_rounded_up(of_all, size, sites, part):
    assert scaled(of_all, size, sites) == part


@given(st.integers(12, 60), st.integers(3, 12), st.data())
def test_the_groups_together_need_what_the_whole_needs(count, group_size, data):
    threshold = data.draw(st.integers(count // 2 + 1, count))
    minimum = data.draw(st.integers(max(3, group_size), count))
    context = grouped(count, group_size=group_size, threshold=threshold, minimum=minimum).context
    context.check_whole()
    digest = context.digest()
    left = context.sites[: data.draw(st.integers(context.required, count))]
    groups = draw_groups(context, digest, BEACON, left)
    assert sorted(site for group in groups for site in group.context.sites) == list(left)
    assert sum(group.context.threshold for group in groups) >= threshold
    assert sum(group.context.minimum for group in groups) >= minimum
    for number, group in enumerate(groups, start=1):
        group.context.check()
        assert group.sites == set(group.context.sites)
        assert group.digest == group.context.digest()
        assert 2 * group.context.threshold > len(group.context.roster)
        assert group.context.group == GroupPlace(whole=digest, beacon=BEACON, number=number, count=len(groups))


def test_every_field_of_a_group_moves_its_digest():
    context = grouped(12, group_size=4).context
    own = draw_groups(context, context.digest(), BEACON, context.sites)[0].context
    place = own.group
    changed = [
        replace(own, group=replace(place, whole=bytes(32))),
        replace(own, group=replace(place, beacon=bytes(32))),
        replace(own, group=replace(place, number=2)),
        replace(own, group=replace(place, count=2)),
        replace(own, group_size=3),
        replace(own, group=None),
        replace(own, group=None, group_size=0),
    ]
    digests = {own.digest(), *(context.digest() for context in changed)}
    assert len(digests) == len(changed) + 1


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("group_size", {"group_size": 2}),
        ("group_size", {"group_size": 129}),
        ("group_size", {"group_size": 0}),
        ("group_size", {"minimum": 3, "threshold": 7, "group_size": 8}),
        ("group_size", {"group": GroupPlace(whole=bytes(32), beacon=bytes(32), number=1, count=1)}),
        ("participants", {"roster": ()}),
    ],
)
def test_what_no_honest_study_asks_of_an_attempt_in_groups(field, changes):
    context = replace(grouped(12, group_size=4).context, **changes)
    with pytest.raises(ContextRefused) as caught:
        context.check_whole()
    assert caught.value.field == field


def test_more_participants_than_groups_can_have(monkeypatch):
    monkeypatch.setattr("privacy.secagg.context.GROUPED_SITES_MAX", 11)
    with pytest.raises(ContextRefused, match="3 to 11"):
        grouped(12, group_size=4).context.check_whole()


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("participants", {"number": 1, "roster": 3}),
        ("participants", {"number": 1, "roster": 8}),
        ("group", {"number": 0}),
        ("group", {"number": 4}),
        ("group", {"number": 257, "count": 257}),
        ("group", {"beacon": bytes(31)}),
        ("group", {"whole": bytes(33)}),
    ],
)
def test_what_no_honest_group_is(field, changes):
    context = grouped(12, group_size=4).context
    size = changes.pop("roster", 4)
    place = GroupPlace(**{"whole": bytes(32), "beacon": bytes(32), "number": 1, "count": 3} | changes)
    own = replace(context, roster=context.roster[:size], threshold=size, minimum=3, group=place)
    with pytest.raises(ContextRefused) as caught:
        own.check()
    assert caught.value.field == field
