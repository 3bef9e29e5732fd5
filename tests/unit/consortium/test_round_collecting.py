"""Collecting: every member of U2 trains and uploads its masked update (protocol 4.2)."""

from dataclasses import replace

from consortium.contract.messages import RoundAborted
from consortium.training_round import Aborted, AddToSum, DeadlinePassed, Phase, Stopped, Summed, UploadStored
from privacy.secagg.messages import SurvivorProposal
from tests.fakes.attempt_play import Play


def collecting(**options: object) -> Play:
    play = Play(**options)  # type: ignore[arg-type]
    play.run(until=Phase.COLLECTING)
    assert play.phase is Phase.COLLECTING
    return play


def test_each_upload_is_added_to_the_sum_once() -> None:
    play = collecting()
    first = play.pending.pop(0)
    assert isinstance(first, UploadStored)
    assert play.feed(first) == (AddToSum(site=first.site, masked_update_hash=first.header.masked_update_hash),)
    before = play.state
    assert play.feed(first) == ()
    assert play.state is before
    play.run(until=Phase.CONFIRMING)
    assert sorted(play.added()) == list(play.names)
    assert play.told(SurvivorProposal) == list(play.names)
    assert play.deadlines()[-1] == (Phase.CONFIRMING, 120.0)


def test_a_site_lost_before_its_upload_is_not_a_survivor() -> None:
    play = collecting()
    play.lose(play.names[0])
    assert play.dropouts() == {play.names[0]: (Phase.COLLECTING, "its connection ended")}
    assert isinstance(play.run(), Summed)
    assert play.state.survivors == play.names[1:]


def test_a_site_lost_after_its_upload_is_a_survivor_all_the_same_and_the_log_says_so() -> None:
    play = collecting()
    play.feed(play.pending.pop(0))
    play.lose(play.names[0])
    assert play.dropouts() == {play.names[0]: (Phase.COLLECTING, "its connection ended; its update is in the sum")}
    assert isinstance(play.run(), Summed)
    assert play.state.survivors == play.names


def test_the_round_deadline_drops_whoever_still_trains() -> None:
    play = collecting()
    play.mute(play.names[3])
    play.run()
    play.deadline()
    assert play.phase is Phase.CONFIRMING
    assert play.dropouts() == {play.names[3]: (Phase.COLLECTING, "it did not answer in time")}


def test_a_late_deadline_of_keying_changes_nothing() -> None:
    play = collecting()
    before = play.state
    assert play.feed(DeadlinePassed(phase=Phase.KEYING)) == ()
    assert play.state is before


def test_an_upload_in_another_sites_name_is_a_violation_and_not_added() -> None:
    play = collecting()
    honest = play.answer_of(play.names[1])
    assert isinstance(honest, UploadStored)
    play.feed(replace(honest, site=play.names[0]))
    assert play.blamed() == [play.names[0]]
    assert play.added() == []


def test_a_second_different_upload_is_blamed_and_the_first_stays_in_the_sum() -> None:
    play = collecting()
    first = play.pending.pop(0)
    assert isinstance(first, UploadStored)
    play.feed(first)
    play.feed(replace(first, header=replace(first.header, masked_update_hash=b"2" * 32)))
    assert play.blamed() == [first.site]
    assert play.dropouts()[first.site] == (
        Phase.COLLECTING,
        "it broke a rule of the protocol; its update is in the sum",
    )
    assert play.added() == [first.site]


def test_a_refusal_by_training_that_failed_is_a_dropout() -> None:
    play = collecting()
    play.refuse(play.names[2], "failure")
    assert play.refusals() == [(play.names[2], "failure")]
    assert isinstance(play.run(), Summed)


def test_below_the_threshold_it_is_over_before_anything_is_opened() -> None:
    play = collecting()
    play.lose(play.names[0])
    play.lose(play.names[1])
    assert isinstance(play.state, Aborted)
    assert play.told(RoundAborted) == list(play.names)
    assert play.state.opened_over == ()


def test_stopping() -> None:
    play = collecting()
    play.feed(Stopped(reason="paused"))
    assert isinstance(play.state, Aborted)
