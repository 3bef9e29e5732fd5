"""This hospital's copy of the consortium's log, under `log/` of the home, and the key it cosigns with.

    log/entries.sqlite3, log/public/checkpoint   the copy (`audit.mirror`)
    log/witness.pem                              the witness key, 0600
    log/cosigned.json                            what each hospital cosigned last (`seen_checkpoints.py`)

The key lies with the copy: whoever loses the one loses the other, and a key is never used again by a witness that has
forgotten what it cosigned with it. Then a new one is made, and the log is told (`witness.enrolled`).
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import SignedCheckpoint
from audit.cosignature import WitnessSigner
from audit.errors import LogUnwritable
from audit.mirror import Growth, Mirror
from audit.note import Note, parse_note
from audit.witness import CheckpointRefused
from consortium.contract import certificates
from consortium.contract.digest import digest_of
from consortium.contract.messages import DroppedLeaves, LogGrowth, LogPosition
from consortium.contract.private_files import read_private, write_private
from site_agent.followed_log import FollowedLog, LogBroken, OwnChain, broken_by
from site_agent.home import FILE_BYTES_MAX, AgentHome, HomeInvalid
from site_agent.log_keys import believed_keys, keep_keys, keys_of_copy
from site_agent.seen_checkpoints import keep_seen
from site_agent.store import Store

log = structlog.get_logger(__name__)

FOLDER = "log"
KEY = "witness.pem"


class LogMirror:
    """The copy while an agent runs; one process at a time. Its methods wait for the disk."""

    def __init__(self, home: AgentHome, store: Store) -> None:
        self._home = home
        self._store = store
        self._folder = home.folder / FOLDER
        self._kept = believed_keys(home)
        self._origin = self._kept.newest.name
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._mirror = Mirror.open(self._folder, *keys_of_copy(home))
        self._mirror.believe(*reversed(self._kept.accepted))
        self.signer = WitnessSigner(f"{self._origin}/witness/{home.site}", self._key())
        self.read = FollowedLog(OwnChain(site=home.site, signed=store.signed_entry), *self._kept.accepted)
        self.read.under(self._mirror.checkpoint().note)
        self.read.follow(self._mirror)
        self._believe()
        self._follow_peers()

    @property
    def size(self) -> int:
        """Entries in the copy."""
        return self._mirror.size

    def position(self) -> LogPosition:
        """How far the copy has come, with the log's signature."""
        remembered = self._mirror.remembered()
        return LogPosition(size=remembered.size, note=remembered.note)

    def begin(self, growth: LogGrowth) -> Growth:
        """The entries of a growth are handed to what this returns; raises LogBroken."""
        try:
            return self._mirror.growth(growth.note, growth.proof, growth.dropped)
        except CheckpointRefused as error:
            raise self._broken(error, growth.note) from error

    def add(self, growing: Growth, part: Sequence[bytes] | DroppedLeaves) -> None:
        """What comes next of a growth; raises LogBroken if it is more than it covers, or was not dropped."""
        try:
            if isinstance(part, DroppedLeaves):
                growing.add_hashes(part.hashes)
            else:
                growing.add(part)
        except CheckpointRefused as error:
            raise self._broken(error, growing.signed.to_bytes()) from error

    def complete(self, growing: Growth) -> SignedCheckpoint:
        """All entries are here: put them into the copy and read them. Raises LogBroken; then nothing is cosigned."""
        first = self._mirror.size
        try:
            signed = growing.complete()
        except CheckpointRefused as error:
            raise self._broken(error, growing.signed.to_bytes()) from error
        self.read.under(signed.note)
        try:
            self.read.follow(self._mirror, first)
        except LogBroken as error:
            raise self.keep(LogBroken(error.kind, error.what, signed.to_bytes())) from error
        self._believe()
        self._follow_peers()
        return signed

    def hear(self, notes: Iterable[bytes]) -> None:
        """What other hospitals cosigned; raises LogBroken for a fork."""
        try:
            self.read.hear(notes, self._mirror, self._mirror.remembered().note)
        except LogBroken as error:
            raise self.keep(error) from error

    def require_own(self, handed_over: int) -> None:
        """See `FollowedLog.require_own`."""
        try:
            self.read.require_own(handed_over)
        except LogBroken as error:
            raise self.keep(LogBroken(error.kind, error.what, self._mirror.remembered().note)) from error

    def cosign(self) -> bytes:
        """This hospital's line over the checkpoint its copy stands under, beside the log's; to be handed over."""
        signed = self._mirror.checkpoint()
        line = self.signer.cosign(signed.note.text, int(time.time()))
        own = [one for one in signed.note.signatures if one.name == self._origin]
        return Note(text=signed.note.text, signatures=(*own, line)).to_bytes()

    def keep_cosignatures(self) -> None:
        """Keep the lines that hospitals have put under the checkpoint of this copy, and their last ones beside it."""
        signed = self._mirror.checkpoint()
        lines = {(line.name, line.key_id): line for line in signed.note.signatures}
        for seen in self.read.cosigned.values():
            if seen.note.text == signed.note.text:
                lines |= {(line.name, line.key_id): line for line in seen.note.signatures}
        note = Note(text=signed.note.text, signatures=tuple(lines.values()))
        self._mirror.keep_cosignatures(note)
        self._keep_stepping_stone(note)
        keep_seen(self._folder, self.read.cosigned)

    def _keep_stepping_stone(self, note: Note) -> None:
        """While both keys sign: keep the checkpoint that most have cosigned, for whoever knows the old key alone."""
        if self.read.changing is None:
            return
        leaf, old = self.read.changing
        if not any((line.name, line.key_id) == (old.name, old.key_id) for line in note.signatures):
            return
        before = self._mirror.stepping_stone(leaf)
        if before is None or len(parse_note(before).signatures) < len(note.signatures):
            self._mirror.keep_stepping_stone(leaf, note.to_bytes())

    def _believe(self) -> None:
        """What the log's entries say of its keys is durable before a checkpoint is judged by it."""
        keys = self.read.keys
        if keys == self._kept:
            return
        try:
            keep_keys(self._home, keys)
        except OSError as error:
            raise LogUnwritable(self._home.folder, error.strerror or str(error)) from error
        self._kept = keys
        self._mirror.believe(*reversed(keys.accepted))
        log.info("log.keys_changed")

    def _follow_peers(self) -> None:
        """Remember new signing keys of hospitals that are known here under their old ones; each is said once."""
        for change in self.read.key_changes:
            if self._store.follow_peer(change) and change.site != self._home.site:
                words = "signed by its former key, by one of its stewards and by the new keys, as this log shows"
                log.warning(
                    "peer.keys_changed",
                    site=change.site,
                    on=change.at[:10],
                    signing_key=change.new.signing,
                    steward=change.steward,
                    reason=words,
                )
        self.read.key_changes.clear()

    def keep(self, broken: LogBroken) -> LogBroken:
        """Keep what shows it, one file for each note, in `evidence/`; the error to raise."""
        folder = self._home.folder / "evidence"
        folder.mkdir(mode=0o700, exist_ok=True)
        for note in broken.notes:
            path = folder / f"checkpoint-{digest_of(note)[:32]}"
            if not path.exists():
                write_private(path, note)
        return broken

    def close(self) -> None:
        """Let go of the files."""
        self._mirror.close()

    def _broken(self, refused: CheckpointRefused, shown: bytes) -> LogBroken:
        return self.keep(broken_by(refused, self._mirror.remembered().note, shown))

    def _key(self) -> Ed25519PrivateKey:
        path = self._folder / KEY
        if not path.exists():
            if self._mirror.size:
                raise HomeInvalid(f"{path} is missing, and the copy beside it was cosigned with it: remove {FOLDER}/")
            write_private(path, certificates.private_pem(certificates.new_signing_key()))
        try:
            return certificates.load_signing_key(read_private(path, limit_bytes=FILE_BYTES_MAX))
        except (OSError, ValueError) as error:
            raise HomeInvalid(f"{path} cannot be read: {error}") from error


def is_there(folder: Path) -> bool:
    """Whether an agent's home has a copy of the log."""
    return (folder / FOLDER / "public" / "checkpoint").is_file()
