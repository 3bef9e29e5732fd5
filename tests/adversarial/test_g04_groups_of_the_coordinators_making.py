"""G-04: the coordinator puts a site into another group, into two, into a small one, or past the beacon.

Held by: every site draws the groups itself, its keys are bound to its own group, and a context of the whole attempt is
no context of one graph (protocol 10.3). Tried: rows g04 of `mutations.py`; without the first check of `Context.check` a
site joins one graph of all participants, without a beacon; without `check_context` in `grouped_site.py` messages to one
group alone are heard; without `group_size` in `Context.digest` the commitments of two plans can be mixed.
"""

from dataclasses import replace

import pytest

from privacy.errors import BelowThreshold, ContextRefused, PeerViolation
from privacy.secagg import coordinator, grouped_site, site
from privacy.secagg.cohort import CohortRule
from privacy.secagg.context import GroupPlace
from privacy.secagg.messages import COORDINATOR, KeyBundle, SurvivorProposal
from privacy.secagg.site import BundlesListed, SharesDelivered
from tests.fakes.grouped_round import GroupedRound, grouped, refusal
from tests.fakes.memory_round import deterministic_entropy

GROUP = grouped(12, group_size=4, threshold=7, minimum=8)


def advertised():
    """All bundles, and the first site of the first group."""
    round_ = GroupedRound(GROUP)
    round_.run(until=KeyBundle)
    bundles = {message.site: message for _, message in round_.queue}
    return round_, bundles, round_.groups()[0][0]


def listed(bundles, names):
    return BundlesListed(context=GROUP.context.digest(), bundles=tuple(bundles[name] for name in sorted(names)))


def test_the_bundles_of_another_group():
    round_, bundles, me = advertised()
    reason = refusal(round_.site_states[me], listed(bundles, round_.groups()[1]))
    assert (reason.site, reason.rule) == (COORDINATOR, "every message is bound to one attempt at one round")


def test_a_site_of_another_group_in_this_one_too():
    round_, bundles, me = advertised()
    own, other = round_.groups()[0], round_.groups()[1]
    for names in ((*own, other[0]), (*own[:3], other[0])):
        assert refusal(round_.site_states[me], listed(bundles, names)).site == COORDINATOR
    relabelled = dict(bundles) | {other[0]: replace(bundles[other[0]], context=bundles[me].context)}
    reason = refusal(round_.site_states[me], listed(relabelled, (*own, other[0])))
    assert isinstance(reason, PeerViolation)
    assert reason.rule == "only participants are heard"


def test_a_group_of_the_wrong_size():
    round_, bundles, me = advertised()
    own = round_.groups()[0]
    assert refusal(round_.site_states[me], listed(bundles, own[:2])) == BelowThreshold(2, 3)


def test_the_coordinator_does_not_take_a_message_into_another_group():
    round_, bundles, me = advertised()
    other = round_.groups()[1][0]
    round_.tell_coordinator(replace(bundles[me], context=bundles[other].context))
    assert round_.of(coordinator.Ignored)[-1].reason == "of another attempt"


@pytest.mark.parametrize("kind", [SharesDelivered, SurvivorProposal])
def test_messages_addressed_to_one_group_only(kind):
    """What comes from the coordinator is addressed by the whole attempt's context, and checked as such."""
    round_ = GroupedRound(GROUP)
    round_.run(until=kind)
    name, message = round_.queue[0]
    state = round_.site_states[name]
    reason = refusal(state, replace(message, context=state.own.digest))
    assert (reason.site, reason.rule) == (COORDINATOR, "every message is bound to one attempt at one round")


def begun(context, cohort=None):
    member = GROUP.members[0]
    draw = deterministic_entropy("a site")
    return site.begin(context, member.site, member.signer, draw, member.long_term_secret, cohort=cohort)


def test_the_whole_attempt_as_one_graph():
    with pytest.raises(ContextRefused) as caught:
        begun(GROUP.context)
    assert caught.value.field == "group"
    with pytest.raises(ContextRefused):
        coordinator.begin(GROUP.context)


def test_a_group_where_the_plan_has_none():
    place = GroupPlace(whole=bytes(32), beacon=bytes(32), number=1, count=3)
    with pytest.raises(ContextRefused) as caught:
        begun(replace(GROUP.context, group_size=0, group=place))
    assert caught.value.field == "group"


def test_groups_smaller_or_larger_than_the_plan_says():
    place = GroupPlace(whole=bytes(32), beacon=bytes(32), number=1, count=3)
    for size in (3, 8):
        context = replace(GROUP.context, roster=GROUP.context.roster[:size], threshold=3, minimum=3, group=place)
        with pytest.raises(ContextRefused) as caught:
            begun(replace(context, threshold=size))
        assert caught.value.field == "participants"


def test_another_size_of_groups_is_another_attempt():
    """A coordinator that plans groups of 4 with one site and of 5 with another gets commitments it cannot mix."""
    other = replace(GROUP, context=replace(GROUP.context, group_size=5))
    one, two = GroupedRound(GROUP), GroupedRound(other)
    assert one.queue[0][1].context != two.queue[0][1].context
    one.tell_coordinator(two.queue[0][1])
    assert one.of(coordinator.Ignored)[0].reason == "of another attempt"


def test_updates_that_are_not_private_are_not_summed_in_groups():
    """Groups change and their sums are seen: of what stays the same, each site's part could be solved for."""
    member = GROUP.members[0]
    for cohort in (None, CohortRule(), CohortRule(least_difference=1), CohortRule(update_is_private=True)):
        with pytest.raises(ContextRefused) as caught:
            grouped_site.begin(
                GROUP.context,
                member.site,
                member.signer,
                deterministic_entropy("a site"),
                member.long_term_secret,
                cohort=cohort,
            )
        assert caught.value.field == "group_size"
