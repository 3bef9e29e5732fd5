"""Which entries a policy no longer asks for: whole bundles from the beginning, nothing after the first that stays."""

from datetime import date

import pytest

from audit import entries
from audit.retention import cutoff, due

DAY_MS = 86_400_000
START_MS = 1_795_000_000_000  # 2026-11-18T10:26:40Z


def invited(day: int, number: int = 0) -> bytes:
    stamp = entries.stamp(START_MS + day * DAY_MS, number.to_bytes(10))
    return entries.entry_bytes(entries.SiteInvited(**stamp, site="cleveland"))


def test_only_whole_bundles_of_what_is_old_can_go() -> None:
    log = [*(invited(0, n) for n in range(300)), *(invited(1, n) for n in range(300))]
    found = due(log, date(2026, 11, 19))
    assert (found.entries, found.bundles) == (300, 1)
    assert found.size_bytes == sum(map(len, log[:256]))
    assert due(log, date(2026, 11, 20)).bundles == 2
    assert due(log, date(2026, 11, 18)).entries == 0


def test_what_comes_after_one_that_stays_is_not_due() -> None:
    assert due([invited(0), invited(5), invited(0)], date(2026, 11, 20)).entries == 1  # a clock was wrong


@pytest.mark.parametrize(
    ("today", "years", "day"),
    [(date(2026, 11, 23), 6, date(2020, 11, 23)), (date(2028, 2, 29), 6, date(2022, 2, 28))],
)
def test_the_day_so_many_years_ago(today: date, years: int, day: date) -> None:
    assert cutoff(today, years) == day
