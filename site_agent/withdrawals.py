"""Patients who withdrew: known by keyed marks, in no cohort from the next round on.

A mark is HMAC-SHA256 of the identifier as the files spell it, without blanks at either end, under a key made from the
hospital's long-term secret for this purpose alone, cut to 128 bits. Nobody without the key can tell from a mark who it
is of; whoever has the key, as the process that reads the cohort does, can recognise a patient it sees, and no other.
A mark counts for every dataset of the hospital: the same identifier is the same patient, as it is for the budget.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from privacy.secret import Secret
from site_agent.errors import SiteError

MARK_BYTES = 16
_KEY_LABEL = b"consortium/withdrawn-key/v1"
_LABEL = b"consortium/withdrawn/v1\n"
_KEY_ID_LABEL = b"consortium/withdrawn-key-id/v1"


class WithdrawalsUnreadable(SiteError):
    """Marks that were made under another long-term secret: nobody can be recognised by them any more."""

    def __init__(self) -> None:
        super().__init__("patients withdrew under another keys/hedge.key than the one that is here")

    def advice(self) -> str:
        """What to do next."""
        return (
            "Put the keys folder back that belongs to this home. Until then no study is prepared here, for somebody "
            "who withdrew might be in it."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """Who is left out of a cohort. It prints as a number of marks."""

    key: bytes = field(default=b"", repr=False)  # recognises, and does nothing else
    marks: frozenset[bytes] = field(default=frozenset(), repr=False)
    times: int = 0  # how often patients withdrew here: a cohort that was read at another number is read again

    def has(self, identifier: str) -> bool:
        """Whether this patient withdrew."""
        return bool(self.marks) and mark_of(identifier, self.key) in self.marks

    def __repr__(self) -> str:
        return f"Withdrawn({self.times} times)"


NOBODY = Withdrawn()


def recognition_key(secret: Secret[bytes]) -> bytes:
    """The key that marks are made with, 32 bytes, from the hospital's long-term secret."""
    return hmac.digest(secret.expose(), _KEY_LABEL, "sha256")


def key_id(key: bytes) -> str:
    """Which key it is, 16 hexadecimal characters, without saying anything of it."""
    return hmac.digest(key, _KEY_ID_LABEL, "sha256")[:8].hex()


def mark_of(identifier: str, key: bytes) -> bytes:
    """The mark of a patient, MARK_BYTES long."""
    return hmac.digest(key, _LABEL + identifier.strip().encode(), "sha256")[:MARK_BYTES]


def marks_under(identifiers: Iterable[str], key: bytes) -> frozenset[bytes]:
    """The marks of these patients; an empty identifier is nobody."""
    return frozenset(mark_of(one, key) for one in identifiers if one.strip())
