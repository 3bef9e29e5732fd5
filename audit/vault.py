"""What may name a person is kept beside the log: sealed, with a salted commitment to it in the entry.

Log format section 12. An entry is for ever, and a person's words need not be: the payload lies encrypted in the vault
of whoever recorded it, under a key of its own, and the entry holds `SHA-256(0x01 || salt || payload)`. Whoever has salt
and payload can show what was meant. Once the salt is destroyed the commitment shows nothing: a payload that is guessed
right cannot be told from one that is guessed wrong (threat A-28).

Nothing here touches a disk: `audit.vault_files` does.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Annotated, NoReturn, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from audit.errors import AuditError, EntryRefused
from audit.fields import DIGEST, Choice, Digest, Instant, MaybeName, Pattern, Pseudonym, rules_of

COMMITMENT_PREFIX = b"\x01"
"""No leaf of the log begins so when it is hashed, and no bare document's SHA-256 is one of these."""
SALT_BYTES = KEY_BYTES = 32
PAYLOAD_BYTES_MAX = 16 << 20
ID_DIGITS = 16
HEADER_BYTES_MAX = 2_000
_NONCE = bytes(12)
"""A key seals one payload and no other, so that no nonce can be used twice under it."""

DOCUMENT, NOTE = "document", "note"


class PayloadDamaged(AuditError):
    """A kept payload does not open, or is another one than was committed to. Whose fault: the disk's, or a hand's."""

    def __init__(self, payload: str, found: str) -> None:
        super().__init__(f"payload {payload}: {found}")
        self.payload, self.found = payload, found

    def advice(self) -> str:
        """What to do next."""
        return "Restore vault/keys and vault/sealed of this payload from a backup. The log itself is not concerned."


@final
class Opening:
    """Key and salt of one payload: it does not print, and cannot be pickled. Who destroys it destroys the payload."""

    __slots__ = ("_key", "_salt")

    def __init__(self, *, key: bytes, salt: bytes) -> None:
        if len(key) != KEY_BYTES or len(salt) != SALT_BYTES:
            raise ValueError(f"a key of {KEY_BYTES} bytes and a salt of {SALT_BYTES}")
        self._key, self._salt = key, salt

    def expose_key(self) -> bytes:
        """The AES-256 key; whoever calls this is responsible for where it goes."""
        return self._key

    def expose_salt(self) -> bytes:
        """What was hashed before the payload; with the payload it proves the commitment to anybody."""
        return self._salt

    def __repr__(self) -> str:
        return f"Opening({KEY_BYTES + SALT_BYTES} bytes)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("the opening of a payload cannot be pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of a payload without opening it; it is authenticated with the payload."""

    fact: Annotated[str, Pattern(r"[a-z_]{1,40}\.[a-z_]{1,40}", "the type of an entry")]
    part: Annotated[str, Choice((DOCUMENT, NOTE))]  # which of the entry's commitments
    subject: Pseudonym  # whom it may say something about
    study: MaybeName
    kept_at: Instant

    def __post_init__(self) -> None:
        for name, rule in rules_of(type(self)).items():
            object.__setattr__(self, name, rule.read(f"payload.{name}", getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A payload as the vault shows it to anybody who may read the folder's names."""

    commitment: Digest
    about: About

    @property
    def id(self) -> str:
        """By which a person names it: the first digits of its commitment."""
        return self.commitment[:ID_DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A payload encrypted, and what opens it; the two are stored apart."""

    kept: Kept
    opening: Opening
    data: bytes  # one line of JSON, then AES-256-GCM of the payload with that line as associated data


def commit(payload: bytes, salt: bytes) -> str:
    """`SHA-256(0x01 || salt || payload)` in hexadecimal, for a salt of 32 bytes."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt of {SALT_BYTES} bytes")
    return hashlib.sha256(COMMITMENT_PREFIX + salt + payload).hexdigest()


def seal(payload: bytes, about: About, entropy: Callable[[int], bytes]) -> Sealed:
    """Encrypt a payload of 1 byte to 16 MiB under a fresh key, with a commitment to it under a fresh salt.

    Args:
        payload: Its bytes.
        about: What may be known of it without opening it.
        entropy: So many random bytes that nobody else has.

    Raises:
        EntryRefused: Nothing, or more than may be kept.
    """
    if not 0 < len(payload) <= PAYLOAD_BYTES_MAX:
        raise EntryRefused("what is to be kept", f"{len(payload)} bytes", f"1 to {PAYLOAD_BYTES_MAX} bytes")
    opening = Opening(key=entropy(KEY_BYTES), salt=entropy(SALT_BYTES))
    kept = Kept(commitment=commit(payload, opening.expose_salt()), about=about)
    header = _header(kept)
    data = header + AESGCM(opening.expose_key()).encrypt(_NONCE, payload, header)
    return Sealed(kept=kept, opening=opening, data=data)


def read_header(payload: str, data: bytes) -> Kept:
    """What a sealed payload says it is; raises PayloadDamaged. Proves nothing until it is opened."""
    line, newline, _ = data[:HEADER_BYTES_MAX].partition(b"\n")
    try:
        record = json.loads(line)
        wanted = {"commitment", *(field.name for field in fields(About))}
        if not newline or not isinstance(record, dict) or record.keys() != wanted:
            raise PayloadDamaged(payload, "its first line is not that of a sealed payload")
        commitment = DIGEST.read("payload.commitment", record.pop("commitment"))
        kept = Kept(commitment=commitment, about=About(**record))
    except (ValueError, RecursionError, EntryRefused) as error:
        raise PayloadDamaged(payload, "its first line is not that of a sealed payload") from error
    if kept.id != payload or _header(kept) != line + newline:
        raise PayloadDamaged(payload, "its first line is that of another payload")
    return kept


def open_sealed(payload: str, data: bytes, opening: Opening) -> tuple[Kept, bytes]:
    """What a sealed payload holds, checked against the commitment in its header.

    Raises:
        PayloadDamaged: A bit of it or of its key was changed; or another payload than was committed to.
    """
    kept = read_header(payload, data)
    header = _header(kept)
    try:
        plain = AESGCM(opening.expose_key()).decrypt(_NONCE, data[len(header) :], header)
    except InvalidTag as error:
        raise PayloadDamaged(payload, "the sealed bytes or their key were altered") from error
    require_commitment(kept, plain, opening.expose_salt())
    return kept, plain


def require_commitment(kept: Kept, plain: bytes, salt: bytes) -> None:
    """Raises PayloadDamaged unless these bytes, under this salt, are what was committed to."""
    found = commit(plain, salt)
    if not hmac.compare_digest(found, kept.commitment):
        raise PayloadDamaged(kept.id, f"commitment {found} instead of {kept.commitment}: another payload or salt")


def _header(kept: Kept) -> bytes:
    record = {"commitment": kept.commitment, **asdict(kept.about)}
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
