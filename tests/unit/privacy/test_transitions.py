"""The tables of moves: what they say is what happens in whole attempts, and what docs/protocol.md shows."""

from pathlib import Path

import pytest

from privacy.errors import OutOfOrder
from privacy.secagg import coordinator, site
from privacy.secagg.messages import Phase
from privacy.secagg.transitions import Moves
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name

PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"
A, B, C, D = (site_name(number) for number in range(4))


@pytest.mark.parametrize(("machine", "moves"), [("site", site.MOVES), ("coordinator", coordinator.MOVES)])
def test_the_page_shows_the_table_of_the_code(machine: str, moves: Moves) -> None:
    begin, end = f"<!-- moves of the {machine} -->\n", f"<!-- end of the moves of the {machine} -->"
    drawn = PAGE.read_text().partition(begin)[2].partition(end)[0]
    assert drawn == moves.drawn(), "print it with `python -m privacy.secagg.transitions` and put it into the page"


def outputs_of(effects: tuple[object, ...]) -> set[type]:
    return {type(effect.message) if isinstance(effect, site.Send) else type(effect) for effect in effects}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, type, type, type]]:
    """Every move that is made from here on: table, state, event, next state. Its outputs are checked on the way."""
    seen: list[tuple[object, type, type, type]] = []
    make = Moves.make

    def watched(self: Moves, state: object, event: object) -> tuple[object, tuple[object, ...]]:
        after, effects = make(self, state, event)
        assert outputs_of(effects) <= set(self.find(state, event).outputs), (state, event, effects)
        seen.append((self, type(state), type(event), type(after)))
        return after, effects

    monkeypatch.setattr(Moves, "make", watched)
    return seen


def play(**options: object) -> MemoryRound:
    round_ = MemoryRound(consortium(5), **options)  # type: ignore[arg-type]
    round_.run()
    return round_


def test_whole_attempts_make_every_move_of_the_site(made: list[tuple[object, type, type, type]]) -> None:
    round_ = play()
    request = next(e for e in round_.effects if isinstance(e, coordinator.SendUnmaskRequest)).request
    round_.tell_site(A, request)
    ended = site.AttemptEnded(reason=OutOfOrder("a", "b"))
    for until in (Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK):
        other = MemoryRound(consortium(5))
        other.run(until=until)
        site.step(other.site_states[A], ended)
    site.step(round_.site_states[A], ended)
    moves = {(state, event) for table, state, event, _ in made if table is site.MOVES}
    assert moves == {(state, event) for move in site.MOVES for state in move.states for event in move.events} - {
        (site.Masking, site.AttemptEnded),
        (site.Aborted, site.AttemptEnded),
    }


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("lost", [1, 3])
def test_attempts_with_dropouts_keep_to_the_table_of_the_coordinator(
    made: list[tuple[object, type, type, type]], phase: Phase, silent: bool, lost: int
) -> None:
    links = {site_name(number): Link(lose_reply=phase, silent=silent, duplicate=True) for number in range(lost)}
    links |= {site_name(number): Link(duplicate=True) for number in range(lost, 5)}
    round_ = play(links=links)
    reached = {after for table, _, _, after in made if table is coordinator.MOVES}
    assert (coordinator.Done if lost == 1 else coordinator.Aborted) in reached
    assert type(round_.coordinator_state) in reached


def test_a_move_that_is_not_in_the_table_is_not_made() -> None:
    with pytest.raises(OutOfOrder):
        coordinator.step(MemoryRound(consortium(4)).coordinator_state, "nonsense")  # type: ignore[arg-type]


def test_a_table_that_lies_about_what_follows_is_found_out() -> None:
    (first, *_) = coordinator.MOVES
    lying = Moves(type(first)(**{f: getattr(first, f) for f in first.__slots__} | {"becomes": (coordinator.Done,)}))
    round_ = MemoryRound(consortium(4))
    _, bundle = round_.queue[0]
    with pytest.raises(AssertionError, match="led to Advertising"):
        lying.make(round_.coordinator_state, bundle)
