"""Keying: every site of U1 is asked for its sealed shares (protocol 4.1)."""

from dataclasses import replace

from consortium.contract.messages import RoundAborted, ShareDelivery
from consortium.training_round import Aborted, DeadlinePassed, MessageArrived, Phase, Stopped
from tests.fakes.attempt_play import Play


def keying(**options: object) -> Play:
    play = Play(**options)  # type: ignore[arg-type]
    play.run(until=Phase.KEYING)
    assert play.phase is Phase.KEYING
    return play


def test_when_all_shares_are_in_each_member_gets_its_own_and_the_long_deadline_runs() -> None:
    play = keying()
    play.run(until=Phase.COLLECTING)
    assert play.told(ShareDelivery) == list(play.names)
    assert play.deadlines()[-1] == (Phase.COLLECTING, 600.0)


def test_a_lost_site_is_a_dropout_of_this_phase() -> None:
    play = keying()
    play.lose(play.names[1])
    assert play.dropouts() == {play.names[1]: (Phase.KEYING, "its connection ended")}
    play.run(until=Phase.COLLECTING)
    assert play.told(ShareDelivery) == [name for name in play.names if name != play.names[1]]


def test_a_refusal_now_is_a_dropout_of_this_phase() -> None:
    play = keying()
    play.refuse(play.names[1], "plan: model")
    assert play.dropouts() == {play.names[1]: (Phase.KEYING, "refused: plan: model")}
    assert play.refusals() == [(play.names[1], "plan: model")]


def test_a_late_deadline_of_the_phase_before_changes_nothing() -> None:
    play = keying()
    before = play.state
    assert play.feed(DeadlinePassed(phase=Phase.INVITING)) == ()
    assert play.state is before


def test_the_deadline_drops_the_silent_and_goes_on_with_the_rest() -> None:
    play = keying()
    play.mute(play.names[0])
    play.run()
    play.deadline()
    assert play.phase is Phase.COLLECTING
    assert play.dropouts()[play.names[0]] == (Phase.KEYING, "it did not answer in time")


def test_the_deadline_below_the_threshold_ends_it() -> None:
    play = keying()
    for name in play.names[:2]:
        play.mute(name)
    play.run()
    play.deadline()
    assert isinstance(play.state, Aborted)
    assert play.told(RoundAborted) == list(play.names)


def test_shares_in_another_sites_name_are_a_violation() -> None:
    play = keying()
    honest = play.answer_of(play.names[1])
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, site=play.names[3]))
    assert play.blamed() == [play.names[3]]
    assert play.phase is Phase.KEYING


def test_tampered_shares_are_blamed() -> None:
    play = keying()
    honest = play.pending.pop(0)
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, message=replace(honest.message, signature=bytes(64))))
    assert play.blamed() == [honest.site]
    assert play.dropouts()[honest.site] == (Phase.KEYING, "it broke a rule of the protocol")


def test_stopping_tells_those_who_dropped_out_too() -> None:
    play = keying()
    play.lose(play.names[1])
    play.feed(Stopped(reason="paused"))
    assert play.told(RoundAborted) == list(play.names)
