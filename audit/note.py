"""Signed notes (C2SP signed-note v1.0.0): a text, a blank line, and one signature line per key.

Log format section 2. What is signed is the text with its final newline and without the blank line. Lines of keys a
reader does not know are skipped, so that witnesses' cosignatures and future algorithms can be added to a note; a
known key whose line does not verify spoils the note.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.errors import VerificationError

ED25519 = 0x01
"""Type byte of an Ed25519 note key; the only type that signs here."""

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
SIGNATURE_PAYLOAD_MAX = 8192
"""Room for an ML-DSA-44 line (2,432 bytes) and for what comes after it."""

_DASH = "\u2014 "


def check_key_name(name: str) -> str:
    """A key name: not empty, printable, no blank and no '+'; raises VerificationError."""
    if not name or "+" in name or not name.isprintable() or any(c.isspace() for c in name):
        raise VerificationError("key name", "printable characters without blanks and '+'", repr(name))
    return name


def key_id(name: str, type_byte: int, public_key: bytes) -> bytes:
    """The four bytes that tell keys of one name apart."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([type_byte]) + public_key).digest()[:4]


def vkey_of(name: str, type_byte: int, public_key: bytes) -> str:
    """A public key as text: `<name>+<key id>+<base64 of type and key>`."""
    encoded = base64.b64encode(bytes([type_byte]) + public_key).decode()
    return f"{name}+{key_id(name, type_byte, public_key).hex()}+{encoded}"


def parse_vkey(text: str, type_byte: int, what: str) -> tuple[str, bytes]:
    """Name and 32-byte key of a vkey; raises VerificationError when its key id is not the one its key has."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise VerificationError(what, "<name>+<key id>+<key>", repr(text[:120]))
    name, identifier, encoded = parts
    data = decode_base64(encoded, what)
    if len(data) != 33 or data[0] != type_byte:
        raise VerificationError(what, f"an Ed25519 key (type {type_byte}, 32 bytes)", f"{len(data)} bytes")
    expected = key_id(check_key_name(name), type_byte, data[1:]).hex()
    if expected != identifier:
        raise VerificationError(what, f"key id {expected}", repr(identifier))
    return name, data[1:]


def decode_base64(text: str, what: str) -> bytes:
    """Strict base64: standard alphabet, padded, one spelling per value; raises VerificationError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError(what, "base64", repr(text[:80])) from error
    # Unused bits of the last character must be zero, or two different files would carry one value.
    if base64.b64encode(data).decode() != text:
        raise VerificationError(what, "canonical base64", repr(text[:80]))
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: `payload` is what follows the four bytes of `key_id`."""

    name: str
    key_id: bytes
    payload: bytes

    def line(self) -> str:
        """The line as it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.payload).decode()}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A parsed note. Parsing proves nothing; see `verify_note`."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """The note as it is stored."""
        return (self.text + "\n" + "".join(signature.line() for signature in self.signatures)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteVerifier:
    """A public key that a reader trusts for a name."""

    name: str
    public_key: bytes  # 32 bytes, Ed25519

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != 32:
            raise VerificationError("verifier key", "32 bytes", str(len(self.public_key)))

    @property
    def key_id(self) -> bytes:
        """Four bytes."""
        return key_id(self.name, ED25519, self.public_key)

    def vkey(self) -> str:
        """`<name>+<key id>+<base64>`, as it stands in policy files."""
        return vkey_of(self.name, ED25519, self.public_key)

    @classmethod
    def from_vkey(cls, text: str) -> "NoteVerifier":
        """Parse a vkey; raises VerificationError when its key id is not the one its key has."""
        name, public_key = parse_vkey(text, ED25519, "verifier key")
        return cls(name=name, public_key=public_key)

    def verify(self, text: str, signature: NoteSignature) -> None:
        """Check one line over the note's text; raises VerificationError."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature.payload, text.encode())
        except (InvalidSignature, ValueError) as error:
            raise VerificationError("note signature", f"a signature by {self.vkey()}", "one that fails") from error


class NoteSigner:
    """A private key that signs notes under a name. One key per role: log, export; never shared between them."""

    __slots__ = ("_sign", "verifier")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._sign: Callable[[bytes], bytes] = private_key.sign
        self.verifier = NoteVerifier(name=name, public_key=private_key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """The key name; for a log, its origin."""
        return self.verifier.name

    def sign(self, text: str) -> NoteSignature:
        """One signature line over `text`."""
        return NoteSignature(name=self.name, key_id=self.verifier.key_id, payload=self._sign(text.encode()))

    def __repr__(self) -> str:
        return f"NoteSigner({self.verifier.vkey()})"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not pickled")


def sign_note(text: str, *signers: NoteSigner) -> Note:
    """A note over `text`, which must end in a newline and hold no other control character."""
    check_text(text)
    return Note(text=text, signatures=tuple(signer.sign(text) for signer in signers))


def parse_note(data: bytes) -> Note:
    """Split a note into its text and its signature lines; raises VerificationError.

    The split is at the last blank line; lines of unknown keys are kept.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise VerificationError("note", f"at most {NOTE_BYTES_MAX} bytes", str(len(data)))
    try:
        content = data.decode()
    except UnicodeDecodeError as error:
        raise VerificationError("note", "UTF-8", f"byte {error.start} is not") from error
    head, blank, tail = content.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise VerificationError("note", "a text, a blank line and signature lines", "no blank line or no last newline")
    text = head + "\n"
    check_text(text)
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise VerificationError("note", f"at most {SIGNATURES_MAX} signature lines", str(len(lines)))
    return Note(text=text, signatures=tuple(_parse_line(line) for line in lines))


def check_text(text: str) -> None:
    """Raise VerificationError unless `text` ends in a newline and holds no other control character."""
    if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise VerificationError("note text", "lines ending in a newline, no control characters", "something else")


def _parse_line(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise VerificationError("note", "a line of an em dash, a key name and base64", repr(line[:80]))
    check_key_name(name)
    data = decode_base64(encoded, "signature line")
    if not 4 < len(data) <= SIGNATURE_PAYLOAD_MAX:
        raise VerificationError("signature line", f"5 to {SIGNATURE_PAYLOAD_MAX} bytes", str(len(data)))
    return NoteSignature(name=name, key_id=data[:4], payload=data[4:])


def verify_note(note: Note, verifiers: Sequence[NoteVerifier]) -> tuple[NoteVerifier, ...]:
    """Which of the trusted keys signed; at least one did and none of their lines fails.

    Raises:
        VerificationError: no trusted key signed, or a trusted key's line does not verify.
    """
    signed: list[NoteVerifier] = []
    for signature in note.signatures:
        for verifier in verifiers:
            if (verifier.name, verifier.key_id) == (signature.name, signature.key_id):
                verifier.verify(note.text, signature)
                signed.append(verifier)
    if not signed:
        names = ", ".join(verifier.vkey() for verifier in verifiers) or "a known key"
        found = ", ".join(f"{s.name}+{s.key_id.hex()}" for s in note.signatures)
        raise VerificationError("note signature", f"a signature by {names}", f"signatures by {found}")
    return tuple(signed)
