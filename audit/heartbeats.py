"""Silence that can be proven: what the heartbeats of a log say about the times at which somebody was there.

A coordinator that serves writes `heartbeat` entries: "started", then "alive" at least every `interval_s`, and
"stopping" before it ends in order. A hospital's agent signs `site.heartbeat` entries in the same way while it is
connected. Where one is missing, either nobody was there or entries were not written, and nobody can say later that the
time was covered. A stop in order is no gap.

Times are those that the coordinator or the hospital wrote, each by a clock of its own; the witnesses' cosignatures
bound them. A hospital that has said nothing up to the end of the log has a gap that goes on: there the coordinator's
last entry says what time it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from audit.entries import COORDINATOR, Entry, Heartbeat, SiteHeartbeat, SiteRevoked

LATE = 2.5
"""A heartbeat that is this many intervals late is missing; a loaded machine may be a little late."""

Beat: TypeAlias = Heartbeat | SiteHeartbeat


class How(StrEnum):
    """What a gap looks like."""

    SILENT = "silent"  # it went on, and said nothing for too long
    ENDED = "ended without a word"  # it started again, and had not said that it stops
    BACKWARDS = "clock went back"  # the later heartbeat has the earlier time
    SINCE = "nothing since"  # of a hospital: up to the end of the log, or to its revocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time that no heartbeat covers, between two of one actor that are next to each other in the log."""

    who: str  # "coordinator", or a site's name
    how: How
    after_leaf: int
    before_leaf: int | None  # of the heartbeat or the revocation that ends it; None where the log does
    since: str
    until: str
    seconds: float  # negative where the clock went back


def gaps(log_entries: Iterable[tuple[int, Entry]], *, until: str | None = None) -> tuple[Gap, ...]:
    """Every gap from the first heartbeat of the coordinator, and of each hospital, onward.

    Before the first heartbeat of somebody nothing is said: who writes none promises none. After the coordinator's last
    one nothing is said either: what it writes is all there is to tell the time by.

    Args:
        log_entries: (leaf, entry) in the order of the log; entries of other types are passed over.
        until: Time of the coordinator's last entry; by default the last among these.
    """
    found: list[Gap] = []
    last: dict[str, tuple[int, Beat]] = {}
    now = ""
    for leaf, entry in log_entries:
        if entry.actor == COORDINATOR:
            now = entry.ts
        if isinstance(entry, SiteRevoked) and entry.site in last:
            found += _open(entry.site, last.pop(entry.site), leaf, entry.ts)
        if not isinstance(entry, Heartbeat | SiteHeartbeat):
            continue
        who = entry.actor.removeprefix("site:")
        if who in last:
            found += _between(who, last[who], (leaf, entry))
        last[who] = (leaf, entry)
    for who, beat in last.items():
        if who != COORDINATOR:
            found += _open(who, beat, None, until or now)
    return tuple(found)


def _between(who: str, before: tuple[int, Beat], after: tuple[int, Beat]) -> list[Gap]:
    (after_leaf, earlier), (before_leaf, later) = before, after
    seconds = _seconds(earlier.ts, later.ts)
    if seconds < 0:
        how = How.BACKWARDS
    elif later.state == "started":
        if earlier.state == "stopping":
            return []
        how = How.ENDED
    elif not earlier.interval_s or seconds <= LATE * earlier.interval_s:
        return []
    else:
        how = How.SILENT
    return [_gap(who, how, (after_leaf, before_leaf), (earlier.ts, later.ts))]


def _open(who: str, before: tuple[int, Beat], leaf: int | None, until: str) -> list[Gap]:
    """What comes after a hospital's last heartbeat, up to a time by the coordinator's clock."""
    after_leaf, earlier = before
    promised = earlier.state != "stopping" and earlier.interval_s > 0
    if not promised or not until or _seconds(earlier.ts, until) <= LATE * earlier.interval_s:
        return []
    return [_gap(who, How.SINCE, (after_leaf, leaf), (earlier.ts, until))]


def _gap(who: str, how: How, leaves: tuple[int, int | None], times: tuple[str, str]) -> Gap:
    return Gap(
        who=who,
        how=how,
        after_leaf=leaves[0],
        before_leaf=leaves[1],
        since=times[0],
        until=times[1],
        seconds=_seconds(*times),
    )


def _seconds(earlier: str, later: str) -> float:
    """Seconds from one time to another; a leap second counts as the second before it."""
    first, second = (datetime.fromisoformat(text.replace(":60.", ":59.")) for text in (earlier, later))
    return (second - first).total_seconds()
