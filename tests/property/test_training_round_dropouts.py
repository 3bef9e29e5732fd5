"""Whatever order events come in, an attempt ends summed over at least the threshold, or aborted with everybody told."""

from hypothesis import given, settings
from hypothesis import strategies as st

from consortium.contract.messages import RoundAborted
from consortium.contract.plan import context_of
from consortium.training_round import (
    Aborted,
    DeadlinePassed,
    NoteDropout,
    Phase,
    Running,
    SiteLeft,
    State,
    Stopped,
    Summed,
    begin,
    step,
)
from tests.fakes.attempt_play import Play

SITES = 5
PHASES = tuple(Phase)

losses = st.dictionaries(st.integers(0, SITES - 1), st.sampled_from(PHASES), max_size=SITES)
"""Site number -> the phase in which it is lost."""


def finish(play: Play, lost: dict[int, Phase], draw: st.DataObject) -> None:
    """Deliver everything in any order; when nothing is under way, let the deadline pass."""
    done: set[int] = set()
    while isinstance(play.state, Running):
        leaving = [n for n, phase in lost.items() if phase is play.phase and n not in done]
        choices = len(play.pending) + len(leaving)
        if choices == 0:
            play.deadline()
            continue
        choice = draw.draw(st.integers(0, choices - 1))
        if choice < len(play.pending):
            play.feed(play.pending.pop(choice))
        else:
            number = leaving[choice - len(play.pending)]
            done.add(number)
            loss = draw.draw(st.sampled_from(["left", "silent", "refused"]))
            name = play.names[number]
            {"left": play.lose, "silent": play.mute, "refused": play.refuse}[loss](name)


@settings(max_examples=30, deadline=None)
@given(lost=losses, data=st.data())
def test_any_order_of_events_and_losses(lost: dict[int, Phase], data: st.DataObject) -> None:
    play = Play(sites=SITES)
    finish(play, lost, data)
    if isinstance(play.state, Summed):
        survivors = play.state.survivors
        assert len(survivors) >= 3
        assert sorted(play.added()) == sorted(survivors)
        assert list(survivors) == sorted(set(survivors))
        assert play.state.context == context_of(play.plan).digest()
        assert play.told(RoundAborted) == []
    else:
        assert isinstance(play.state, Aborted)
        assert len(lost) > SITES - 3  # nothing less can end it
        assert play.told(RoundAborted) == list(play.names)
    # Every participant that is not in the sum is named as a dropout, once, and nobody is blamed.
    assert play.blamed() == []
    dropped = [effect.site for effect in play.of(NoteDropout)]
    assert len(dropped) == len(set(dropped))
    if isinstance(play.state, Summed):
        assert set(play.names) - set(play.state.survivors) <= set(dropped)
    over, effects = play.state, len(play.effects)
    for event in (
        *play.pending,
        Stopped(reason="too late"),
        *(SiteLeft(site=name) for name in play.names),
        *(DeadlinePassed(phase=phase) for phase in PHASES),
    ):
        play.feed(event)
    assert play.state is over
    assert len(play.effects) == effects


@settings(max_examples=15, deadline=None)
@given(lost=losses.filter(lambda lost: len(lost) <= SITES - 3), data=st.data())
def test_losses_that_leave_the_threshold_never_cost_the_round(lost: dict[int, Phase], data: st.DataObject) -> None:
    play = Play(sites=SITES)
    finish(play, lost, data)
    assert isinstance(play.state, Summed)
    missing = set(play.names) - set(play.state.survivors)
    assert missing <= {play.names[number] for number in lost}
    assert missing <= play.dropouts().keys()


@settings(max_examples=10, deadline=None)
@given(lost=losses, data=st.data())
def test_replaying_what_was_journalled_gives_the_same_end(lost: dict[int, Phase], data: st.DataObject) -> None:
    play = Play(sites=SITES)
    finish(play, lost, data)
    replayed: State = begin(play.plan, None)[0]
    for event in play.journal:
        replayed, _ = step(replayed, event)
    assert replayed == play.state
