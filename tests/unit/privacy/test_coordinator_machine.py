"""The coordinator's machine, one phase at a time: when a phase closes, who is dropped, who is blamed."""

from dataclasses import replace

import pytest

from privacy.errors import BelowThreshold, ContextRefused, OutOfOrder, PeerViolation
from privacy.secagg import coordinator, site
from privacy.secagg.coordinator import Blame, DeadlinePassed, Dropout, Ignored, SiteLost
from privacy.secagg.messages import Phase, UploadHeader
from tests.fakes.memory_round import Link, MemoryRound, consortium, reattempt, site_name

GROUP = consortium(5, threshold=3)
A, B, C, D, E = (site_name(i) for i in range(5))
ALL = (A, B, C, D, E)
STATES = {
    Phase.ADVERTISE: coordinator.Advertising,
    Phase.SHARE: coordinator.Sharing,
    Phase.MASK: coordinator.Masking,
    Phase.CONFIRM: coordinator.Confirming,
    Phase.UNMASK: coordinator.Unmasking,
}


def held_back(phase, **options):
    """A coordinator that has had no answer of `phase` yet, and the answers, by site."""
    answers = {}
    round_ = MemoryRound(GROUP, **options)
    round_.tamper_to_coordinator = lambda name, message: _keep(answers, phase, name, message)
    if phase is Phase.ADVERTISE:
        answers = dict(round_.queue)
        return round_, answers
    while not isinstance(round_.coordinator_state, STATES[phase]) or round_.queue:
        round_.deliver(*round_.queue.popleft())
    return round_, answers


def _keep(answers, phase, name, message):
    if coordinator._PHASE[type(message)] is not phase:
        return message
    answers[name] = message
    return None


def feed(state, *events):
    effects = []
    for event in events:
        state, more = coordinator.step(state, event)
        effects.extend(more)
    return state, effects


# --- closing phases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_closes_with_the_last_answer(phase):
    round_, answers = held_back(phase)
    state, _ = feed(round_.coordinator_state, *list(answers.values())[:-1])
    assert coordinator.phase_of(state) is phase
    assert coordinator.awaited(state) == {E}
    state, _ = feed(state, answers[E])
    assert coordinator.phase_of(state) is not phase


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_closes_when_the_last_site_awaited_is_lost(phase):
    round_, answers = held_back(phase)
    state, _ = feed(round_.coordinator_state, *(answers[name] for name in (A, B, C)), SiteLost(site=D))
    assert coordinator.phase_of(state) is phase
    state, effects = feed(state, SiteLost(site=E))
    assert coordinator.phase_of(state) is not phase
    assert not isinstance(state, coordinator.Aborted)
    assert Dropout(site=E, phase=phase) in effects


@pytest.mark.parametrize("phase", list(Phase))
def test_the_deadline_closes_a_phase_with_enough_answers(phase):
    round_, answers = held_back(phase)
    state, effects = feed(round_.coordinator_state, *(answers[name] for name in (A, B, C)), DeadlinePassed())
    assert coordinator.phase_of(state) is not phase
    assert not isinstance(state, coordinator.Aborted)
    assert [e.site for e in effects if isinstance(e, Dropout)] == [D, E]


@pytest.mark.parametrize("phase", list(Phase))
def test_the_deadline_ends_an_attempt_with_too_few_answers(phase):
    round_, answers = held_back(phase)
    state, effects = feed(round_.coordinator_state, answers[A], answers[B], DeadlinePassed())
    assert state == coordinator.Aborted(reason=BelowThreshold(2, 3))
    assert effects[-1] == coordinator.Abandon(reason=BelowThreshold(2, 3))


@pytest.mark.parametrize("phase", list(Phase))
def test_an_attempt_that_cannot_reach_the_threshold_ends_at_once(phase):
    round_, _ = held_back(phase)
    state, _ = feed(round_.coordinator_state, *(SiteLost(site=name) for name in (A, B)))
    assert coordinator.phase_of(state) is phase
    state, _ = feed(state, SiteLost(site=C))
    assert state == coordinator.Aborted(reason=BelowThreshold(2, 3))


