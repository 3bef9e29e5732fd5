"""Everything that a process could say about what it holds: objects as text, in log lines, in tracebacks with locals."""

import gc
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from privacy.secagg import shares
from privacy.secret import Secret
from tests.fakes.leak_search import PIECE_BYTES, Search

PACKAGES = ("privacy", "consortium", "site_agent", "audit")
_ROOT = Path(__file__).parents[2]


@contextmanager
def noted_secrets() -> Iterator[dict[bytes, str]]:
    """Every secret that is made inside: its bytes, and where."""
    noted: dict[bytes, str] = {}
    make, draw = Secret.__init__, shares._uniform_elements

    def make_and_note(self: Secret[Any], value: Any) -> None:
        make(self, value)
        if isinstance(value, bytes) and len(value) >= PIECE_BYTES:
            noted.setdefault(value, sys._getframe(1).f_code.co_qualname)

    def draw_and_note(seed: Secret[bytes], count: int) -> list[int]:
        drawn = draw(seed, count)
        for element in drawn:
            noted.setdefault(element.to_bytes(shares.SHARE_BYTES, "big"), "coefficient")
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Secret, "__init__", make_and_note)
        patch.setattr(shares, "_uniform_elements", draw_and_note)
        yield noted


def search_for(noted: dict[bytes, str]) -> Search:
    """A search for all of them."""
    search = Search()
    for value, place in noted.items():
        search.add_secret(place, value)
    return search


@contextmanager
def only_newcomers() -> Iterator[None]:
    """Inside, `live_objects` leaves out what was alive before: of a whole run of tests that is ten times as much."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def live_objects() -> list[Any]:
    """Every object of a class of ours that is alive now, and every dataclass instance."""
    alive = []
    for thing in gc.get_objects():
        kind = type(thing)
        if kind is not type and str(kind.__module__).partition(".")[0] in PACKAGES:
            alive.append(thing)
    return alive


def said_of(things: Iterable[Any]) -> set[str]:
    """How they print, alone, formatted into a sentence, and as a field of a log line; what is said twice, once."""
    render = structlog.processors.JSONRenderer()
    said: set[str] = set()
    for thing in things:
        said |= {repr(thing), str(thing), f"{thing}"}
        if is_dataclass(thing):
            said.add(str(render(None, "info", {"event": "something", "state": thing})))
    return said


def told_by(error: BaseException) -> str:
    """A traceback of ours with every local variable, and those of all the errors behind it."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        report = traceback.TracebackException.from_exception(seen, capture_locals=True)
        lines += report.format_exception_only()
        for frame in report.stack:
            path = Path(frame.filename)
            if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in PACKAGES:
                lines += [frame.name, *(f"{name} = {value}" for name, value in (frame.locals or {}).items())]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(lines)
