"""How far two clocks may be apart, and what a person is told when they are further.

Nothing between the programs is decided by comparing clocks: phases end after durations, and what is signed is ordered
by counters. What has a date is measured by the clock of whoever looks: certificates, kits, the last day of a study, the
times in entries of the log and of cosignatures.
"""

CLOCK_OFFSET_MAX_S = 60.0
"""Certificates, kits and entries of the log carry times; a clock that is further off makes them mean something else."""
ADVICE = "Keep the clock of both computers by NTP (timedatectl set-ntp true); one of the two is wrong."


def apart(*, here_s: float, there_s: float, whose: str) -> str | None:
    """Words about another clock that is too far from this one, None if it is not; seconds of Unix time.

    What was told was on its way for a moment, so a clock that is merely a little off is not spoken of.
    """
    ahead_s = there_s - here_s
    if abs(ahead_s) <= CLOCK_OFFSET_MAX_S:
        return None
    direction = "ahead of" if ahead_s > 0 else "behind"
    return f"the clock of {whose} is {_length(abs(ahead_s))} {direction} this computer's"


def _length(seconds: float) -> str:
    for unit, size_s in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.1f} {unit}"
    return f"{seconds:.0f} seconds"
