"""The log's signing keys at the coordinator: one, or two while it changes its key (log format section 11).

    keys/log.pem         signs checkpoints
    keys/log-next.pem    the new key, from the beginning of a change until its end

A change goes on in this order, and whoever stops in between finds on the disk how far it came (`settle`):
    1 the new key is made and durable
    2 key.rotated is in the log, under a checkpoint of the old key; from now on both sign
    3 most hospitals have cosigned a checkpoint of both keys: it is kept as the stepping stone
    4 key.retired is in the log
    5 the new key is put in the place of the old one, and the bytes of the old one are overwritten
A step that was done is not done again, so a command that is repeated continues the same change.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

import structlog

from audit import entries
from audit.checkpoint import SignedCheckpoint, parse_checkpoint
from audit.key_rotation import KeyChange, key_changes
from audit.note import Note, NoteSigner
from audit.policy import witnesses_needed
from consortium.contract import certificates
from consortium.contract.private_files import replace_private, write_private
from consortium.errors import ConsortiumError, HomeInvalid, HomeUnwritable, NotWitnessed
from consortium.home import CoordinatorHome
from consortium.record import Recorder, now_stamp
from consortium.witnesses import Witnesses

log = structlog.get_logger(__name__)

OVERLAP_DAYS, OVERLAP_DAYS_MAX = 30, 3650
LOOK_S = 3600.0
"""A serving coordinator looks so often whether an overlap has ended."""


class NoKeyChange(ConsortiumError):
    """An overlap was to be ended, and the log does not change its key. Whose fault: who typed it."""

    def advice(self) -> str:
        """What to do next."""
        return "`consortium audit rotate-key --reason TEXT` begins one; nothing was changed."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysNow:
    """Which keys sign, and until when two of them do."""

    vkeys: tuple[str, ...]  # the newest last
    overlap_until: str | None  # RFC 3339; None while one key signs


class LogKeyring:
    """The keys, and the steps of a change. May be used from any thread."""

    def __init__(self, home: CoordinatorHome, recorder: Recorder, witnesses: Witnesses) -> None:
        self._home = home
        self._recorder = recorder
        self._witnesses = witnesses
        self._lock = Lock()
        self._settle()

    def settle(self) -> KeysNow:
        """Which keys sign, by what the disk says; raises as the steps do."""
        with self._lock:
            return self._settle()

    def _settle(self) -> KeysNow:
        """Let the log sign with what the disk says, and finish what was begun to be finished.

        Raises:
            HomeInvalid: A key that the log names is missing.
            HomeUnwritable: The disk refuses.
        """
        changes = key_changes(self._recorder.log.known())
        current, following = self._home.log_signer, self._home.next_log_signer
        change = self._under_way(changes, following)
        signers: tuple[NoteSigner, ...] = (current,)
        if following is not None and change is not None:
            signers = (current, following)
            if change.retired:
                self._replace()
                signers = (following,)
        if changes and changes[-1].new not in [signer.verifier for signer in signers]:
            raise HomeInvalid(f"the log's key {changes[-1].new.vkey()} is not in {self._home.folder / 'keys'}")
        known = [key for one in changes for key in (one.old, one.new)]
        self._recorder.written.sign_with(signers, known)
        self._witnesses.stones = self._stones(changes, signers)
        until = change.overlap_until if change is not None and not change.retired else None
        return KeysNow(vkeys=tuple(signer.verifier.vkey() for signer in signers), overlap_until=until)

    def rotate(self, reason: str, days: int, now: datetime) -> KeysNow:
        """Begin a change of key, or say how the one under way stands. Steps 1 and 2.

        Args:
            reason: For the log.
            days: How long both keys sign, unless the overlap is ended sooner.
            now: In UTC.
        """
        with self._lock:
            found = self._settle()
            if found.overlap_until is not None:
                return found
            if self._home.next_log_signer is None:
                try:
                    write_private(self._next, certificates.private_pem(certificates.new_signing_key()))
                except OSError as error:
                    raise HomeUnwritable(f"{self._next} could not be made: {os.strerror(error.errno or 0)}") from error
            following = self._home.next_log_signer
            assert following is not None
            until = now + timedelta(days=days)
            rotated = entries.KeyRotated(
                **now_stamp(),
                old_vkey=self._home.log_vkey,
                new_vkey=following.verifier.vkey(),
                overlap_until=entries.timestamp(int(until.timestamp() * 1000)),
                reason=reason,
            )
            self._recorder.record(entries.entry_bytes(rotated))
            return self._settle()

    def finish(self) -> KeysNow:
        """End the overlap. Steps 3 to 5.

        Raises:
            NoKeyChange: The log does not change its key.
            NotWitnessed: Most hospitals have not cosigned a checkpoint of both keys yet; both go on signing.
        """
        with self._lock:
            found = self._settle()
            if found.overlap_until is None:
                raise NoKeyChange("the log does not change its key: one key signs it")
            changes = key_changes(self._recorder.log.known())
            change = changes[-1]
            stone = self._witnessed(change)
            current, following = self._home.log_signer, self._home.next_log_signer
            assert following is not None
            self._recorder.written.keep_stepping_stone(change.leaf, _signed_by(stone, [current, following]).to_bytes())
            retired = entries.KeyRetired(**now_stamp(), vkey=change.old.vkey())
            self._recorder.record(entries.entry_bytes(retired))
            return self._settle()

    def finish_if_due(self, now: datetime) -> bool:
        """`finish`, if the overlap has lasted as long as was announced; whether it did."""
        if self._home.next_log_signer is None:
            return False
        until = self.settle().overlap_until
        if until is None or datetime.fromisoformat(until) > now:
            return False
        self.finish()
        log.info("log.key_retired")
        return True

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While a coordinator serves: end an overlap when its time has come."""
        task = asyncio.create_task(self._go_on())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _go_on(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.finish_if_due, datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 - both keys go on signing, and the next look tries again
                log.warning("log.key_not_retired", reason=str(error), error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    @property
    def _next(self) -> Path:
        return self._home.folder / "keys" / "log-next.pem"

    def _under_way(self, changes: Sequence[KeyChange], following: NoteSigner | None) -> KeyChange | None:
        """The change that the next key was made for, if the log has it already."""
        return next((one for one in changes if following is not None and one.new == following.verifier), None)

    def _witnessed(self, change: KeyChange) -> SignedCheckpoint:
        """A checkpoint over the change that most hospitals cosigned; the present one where none is a witness."""
        keys = self._witnesses.keys()
        if not keys:
            return self._recorder.latest()
        needed = witnesses_needed(len(keys), 0)
        found = self._witnesses.quorum_checkpoint(keys.keys(), needed)
        if found is None or found.checkpoint.size <= change.leaf:
            away = [site for site in sorted(keys) if self._witnesses.covered_by(site) <= change.leaf]
            raise NotWitnessed(
                f"the old key of the log goes on signing: {needed} of {len(keys)} hospitals must have cosigned one"
                f" checkpoint over entry {change.leaf}, and {', '.join(away) or 'some'} did not"
            )
        return found

    def _stones(self, changes: Sequence[KeyChange], signers: Sequence[NoteSigner]) -> tuple[SignedCheckpoint, ...]:
        """The stepping stones of earlier changes; the newest key signs them too, for hospitals that know it alone."""
        stones: list[SignedCheckpoint] = []
        for change in changes:
            data = self._recorder.written.stepping_stone(change.leaf)
            if data is None:
                continue
            stone = _signed_by(parse_checkpoint(data), [signers[-1]])
            if stone.to_bytes() != data:
                self._recorder.written.keep_stepping_stone(change.leaf, stone.to_bytes())
            stones.append(stone)
        return tuple(stones)

    def _replace(self) -> None:
        """Step 5."""
        current = self._home.folder / "keys" / "log.pem"
        try:
            replace_private(current, self._next)
        except OSError as error:
            raise HomeUnwritable(f"{current} could not be replaced: {os.strerror(error.errno or 0)}") from error


def _signed_by(signed: SignedCheckpoint, signers: Sequence[NoteSigner]) -> SignedCheckpoint:
    """The same checkpoint with these keys' lines first, and whatever else stood under it."""
    lines = {(line.name, line.key_id): line for line in (signer.sign(signed.note.text) for signer in signers)}
    lines = {(line.name, line.key_id): line for line in signed.note.signatures} | lines
    own = [line for line in lines.values() if line.name == signed.checkpoint.origin]
    rest = [line for line in lines.values() if line.name != signed.checkpoint.origin]
    return SignedCheckpoint(checkpoint=signed.checkpoint, note=Note(text=signed.note.text, signatures=(*own, *rest)))
