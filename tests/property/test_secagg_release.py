"""No order of messages makes a site release both kinds of share for one peer.

The coordinator here has every other site's signing key (a worse case than the threat model's): it can propose any
survivor set with valid headers and gather any confirmations. The site must still release at most once.
"""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import OutOfOrder
from privacy.secagg import site
from privacy.secagg.messages import Confirmation, Phase, SurvivorProposal, UnmaskRequest, UnmaskShares
from privacy.secagg.transcript import confirmation_payload, survivor_transcript
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(5, threshold=3)
SITES = GROUP.context.sites
VICTIM = site_name(0)
ROUND = MemoryRound(GROUP)
ROUND.run(until=Phase.CONFIRM)
CONFIRMING = ROUND.site_states[VICTIM]
HEADERS = {header.site: header for header in ROUND.coordinator_state.headers}


def confirmation(signer, transcript):
    unsigned = Confirmation(context=GROUP.context.digest(), site=signer, transcript=transcript, signature=b"")
    signature = GROUP.member(signer).signing_key.sign(confirmation_payload(unsigned))
    return Confirmation(context=unsigned.context, site=signer, transcript=transcript, signature=signature)


def messages_for(survivors):
    schedule = ROUND.coordinator_state.schedule
    headers = tuple(HEADERS[name] for name in survivors)
    digest = GROUP.context.digest()
    transcript = survivor_transcript(schedule.key_transcript, schedule.members, survivors, headers)
    return (
        SurvivorProposal(context=digest, survivors=survivors, headers=headers),
        UnmaskRequest(context=digest, confirmations=tuple(confirmation(name, transcript) for name in survivors)),
    )


POOL = {survivors: messages_for(survivors) for size in (3, 4, 5) for survivors in combinations(SITES, size)}


@st.composite
def orders(draw):
    """Messages about one to three survivor sets, in any order and any number of times."""
    chosen = draw(st.lists(st.sampled_from(sorted(POOL)), min_size=1, max_size=3, unique=True))
    return draw(st.lists(st.sampled_from([message for survivors in chosen for message in POOL[survivors]]), max_size=8))


@settings(max_examples=200, deadline=None)
@given(orders())
def test_at_most_one_kind_of_share_leaves_for_each_peer(messages):
    """What is sent again, for a request that comes again, is the same to the byte, and is recorded once."""
    state = CONFIRMING
    released, recorded = [], 0
    for message in messages:
        try:
            state, effects = site.step(state, message)
        except OutOfOrder:
            continue
        released += [e.message for e in effects if isinstance(e, site.Send) and isinstance(e.message, UnmaskShares)]
        recorded += sum(isinstance(effect, site.PersistReleased) for effect in effects)
    assert recorded == len(set(released)) <= 1
    for shares in set(released):
        of_b = {share.owner for share in shares.self_mask_shares}
        of_r = {share.owner for share in shares.root_shares}
        assert not of_b & of_r
        assert of_b | of_r == set(SITES)
        assert VICTIM in of_b


def test_the_pool_can_make_it_release():
    """Otherwise the property above would hold for no reason."""
    proposal, request = messages_for(SITES[:3])
    state, _ = site.step(CONFIRMING, proposal)
    state, effects = site.step(state, request)
    assert isinstance(state, site.Done)
    assert len(effects) == 2
