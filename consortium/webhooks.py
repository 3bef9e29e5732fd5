"""Events for other people's systems: CloudEvents 1.0 over HTTPS, signed as Standard Webhooks has it.

What is told is what the log says: each webhook has a place in the log that is durable, and every entry from there on
that stands for an event of its list is posted, in order, until the receiver takes it. So nothing is lost by a restart
of either side; after one, an event may come twice, with the same `id`. The one event that is not in the log is a
hospital that is silent now, which is looked at here.

    POST url    content-type: application/cloudevents+json
                webhook-id, webhook-timestamp
                webhook-signature: v1,base64(HMAC-SHA256(secret, id.timestamp.body))

2xx is taken. 408, 425, 429, 5xx, redirects and silence are tried again, after 1 s and then ever longer, at most 5
minutes. Any other answer refuses this one event: it is said in the coordinator's log and passed over.

Sources: https://github.com/cloudevents/spec (1.0.2, JSON format 3), https://www.standardwebhooks.com
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import http.client
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import structlog

from audit import entries
from consortium.contract.digest import canonical_bytes
from consortium.contract.names import SiteId
from consortium.contract.private_files import PrivateFileRefused, read_private
from consortium.coordinator_file import EventName, Webhook
from consortium.errors import ConsortiumError
from consortium.record import now_stamp
from consortium.rooms import Rooms
from consortium.webhook_places import Places

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
ANSWER_S = 10.0
"""What a receiver has for its answer."""
RETRY_S, RETRY_S_MAX = 1.0, 300.0
AGAIN = frozenset({408, 425, 429})
ENTRIES_AT_ONCE = 1000
SECRET_PREFIX, SECRET_BYTES_MIN, SECRET_BYTES_MAX = "whsec_", 24, 64
_SECRET_FILE_BYTES_MAX = 1024

EVENTS: Mapping[str, EventName] = MappingProxyType(
    {
        entries.StudyCreated.TYPE: "study.needs_approval",
        entries.RoundClosed.TYPE: "round.done",
        entries.StudyPaused.TYPE: "study.stopped",
        entries.StudyAborted.TYPE: "study.stopped",
        entries.StudyCompleted.TYPE: "study.completed",
        entries.ModelReleased.TYPE: "model.released",
        entries.LogRecovered.TYPE: "log.alarm",
        entries.SecaggAccused.TYPE: "log.alarm",
        entries.LogOmission.TYPE: "log.alarm",
        entries.WitnessRefused.TYPE: "log.alarm",
    }
)
"""Which entries of the log are events for others."""
_TOLD = ("actor", "round", "attempt", "outcome")


class SecretUnusable(ConsortiumError):
    """The secret of a webhook cannot be used; the fault is with whoever placed the file."""

    code = "invalid"

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"{path}: {found}; allowed: {SECRET_PREFIX} and the base64 of 24 to 64 random bytes, mode 0600"
        )

    def advice(self) -> str:
        """What to do next."""
        return "Put the secret there that the receiver gave you, or make one and give it to the receiver."


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A CloudEvent, ready to be sent."""

    id: str
    name: EventName
    body: bytes  # canonical JSON


def event_of(leaf: int, entry: bytes, consortium: str) -> Event | None:
    """What an entry of the log tells others; None for most. Signatures and chains are left out: the log has them."""
    parsed = json.loads(entry)
    name = EVENTS.get(parsed["type"])
    if name is None:
        return None
    return _event(
        name,
        consortium,
        id=parsed["id"],
        time=parsed["ts"],
        subject=parsed.get("study"),
        data={"entry": parsed["type"], "leaf": leaf}
        | {key: parsed[key] for key in _TOLD if key in parsed}
        | parsed["body"],
    )


def silence_of(site: SiteId, minutes: int, consortium: str, stamp: entries.Stamp) -> Event:
    """A hospital whose agent has not been connected for so long."""
    data = {"site": site, "minutes": minutes}
    return _event("site.silent", consortium, id=stamp["id"], time=stamp["ts"], subject=site, data=data)


def _event(name: EventName, consortium: str, *, id: str, time: str, subject: str | None, data: Any) -> Event:  # noqa: A002 - CloudEvents' word
    fields = {
        "specversion": "1.0",
        "id": id,
        "source": f"/consortium/{consortium}",
        "type": f"consortium.{name}",
        "time": time,
        "datacontenttype": "application/json",
        "data": data,
    } | ({} if subject is None else {"subject": subject})
    return Event(id=id, name=name, body=canonical_bytes(fields))


