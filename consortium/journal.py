"""Accepted events of attempts whose shares were asked for, durable, so that they can be replayed after a crash.

Site messages are kept in their wire encoding, which is bounded and versioned; the masked sum lies beside them
(`attempt.py`). An attempt's events are deleted when it is over.
"""

import json
import time

import sqlalchemy as sa

from consortium.contract.messages import Refusal, VectorHeader, VectorKind
from consortium.contract.names import SiteId
from consortium.contract.plan import RoundPlan
from consortium.database import Database, journal
from consortium.round_events import (
    DeadlinePassed,
    Event,
    MessageArrived,
    Phase,
    SiteLeft,
    SiteRefused,
    SiteReturned,
    Stopped,
    UploadStored,
)
from consortium.wire import codec
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    Confirmation,
    KeyBundle,
    SealedShares,
    UnmaskShares,
)

SCRUB_AFTER_S = 10.0
"""Shares of closed rounds are in no file of the database any more after so long, or once their study stops: it costs as
much as a round that does nothing else."""


class Journal:
    """The journal of every study, told apart by study, round and attempt."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._scrubbed_s = 0.0

    def append(self, plan: RoundPlan, *events: Event, sum_sha256: bytes | None = None) -> None:
        """Keep events, in order, all or none; they are durable when this returns.

        Args:
            plan: Of the attempt.
            events: What it has taken since the last time.
            sum_sha256: Of its masked sum, which lies beside them from now on and may come back from elsewhere.
        """
        about = {"study_digest": plan.study_digest, "round": plan.round, "attempt": plan.attempt}
        rows = [encode(plan, event) for event in events]
        if sum_sha256 is not None:
            rows.append(_SUM + sum_sha256)
        with self._database.transaction() as connection:
            connection.execute(_APPEND, [{**about, "event": row} for row in rows])

    def events(self, plan: RoundPlan) -> tuple[Event, ...]:
        """Every event of an attempt, in order."""
        return tuple(decode(row) for row in self._rows(plan) if not row.startswith(_SUM))

    def sum_sha256(self, plan: RoundPlan) -> bytes | None:
        """SHA-256 of the attempt's masked sum; None if none was kept, or by an older version of this program."""
        found = [row.removeprefix(_SUM) for row in self._rows(plan) if row.startswith(_SUM)]
        return found[0] if found else None

    def _rows(self, plan: RoundPlan) -> list[bytes]:
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(journal.c.event).where(self._of(plan)).order_by(journal.c.id))
            return [bytes(row.event) for row in rows]

    def scrub_now_and_then(self) -> None:
        """An attempt is over, and `forget` was called for it."""
        if time.monotonic() - self._scrubbed_s >= SCRUB_AFTER_S:
            self.scrub()

    def scrub(self) -> None:
        """Leave nothing of what was forgotten in the database's files."""
        self._scrubbed_s = time.monotonic()
        self._database.scrub()

    def _of(self, plan: RoundPlan) -> sa.ColumnElement[bool]:
        return sa.and_(
            journal.c.study_digest == plan.study_digest,
            journal.c.round == plan.round,
            journal.c.attempt == plan.attempt,
        )


def forget(connection: sa.Connection, plan: RoundPlan) -> None:
    """Delete an attempt's events, in the transaction that records how it ended."""
    key = {"of_study": plan.study_digest, "of_round": plan.round, "of_attempt": plan.attempt}
    connection.execute(_FORGET, key)


_SUM = b"sum:"  # no event of JSON begins so
_APPEND = sa.insert(journal)
_FORGET = sa.delete(journal).where(
    journal.c.study_digest == sa.bindparam("of_study"),
    journal.c.round == sa.bindparam("of_round"),
    journal.c.attempt == sa.bindparam("of_attempt"),
)


def encode(plan: RoundPlan, event: Event) -> bytes:
    """One event as JSON."""
    record: dict[str, object]
    match event:
        case MessageArrived(site=site, message=message):
            record = {"type": "message", "site": site, "message": codec.encode_site_message(message).hex()}
        case UploadStored(site=site, header=header):
            vector = VectorHeader(
                kind=VectorKind.MASKED_UPDATE,
                sha256=header.masked_update_hash,
                size_bytes=plan.layout.size_bytes,
                study_digest=plan.study_digest,
                upload=header,
            )
            record = {"type": "upload", "site": site, "header": codec.encode_vector_header(vector).hex()}
        case SiteRefused(site=site, refusal=refusal):
            record = {"type": "refused", "site": site, "message": codec.encode_site_message(refusal).hex()}
        case SiteLeft(site=site):
            record = {"type": "left", "site": site}
        case SiteReturned(site=site):
            record = {"type": "returned", "site": site}
        case DeadlinePassed(phase=phase):
            record = {"type": "deadline", "phase": phase.value}
        case Stopped(reason=reason):
            record = {"type": "stopped", "reason": reason}
    return json.dumps(record).encode()


def decode(data: bytes) -> Event:
    """The event that `encode` wrote."""
    record = json.loads(data)
    match record["type"]:
        case "message":
            message = codec.decode_site_message(bytes.fromhex(record["message"]))
            assert isinstance(
                message, BeaconCommitment | BeaconReveal | KeyBundle | SealedShares | Confirmation | UnmaskShares
            )
            return MessageArrived(site=SiteId(record["site"]), message=message)
        case "upload":
            header = codec.decode_vector_header(bytes.fromhex(record["header"])).upload
            assert header is not None
            return UploadStored(site=SiteId(record["site"]), header=header)
        case "refused":
            refusal = codec.decode_site_message(bytes.fromhex(record["message"]))
            assert isinstance(refusal, Refusal)
            return SiteRefused(site=SiteId(record["site"]), refusal=refusal)
        case "left":
            return SiteLeft(site=SiteId(record["site"]))
        case "returned":
            return SiteReturned(site=SiteId(record["site"]))
        case "deadline":
            return DeadlinePassed(phase=Phase(record["phase"]))
        case "stopped":
            return Stopped(reason=record["reason"])
        case other:
            raise ValueError(f"the journal holds an event of type {other!r}")
