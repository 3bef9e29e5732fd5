"""What the owner of a study signs when it is submitted, and how anybody checks that. Pure.

The statement says which study, by its digest, was given to which consortium, under whose coordinator's key, and when.
So it is good for that study there, and for nothing else: another consortium, or another coordinator that calls itself
alike, cannot show it as its own (threat G-09). It stands in the log entry `study.created`; hospitals and `verify.py`
check it without asking the coordinator.
"""

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consortium.contract.digest import canonical_bytes, digest_of
from consortium.contract.names import Digest, is_digest

CONTEXT = b"consortium/study-submission/v1\n"
"""Stands before the statement, so that the signature can mean nothing else anywhere else."""
AGE_MAX = timedelta(days=1)
"""A statement that is older when it is handed in was not signed for this submission."""
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_SIGNATURE = re.compile(r"[A-Za-z0-9+/]{86}==")


class SubmissionRefused(Exception):
    """A statement that is not its owner's, or not about this study here. Whose fault: who handed it in."""

    code = "refused"

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"the study's submission is refused: found {found}; allowed: {allowed}")

    def advice(self) -> str:
        """What to do next."""
        return "Do not approve the study; ask the consortium lead who submitted it, and have it submitted again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a study is submitted to."""

    consortium: str
    coordinator_signing_key: str  # 64 hexadecimal characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A signed statement, as it is handed in, kept and shown. Nothing in it is checked before `verify`."""

    owner_key: str  # 64 hexadecimal characters, Ed25519
    signed_at: str  # RFC 3339 in UTC with milliseconds
    signature: str  # 88 characters of base64

    @property
    def fingerprint(self) -> Digest:
        """SHA-256 of the owner's key: what people compare and sites pin."""
        return owner_fingerprint(self.owner_key)


def owner_fingerprint(owner_key: str) -> Digest:
    """SHA-256 of an owner's public key, given in hexadecimal."""
    return digest_of(bytes.fromhex(owner_key))


def statement(study_digest: Digest, destination: Destination, *, owner_key: str, signed_at: str) -> bytes:
    """The bytes that are signed."""
    return CONTEXT + canonical_bytes(
        {
            "consortium": destination.consortium,
            "coordinator_signing_key": destination.coordinator_signing_key,
            "owner_key": owner_key,
            "signed_at": signed_at,
            "study_digest": study_digest,
        }
    )


def sign(study_digest: Digest, destination: Destination, key: Ed25519PrivateKey, *, now: datetime) -> Submission:
    """The owner's statement about a study that is submitted now."""
    owner_key = key.public_key().public_bytes_raw().hex()
    moment = now.astimezone(UTC)
    signed_at = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    signed = statement(study_digest, destination, owner_key=owner_key, signed_at=signed_at)
    return Submission(owner_key=owner_key, signed_at=signed_at, signature=base64.b64encode(key.sign(signed)).decode())


def verify(submission: Submission, study_digest: Digest, destination: Destination) -> None:
    """Raise SubmissionRefused unless the owner's key signed just this study for just this coordinator."""
    if not is_digest(submission.owner_key) or _INSTANT.fullmatch(submission.signed_at) is None:
        raise SubmissionRefused("a statement without a key or a time", "an Ed25519 key and a time in UTC")
    if _SIGNATURE.fullmatch(submission.signature) is None:
        raise SubmissionRefused("no signature", "64 bytes in base64")
    signed = statement(study_digest, destination, owner_key=submission.owner_key, signed_at=submission.signed_at)
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(submission.owner_key))
        key.verify(base64.b64decode(submission.signature), signed)
    except (InvalidSignature, ValueError) as error:
        raise SubmissionRefused(
            f"a signature that is not by the key {submission.fingerprint[:16]}... over this study",
            f"the owner's, over this study's digest and {destination.consortium}",
        ) from error


def require_fresh(submission: Submission, now: datetime) -> None:
    """Raise SubmissionRefused for a statement that was signed at another time than it is handed in."""
    signed_at = datetime.fromisoformat(submission.signed_at)
    if abs(now - signed_at) > AGE_MAX:
        raise SubmissionRefused(f"a statement of {submission.signed_at}", "one that was signed less than a day ago")
