"""How far this hospital's work on a study has come: for the agent's log and for `site-agent status`. It stays here.

`progress/<study>.json`, written over and over while a round is trained. It says which step of how many, and how long
the rest will take at the pace so far; no losses, no sizes of batches, nothing about patients. The coordinator learns
none of it: how long a step took depends on how many patients were sampled, which the promise to them counts as secret.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from consortium.contract.names import RoundNumber, StudyId

log = structlog.get_logger(__name__)

WRITTEN_EVERY_S, LOGGED_EVERY_S = 0.5, 20.0
"""No more often than this: rounds of milliseconds write little, and say nothing in the log."""

FOLDER = "progress"

StepDone: TypeAlias = Callable[[int], None]
"""Called after each step with how many are done."""


def unheard(_done: int) -> None:
    """A `StepDone` for training that nobody follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the file says."""

    study: str
    doing: str
    round: int  # 0 before the first
    rounds: int
    steps_done: int
    steps: int  # 0 where there are none to count
    seconds_left: float | None  # of this round's training
    device: str  # what it is computed on, and in what precision
    at: str  # RFC 3339

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


class Progress:
    """One study's. Mutable: it knows which round is being trained. Safe to use from several threads."""

    def __init__(
        self,
        folder: Path,
        study: StudyId,
        rounds: int,
        *,
        device: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = folder / f"{study}.json"
        self._study = study
        self._rounds = rounds
        self._device = device
        self._clock = clock
        self._lock = threading.Lock()
        self._training = 0  # which training is the one to follow: an older one may still be ending
        self._written = -math.inf
        self._logged = clock()

    def training(self, round_number: RoundNumber, steps: int) -> StepDone:
        """A round's training begins; the answer is to be called after each of its steps."""
        began = self._clock()
        with self._lock:
            self._training += 1
            this = self._training
            self._logged = began
            self._write("training", round_number, 0, steps, None)

        def step_done(done: int) -> None:
            with self._lock:
                if this == self._training:
                    self._note(round_number, done, steps, began)

        return step_done

    def rests(self, doing: str, round_number: int, *, for_good: bool = False) -> None:
        """No training goes on; `doing` says what does. With `for_good` nothing comes after it."""
        with self._lock:
            self._training += 1
            if for_good:
                self._written = -math.inf
            self._write(doing, round_number, 0, 0, None)

    def _note(self, round_number: int, done: int, steps: int, began: float) -> None:
        now = self._clock()
        left = (now - began) / done * (steps - done)
        self._write("training", round_number, done, steps, left)
        if done < steps and now - self._logged >= LOGGED_EVERY_S:
            self._logged = now
            log.info("training.progress", study=self._study, round=round_number, step=done, steps=steps,
                     seconds_left=round(left))  # fmt: skip

    def _write(self, doing: str, round_number: int, done: int, steps: int, left: float | None) -> None:
        now = self._clock()
        if now - self._written < WRITTEN_EVERY_S:
            return
        self._written = now
        said = Standing(
            study=self._study,
            doing=doing,
            round=round_number,
            rounds=self._rounds,
            steps_done=done,
            steps=steps,
            seconds_left=left,
            device=self._device,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        scratch = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            scratch.write_text(json.dumps(said.to_json()), encoding="utf-8")
            scratch.replace(self._path)
        except OSError:
            log.warning("progress.not_written", study=self._study)  # which costs nobody the round


def standings(home: Path) -> tuple[Standing, ...]:
    """How far every study of this hospital has come, by name; a file that somebody damaged is left out."""
    found = []
    for path in sorted((home / FOLDER).glob("*.json")):
        try:
            said: Any = json.loads(path.read_text(encoding="utf-8"))
            left = said["seconds_left"]
            found.append(
                Standing(
                    study=str(said["study"]),
                    doing=str(said["doing"]),
                    round=int(said["round"]),
                    rounds=int(said["rounds"]),
                    steps_done=int(said["steps_done"]),
                    steps=int(said["steps"]),
                    seconds_left=None if left is None else float(left),
                    device=str(said["device"]),
                    at=str(said["at"]),
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return tuple(found)


def time_left(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
