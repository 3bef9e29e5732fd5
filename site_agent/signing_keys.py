"""The files of this hospital's two signing keys once they were changed: both in one, replaced as a whole.

    keys/signing-keys.json       both keys that the hospital signs with, in the place of signing.pem and ecdsa.pem
    keys/next-signing-keys.json  the next ones, with a steward's word for them, until they are those

Which of them sign is in agent.db, in the transaction that adds `site.keys_rotated` (`own_key_rows.py`). So there are
always keys that work: before that transaction the old ones are where they were, after it the new ones are in one of
the two files, and the old ones are destroyed only once the new ones lie where they belong.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, ValidationError

from audit.site_keys import SigningKeys
from consortium.contract import certificates
from consortium.contract.private_files import destroy_private, read_private, replace_private, write_private
from privacy.p256 import EcdsaSigner
from site_agent.errors import SiteError

_CURRENT, _NEXT = "signing-keys.json", "next-signing-keys.json"
_SCRATCH = (f".{_NEXT}.*", f".{_CURRENT}.*", f"..{_CURRENT}.*")
_BYTES_MAX = 16_384


class SigningKeysDamaged(SiteError):
    """A file of the hospital's signing keys cannot be read as one."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Put the file back from a backup of the agent's home; without it the hospital needs a new kit."


class StewardWord(BaseModel):
    """A steward's signature of a change of keys, as the entry has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    steward: str  # pseudonym
    steward_key: str
    at: str
    steward_sig: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    signing_pem: str
    ecdsa_pem: str
    word: StewardWord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPair:
    """Both private keys, and a steward's word for them where they are the next."""

    signing: Ed25519PrivateKey = field(repr=False)
    ecdsa: EllipticCurvePrivateKey = field(repr=False)
    word: StewardWord | None = None

    @property
    def public(self) -> SigningKeys:
        """Their public halves."""
        return SigningKeys(
            signing=self.signing.public_key().public_bytes_raw().hex(), ecdsa=EcdsaSigner(self.ecdsa).public.hex()
        )

    def to_bytes(self) -> bytes:
        """What goes to a private file and nowhere else."""
        file = _File(
            signing_pem=certificates.private_pem(self.signing).decode(),
            ecdsa_pem=certificates.private_pem(self.ecdsa).decode(),
            word=self.word,
        )
        return file.model_dump_json().encode()


def new_pair() -> OwnPair:
    """Fresh keys."""
    return OwnPair(signing=certificates.new_signing_key(), ecdsa=certificates.new_ecdsa_key())


def read_signing_keys(home: Path) -> OwnPair | None:
    """The keys that took the place of the enrolment's; None while those stand. Raises SigningKeysDamaged."""
    return _read(home / "keys" / _CURRENT)


def read_next_keys(home: Path) -> OwnPair | None:
    """The keys of a change that is under way; None if none is. Raises SigningKeysDamaged."""
    return _read(home / "keys" / _NEXT)


def keep_next_keys(home: Path, pair: OwnPair) -> None:
    """Keep the next keys, durably; to be called as `settle`. Raises FileExistsError if there are some, OSError."""
    write_private(home / "keys" / _NEXT, pair.to_bytes())


def settle(home: Path, standing: SigningKeys | None) -> None:
    """Bring the files to the keys that entries stand under, None for the enrolment's; older ones are destroyed.

    To be called while nobody can change those (`Store.settle_own_keys`). A crash at any point is gone on with by the
    next call.
    """
    folder, following = home / "keys", read_next_keys(home)
    # What a process that was killed had begun to write. Not overwritten: it may be a second name of what it became.
    for scratch in [path for pattern in _SCRATCH for path in folder.glob(pattern)]:
        scratch.unlink(missing_ok=True)
    if standing is None:
        return
    if following is not None and following.public == standing:
        _put(folder, OwnPair(signing=following.signing, ecdsa=following.ecdsa))
        destroy_private(folder / _NEXT)
    changed = read_signing_keys(home)
    if changed is not None and changed.public == standing:
        for name in ("signing.pem", "ecdsa.pem"):
            destroy_private(folder / name)


def discard_next_keys(home: Path, standing: SigningKeys | None) -> None:
    """Forget the next keys, unless entries stand under them; as `settle`."""
    following = read_next_keys(home)
    if following is not None and following.public != standing:
        destroy_private(home / "keys" / _NEXT)


def _put(folder: Path, pair: OwnPair) -> None:
    path = folder / _CURRENT
    if not path.exists():
        write_private(path, pair.to_bytes())
        return
    following = path.with_name(f".{_CURRENT}.next")
    following.unlink(missing_ok=True)  # of an earlier try that was broken off
    write_private(following, pair.to_bytes())
    replace_private(path, following)


def _read(path: Path) -> OwnPair | None:
    try:
        data = read_private(path, limit_bytes=_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):  # of a folder that is none the other keys will tell
        return None
    except OSError as error:
        raise SigningKeysDamaged(f"{path} cannot be read: {error.strerror}") from error
    try:
        file = _File.model_validate_json(data)
        return OwnPair(
            signing=certificates.load_signing_key(file.signing_pem.encode()),
            ecdsa=certificates.load_ecdsa_key(file.ecdsa_pem.encode()),
            word=file.word,
        )
    except (ValidationError, ValueError, TypeError) as error:  # what is in it is not shown
        raise SigningKeysDamaged(f"{path} is damaged") from error