def test_the_minimum_counts_up_to_the_survivor_set_and_the_threshold_after_it():
    group = reattempt(GROUP, minimum=4)
    below = MemoryRound(group, links={A: Link(lose_reply=Phase.MASK), B: Link(lose_reply=Phase.MASK)})
    below.run()
    assert below.coordinator_state == coordinator.Aborted(reason=BelowThreshold(3, 4))
    after = MemoryRound(group, links={A: Link(lose_reply=Phase.CONFIRM), B: Link(lose_reply=Phase.UNMASK)})
    after.run()
    assert after.survivors == ALL
    assert after.sums() == after.plain_sums()


# --- messages that do not count ------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
def test_a_repeated_message_is_ignored(phase):
    round_, answers = held_back(phase)
    state, _ = feed(round_.coordinator_state, answers[A])
    assert feed(state, answers[A]) == (state, [Ignored(site=A, phase=phase, reason="a repetition")])


@pytest.mark.parametrize("phase", list(Phase))
def test_a_message_of_another_attempt_is_ignored(phase):
    round_, answers = held_back(phase)
    stale = replace(answers[A], context=b"o" * 32)
    state, effects = feed(round_.coordinator_state, stale)
    assert state == round_.coordinator_state
    assert [type(effect) for effect in effects] == [Ignored]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_message_of_a_lost_site_is_ignored(phase):
    round_, answers = held_back(phase)
    state, effects = feed(round_.coordinator_state, SiteLost(site=A), answers[A])
    assert effects[-1] == Ignored(site=A, phase=phase, reason="after the site was lost")
    assert feed(state, SiteLost(site=A)) == (state, [])


@pytest.mark.parametrize("phase", list(Phase))
def test_a_second_different_message_is_blamed(phase):
    round_, answers = held_back(phase)
    other = replace(answers[A], signature=bytes(64))
    state, effects = feed(round_.coordinator_state, answers[A], other)
    assert [effect.violation.site for effect in effects if isinstance(effect, Blame)] == [A]
    assert A in state.attempt.lost


@pytest.mark.parametrize("phase", list(Phase))
def test_a_badly_signed_message_is_blamed_on_its_sender(phase):
    round_, answers = held_back(phase)
    state, effects = feed(round_.coordinator_state, replace(answers[A], signature=bytes(64)))
    assert isinstance(effects[0], Blame)
    assert (effects[0].violation.site, effects[0].violation.phase) == (A, phase)
    assert Dropout(site=A, phase=phase) in effects
    assert A not in coordinator.awaited(state)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_stranger_is_blamed_and_changes_nothing(phase):
    round_, answers = held_back(phase)
    state, effects = feed(round_.coordinator_state, replace(answers[A], site="site-q"))
    assert state == round_.coordinator_state
    assert [effect.violation.site for effect in effects] == ["site-q"]
    assert feed(state, SiteLost(site="site-q")) == (state, [])


def test_a_late_message_is_ignored_and_an_early_one_is_blamed():
    _, uploads = held_back(Phase.MASK)
    round_, answers = held_back(Phase.CONFIRM)
    header = round_.coordinator_state.headers[0]
    _, effects = feed(round_.coordinator_state, header)
    assert effects == [Ignored(site=A, phase=Phase.CONFIRM, reason="after its phase was closed")]
    masking, _ = held_back(Phase.MASK)
    early = replace(answers[A], context=masking.group.context.digest())
    _, effects = feed(masking.coordinator_state, early)
    assert isinstance(effects[0], Blame)
    assert "in order" in effects[0].violation.rule
    _, effects = feed(masking.coordinator_state, replace(early, context=bytes(32)))
    assert isinstance(effects[0], Ignored)
    assert set(uploads) == set(ALL)


