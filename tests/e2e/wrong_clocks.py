"""A consortium in which some computers' clocks are wrong: their processes run with libfaketime.

Only the time of day is: a clock that is set wrong counts seconds as any other, so the monotonic clock is left as it is.
"""

import os
from pathlib import Path

from tests.e2e.world import SITES, World

COORDINATOR = "coordinator"

# libfaketime takes its offset also from moments of the monotonic clock, which Python's `sleep` gives the system: a
# moment before the clock began, and "Invalid argument". A duration it leaves alone.
_SLEEP_FOR_A_DURATION = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


def library() -> Path | None:
    """Debian's libfaketime for programs with threads, None where it is not installed."""
    found = sorted(Path("/usr").glob("lib*/**/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


class WrongClocks(World):
    """Every process of a computer is under that computer's clock: agent, training child, and each command.

    `offsets_s` says by computer, a site or "coordinator", how many seconds its clock is ahead; it may be changed, and
    processes that run already keep the clock they have.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.offsets_s: dict[str, int] = {}

    def typed(self, command: tuple[object, ...]) -> list[str]:
        computer = next((site for site in SITES if self.folder / site in command), COORDINATOR)
        offset_s = self.offsets_s.get(computer, 0)
        plain = super().typed(command)
        if not offset_s:
            return plain
        patch = self.folder / "sitecustomize"
        patch.mkdir(exist_ok=True)
        (patch / "sitecustomize.py").write_text(_SLEEP_FOR_A_DURATION)
        clock = {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(patch), os.environ.get("PYTHONPATH")))),
            "LD_PRELOAD": str(library()),
            "FAKETIME": f"{offset_s:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",  # a child goes on with its parent's clock
        }
        return ["env", *(f"{name}={value}" for name, value in clock.items()), *plain]  # `env` becomes the program