def signature(secret: bytes, event: Event, at_s: int) -> str:
    """The value of `webhook-signature`."""
    signed = b".".join((event.id.encode(), str(at_s).encode(), event.body))
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def read_secret(path: Path) -> bytes:
    """The key in a webhook's secret file; raises SecretUnusable."""
    try:
        text = read_private(path, limit_bytes=_SECRET_FILE_BYTES_MAX).decode("ascii").strip()
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True) if SECRET_PREFIX in text else b""
    except OSError as error:
        raise SecretUnusable(path, error.strerror or "it cannot be read") from error
    except PrivateFileRefused as error:
        raise SecretUnusable(path, error.found) from error
    except (UnicodeDecodeError, binascii.Error) as error:
        raise SecretUnusable(path, "this is no base64") from error
    if not text.startswith(SECRET_PREFIX) or not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise SecretUnusable(path, f"{len(secret)} bytes" if text.startswith(SECRET_PREFIX) else "another prefix")
    return secret


def post(webhook: Webhook, secret: bytes | None, event: Event) -> int:
    """Send one event; returns the answer's status, and nothing else of it is read. Raises OSError, HTTPException."""
    url = urlsplit(webhook.url)
    at_s = int(time.time())
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": "hospital-consortium",
        "webhook-id": event.id,
        "webhook-timestamp": str(at_s),
    }
    if secret is not None:
        headers["webhook-signature"] = signature(secret, event, at_s)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    line = kind(url.hostname or "", url.port, timeout=ANSWER_S)
    try:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        line.request("POST", target, event.body, headers)
        return line.getresponse().status
    finally:
        line.close()


class Webhooks:
    """Tells everybody in coordinator.yaml, each in a task of its own: one that is down delays no other."""

    def __init__(
        self,
        rooms: Rooms,
        wanted: tuple[Webhook, ...],
        home: Path,
        *,
        silent_minutes: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises SecretUnusable."""
        self._rooms = rooms
        self._places = Places(rooms.database)
        self._wanted = [
            (one, None if one.secret_file is None else read_secret(home / one.secret_file)) for one in wanted
        ]
        self._silent_minutes = silent_minutes
        self._monotonic = monotonic

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """For as long as the coordinator serves."""
        tasks = [asyncio.create_task(self._tell(webhook, secret)) for webhook, secret in self._wanted]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, webhook: Webhook, secret: bytes | None) -> None:
        silence = Silence(self._silent_minutes, self._monotonic)
        leaf = await asyncio.to_thread(self._places.of, webhook.url, self._rooms.recorder.appended)
        while True:
            try:
                stop = max(leaf, min(self._rooms.recorder.appended, leaf + ENTRIES_AT_ONCE))
                for event in await asyncio.to_thread(lambda: list(self._events(leaf, stop))):  # noqa: B023 - waited for
                    if event[1].name in webhook.events:
                        await self._deliver(webhook, secret, event[1])
                        await asyncio.to_thread(self._places.move, webhook.url, event[0] + 1)
                if stop > leaf:
                    await asyncio.to_thread(self._places.move, webhook.url, stop)
                leaf = stop
                if "site.silent" in webhook.events:
                    standing = await asyncio.to_thread(self._rooms.sites.standing)
                    for site in silence.begun(frozenset(r.site for r in standing), self._rooms.sessions.connected()):
                        told = silence_of(site, self._silent_minutes, self._rooms.consortium, now_stamp())
                        await self._deliver(webhook, secret, told)
            except Exception as error:  # a database that is busy: what was not told is told when it can be
                log.exception("webhook.failed", url=webhook.url, error=type(error).__name__)
            await asyncio.sleep(LOOK_EVERY_S)

    def _events(self, start: int, stop: int) -> Iterator[tuple[int, Event]]:
        for leaf, entry in enumerate(self._rooms.recorder.written.known(start, stop), start):
            event = None if entry is None else event_of(leaf, entry, self._rooms.consortium)
            if event is not None:
                yield leaf, event

    async def _deliver(self, webhook: Webhook, secret: bytes | None, event: Event) -> None:
        """Until the receiver has it or refuses it."""
        pause_s = RETRY_S
        while True:
            try:
                status = await asyncio.to_thread(post, webhook, secret, event)
            except (OSError, http.client.HTTPException) as error:
                found = type(error).__name__
            else:
                if 200 <= status < 300:
                    return
                if 400 <= status < 500 and status not in AGAIN:
                    log.warning("webhook.refused", url=webhook.url, event_name=event.name, status=status)
                    return
                found = f"status {status}"
            if pause_s == RETRY_S:
                log.warning("webhook.not_delivered", url=webhook.url, event_name=event.name, found=found)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)


class Silence:
    """Which hospitals have been away for long; each is told once, until it has been here again."""

    def __init__(self, minutes: int, monotonic: Callable[[], float]) -> None:
        self._after_s = 60.0 * minutes
        self._monotonic = monotonic
        self._seen: dict[SiteId, float] = {}
        self._told: set[SiteId] = set()

    def begun(self, standing: frozenset[SiteId], here: frozenset[SiteId]) -> list[SiteId]:
        """Hospitals whose silence has become long by now."""
        now = self._monotonic()
        self._told &= standing - here
        self._seen = {site: now if site in here else self._seen.get(site, now) for site in standing}
        found = sorted(site for site in standing - self._told if now - self._seen[site] >= self._after_s)
        self._told.update(found)
        return found
