"""Confirming: the survivors sign the survivor set (protocol 4.3); metrics are never summed over all but one."""

from dataclasses import replace

import pytest

from consortium.contract.messages import RoundAborted
from consortium.training_round import (
    Aborted,
    DeadlinePassed,
    MessageArrived,
    Phase,
    Stopped,
    Summed,
    UploadStored,
    is_measured,
    may_measure,
)
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest
from tests.fakes.attempt_play import Play, plan_of


def confirming(**options: object) -> Play:
    play = Play(**options)  # type: ignore[arg-type]
    play.run(until=Phase.CONFIRMING)
    return play


def test_when_everybody_signed_the_shares_are_asked_for() -> None:
    play = confirming()
    play.run(until=Phase.UNMASKING)
    assert play.told(UnmaskRequest) == list(play.names)
    assert play.deadlines()[-1] == (Phase.UNMASKING, 120.0)


def test_a_survivor_lost_now_stays_in_the_sum() -> None:
    play = confirming()
    play.lose(play.names[1])
    assert play.dropouts() == {play.names[1]: (Phase.CONFIRMING, "its connection ended; its update is in the sum")}
    assert isinstance(play.run(), Summed)
    assert play.state.survivors == play.names


def test_the_deadline_needs_only_the_threshold_of_signatures() -> None:
    play = confirming()
    play.mute(play.names[0])
    play.run()
    play.deadline()
    assert play.phase is Phase.UNMASKING
    assert play.dropouts()[play.names[0]][0] is Phase.CONFIRMING


def test_fewer_signatures_than_the_threshold_end_it() -> None:
    play = confirming()
    for name in play.names[:2]:
        play.mute(name)
    play.run()
    play.deadline()
    assert isinstance(play.state, Aborted)
    assert play.state.opened_over == ()
    assert play.told(RoundAborted) == list(play.names)


def test_a_late_upload_deadline_and_a_late_upload_change_nothing() -> None:
    play = Play()
    play.run(until=Phase.COLLECTING)
    late = play.answer_of(play.names[3])
    assert isinstance(late, UploadStored)
    play.pending.remove(late)
    play.run()
    play.deadline()
    before = play.state
    assert play.phase is Phase.CONFIRMING
    assert play.feed(late) == ()
    assert play.feed(DeadlinePassed(phase=Phase.COLLECTING)) == ()
    assert play.state is before
    assert play.names[3] not in play.added()


def test_a_forged_confirmation_is_blamed() -> None:
    play = confirming()
    honest = play.pending.pop(0)
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, message=replace(honest.message, transcript=bytes(32))))
    assert play.blamed() == [honest.site]


def test_a_confirmation_in_another_sites_name_is_a_violation() -> None:
    play = confirming()
    honest = play.answer_of(play.names[1])
    assert isinstance(honest, MessageArrived)
    play.feed(replace(honest, site=play.names[0]))
    assert play.blamed() == [play.names[0]]


def test_a_refusal_to_sign_is_noted() -> None:
    play = confirming()
    play.refuse(play.names[3], "secure aggregation")
    assert play.refusals() == [(play.names[3], "secure aggregation")]


def test_stopping_now_reveals_nothing() -> None:
    play = confirming()
    play.feed(Stopped(reason="paused"))
    assert isinstance(play.state, Aborted)
    assert play.state.opened_over == ()


# --- the metrics rule ---


def test_metrics_over_all_but_one_of_those_measured_before_are_never_opened() -> None:
    names = frozenset(member.site for member in Play().members)
    play = Play(measured=True, measured_before=names)
    play.run(until=Phase.COLLECTING)
    play.lose(play.names[0])
    play.run()
    assert isinstance(play.state, Aborted)
    assert play.state.singles_out
    assert "one hospital" in play.state.reason
    assert play.told(SurvivorProposal) == []  # nobody was even asked to sign that set
    assert play.told(RoundAborted) == list(play.names)
    assert play.dropouts() == {play.names[0]: (Phase.COLLECTING, "its connection ended")}


@pytest.mark.parametrize(
    ("measured", "before"),
    [
        (True, None),  # nothing was published yet
        (False, "all"),  # no metrics in this round
        (True, "same"),
        (True, "others"),
    ],
)
def test_other_survivor_sets_are_opened(*, measured: bool, before: str | None) -> None:
    names = [member.site for member in Play().members]
    sets = {"all": names, "same": names[1:], "others": [names[0], names[3]]}
    play = Play(measured=measured, measured_before=frozenset(sets[before]) if before else None)
    play.run(until=Phase.COLLECTING)
    play.lose(play.names[0])
    assert isinstance(play.run(), Summed)


def test_the_rule_counts_sites_that_joined_as_well_as_sites_that_left() -> None:
    a, b, c, d = (frozenset({name}) for name in ("aaa", "bbb", "ccc", "ddd"))
    assert may_measure(a | b | c, None)
    assert may_measure(a | b | c, a | b | c)
    assert not may_measure(a | b | c, a | b | c | d)
    assert not may_measure(a | b | c | d, a | b | c)
    assert may_measure(a | b | c, a | b | d)


def test_a_plan_is_measured_by_its_lanes() -> None:
    members = Play().members
    assert is_measured(plan_of(members, measured=True))
    assert not is_measured(plan_of(members))
