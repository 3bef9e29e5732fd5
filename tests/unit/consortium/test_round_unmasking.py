"""Unmasking: the survivors' shares open the sum, or not (protocol 4.4 and 4.5)."""

from dataclasses import replace

from consortium.contract.messages import RoundAborted
from consortium.training_round import (
    Aborted,
    DeadlinePassed,
    MessageArrived,
    Phase,
    Running,
    SiteLeft,
    SiteReturned,
    Stopped,
    Summed,
    opened_over,
)
from privacy.secagg.messages import UnmaskRequest
from tests.fakes.attempt_play import Play


def unmasking(**options: object) -> Play:
    play = Play(**options)  # type: ignore[arg-type]
    play.run(until=Phase.UNMASKING)
    return play


def test_the_end_holds_what_closing_the_round_needs() -> None:
    play = unmasking()
    state = play.run()
    assert isinstance(state, Summed)
    assert state.survivors == play.names
    assert len(state.transcript) == 32
    assert state.context == play.context
    assert state.plan == play.plan
    assert len(state.removal.subtract) + len(state.removal.add) == len(play.names)


def test_the_threshold_of_shares_is_enough() -> None:
    play = unmasking()
    play.lose(play.names[0])
    assert play.dropouts() == {}  # it may come back with its shares as long as they are needed
    assert isinstance(play.run(), Summed)
    assert play.state.survivors == play.names
    assert play.dropouts()[play.names[0]] == (Phase.UNMASKING, "its connection ended; its update is in the sum")


def test_a_survivor_that_comes_back_is_asked_again_and_answers_the_same() -> None:
    play = unmasking()
    missing = [play.answer_of(name) for name in play.names[:2]]
    for name in play.names[:2]:
        play.lose(name)
    play.run()
    assert play.phase is Phase.UNMASKING
    play.silent.clear()
    play.feed(SiteReturned(site=play.names[0]))
    assert play.told(UnmaskRequest).count(play.names[0]) == 2
    assert play.pending == missing[:1]
    state = play.run()
    assert isinstance(state, Summed)
    assert state.survivors == play.names


def test_in_an_earlier_phase_a_site_that_comes_back_changes_nothing() -> None:
    play = Play()
    play.run(until=Phase.CONFIRMING)
    play.lose(play.names[0])
    before = play.state
    assert play.feed(SiteReturned(site=play.names[0])) == ()
    assert play.state is before


def test_a_dropout_in_collecting_has_its_masks_taken_off_too() -> None:
    play = Play()
    play.run(until=Phase.COLLECTING)
    play.lose(play.names[3])
    state = play.run()
    assert isinstance(state, Summed)
    assert state.survivors == play.names[:3]
    # three self masks, and the dropout's pairwise masks with each of the three
    assert len(state.removal.add) + len(state.removal.subtract) == 6


def test_the_deadline_with_enough_shares_sums() -> None:
    play = unmasking()
    play.mute(play.names[2])
    play.run()
    play.deadline()
    assert isinstance(play.state, Summed)


def test_too_few_shares_end_it_and_say_over_whom_some_were_released() -> None:
    play = unmasking()
    assert isinstance(play.state, Running)
    assert opened_over(play.state) == play.names
    for name in play.names[:2]:
        play.mute(name)
    play.run()
    play.deadline()
    assert isinstance(play.state, Aborted)
    assert play.state.opened_over == play.names
    assert play.told(RoundAborted) == list(play.names)


def test_before_this_phase_nothing_can_have_been_opened() -> None:
    for phase in (Phase.INVITING, Phase.KEYING, Phase.COLLECTING, Phase.CONFIRMING):
        play = Play()
        play.run(until=phase)
        assert isinstance(play.state, Running)
        assert opened_over(play.state) == ()


def test_a_share_in_another_sites_name_is_a_violation() -> None:
    play = unmasking()
    honest = play.answer_of(play.names[1])
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, site=play.names[0]))
    assert play.blamed() == [play.names[0]]


def test_tampered_shares_are_blamed_and_the_rest_suffices() -> None:
    play = unmasking()
    honest = play.pending.pop(0)
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, message=replace(honest.message, signature=bytes(64))))
    assert play.blamed() == [honest.site]
    assert isinstance(play.run(), Summed)


def test_a_late_confirming_deadline_changes_nothing() -> None:
    play = unmasking()
    before = play.state
    assert play.feed(DeadlinePassed(phase=Phase.CONFIRMING)) == ()
    assert play.state is before


def test_after_the_sum_nothing_is_heard() -> None:
    play = unmasking()
    shares = list(play.pending)
    over = play.run()
    for event in (*shares, SiteLeft(site=play.names[0]), Stopped(reason="too late")):
        assert play.feed(event) == ()
        assert play.state is over
    assert play.told(RoundAborted) == []