# --- lost sites and what they did before ---------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE])
def test_a_site_lost_after_answering_an_early_phase_is_left_out(phase):
    round_, answers = held_back(phase)
    state, _ = feed(round_.coordinator_state, answers[A], SiteLost(site=A), *(answers[n] for n in (B, C, D, E)))
    assert state.asked == {B, C, D, E}


def test_a_site_lost_after_its_upload_is_a_survivor_all_the_same():
    round_, answers = held_back(Phase.MASK)
    state, effects = feed(round_.coordinator_state, answers[A], SiteLost(site=A), *(answers[n] for n in (B, C, D, E)))
    assert state.survivors == ALL
    assert coordinator.AddUpload(site=A, masked_update_hash=answers[A].masked_update_hash) in effects
    proposal = next(effect for effect in effects if isinstance(effect, coordinator.SendProposal))
    assert proposal.to == (B, C, D, E)
    assert coordinator.awaited(state) == {B, C, D, E}


def test_survivors_who_are_gone_when_the_proposal_goes_out_can_end_the_attempt():
    round_, answers = held_back(Phase.MASK)
    events = [answers[n] for n in (A, B, C, D)] + [SiteLost(site=n) for n in (A, B, C)]
    state, _ = feed(round_.coordinator_state, *events)
    assert coordinator.phase_of(state) is Phase.MASK
    state, effects = feed(state, answers[E])
    assert state == coordinator.Aborted(reason=BelowThreshold(2, 3))
    assert not any(isinstance(effect, coordinator.Unmasked) for effect in effects)


def test_a_confirmation_counts_when_its_site_is_lost_later():
    round_, answers = held_back(Phase.CONFIRM)
    state, effects = feed(round_.coordinator_state, answers[A], SiteLost(site=A), *(answers[n] for n in (B, C, D, E)))
    assert coordinator.phase_of(state) is Phase.UNMASK
    request = next(effect for effect in effects if isinstance(effect, coordinator.SendUnmaskRequest))
    assert [c.site for c in request.request.confirmations] == list(ALL)
    assert request.to == (B, C, D, E)


# --- the rest ------------------------------------------------------------------------------------------------------


def test_begin_refuses_a_context_that_no_honest_study_asks_for():
    with pytest.raises(ContextRefused):
        coordinator.begin(reattempt(GROUP, threshold=2).context)


def test_nothing_happens_after_the_end():
    round_ = MemoryRound(GROUP)
    round_.run()
    for event in (DeadlinePassed(), SiteLost(site=A), round_.site_effects[A][0].message):
        assert coordinator.step(round_.coordinator_state, event) == (round_.coordinator_state, ())
    assert coordinator.phase_of(round_.coordinator_state) is None
    assert coordinator.awaited(round_.coordinator_state) == frozenset()


def test_what_is_not_an_event_is_out_of_order():
    state, _ = coordinator.begin(GROUP.context)
    with pytest.raises(OutOfOrder):
        coordinator.step(state, site.UploadFinished(masked_update_hash=bytes(32)))


def test_a_site_speaks_in_its_own_name():
    _, answers = held_back(Phase.ADVERTISE)
    assert coordinator.attributed(answers[A], A) is answers[A]
    with pytest.raises(PeerViolation) as caught:
        coordinator.attributed(answers[A], B)
    assert caught.value.site == B


def test_an_upload_is_admitted_before_its_body_is_received():
    round_, answers = held_back(Phase.MASK)
    state = round_.coordinator_state
    coordinator.admit_upload(state, answers[A])
    with pytest.raises(PeerViolation):
        coordinator.admit_upload(state, replace(answers[A], masked_update_hash=bytes(32)))
    with pytest.raises(PeerViolation):
        coordinator.admit_upload(state, replace(answers[A], site="site-q"))
    taken, _ = feed(state, answers[A])
    with pytest.raises(PeerViolation):
        coordinator.admit_upload(taken, answers[A])
    early, _ = coordinator.begin(GROUP.context)
    with pytest.raises(OutOfOrder):
        coordinator.admit_upload(early, answers[A])
    assert isinstance(answers[A], UploadHeader)
