"""The log's signed tree head as text, and the receipts made with it (C2SP tlog-checkpoint, tlog-proof).

Log format sections 3 and 5. A checkpoint commits the log's operator to every entry below its size; two checkpoints
that are both signed and not consistent prove misbehaviour to anybody.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from audit import merkle
from audit.errors import VerificationError
from audit.note import Note, NoteSigner, NoteVerifier, check_key_name, decode_base64, parse_note, sign_note, verify_note

SIZE_MAX = 2**63 - 1
PROOF_HEADER = "c2sp.org/tlog-proof@v1"

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head: `origin` never changes for the life of a log."""

    origin: str
    size: int
    root: bytes  # 32 bytes

    def __post_init__(self) -> None:
        check_key_name(self.origin)
        if not 0 <= self.size <= SIZE_MAX or len(self.root) != merkle.HASH_BYTES:
            raise VerificationError("checkpoint", "a size of at least 0 and a 32-byte root", f"{self.size}")

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def from_text(cls, text: str) -> "Checkpoint":
        """Parse the signed text; extension lines are allowed and ignored. Raises VerificationError."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise VerificationError("checkpoint", "origin, size and root, one line each", repr(text[:120]))
        root = decode_base64(lines[2], "checkpoint root")
        return cls(origin=lines[0], size=parse_decimal(lines[1], "checkpoint size"), root=root)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A checkpoint with the note it was read from: all its lines, also those of keys unknown here."""

    checkpoint: Checkpoint
    note: Note

    def to_bytes(self) -> bytes:
        """As published."""
        return self.note.to_bytes()


def parse_decimal(text: str, what: str) -> int:
    """ASCII decimal without leading zeros, below 2^63; raises VerificationError."""
    if _DECIMAL.fullmatch(text) is None or int(text) > SIZE_MAX:
        raise VerificationError(what, "a decimal number without leading zeros", repr(text[:40]))
    return int(text)


def sign_checkpoint(checkpoint: Checkpoint, *signers: NoteSigner) -> SignedCheckpoint:
    """Sign a tree head with the log's key, or with both while its key changes; the signers' name is the origin.

    The caller must have made sure that it extends every checkpoint signed before (`audit.log` does).
    """
    for signer in signers:
        if signer.name != checkpoint.origin:
            raise VerificationError("checkpoint", f"the key of {checkpoint.origin}", f"a key of {signer.name}")
    return SignedCheckpoint(checkpoint=checkpoint, note=sign_note(checkpoint.text(), *signers))


def parse_checkpoint(data: bytes) -> SignedCheckpoint:
    """Read a published checkpoint without believing it; raises VerificationError."""
    note = parse_note(data)
    return SignedCheckpoint(checkpoint=Checkpoint.from_text(note.text), note=note)


def verify_checkpoint(data: bytes, verifier: NoteVerifier, *others: NoteVerifier) -> SignedCheckpoint:
    """Read a published checkpoint and check the log's signature and origin; raises VerificationError.

    Args:
        data: The note.
        verifier: The log's key.
        others: Its other keys, of the same name, that are believed too; a line of any of them is enough, and a line
            of one of them that does not verify spoils the note.
    """
    signed = parse_checkpoint(data)
    if signed.checkpoint.origin != verifier.name:
        raise VerificationError("checkpoint", f"origin {verifier.name}", signed.checkpoint.origin)
    verify_note(signed.note, [verifier, *others])
    return signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A `.tlog-proof`: that an entry is in the log, checkable without the log."""

    index: int
    proof: tuple[bytes, ...]
    signed_checkpoint: SignedCheckpoint

    def to_bytes(self) -> bytes:
        """The file."""
        head = f"{PROOF_HEADER}\nindex {self.index}\n" + "".join(
            f"{base64.b64encode(part).decode()}\n" for part in self.proof
        )
        return head.encode() + b"\n" + self.signed_checkpoint.to_bytes()


def parse_receipt(data: bytes) -> Receipt:
    """Read a `.tlog-proof` without believing it; raises VerificationError."""
    head, blank, rest = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise VerificationError("receipt", "ASCII before the checkpoint", f"byte {error.start} is not") from error
    if not blank or lines[0] != PROOF_HEADER:
        raise VerificationError("receipt", PROOF_HEADER, repr(lines[0][:80]))
    if len(lines) > 1 and lines[1].startswith("extra "):  # unauthenticated by definition: checked for form only
        decode_base64(lines.pop(1).removeprefix("extra "), "receipt extra")
    if len(lines) < 2 or not lines[1].startswith("index "):
        raise VerificationError("receipt", "an index line", repr(lines[1:2]))
    if len(lines) - 2 > merkle.PROOF_HASHES_MAX:
        raise VerificationError("receipt", f"at most {merkle.PROOF_HASHES_MAX} hashes", str(len(lines) - 2))
    return Receipt(
        index=parse_decimal(lines[1].removeprefix("index "), "receipt index"),
        proof=tuple(decode_base64(line, "receipt hash") for line in lines[2:]),
        signed_checkpoint=parse_checkpoint(rest),
    )


def verify_receipt(data: bytes, entry: bytes, verifier: NoteVerifier) -> Receipt:
    """The entry is in the log whose key is `verifier`, at the receipt's index; raises VerificationError."""
    receipt = parse_receipt(data)
    signed = verify_checkpoint(receipt.signed_checkpoint.to_bytes(), verifier)
    merkle.verify_inclusion(
        leaf=merkle.leaf_hash(entry),
        index=receipt.index,
        size=signed.checkpoint.size,
        proof=receipt.proof,
        root=signed.checkpoint.root,
    )
    return receipt


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """Hashes as base64 lines: how a consistency proof travels in files."""
    return "".join(f"{base64.b64encode(part).decode()}\n" for part in hashes).encode()
