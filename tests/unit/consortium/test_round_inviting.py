"""Inviting: every participant is asked for a key bundle (protocol 4.0)."""

from dataclasses import replace

from consortium.contract.messages import BundleList, RoundAborted
from consortium.training_round import (
    Aborted,
    DeadlinePassed,
    MessageArrived,
    NoteDropout,
    NoteRefusal,
    Phase,
    Running,
    SiteLeft,
    Stopped,
    Tell,
)
from tests.fakes.attempt_play import Play


def test_an_attempt_begins_by_waiting_for_bundles_with_the_short_deadline() -> None:
    play = Play()
    assert play.phase is Phase.INVITING
    assert play.deadlines() == [(Phase.INVITING, 120.0)]
    assert play.of(Tell) == []  # the driver sends the signed invitations


def test_when_every_bundle_is_in_everybody_gets_the_list() -> None:
    play = Play()
    play.run(until=Phase.KEYING)
    assert play.phase is Phase.KEYING
    assert play.told(BundleList) == list(play.names)
    assert play.deadlines()[-1] == (Phase.KEYING, 120.0)


def test_a_refusal_is_noted_with_its_rule_and_is_a_dropout() -> None:
    play = Play()
    effects = play.refuse(play.names[0], "allowed_hours")
    assert effects[0] == NoteRefusal(site=play.names[0], rule="allowed_hours")
    assert play.dropouts() == {play.names[0]: (Phase.INVITING, "refused: allowed_hours")}
    play.run(until=Phase.KEYING)
    assert play.told(BundleList) == list(play.names[1:])


def test_a_second_refusal_is_not_noted_again() -> None:
    play = Play()
    play.refuse(play.names[0])
    before = play.state
    assert play.refuse(play.names[0]) == ()
    assert play.state is before


def test_a_site_that_leaves_is_a_dropout_and_the_others_go_on() -> None:
    play = Play()
    play.lose(play.names[2])
    assert play.dropouts() == {play.names[2]: (Phase.INVITING, "its connection ended")}
    play.run(until=Phase.KEYING)
    assert play.phase is Phase.KEYING


def test_a_site_that_leaves_twice_is_noted_once() -> None:
    play = Play()
    play.lose(play.names[2])
    assert play.lose(play.names[2]) == ()
    assert len(play.of(NoteDropout)) == 1


def test_somebody_who_does_not_take_part_changes_nothing_by_leaving() -> None:
    play = Play()
    before = play.state
    assert play.feed(SiteLeft(site="elsewhere")) == ()
    assert play.state is before


def test_the_deadline_drops_whoever_has_not_answered() -> None:
    play = Play()
    play.mute(play.names[3])
    play.run()
    assert play.phase is Phase.INVITING
    play.deadline()
    assert play.dropouts() == {play.names[3]: (Phase.INVITING, "it did not answer in time")}
    assert play.phase is Phase.KEYING


def test_below_the_threshold_the_attempt_is_over_and_everybody_is_told() -> None:
    play = Play()
    play.lose(play.names[0])
    play.refuse(play.names[1])
    assert isinstance(play.state, Aborted)
    assert play.told(RoundAborted) == list(play.names)
    assert "3" in play.state.reason
    assert not play.state.singles_out
    assert play.state.opened_over == ()


def test_a_message_in_another_sites_name_is_a_violation_of_its_sender() -> None:
    play = Play()
    honest = play.answer_of(play.names[1])
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, site=play.names[0]))
    assert play.blamed() == [play.names[0]]
    assert play.dropouts() == {play.names[0]: (Phase.INVITING, "a site speaks in its own name")}


def test_a_bundle_with_a_bad_signature_is_blamed_and_its_sender_not_heard_again() -> None:
    play = Play()
    honest = play.pending.pop(0)
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, message=replace(honest.message, signature=bytes(64))))
    assert play.blamed() == [play.names[0]]
    assert play.dropouts()[play.names[0]] == (Phase.INVITING, "it broke a rule of the protocol")
    before = play.state
    assert play.feed(honest) == ()
    assert play.state is before


def test_a_repeated_bundle_changes_nothing() -> None:
    play = Play()
    first = play.pending[0]
    play.feed(first)
    before = play.state
    assert play.feed(first) == ()
    assert play.state is before
    assert len(play.journal) == 1


def test_a_message_of_another_attempt_changes_nothing() -> None:
    play, other = Play(), Play(attempt=2)
    before = play.state
    assert play.feed(other.pending[0]) == ()
    assert play.state is before


def test_a_deadline_of_a_later_phase_is_not_this_ones() -> None:
    play = Play()
    before = play.state
    assert play.feed(DeadlinePassed(phase=Phase.UNMASKING)) == ()
    assert play.state is before


def test_stopping_ends_the_attempt_and_tells_everybody_why() -> None:
    play = Play()
    play.feed(Stopped(reason="the operator chose to pause the study"))
    assert isinstance(play.state, Aborted)
    assert play.state.reason == "the operator chose to pause the study"
    reasons = {tell.message.reason for tell in play.of(Tell)}
    assert reasons == {"the operator chose to pause the study"}
    assert play.told(RoundAborted) == list(play.names)


def test_after_the_end_nothing_is_heard() -> None:
    play = Play()
    waiting = list(play.pending)
    play.feed(Stopped(reason="enough"))
    over = play.state
    for event in (*waiting, SiteLeft(site=play.names[0]), DeadlinePassed(phase=Phase.INVITING)):
        assert play.feed(event) == ()
        assert play.state is over
    assert not isinstance(over, Running)
