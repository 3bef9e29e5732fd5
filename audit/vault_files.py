"""The vault on a disk: what is kept beside a log, and its destroying. The coordinator and every hospital have one.

    lock              held while anything in the folder changes
    keys/ID           64 bytes: key and salt of a payload
    sealed/ID         the payload, encrypted
    people/ID         a person's name and the key of his pseudonym
    erasures/ID       an order to destroy, written before anything is destroyed; whether the log has been told

Files and no database: a file is overwritten in place and removed, where a database keeps old pages in its journals.
Every file is its owner's alone (0600). A payload is kept once its file in `sealed` is there; its key is there before.

Overwriting reaches the blocks of an ordinary disk and file system. A drive that moves its blocks (SSD), a file system
that never writes in place, a snapshot and a backup keep what they have; the guide says what to do about those.
"""

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from audit.errors import AuditError, EntryRefused
from audit.fields import PSEUDONYM
from audit.storage_files import sync_directory
from audit.vault import (
    HEADER_BYTES_MAX,
    ID_DIGITS,
    KEY_BYTES,
    PAYLOAD_BYTES_MAX,
    Kept,
    Opening,
    PayloadDamaged,
    Sealed,
    open_sealed,
    read_header,
)

FOLDER = "vault"
_FOLDERS = ("keys", "sealed", "people", "erasures")
COMMITMENTS_MAX = 500
"""In one entry; more are several orders."""
_FILE_BYTES_MAX = PAYLOAD_BYTES_MAX + 2 * HEADER_BYTES_MAX
_ID = re.compile(r"[0-9a-f]{16}")
_RECORD_BYTES_MAX = _CHUNK = 1 << 20
_PSEUDONYM_CONTEXT = b"consortium/pseudonym/v2\n"


