"""What passes on the line to the coordinator, for `site-agent status`: a small file in the home. It stays here.

`traffic.json`, written at most once a second while something passes, by the agent; its sizes are also in `/metrics`.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from consortium.wire.traffic import Passed, Traffic

log = structlog.get_logger(__name__)

NAME = "traffic.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineTraffic:
    """What the file says: since the agent's start, and how fast when it was written."""

    passed: Passed
    at: str  # RFC 3339, UTC


class TrafficFile:
    """The agent's side. Mutable: it knows what it wrote last."""

    def __init__(self, home: Path, traffic: Traffic) -> None:
        self._path = home / NAME
        self._traffic = traffic
        self._written: Passed | None = None

    def step(self) -> None:
        """Write what has passed, if that is not what the file says; the line that comes to rest is written, too."""
        passed = self._traffic.passed()
        if passed == self._written:
            return
        self._written = passed
        said = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(passed)}
        scratch = self._path.with_suffix(".partial")
        try:
            scratch.write_text(json.dumps(said), encoding="utf-8")
            scratch.replace(self._path)
        except OSError:
            log.warning("traffic.not_written")  # which costs nobody a round


def read_traffic(home: Path) -> LineTraffic | None:
    """What the agent wrote last; None if it wrote nothing, or somebody damaged it."""
    try:
        said: Any = json.loads((home / NAME).read_text(encoding="utf-8"))
        return LineTraffic(
            at=str(said["at"]),
            passed=Passed(
                sent_bytes=int(said["sent_bytes"]),
                received_bytes=int(said["received_bytes"]),
                sent_per_s=float(said["sent_per_s"]),
                received_per_s=float(said["received_per_s"]),
            ),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
