"""Threat 5: messages of an earlier attempt are replayed in a later one, as they are or under the new context.

Held by: `check_context` (privacy/secagg/checks.py) at a site, `coordinator._accept` in the middle, and
`Context.digest`, which is different for every attempt.
Tried: rows 5 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator
from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.liar import blamed, signed_header
from tests.fakes.memory_round import MemoryRound, consortium, site_name

A, B = site_name(0), site_name(1)
OLD = consortium(4, attempt=1)
NEW = consortium(4, attempt=2)
PHASES = [Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK]


def stopped(group, until):
    round_ = MemoryRound(group)
    round_.run(until=until)
    return round_


@pytest.mark.parametrize("until", PHASES)
def test_a_request_of_the_old_attempt_is_refused(until):
    replayed = stopped(OLD, until).request_for(A)
    violation = blamed(stopped(NEW, until).site_states[A], replayed)
    assert (violation.site, violation.rule) == (COORDINATOR, "every message is bound to one attempt at one round")


@pytest.mark.parametrize("until", PHASES)
def test_nor_does_it_help_to_rewrite_its_context(until):
    replayed = replace(stopped(OLD, until).request_for(A), context=NEW.context.digest())
    assert blamed(stopped(NEW, until).site_states[A], replayed).site == COORDINATOR


def test_one_old_bundle_among_new_ones_is_refused():
    old = stopped(OLD, Phase.SHARE).request_for(A).bundles
    request = stopped(NEW, Phase.SHARE).request_for(A)
    state = stopped(NEW, Phase.SHARE).site_states[A]
    for stale in (old[1], replace(old[1], context=NEW.context.digest())):
        mixed = replace(request, bundles=(request.bundles[0], stale, *request.bundles[2:]))
        assert blamed(state, mixed).site == COORDINATOR


def test_the_coordinator_ignores_what_comes_late_from_the_old_attempt():
    late = dict(MemoryRound(OLD).queue)[B]
    state, _ = coordinator.begin(NEW.context)
    after, effects = coordinator.step(state, late)
    assert after == state
    assert effects == (coordinator.Ignored(site=B, phase=Phase.ADVERTISE, reason="of another attempt"),)


def test_a_header_signed_for_another_attempt_does_not_count_though_its_keys_fit():
    round_ = stopped(NEW, Phase.CONFIRM)
    proposal = round_.request_for(A)
    stale = signed_header(NEW.member(B), replace(proposal.headers[1], context=OLD.context.digest()))
    lie = replace(proposal, headers=(proposal.headers[0], stale, *proposal.headers[2:]))
    assert "one attempt" in blamed(round_.site_states[A], lie).rule
