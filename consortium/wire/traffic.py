"""How many bytes of messages pass, in all and in the last seconds, so that a person sees whether something moves.

Counted as messages are handed to gRPC and come from it: without TLS, frames and what TCP sends again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

WINDOW_S = 5
"""Of so many whole seconds a rate is the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What has passed since the start. Bytes, and bytes per second."""

    sent_bytes: int
    received_bytes: int
    sent_per_s: float
    received_per_s: float

    def to_json(self) -> dict[str, int]:
        """For a snapshot, whose numbers are whole."""
        return {name: round(value) for name, value in asdict(self).items()}

    def words(self, *, up: str, down: str) -> str:
        """For people, by what sent and received mean to them."""
        sent = f"{_bytes(self.sent_bytes)} {up} ({_bytes(self.sent_per_s)}/s now)"
        return f"{sent}, {_bytes(self.received_bytes)} {down} ({_bytes(self.received_per_s)}/s now)"


class Traffic:
    """Counts. Mutable; may be used from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sent = self._received = 0
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=WINDOW_S + 1)  # second, sent, received in it

    def sent(self, size_bytes: int) -> None:
        """A message was handed over."""
        self._count(size_bytes, 0)

    def received(self, size_bytes: int) -> None:
        """A message has come."""
        self._count(0, size_bytes)

    @property
    def total_bytes(self) -> int:
        """Both directions."""
        return self._sent + self._received

    def passed(self) -> Passed:
        """As of now."""
        with self._lock:
            since = int(self._monotonic()) - WINDOW_S
            recent = [one for one in self._seconds if one[0] >= since]
            return Passed(
                sent_bytes=self._sent,
                received_bytes=self._received,
                sent_per_s=sum(one[1] for one in recent) / WINDOW_S,
                received_per_s=sum(one[2] for one in recent) / WINDOW_S,
            )

    def _count(self, sent: int, received: int) -> None:
        with self._lock:
            self._sent += sent
            self._received += received
            second = int(self._monotonic())
            if self._seconds and self._seconds[-1][0] == second:
                _, sent_before, received_before = self._seconds.pop()
                sent, received = sent + sent_before, received + received_before
            self._seconds.append((second, sent, received))


def counter(count: Callable[[int], None]) -> Callable[[bytes], bytes]:
    """For gRPC, where it would turn messages to bytes or back: they are bytes, and are counted."""

    def counted(message: bytes) -> bytes:
        count(len(message))
        return message

    return counted


def _bytes(size: float) -> str:
    """1,234 B, 12.3 kB, 4.5 MB, 6.7 GB, in powers of ten as networks are sold."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size:.0f} B"