class VaultUnusable(AuditError):
    """The vault's folder cannot be read or written. Whose fault: the disk's, or of who set its permissions."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Free some space, or give the folder vault/ back to the account that runs this; then run it again."


class PayloadUnknown(AuditError):
    """Nothing is kept under such a name. Whose fault: who typed it."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "`audit payloads` lists what is kept and what was erased, with the names to use."


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whom a pseudonym stands for. Without this row a pseudonym is nobody's: its key is in no other place."""

    name: str = field(repr=False)
    key: str = field(repr=False)  # 64 hexadecimal characters

    @property
    def pseudonym(self) -> str:
        """How the person appears in the log: `u:` and half of an HMAC of the name under a key of that person alone."""
        message = _PSEUDONYM_CONTEXT + self.name.encode()
        return "u:" + hmac.new(bytes.fromhex(self.key), message, "sha256").hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be destroyed, and has been if `told`. It names nobody, and stays when what it names is gone."""

    id: str  # 16 hexadecimal characters
    commitments: tuple[str, ...]  # sorted, at most COMMITMENTS_MAX
    forgotten: str | None = None  # the pseudonym whose row among the people is destroyed, too
    study: str | None = None  # the one that all of the payloads are about, if there is one
    on_behalf: str  # the pseudonym of who ordered it
    executed_on: str  # the day
    told: bool = False  # whether the log has it


class VaultFiles:
    """A vault's folder; made when something is kept first. Several processes may use it at once.

    Raises (every method):
        VaultUnusable: The folder cannot be read or written.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._mutex = threading.Lock()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the vault meanwhile; not to be entered twice by one thread."""
        with self._mutex:
            with _explained():
                for name in _FOLDERS:
                    _make_folder(self._folder / name)
                descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                with _explained():
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    self._sweep()
                yield
            finally:
                os.close(descriptor)

    # --- payloads ------------------------------------------------------------------------------------------------

    def keep(self, sealed: Sealed) -> Kept:
        """Write a payload and its key, durably; nothing of it is there, or all. Call it while `locked`."""
        with _explained():
            name = sealed.kept.id
            if (self._folder / "sealed" / name).exists():
                raise EntryRefused("what is to be kept", "another payload's name", "fresh random bytes")
            opening = sealed.opening
            _write(self._folder / "keys" / name, opening.expose_key() + opening.expose_salt())
            _write(self._folder / "sealed" / name, sealed.data)
        return sealed.kept

    def kept(self) -> tuple[Kept, ...]:
        """Every payload whose first line can be read, oldest first."""
        return self._headers()[0]

    def damaged(self) -> tuple[str, ...]:
        """The names of payloads whose first line cannot be read."""
        return self._headers()[1]

    def _headers(self) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
        found: list[Kept] = []
        damaged: list[str] = []
        with _explained():
            for name in self._names("sealed"):
                try:
                    found.append(read_header(name, _read(self._folder / "sealed" / name, HEADER_BYTES_MAX)))
                except PayloadDamaged:  # one that cannot be read must not stand in the way of erasing the others
                    damaged.append(name)
        return tuple(sorted(found, key=lambda one: (one.about.kept_at, one.commitment))), tuple(damaged)

    def has(self, commitment: str) -> bool:
        """Whether the payload of a commitment is kept."""
        name = commitment[:ID_DIGITS]
        return name in self._names("sealed") and any(one.commitment == commitment for one in self.kept())

    def open(self, payload: str) -> tuple[Kept, bytes, Opening]:
        """A payload, checked against its commitment; raises PayloadUnknown or PayloadDamaged."""
        with _explained():
            if payload not in self._names("sealed"):
                raise PayloadUnknown(f"no payload {payload[:40]!r} is kept here")
            try:
                secret = _read(self._folder / "keys" / payload, 2 * KEY_BYTES + 1)
            except FileNotFoundError as error:
                raise PayloadDamaged(payload, "its key is missing") from error
            if len(secret) != 2 * KEY_BYTES:
                raise PayloadDamaged(payload, f"its key has {len(secret)} bytes, not {2 * KEY_BYTES}")
            opening = Opening(key=secret[:KEY_BYTES], salt=secret[KEY_BYTES:])
            kept, plain = open_sealed(payload, _read(self._folder / "sealed" / payload, _FILE_BYTES_MAX), opening)
        return kept, plain, opening

    def destroy(self, payload: str) -> None:
        """Overwrite and remove key and salt first, then the sealed bytes; what is gone already stays gone."""
        with _explained():
            _shred(self._folder / "keys" / payload)
            _shred(self._folder / "sealed" / payload)

    # --- people --------------------------------------------------------------------------------------------------

    def pseudonym(self, name: str) -> str:
        """How a person appears in the log: always the same, until the person is forgotten."""
        if _is_pseudonym(name):
            return name
        with self.locked():
            known = [one for _, one in self._people() if one.name == name]
            if not known:
                known = [Person(name=name, key=secrets.token_hex(KEY_BYTES))]
                _write(self._folder / "people" / secrets.token_hex(8), json.dumps(asdict(known[0])).encode())
        return known[0].pseudonym

    def known(self, name: str) -> str | None:
        """The pseudonym of a name, or the pseudonym itself; None if nobody of that name has one."""
        if _is_pseudonym(name):
            return name
        with _explained():
            return next((one.pseudonym for _, one in self._people() if one.name == name), None)

    def name_of(self, pseudonym: str) -> str | None:
        """Whom a pseudonym stands for, as far as it is known here."""
        with _explained():
            return next((one.name for _, one in self._people() if one.pseudonym == pseudonym), None)

    def forget(self, pseudonym: str) -> None:
        """Destroy a person's row. Call it while `locked`."""
        with _explained():
            for path, one in self._people():
                if one.pseudonym == pseudonym:
                    _shred(path)

    def _people(self) -> Iterator[tuple[Path, Person]]:
        for name in self._names("people"):
            path = self._folder / "people" / name
            if b"\0" not in _read(path, HEADER_BYTES_MAX):  # else it was being destroyed when the power failed
                yield path, Person(**_record(path))

    # --- erasures ------------------------------------------------------------------------------------------------

    def orders(self) -> tuple[Order, ...]:
        """Every erasure that was ordered, done or not."""
        with _explained():
            found = [_record(self._folder / "erasures" / name) for name in self._names("erasures")]
            orders = [Order(**{**one, "commitments": tuple(one["commitments"])}) for one in found]
        return tuple(sorted(orders, key=lambda one: (one.executed_on, one.forgotten or "", one.id)))

    def order(self, order: Order) -> None:
        """Write an order down, durably, before anything of it is carried out. Call it while `locked`."""
        with _explained():
            _write(self._folder / "erasures" / order.id, json.dumps(asdict(order)).encode())

    def told(self, order: Order) -> None:
        """The log has been told of an order. Call it while `locked`."""
        self.order(replace(order, told=True))

    def _names(self, folder: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in (self._folder / folder).iterdir() if _ID.fullmatch(path.name))
        return []

    def _sweep(self) -> None:
        """Destroy what a process that died left half written, and keys whose payload was never written."""
        for folder in _FOLDERS:
            for path in (self._folder / folder).glob(".*"):
                _shred(path)
        for name in set(self._names("keys")) - set(self._names("sealed")):
            _shred(self._folder / "keys" / name)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VaultUnusable(f"the vault: {os.strerror(error.errno or 0)}") from error


def _is_pseudonym(name: str) -> bool:
    return re.fullmatch(PSEUDONYM.regex, name) is not None


def _record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path, _RECORD_BYTES_MAX))
    except (ValueError, RecursionError) as error:
        raise VaultUnusable(f"the vault: {path.parent.name}/{path.name} is damaged") from error
    assert isinstance(found, dict)
    return found


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.chmod(0o700)
        sync_directory(folder.parent)
        sync_directory(folder.parent.parent)


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


def _write(path: Path, data: bytes) -> None:
    """All of it under the name, durably, or what was there before; never readable by another account."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        _shred(scratch)
        raise
    sync_directory(path.parent)


def _shred(path: Path) -> None:
    """Zeros over every byte, on the disk before the name is gone; does nothing if there is no such file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size
        while left:
            left -= file.write(bytes(min(left, _CHUNK)))
        os.fsync(file.fileno())
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
