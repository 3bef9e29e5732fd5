"""What heartbeats prove about silence: each way a sign of life can be missing, and those in which none is."""

import pytest

from audit import entries
from audit.heartbeats import LATE, Gap, How, gaps

HOUR_S = 3600
START_MS = 1_795_000_000_000


def log_of(*beats: tuple[str, float], interval_s: int = HOUR_S) -> list[tuple[int, entries.Entry]]:
    """Heartbeats at so many seconds from the start; every other leaf is an entry of another type."""
    found: list[tuple[int, entries.Entry]] = []
    for number, (state, at_s) in enumerate(beats):
        stamp = entries.stamp(START_MS + round(at_s * 1000), number.to_bytes(10))
        found.append((2 * number, entries.SiteInvited(**stamp, site="cleveland")))
        beat = entries.Heartbeat(**stamp, state=state, uptime_s=0, interval_s=interval_s, clock_moved_ms=0)
        found.append((2 * number + 1, beat))
    return found


@pytest.mark.parametrize(
    "beats",
    [
        (),
        (("started", 0),),
        (("started", 0), ("alive", HOUR_S), ("alive", 2 * HOUR_S), ("stopping", 2.5 * HOUR_S)),
        (("started", 0), ("alive", LATE * HOUR_S)),
        (("started", 0), ("stopping", 60), ("started", 100 * HOUR_S)),  # switched off, and said so
    ],
)
def test_what_is_no_gap(beats):
    assert gaps(log_of(*beats)) == ()


def test_a_silence_while_it_served():
    (gap,) = gaps(log_of(("started", 0), ("alive", LATE * HOUR_S + 1), ("alive", 3.4 * HOUR_S)))
    assert gap == Gap(
        who="coordinator",
        how=How.SILENT,
        after_leaf=1,
        before_leaf=3,
        since=entries.timestamp(START_MS),
        until=entries.timestamp(START_MS + 9_001_000),
        seconds=9001.0,
    )


def test_a_stop_without_a_word():
    assert [gap.how for gap in gaps(log_of(("started", 0), ("alive", 60), ("started", 61)))] == [How.ENDED]


def test_a_clock_that_went_back():
    found = gaps(log_of(("started", 0), ("alive", 3000), ("stopping", 2000), ("started", 1000)))
    assert [(gap.how, gap.seconds) for gap in found] == [(How.BACKWARDS, -1000.0), (How.BACKWARDS, -1000.0)]


def test_without_an_interval_nothing_is_promised_but_the_goodbye():
    beats = ("started", 0), ("stopping", 1e6), ("started", 2e6), ("started", 3e6)
    assert [gap.how for gap in gaps(log_of(*beats, interval_s=0))] == [How.ENDED]


# --- hospitals -------------------------------------------------------------------------------------------------------


def of_site(site: str, state: str, at_s: float, *, interval_s: int = HOUR_S) -> entries.Entry:
    """A hospital's sign of life; its place in a chain does not matter here."""
    return entries.SiteHeartbeat(
        **entries.stamp(START_MS + round(at_s * 1000), bytes(10)),
        actor=f"site:{site}",
        site_seq=1,
        site_prev=entries.NO_ENTRY,
        state=state,
        uptime_s=0,
        interval_s=interval_s,
        clock_moved_ms=0,
        clock_offset_ms=None,
        agent_version="0.1.0",
        log_size=0,
    )


def at(at_s: float, kind: type[entries.Entry] = entries.SiteInvited, **fields: str) -> entries.Entry:
    """Something that the coordinator writes."""
    return kind(**entries.stamp(START_MS + round(at_s * 1000), bytes(10)), **({"site": "hungary"} | fields))


def found_in(*log: entries.Entry) -> list[tuple[str, How, int, int | None, float]]:
    return [(gap.who, gap.how, gap.after_leaf, gap.before_leaf, gap.seconds / HOUR_S) for gap in gaps(enumerate(log))]


def test_each_hospital_has_gaps_of_its_own() -> None:
    log = (
        of_site("hungary", "started", 0),
        of_site("cleveland", "started", 0),
        of_site("cleveland", "alive", HOUR_S),
        of_site("hungary", "alive", 5 * HOUR_S),
        of_site("cleveland", "started", 5 * HOUR_S),
        at(5 * HOUR_S),
    )
    assert found_in(*log) == [("hungary", How.SILENT, 0, 3, 5.0), ("cleveland", How.ENDED, 2, 4, 4.0)]


def test_a_hospital_that_says_nothing_any_more() -> None:
    """By the coordinator's last entry, not by the hospitals' clocks."""
    log = (of_site("hungary", "alive", 0), of_site("cleveland", "alive", 9 * HOUR_S))
    assert found_in(*log) == []
    assert found_in(*log, at(2 * HOUR_S)) == []
    assert found_in(*log, at(9 * HOUR_S)) == [("hungary", How.SINCE, 0, None, 9.0)]


def test_nothing_is_expected_of_one_that_stopped_or_was_revoked() -> None:
    revoked = at(4 * HOUR_S, entries.SiteRevoked, reason="revoked by the operator")
    assert found_in(of_site("hungary", "stopping", 0), at(9 * HOUR_S)) == []
    assert found_in(of_site("hungary", "alive", 0, interval_s=0), at(9 * HOUR_S)) == []
    log = (of_site("hungary", "alive", 0), revoked, at(9 * HOUR_S))
    assert found_in(*log) == [("hungary", How.SINCE, 0, 1, 4.0)]
    assert found_in(of_site("hungary", "alive", 3 * HOUR_S), *log[1:]) == []
