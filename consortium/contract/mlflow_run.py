"""Figures over rounds as an MLflow tracking server keeps them, written without MLflow.

A process that writes is one run of the server's: five calls of its REST interface (version 2.0) by the standard
library. MLflow itself, even its small client, would bring a web framework, a cloud vendor's kit and telemetry into a
process that holds keys; whoever looks at the curves has it. Nothing is read but the names the server gives.

Rounds do not wait: figures go into a short queue and a thread of their own sends them. A server that cannot be reached
is tried again from time to time, is said once, and costs at most the oldest figures that the queue has no room for.

Source: https://mlflow.org/docs/latest/rest-api.html
"""

import http.client
import json
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from annotated_types import Len
from pydantic import AfterValidator

from consortium.contract.fields import Line
from consortium.contract.schema import Refused, Section, Words

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
QUEUE_MAX = 1000
"""Rounds that wait for a server that is down."""
ANSWER_BYTES_MAX = 1 << 20
METRICS_MAX = 1000
"""In one call of `runs/log-batch`."""

_SERVER = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::[1-9][0-9]{0,4})?")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_./ -]")


def _server(url: str) -> str:
    match = _SERVER.fullmatch(url)
    if match is None:
        raise Refused("an address with a password in it" if "@" in url else None)
    if match["scheme"] == "http" and match["host"] not in LOOPBACK:
        raise Refused("http:// to another machine")  # exact figures do not travel in the clear
    return url


class Tracking(Section):
    """An MLflow tracking server that this side's own people run."""

    server: Annotated[
        str,
        AfterValidator(_server),
        Words("https://host:port, or http://127.0.0.1:port on this machine; no path and no password"),
    ]
    experiment: Annotated[Line, Len(1, 200)] = "consortium"  # made on the server if it is not there


class TrackingFailed(Exception):
    """The server gave an answer that is not one; it is tried again like one that is down."""


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """What the thread has to send, oldest first; when it overflows, the oldest goes."""

    figures: deque[tuple[int, dict[str, float], int]] = field(default_factory=lambda: deque(maxlen=QUEUE_MAX))
    finished: bool = False


class MlflowRun:
    """One run on the server, from this process's first figures on. Mutable: it owns a queue and a thread.

    Args:
        tracking: Where.
        name: Of the run: the study's.
        tags: What the server shows beside it.
        failed: Told once, in one line, when the server cannot be used, until it can again.
        retry_s: Seconds between two attempts.
        answer_s: Seconds the server has for an answer.
    """

    def __init__(
        self,
        tracking: Tracking,
        *,
        name: str,
        tags: Mapping[str, str],
        failed: Callable[[str], None],
        retry_s: float = 30.0,
        answer_s: float = 10.0,
    ) -> None:
        self._tracking = tracking
        self._name = name
        self._tags = dict(tags)
        self._failed = failed
        self._retry_s, self._answer_s = retry_s, answer_s
        self._waiting = _Waiting()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._run_id: str | None = None

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Have the figures of one round sent, under the names that TensorBoard has them by; returns at once."""
        values = {
            _NOT_IN_NAMES.sub("_", name.replace(".", "/")): value
            for name, value in figures.items()
            if math.isfinite(value)
        }
        with self._changed:
            self._waiting.figures.append((step, values, int(time.time() * 1000)))
            self._go_on()

    def finish(self) -> None:
        """The study is over: the server may show the run as finished. Returns at once."""
        with self._changed:
            if self._thread is not None:
                self._waiting.finished = True
                self._go_on()

    def _go_on(self) -> None:
        if self._thread is None:
            # A daemon: a process that stops does not wait for a server either.
            self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _send_all(self) -> None:
        said = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting.figures) or self._waiting.finished)
                oldest = self._waiting.figures[0] if self._waiting.figures else None
            try:
                if oldest is None:
                    self._call("runs/update", run_id=self._run_id, status="FINISHED", end_time=int(time.time() * 1000))
                    return
                self._send(*oldest)
            except (OSError, http.client.HTTPException, ValueError, TrackingFailed) as error:
                if not said:
                    said = True
                    self._failed(f"{type(error).__name__}: {error}"[:200])
                time.sleep(self._retry_s)
                continue
            said = False
            with self._changed:
                if self._waiting.figures and self._waiting.figures[0] is oldest:  # else the queue dropped it meanwhile
                    self._waiting.figures.popleft()

    def _send(self, step: int, values: Mapping[str, float], at_ms: int) -> None:
        if self._run_id is None:
            self._run_id = self._begin(at_ms)
        rows = [{"key": name, "value": value, "timestamp": at_ms, "step": step} for name, value in values.items()]
        for first in range(0, len(rows), METRICS_MAX):
            self._call("runs/log-batch", run_id=self._run_id, metrics=rows[first : first + METRICS_MAX])

    def _begin(self, at_ms: int) -> str:
        """The identifier of a new run, in the experiment of that name."""
        name = self._tracking.experiment
        found = self._ask("GET", f"experiments/get-by-name?experiment_name={quote(name, safe='')}", None, missing=True)
        identifier = found.get("experiment", {}).get("experiment_id") if found is not None else None
        if identifier is None:
            identifier = self._call("experiments/create", name=name).get("experiment_id")
        tags = [{"key": key, "value": value} for key, value in self._tags.items()]
        made = self._call("runs/create", experiment_id=identifier, start_time=at_ms, run_name=self._name, tags=tags)
        run_id = made.get("run", {}).get("info", {}).get("run_id")
        if not isinstance(run_id, str):
            raise TrackingFailed("the server named no run")
        return run_id

    def _call(self, path: str, **body: Any) -> dict[str, Any]:
        found = self._ask("POST", path, body)
        return {} if found is None else found

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, missing: bool = False
    ) -> dict[str, Any] | None:
        """One call; None for something that is not there, where that may be. No proxy, and no other host."""
        server = urlsplit(self._tracking.server)
        kind = http.client.HTTPSConnection if server.scheme == "https" else http.client.HTTPConnection
        line = kind(server.hostname or "", server.port, timeout=self._answer_s)
        try:
            content = None if body is None else json.dumps(body)
            line.request(method, f"/api/2.0/mlflow/{path}", content, {"Content-Type": "application/json"})
            answer = line.getresponse()
            data = answer.read(ANSWER_BYTES_MAX + 1)
        finally:
            line.close()
        if missing and answer.status == http.client.NOT_FOUND:
            return None
        if answer.status != http.client.OK or len(data) > ANSWER_BYTES_MAX:
            raise TrackingFailed(f"{path.partition('?')[0]} was answered with status {answer.status}")
        found = json.loads(data or b"{}")
        if not isinstance(found, dict):
            raise TrackingFailed(f"{path.partition('?')[0]} was answered with no object")
        return found
