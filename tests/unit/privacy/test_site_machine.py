"""The site's machine, one state at a time: what it sends, what it keeps, and what it does not answer."""

from dataclasses import fields, replace

import pytest

from privacy.errors import BelowThreshold, ContextRefused, LocalProtocolError, OutOfOrder, PrivacyError
from privacy.secagg import site
from privacy.secagg.messages import Confirmation, Phase, SealedShares, UnmaskShares, UploadHeader
from privacy.secret import Secret
from tests.fakes.memory_round import Link, MemoryRound, consortium, deterministic_entropy, reattempt, site_name

GROUP = consortium(4)
A, B, C, D = (site_name(i) for i in range(4))
ENDED = site.AttemptEnded(reason=PrivacyError("the coordinator said so"))


def begin(group=GROUP, name=A, signer=None):
    member = group.member(name)
    return site.begin(
        group.context, name, signer or member.signing_key, deterministic_entropy("e"), member.long_term_secret
    )


def at(until, **options):
    """A round stopped where the requests of `until` are under way, and the one for site A."""
    round_ = MemoryRound(GROUP, **options)
    round_.run(until=until)
    return round_, next(message for name, message in round_.queue if name == A)


# --- begin ---------------------------------------------------------------------------------------------------------


def test_begin_advertises_two_keys_and_a_commitment():
    state, bundle = begin()
    assert isinstance(state, site.Advertising)
    assert (bundle.site, bundle.context) == (A, GROUP.context.digest())
    assert bundle.pair_key != bundle.box_key
    assert begin()[1] == bundle  # a function of its arguments


def test_begin_refuses_what_it_cannot_take_part_in():
    with pytest.raises(LocalProtocolError, match="not in the roster"):
        site.begin(GROUP.context, "site-q", GROUP.members[0].signing_key, bytes, Secret(b"l" * 32))
    with pytest.raises(LocalProtocolError, match="key of its certificate"):
        begin(signer=GROUP.member(B).signing_key)
    with pytest.raises(ContextRefused):
        begin(reattempt(GROUP, threshold=2))


# --- one state after another ---------------------------------------------------------------------------------------


def test_sharing_seals_for_every_other_site_and_pair_seeds_for_the_later_ones():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.MASK)
    sealed = {name: effects[0].message for name, effects in round_.site_effects.items()}
    assert all(isinstance(message, SealedShares) for message in sealed.values())
    for name, message in sealed.items():
        assert [box.recipient for box in message.boxes] == [site_name(i) for i in range(4) if site_name(i) != name]
        assert [bool(box.pair_seed) for box in message.boxes] == [name < box.recipient for box in message.boxes]


def test_masking_holds_one_self_mask_and_one_mask_per_peer():
    round_, request = at(Phase.MASK)
    state, effects = site.step(round_.site_states[A], request)
    assert isinstance(state, site.Masking)
    assert effects == ()
    assert (len(state.masks.add), len(state.masks.subtract)) == (4, 0)
    request_d = next(message for name, message in round_.queue if name == D)
    last, _ = site.step(round_.site_states[D], request_d)
    assert (len(last.masks.add), len(last.masks.subtract)) == (1, 3)
    assert last.masks.subtract[0].expose() == state.masks.add[3].expose()


def test_the_masks_are_gone_once_the_upload_is_described():
    round_, request = at(Phase.MASK)
    masking, _ = site.step(round_.site_states[A], request)
    state, effects = site.step(masking, site.UploadFinished(masked_update_hash=b"h" * 32))
    assert isinstance(state, site.Confirming)
    (send,) = effects
    assert isinstance(send.message, UploadHeader)
    assert send.message.masked_update_hash == b"h" * 32
    assert not {"masks", "dither", "seeds"} & {field.name for field in fields(state)}
    with pytest.raises(OutOfOrder):
        site.step(state, site.UploadFinished(masked_update_hash=b"i" * 32))


def test_a_hash_of_another_length_is_our_own_fault():
    round_, request = at(Phase.MASK)
    masking, _ = site.step(round_.site_states[A], request)
    state, _ = site.step(masking, site.UploadFinished(masked_update_hash=b"h"))
    assert isinstance(state, site.Aborted)
    assert isinstance(state.reason, LocalProtocolError)


def test_confirming_signs_one_transcript():
    round_, proposal = at(Phase.CONFIRM)
    state, effects = site.step(round_.site_states[A], proposal)
    assert isinstance(state, site.Unmasking)
    assert isinstance(effects[0].message, Confirmation)
    assert effects[0].message.transcript == state.transcript == round_.coordinator_state.transcript
    with pytest.raises(OutOfOrder):
        site.step(state, proposal)


def test_the_release_is_on_disk_before_the_shares_leave():
    round_, request = at(Phase.UNMASK, links={D: Link(lose_request=Phase.MASK)})
    state, effects = site.step(round_.site_states[A], request)
    assert isinstance(state, site.Done)
    persist, send = effects
    assert persist == site.PersistReleased(
        context=GROUP.context.digest(),
        transcript=state.transcript,
        model_hash=GROUP.context.model_hash,
        survivors=(A, B, C),
        shares=send.message,
    )
    assert isinstance(send.message, UnmaskShares)
    assert [share.owner for share in send.message.self_mask_shares] == [A, B, C]
    assert [share.owner for share in send.message.root_shares] == [D]


# --- leaving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK])
def test_an_attempt_can_end_in_every_state_and_leaves_no_secret(until):
    round_, request = at(until)
    state, effects = site.step(round_.site_states[A], ENDED)
    assert state == site.Aborted(reason=ENDED.reason)
    assert effects == (site.Abandon(reason=ENDED.reason),)
    with pytest.raises(OutOfOrder):
        site.step(state, request)


def test_the_end_of_an_attempt_that_is_over_changes_nothing():
    round_ = MemoryRound(GROUP)
    round_.run()
    for state in (round_.site_states[A], site.Aborted(reason=ENDED.reason)):
        assert site.step(state, ENDED) == (state, ())


def test_a_phase_with_too_few_sites_ends_the_attempt():
    round_, request = at(Phase.SHARE)
    few = replace(request, bundles=request.bundles[:2])
    state, _ = site.step(round_.site_states[A], few)
    assert state == site.Aborted(reason=BelowThreshold(2, 3))


def test_every_event_in_every_wrong_state_is_out_of_order():
    rounds = {until: at(until) for until in (Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK)}
    for until, (round_, _) in rounds.items():
        for other, (_, request) in rounds.items():
            if other != until:
                before = round_.site_states[A]
                with pytest.raises(OutOfOrder) as caught:
                    site.step(before, request)
                assert caught.value.state == type(before).__name__
        with pytest.raises(OutOfOrder):
            site.step(round_.site_states[A], site.UploadFinished(masked_update_hash=bytes(32)))


def test_no_state_prints_a_secret():
    round_, _ = at(Phase.MASK)
    text = repr(round_.site_states[A])
    seeds = round_.site_states[A].seeds
    for secret in (seeds.root, seeds.self_mask, seeds.private):
        assert repr(secret.expose())[2:-1] not in text
