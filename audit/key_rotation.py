"""Which keys speak for a log: the one its readers were given, and those that followed it by the log's own word.

Log format section 11. A log has one name for life and may change its key: `key.rotated` names the new one, and counts
if the key it replaces signed the checkpoint that covers it. From then on either key is believed, and checkpoints carry
both lines; `key.retired` ends that. Only the newest key can be replaced, so that an old one that is found later, on a
backup perhaps, names no other.

A reader who slept through the overlap knows the old key, and sees only lines of the new. For this reader the last
checkpoint that both keys signed is kept, a stepping stone: see `stone_path`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from audit.entry_types.consortium_entries import KeyRetired, KeyRotated
from audit.errors import VerificationError
from audit.note import Note, NoteVerifier, verify_note

_MARK = b'"type":"key.'


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKeys:
    """The keys of one log that a reader believes now, the newest last."""

    accepted: tuple[NoteVerifier, ...]

    def __post_init__(self) -> None:
        if not self.accepted or len({key.name for key in self.accepted}) != 1:
            raise VerificationError("keys of the log", "one key or more, of one name", f"{len(self.accepted)} keys")

    @classmethod
    def from_vkeys(cls, vkeys: Iterable[str]) -> Self:
        """Parse them, the newest last; raises VerificationError."""
        return cls(accepted=tuple(NoteVerifier.from_vkey(vkey) for vkey in vkeys))

    @property
    def newest(self) -> NoteVerifier:
        """The key to give to others."""
        return self.accepted[-1]

    def vkeys(self) -> tuple[str, ...]:
        """As text, the newest last."""
        return tuple(key.vkey() for key in self.accepted)

    def after(self, kind: str, body: Mapping[str, Any], note: Note) -> "LogKeys":
        """The keys believed once an entry was read that `note`, signed by one of these keys, covers.

        Entries about keys that are not believed here are history, and change nothing.

        Raises:
            VerificationError: A key of another name, or one that replaces a key which did not sign that, or which was
                replaced before; or the only key is retired.
        """
        if kind == KeyRotated.TYPE:
            return self._rotated(body, note)
        if kind == KeyRetired.TYPE:
            return self._retired(_key(body, "vkey"))
        return self

    def _rotated(self, body: Mapping[str, Any], note: Note) -> "LogKeys":
        old, new = _key(body, "old_vkey"), _key(body, "new_vkey")
        if old not in self.accepted or new in self.accepted:
            return self
        if new.name != old.name:
            raise VerificationError(KeyRotated.TYPE, f"a key of the name {old.name}", new.vkey())
        if old != self.newest:
            raise VerificationError(KeyRotated.TYPE, f"the newest key replaced, {self.newest.vkey()}", old.vkey())
        verify_note(note, [old])  # nobody else can say what follows it
        return LogKeys(accepted=(*self.accepted, new))

    def _retired(self, key: NoteVerifier) -> "LogKeys":
        if key not in self.accepted:
            return self
        if key == self.newest:
            raise VerificationError(KeyRetired.TYPE, "a key that was replaced", key.vkey())
        return LogKeys(accepted=tuple(one for one in self.accepted if one != key))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One change of a log's key, as its entries tell it."""

    leaf: int  # of key.rotated
    old: NoteVerifier
    new: NoteVerifier
    overlap_until: str  # RFC 3339
    retired: bool  # whether key.retired was read


def key_changes(entries: Iterable[bytes | None]) -> tuple[KeyChange, ...]:
    """Every change of key that a log's entries tell of, the oldest first. What they say is believed.

    An entry that was dropped is None; those about keys never are.

    Raises:
        VerificationError: An entry names no keys.
    """
    changes: dict[str, KeyChange] = {}
    for leaf, kind, body in key_entries(entries):
        if kind == KeyRotated.TYPE:
            old, new = _key(body, "old_vkey"), _key(body, "new_vkey")
            until = str(body.get("overlap_until"))
            changes[old.vkey()] = KeyChange(leaf=leaf, old=old, new=new, overlap_until=until, retired=False)
        elif (change := changes.get(str(body.get("vkey")))) is not None:
            changes[change.old.vkey()] = KeyChange(
                leaf=change.leaf, old=change.old, new=change.new, overlap_until=change.overlap_until, retired=True
            )
    return tuple(changes.values())


def key_entries(entries: Iterable[bytes | None]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Leaf, type and body of those entries that are about the log's keys; the others are not even parsed."""
    for leaf, data in enumerate(entries):
        if data is None or _MARK not in data:
            continue
        record = json.loads(data)
        if record["type"] in (KeyRotated.TYPE, KeyRetired.TYPE):
            yield leaf, record["type"], record["body"]


def stone_path(leaf: int) -> str:
    """Where the stepping stone of a change is kept, by the leaf of its key.rotated: under `public/`, or `log/`."""
    return f"key-changes/{leaf}"


def _key(body: Mapping[str, Any], name: str) -> NoteVerifier:
    return NoteVerifier.from_vkey(str(body.get(name)))
