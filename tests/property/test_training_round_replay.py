"""A coordinator that stops after any line of its journal comes back to the very same state."""

from pathlib import Path

import pytest

from consortium.database import Database
from consortium.journal import Journal, decode, encode, forget
from consortium.training_round import (
    AddToSum,
    DeadlinePassed,
    Effect,
    Phase,
    SiteReturned,
    State,
    Stopped,
    Summed,
    begin,
    step,
)
from tests.fakes.attempt_play import Play


def eventful() -> Play:
    """An attempt with one event of every kind: a refusal, a loss, a return, a deadline, messages, uploads."""
    play = Play(sites=7, threshold=4)
    play.refuse(play.names[0])
    play.run(until=Phase.COLLECTING)
    play.lose(play.names[1])
    play.mute(play.names[2])
    play.run()
    play.deadline()
    play.run(until=Phase.UNMASKING)
    play.lose(play.names[3])
    play.silent.discard(play.names[3])
    play.feed(SiteReturned(site=play.names[3]))
    play.run()
    return play


def states_along(play: Play) -> list[State]:
    states: list[State] = [begin(play.plan, None)[0]]
    for event in play.journal:
        states.append(step(states[-1], event)[0])
    return states


def test_every_kind_of_event_survives_the_journal() -> None:
    play = eventful()
    events = [*play.journal, Stopped(reason="the operator chose to pause the study")]
    assert {type(event).__name__ for event in events} == {
        "MessageArrived",
        "UploadStored",
        "SiteRefused",
        "SiteLeft",
        "SiteReturned",
        "DeadlinePassed",
        "Stopped",
    }
    for event in events:
        assert decode(encode(play.plan, event)) == event


def test_an_unknown_event_is_not_taken_for_another() -> None:
    with pytest.raises(ValueError, match="resumed"):
        decode(b'{"type": "resumed"}')


def test_a_stop_after_every_line_of_the_journal(tmp_path: Path) -> None:
    play = eventful()
    expected = states_along(play)
    assert isinstance(expected[-1], Summed)
    database = Database(f"sqlite:///{tmp_path / 'journal.db'}")
    journal = Journal(database)
    try:
        for lines in range(len(play.journal) + 1):
            if lines:
                journal.append(play.plan, play.journal[lines - 1])
            # what a new process finds:
            found = Journal(database).events(play.plan)
            state: State = begin(play.plan, None)[0]
            performed: list[Effect] = []
            for event in found:
                state, effects = step(state, event)
                performed += effects
            assert state == expected[lines]
            # and it goes on from there to the same end
            for event in play.journal[lines:]:
                state, effects = step(state, event)
                performed += effects
            assert state == play.state
            assert [e.site for e in performed if isinstance(e, AddToSum)] == play.added()
    finally:
        database.close()


def test_attempts_do_not_mix_and_a_closed_one_is_forgotten(tmp_path: Path) -> None:
    first, second = Play(), Play(attempt=2)
    first.run()
    second.run(until=Phase.KEYING)
    database = Database(f"sqlite:///{tmp_path / 'journal.db'}")
    try:
        journal = Journal(database)
        for play in (first, second):
            journal.append(play.plan, *play.journal)
        assert journal.events(first.plan) == tuple(first.journal)
        assert journal.events(second.plan) == tuple(second.journal)
        with database.transaction() as connection:
            forget(connection, first.plan)
        assert journal.events(first.plan) == ()
        assert journal.events(second.plan) == tuple(second.journal)
        journal.append(second.plan, DeadlinePassed(phase=Phase.KEYING))
        assert journal.events(second.plan)[-1] == DeadlinePassed(phase=Phase.KEYING)
    finally:
        database.close()
