"""4.4 when connections break: a survivor that is away is asked again, and sends what it sent before."""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator, site
from privacy.secagg.coordinator import DeadlinePassed, SiteLost, SiteReturned
from privacy.secagg.messages import Phase
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name

A, B, C, D = (site_name(number) for number in range(4))


def unmasking(lost_shares: tuple[str, ...] = ()) -> MemoryRound:
    """Four sites, threshold three; the shares of some do not arrive."""
    round_ = MemoryRound(
        consortium(4), links={name: Link(lose_reply=Phase.UNMASK, silent=True) for name in lost_shares}
    )
    round_.run(until=Phase.UNMASK)
    while round_.queue:
        round_.deliver(*round_.queue.popleft())
    return round_


def leave(round_: MemoryRound, name: str) -> None:
    round_.tell_coordinator(SiteLost(site=name, may_return=True))


def come_back(round_: MemoryRound, name: str) -> None:
    """The same process, over another connection: its machine is where it was."""
    round_.broken.discard(name)
    round_.links = {}
    round_.tell_coordinator(SiteReturned(site=name))


def requests_to(round_: MemoryRound, name: str) -> int:
    return sum(name in effect.to for effect in round_.effects if isinstance(effect, coordinator.SendUnmaskRequest))


def test_below_the_threshold_the_attempt_waits_for_a_site_that_is_away() -> None:
    round_ = unmasking(lost_shares=(A, B))
    leave(round_, A)
    leave(round_, B)
    assert isinstance(round_.coordinator_state, coordinator.Unmasking)
    assert round_.coordinator_state.away == {A, B}
    come_back(round_, A)
    assert requests_to(round_, A) == 2
    round_.run()
    assert round_.sums() == round_.plain_sums()
    assert round_.survivors == (A, B, C, D)
    assert round_.dropouts() == {B: Phase.UNMASK}


def test_with_enough_shares_nobody_who_is_away_is_waited_for() -> None:
    round_ = unmasking(lost_shares=(A,))
    leave(round_, A)
    assert isinstance(round_.coordinator_state, coordinator.Done)
    assert round_.dropouts() == {A: Phase.UNMASK}
    assert round_.sums() == round_.plain_sums()


def test_the_deadline_ends_the_waiting() -> None:
    round_ = unmasking(lost_shares=(A, B))
    leave(round_, A)
    leave(round_, B)
    round_.tell_coordinator(DeadlinePassed())
    assert isinstance(round_.coordinator_state, coordinator.Aborted)
    assert round_.dropouts() == {A: Phase.UNMASK, B: Phase.UNMASK}


def test_sites_that_left_for_good_are_not_waited_for() -> None:
    round_ = unmasking(lost_shares=(A, B))
    round_.tell_coordinator(SiteLost(site=A))
    assert isinstance(round_.coordinator_state, coordinator.Unmasking)
    round_.tell_coordinator(SiteLost(site=B))
    assert isinstance(round_.coordinator_state, coordinator.Aborted)


def test_a_site_whose_shares_arrived_is_not_asked_again() -> None:
    round_ = unmasking(lost_shares=(A, B))
    round_.tell_coordinator(SiteReturned(site=C))
    assert requests_to(round_, C) == 1


def test_a_blamed_site_is_not_asked_again() -> None:
    round_ = MemoryRound(consortium(4))
    round_.run(until=Phase.UNMASK)
    _, (_, sent) = site.step(round_.site_states[A], round_.request_for(A))
    round_.tell_coordinator(replace(sent.message, signature=bytes(64)))
    assert round_.blamed() == [A]
    round_.tell_coordinator(SiteReturned(site=A))
    assert requests_to(round_, A) == 1


@pytest.mark.parametrize("until", [Phase.SHARE, Phase.MASK, Phase.CONFIRM])
def test_in_an_earlier_phase_a_site_that_comes_back_has_lost_its_place(until: Phase) -> None:
    round_ = MemoryRound(consortium(4))
    round_.run(until=until)
    leave(round_, A)
    before = round_.coordinator_state
    round_.tell_coordinator(SiteReturned(site=A))
    assert round_.coordinator_state is before
    assert A in before.attempt.lost
