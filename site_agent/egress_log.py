"""The hospital's own log of what left the building: when, what, how large, under which approval.

The hospital answers for it, not the coordinator. It is a log like the consortium's (`audit.log`, log format section
10), under `egress/` of the home, with a key and an origin of its own.

    1 a row of agent.db, before anything leaves (`CoordinatorLine.record`)
    2 rows are appended to the log: at most once a second, when the agent starts and when it stops
    3 only then are they deleted from agent.db, which remembers in the same transaction how far the log had come

A crash between 2 and 3 is seen when the log is opened again: a row makes the same bytes every time, and those that are
in the log already are not appended twice. A log that was altered, shortened, put back to an older copy or taken away
does not open (threat S-22), because it is held against its signed checkpoint and against what agent.db remembers.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle
from audit.egress_entries import AnyEgressEntry, EgressOpened, EgressSent, egress_bytes, parse_egress
from audit.entries import Stamp, stamp
from audit.errors import AuditError, EntryRefused, LogCorrupt, LogExists, LogFork, LogLocked, VerificationError
from audit.log import Log, LogView
from audit.note import NoteSigner
from audit.storage import CHECKPOINT
from consortium.contract import certificates
from consortium.contract.private_files import read_private, write_private
from site_agent.egress_rows import EgressRecord, LogHead
from site_agent.errors import SiteError
from site_agent.home import FILE_BYTES_MAX, AgentHome, HomeInvalid
from site_agent.store import Store

TO = "coordinator"
"""Everything an agent sends goes there."""
MOVED_AT_ONCE = 4096


class EgressAltered(SiteError):
    """The log of what left this hospital does not hold any more what it held. Nothing leaves until somebody looks."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"the log of what left this hospital was altered: {where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found

    def advice(self) -> str:
        """What to do next."""
        return (
            "Keep the folder egress/ of the agent's home for whoever examines it, and restore it from a backup made "
            "after its last entry. If there is none: site-agent egress --begin-anew sets it aside and begins another, "
            "which says in its first entry how many were lost."
        )


class EgressUnwritable(SiteError):
    """The disk refused a write. What left is in agent.db, and is moved when the disk takes it again."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Free some space in the agent's home, or mend its permissions."


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLine:
    """One thing that left."""

    leaf: int | None  # in the hospital's own log; None: it waits in agent.db
    sent: EgressSent


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressReading:
    """The hospital's own log, its root recomputed from its entries, and what waits to be moved there."""

    lines: tuple[EgressLine, ...]
    origin: str
    vkey: str
    size: int
    root: bytes
    lost: int  # entries of damaged logs that were set aside


def sent_entry(record: EgressRecord, site: str) -> EgressSent:
    """A row as an entry: the same bytes every time, and no two rows the same."""
    what = f"{record.number}|{record.at!r}|{record.kind}|{record.study_digest}|{record.sha256}|{record.size_bytes}"
    return EgressSent(
        **stamp(int(record.at * 1000), hashlib.sha256(what.encode()).digest()[:10]),
        actor=f"site:{site}",
        kind=record.kind,
        to=TO,
        study_digest=record.study_digest or None,
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        approval=record.approval,
    )


def row_bytes(record: EgressRecord, site: str) -> bytes:
    """What a row becomes in the log."""
    return record.entry if record.entry is not None else egress_bytes(sent_entry(record, site))


def egress_signer(home: AgentHome) -> NoteSigner:
    """The key of this log's checkpoints, made the first time; raises HomeInvalid."""
    path = home.folder / "keys" / "egress.pem"
    try:
        if not path.exists():
            with suppress(FileExistsError):  # another process of this agent was first
                write_private(path, certificates.private_pem(Ed25519PrivateKey.generate()))
        key = certificates.load_signing_key(read_private(path, limit_bytes=FILE_BYTES_MAX))
    except (OSError, ValueError) as error:
        raise HomeInvalid(f"{path}: {error}") from error
    return NoteSigner(f"{home.identity.consortium}/{home.site}/egress", key)


class EgressLog:
    """The log, open for writing: by one process at a time."""

    def __init__(self, home: AgentHome, store: Store) -> None:
        """Open it, or make it.

        Raises:
            LogLocked: Another process of this agent has it; that one moves everybody's rows.
            EgressAltered, EgressUnwritable, HomeInvalid.
        """
        self._home, self._store = home, store
        self._head = store.egress_head() or LogHead(size=0, root=merkle.EMPTY_ROOT)
        folder, signer = _folder(home), egress_signer(home)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            exists = (folder / "public" / CHECKPOINT).is_file()
            if not exists and self._head.size:
                raise EgressAltered(str(folder), f"a log of {self._head.size} entries", "none")
            self.log = Log.open(folder, signer) if exists else Log.create(folder, signer)
        except (AuditError, OSError) as error:
            raise _ours(folder, error) from error
        try:
            _require_grown(self.log, self._head)
            if not self.log.size:
                self._append([egress_bytes(self._opened())])
            self._in_log = self._rows_in_log()
        except BaseException:
            self.log.close()
            raise

    def move(self) -> None:
        """Steps 2 and 3 for every row; raises EgressAltered, EgressUnwritable, StoreUnwritable."""
        while rows := self._store.egress(MOVED_AT_ONCE):
            self._append([row_bytes(row, self._home.site) for row in rows if row.number not in self._in_log])
            checkpoint = self.log.checkpoint().checkpoint
            head = LogHead(size=checkpoint.size, root=checkpoint.root, lost=self._head.lost)
            self._store.egress_moved(rows[-1].number, head)

    def close(self) -> None:
        """Let go of the files."""
        self.log.close()

    def _append(self, entries: Sequence[bytes]) -> None:
        try:
            self.log.append(entries)
        except (AuditError, OSError) as error:
            raise _ours(_folder(self._home), error) from error

    def _opened(self) -> EgressOpened:
        identity = self._home.identity
        return EgressOpened(
            **now_stamp(),
            actor=f"site:{identity.site}",
            consortium=identity.consortium,
            site=identity.site,
            log_vkey=self.log.verifier.vkey(),
            signing_key=identity.signing_key,
            lost_entries=self._head.lost,
        )

    def _rows_in_log(self) -> frozenset[int]:
        """Rows that a process appended and died before it deleted them."""
        rows = {row_bytes(row, self._home.site): row.number for row in self._store.egress()}
        return frozenset(rows[entry] for entry in self.log.entries() if entry in rows) if rows else frozenset()


class EgressKeeper:
    """Moves rows into the log while an agent runs. Its methods may be called from any thread."""

    def __init__(self, home: AgentHome, store: Store) -> None:
        self._home, self._store = home, store
        self._lock = Lock()
        self._log: EgressLog | None = None

    def step(self) -> None:
        """Move what is there; the log is opened at the first.

        Raises:
            EgressAltered, HomeInvalid: Nothing may leave any more.
            EgressUnwritable, StoreUnwritable: Try again later.
        """
        with self._lock:
            try:
                if self._log is None:
                    self._log = EgressLog(self._home, self._store)
                self._log.move()
            except LogLocked:
                return  # whoever has it moves these rows too
            except BaseException:
                self._drop()  # what reached the disk is not known until it is opened again
                raise

    def close(self) -> None:
        """Move what is there, and let go; what cannot be moved now is moved at the next start."""
        try:
            self.step()
        finally:
            with self._lock:
                self._drop()

    def _drop(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


def read_egress(home: AgentHome, store: Store) -> EgressReading:
    """Everything that has left, oldest first, with the log's root recomputed from its entries.

    Raises:
        EgressAltered: The log is not what it was.
        EgressUnwritable, HomeInvalid.
    """
    EgressKeeper(home, store).close()
    head, waiting = (
        store.egress_head(),
        store.egress(),
    )  # before the log: what is moved meanwhile is seen twice, not never
    view = open_view(home, head)
    try:
        checkpoint, stored = view.checkpoint().checkpoint, list(view.entries())
    finally:
        view.close()
    read = [_parsed(leaf, data) for leaf, data in enumerate(stored)]
    lines = [EgressLine(leaf=leaf, sent=entry) for leaf, entry in enumerate(read) if isinstance(entry, EgressSent)]
    lost = sum(entry.lost_entries for entry in read if isinstance(entry, EgressOpened))
    known = {line.sent for line in lines}
    later = [sent_entry(row, home.site) for row in waiting if row.entry is None]
    lines += [EgressLine(leaf=None, sent=sent) for sent in later if sent not in known]
    vkey = view.verifier.vkey()
    return EgressReading(
        lines=tuple(lines), origin=view.origin, vkey=vkey, size=checkpoint.size, root=checkpoint.root, lost=lost
    )


def _parsed(leaf: int, data: bytes) -> AnyEgressEntry:
    try:
        return parse_egress(data)
    except EntryRefused as error:
        raise EgressAltered(f"leaf {leaf}", error.allowed, error.found) from error


def open_view(home: AgentHome, head: LogHead | None) -> LogView:
    """The log, to read, as long as `head` says at least; raises EgressAltered."""
    folder = _folder(home)
    try:
        view = LogView.read(folder, egress_signer(home).verifier)
    except (AuditError, OSError) as error:
        raise _ours(folder, error) from error
    try:
        _require_grown(view, head or LogHead(size=0, root=merkle.EMPTY_ROOT))
    except BaseException:
        view.close()
        raise
    return view


class NothingDamaged(SiteError):
    """A sound log was to be set aside."""

    def advice(self) -> str:
        """What to do next."""
        return "Leave it as it is; site-agent egress shows it."


def begin_anew(home: AgentHome, store: Store) -> Path:
    """Set a damaged log and its key aside; the next begins with how many entries were lost. Returns where they are.

    Raises:
        NothingDamaged: The log is sound, or an agent is writing it.
        EgressUnwritable: The disk refused.
    """
    with suppress(EgressAltered, HomeInvalid):
        with suppress(LogLocked):
            EgressLog(home, store).close()
        raise NothingDamaged("the log of what left this hospital is sound")
    head = store.egress_head()
    folder, key = _folder(home), home.folder / "keys" / "egress.pem"
    number = 1
    while (aside := home.folder / f"egress-set-aside-{number}").exists():
        number += 1
    try:
        if folder.exists():
            folder.rename(aside)
        aside.mkdir(mode=0o700, exist_ok=True)
        if key.exists():  # a key never signs two logs
            key.rename(aside / key.name)
    except OSError as error:
        raise _ours(folder, error) from error
    if head is not None:
        store.egress_moved(0, LogHead(size=0, root=merkle.EMPTY_ROOT, lost=head.lost + head.size))
    return aside


def now_stamp() -> Stamp:
    """Identity and time of an entry that is made now."""
    return stamp(time.time_ns() // 1_000_000, os.urandom(10))


def _folder(home: AgentHome) -> Path:
    return home.folder / "egress"


def _require_grown(log: LogView, head: LogHead) -> None:
    """The log is a continuation of what it was when rows were moved last."""
    if log.size < head.size:
        raise EgressAltered("entries", f"at least {head.size}, as agent.db remembers", str(log.size))
    if not head.size:
        return
    checkpoint = log.checkpoint().checkpoint
    try:
        merkle.verify_consistency(
            old=head.size,
            new=checkpoint.size,
            old_root=head.root,
            new_root=checkpoint.root,
            proof=log.consistency_proof(head.size),
        )
    except VerificationError as error:
        raise EgressAltered(f"its first {head.size} entries", error.expected, error.found) from error


def _ours(folder: Path, error: AuditError | OSError) -> Exception:
    """What went wrong, in words for this hospital."""
    if isinstance(error, LogLocked):
        return error
    if isinstance(error, LogFork | LogCorrupt):
        return EgressAltered(getattr(error, "where", str(folder)), error.expected, error.found)
    if isinstance(error, LogExists):
        return EgressAltered(f"{folder}/public/{CHECKPOINT}", "a signed checkpoint", "none")
    if isinstance(error, AuditError):
        return EgressUnwritable(str(error))
    return EgressUnwritable(f"{folder}: {error.strerror or error}")
