"""Threat 20: the coordinator alters or leaves out a site's masked vector, or alters the sum it announces.

Held by: `check_header` (privacy/secagg/checks.py) and `site._check_proposal`, since a survivor is proved by a header
that it signed over its own vector; and by `StudyWork._verify` (site_agent), in which every site computes the next
global model from the announced sum and takes no other.
Tried: rows 20 of `mutations.py`.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from consortium.contract.messages import ResultVerified
from consortium.contract.names import Digest
from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.liar import blamed, signed_header
from tests.fakes.memory_round import MemoryRound, consortium, site_name
from tests.fakes.site_world import hospital

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


@pytest.mark.parametrize("announced", ["another sum", "another model", "another transcript"])
async def test_a_hospital_takes_no_model_that_does_not_follow_from_the_sum(tmp_path, announced):
    """One element of the sum differs in one bit, or the model, or the T3 that was signed."""
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        vector = np.frombuffer(outcome.aggregate, dtype=outcome.plan.layout.dtype).copy()
        vector[0] ^= 1 << 20
        altered = hashlib.sha256(vector.tobytes()).digest()
        world.line.vectors[Digest(altered.hex())] = vector.tobytes()
        lie = {
            "another sum": {"aggregate_hash": altered},
            "another model": {"next_model_digest": Digest("ab" * 32)},
            "another transcript": {"transcript": b"t" * 32},
        }[announced]
        await world.tell(replace(outcome.result, **lie))
        await world.idle()
        assert not [message for message in world.line.sent if isinstance(message, ResultVerified)]
        assert world.store.decision(world.digest).decision == "withdrawn"
        assert world.store.chain(world.digest) is None
