"""Witnesses' cosignatures on a checkpoint, with Ed25519 (C2SP tlog-cosignature v1.0.1).

Log format section 9. One says: as of this time, it is the largest tree of this log that I have seen, and it grew from
every one that I saw before. The signed message names neither the witness nor its key, so every witness has a key of its
own that signs nothing else.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.errors import VerificationError
from audit.note import NoteSignature, check_key_name, key_id, parse_vkey, vkey_of

ED25519_COSIGNATURE = 0x04
"""Type byte of a witness's key."""
TIME_MAX = 2**63 - 1
_TIME = struct.Struct(">Q")
_PAYLOAD_BYTES = _TIME.size + 64


def cosigned_message(text: str, time_s: int) -> bytes:
    """What a witness signs over a checkpoint's text at a time in whole seconds since 1970."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessKey:
    """The public key of a witness, under its name."""

    name: str
    public_key: bytes  # 32 bytes, Ed25519

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != 32:
            raise VerificationError("witness key", "32 bytes", str(len(self.public_key)))

    @property
    def key_id(self) -> bytes:
        """Four bytes."""
        return key_id(self.name, ED25519_COSIGNATURE, self.public_key)

    def vkey(self) -> str:
        """`<name>+<key id>+<base64>`, as it stands in policy files."""
        return vkey_of(self.name, ED25519_COSIGNATURE, self.public_key)

    @classmethod
    def from_vkey(cls, text: str) -> "WitnessKey":
        """Parse a vkey of a witness; raises VerificationError."""
        name, public_key = parse_vkey(text, ED25519_COSIGNATURE, "witness key")
        return cls(name=name, public_key=public_key)

    def is_of(self, signature: NoteSignature) -> bool:
        """Whether a signature line claims to be this witness's."""
        return (signature.name, signature.key_id) == (self.name, self.key_id)

    def verify(self, text: str, signature: NoteSignature) -> int:
        """When the witness cosigned, in seconds since 1970; raises VerificationError if it did not."""
        if len(signature.payload) != _PAYLOAD_BYTES:
            raise VerificationError("cosignature", f"{_PAYLOAD_BYTES} bytes", str(len(signature.payload)))
        (time_s,) = _TIME.unpack_from(signature.payload)
        if not 0 < time_s <= TIME_MAX:
            raise VerificationError("cosignature", f"a time from 1 to {TIME_MAX}", str(time_s))
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(signature.payload[_TIME.size :], cosigned_message(text, time_s))
        except (InvalidSignature, ValueError) as error:
            raise VerificationError("cosignature", f"a cosignature by {self.vkey()}", "one that fails") from error
        return int(time_s)


class WitnessSigner:
    """A witness's private key. What it cosigns must have been judged before (`audit.witness`)."""

    __slots__ = ("_sign", "key")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._sign: Callable[[bytes], bytes] = private_key.sign
        self.key = WitnessKey(name=name, public_key=private_key.public_key().public_bytes_raw())

    def cosign(self, text: str, time_s: int) -> NoteSignature:
        """One line for the note of a checkpoint.

        Args:
            text: The checkpoint's text, with its last newline.
            time_s: Whole seconds since 1970, at least 1.
        """
        if not 0 < time_s <= TIME_MAX:
            raise VerificationError("cosignature", f"a time from 1 to {TIME_MAX}", str(time_s))
        payload = _TIME.pack(time_s) + self._sign(cosigned_message(text, time_s))
        return NoteSignature(name=self.key.name, key_id=self.key.key_id, payload=payload)

    def __repr__(self) -> str:
        return f"WitnessSigner({self.key.vkey()})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")
