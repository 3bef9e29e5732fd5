"""Threat 20: the coordinator changes or leaves out a site's masked vector and asks it to confirm the sum."""

from dataclasses import replace

import pytest

from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.liar import blamed, signed_header
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(4)
A, B, C, D = (site_name(i) for i in range(4))


def proposed():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.CONFIRM)
    return round_.site_states[A], round_.request_for(A)


@pytest.mark.parametrize("place", [0, 1])
def test_a_changed_hash_breaks_the_uploaders_signature(place):
    state, proposal = proposed()
    headers = list(proposal.headers)
    headers[place] = replace(headers[place], masked_update_hash=b"h" * 32)
    violation = blamed(state, replace(proposal, headers=tuple(headers)))
    assert (violation.site, violation.evidence) == (COORDINATOR, f"not signed by {headers[place].site}")


def test_a_site_knows_its_own_upload():
    """Even a header that the site signed elsewhere (a stolen key, a second machine) is not the upload it made."""
    state, proposal = proposed()
    other = signed_header(GROUP.member(A), replace(proposal.headers[0], masked_update_hash=b"h" * 32))
    lie = replace(proposal, headers=(other, *proposal.headers[1:]))
    assert blamed(state, lie).rule == "this site's upload is listed unchanged"


def test_a_site_that_is_left_out_of_the_sum_does_not_confirm_it():
    state, proposal = proposed()
    lie = replace(proposal, survivors=(B, C, D), headers=proposal.headers[1:])
    assert blamed(state, lie).rule == "this site's upload is listed unchanged"


def test_a_survivor_without_an_upload_is_refused():
    state, proposal = proposed()
    assert "one upload header per survivor" in blamed(state, replace(proposal, headers=proposal.headers[:3])).rule
    doubled = (*proposal.headers[:3], replace(proposal.headers[2], site=D))
    assert blamed(state, replace(proposal, headers=doubled)).evidence == f"not signed by {D}"


@pytest.mark.parametrize("size", [0, 31])
def test_a_hash_of_another_length_is_the_signers_fault(size):
    state, proposal = proposed()
    short = signed_header(GROUP.member(B), replace(proposal.headers[1], masked_update_hash=bytes(size)))
    lie = replace(proposal, headers=(proposal.headers[0], short, *proposal.headers[2:]))
    assert blamed(state, lie).site == B
