"""The moves a machine can make, as data: `step` looks them up here, and `docs/protocol.md` shows them.

A move that is not in a machine's table does not happen: there is no second place where states change. What a table says
about the states and outputs that follow is checked when it is used (`Moves.make`) and against whole attempts by
`tests/unit/privacy/test_transitions.py`, which also compares the drawing with the page. `python -m
privacy.secagg.transitions` prints all tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from privacy.errors import OutOfOrder

Effects: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """In one of these states, one of these events is answered by `does`."""

    section: str  # of the protocol
    states: tuple[type, ...]
    events: tuple[type, ...]
    does: Callable[[Any, Any], tuple[Any, Effects]]
    becomes: tuple[type, ...]  # the states that may follow, a failure of the site's own checks aside
    outputs: tuple[type, ...]  # messages and effects that may come of it
    note: str = ""


class Moves:
    """A machine's table. The first move that fits is the one that is made."""

    def __init__(self, *moves: Move) -> None:
        self._moves = moves

    def __iter__(self) -> Any:
        return iter(self._moves)

    def find(self, state: object, event: object) -> Move:
        """The move for an event in a state; raises OutOfOrder if there is none."""
        for move in self._moves:
            if isinstance(state, move.states) and isinstance(event, move.events):
                return move
        raise OutOfOrder(type(state).__name__, type(event).__name__)

    def make(self, state: Any, event: Any) -> tuple[Any, Effects]:
        """Look up the move, make it, and hold it to what the table says of it.

        Raises:
            OutOfOrder: the event has no meaning in this state; nothing has changed.
        """
        move = self.find(state, event)
        after, effects = move.does(state, event)
        assert isinstance(after, move.becomes), f"{move.does.__name__} led to {type(after).__name__}"
        return after, effects

    def drawn(self) -> str:
        """The table in Markdown, one move a line."""
        lines = ["| in state | on | becomes | gives | section |", "|---|---|---|---|---|"]
        for move in self._moves:
            cells = (
                _names(move.states),
                _names(move.events),
                _names(move.becomes),
                _names(move.outputs) or "nothing",
                move.section,
            )
            note = f" {move.note}" if move.note else ""
            lines.append("| " + " | ".join(cells) + note + " |")
        return "\n".join(lines) + "\n"


def _names(kinds: tuple[type, ...]) -> str:
    return ", ".join(f"`{kind.__name__}`" for kind in kinds)


def main() -> None:
    """Print all tables, as docs/protocol.md has them."""
    from privacy.secagg import (  # noqa: PLC0415 - they import this module
        coordinator,
        grouped_coordinator,
        grouped_site,
        site,
    )

    for machine in (site, coordinator, grouped_site, grouped_coordinator):
        print(machine.MOVES.drawn())  # noqa: T201 - it is what this is for


if __name__ == "__main__":
    main()
