"""Stewards and their own keys: made, used to sign a decision, registered at this hospital, removed.

A steward's private key is in an encrypted file outside the agent's home, under a passphrase that only the steward
knows. So neither the agent nor whoever has a copy of its home can approve a study in a steward's name. The home keeps
public keys, under pseudonyms; every change of them is an entry in the log that a steward of before signed.
"""

import re
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, load_ssh_private_key

from audit import entries
from audit.declarations import refuse_name
from audit.entry_types.steward_entries import SIGNATURES_MAX, StewardSignature
from audit.stewards import (
    APPROVED,
    ENROLLED,
    REMOVED,
    WITHDRAWN,
    About,
    key_statement,
    public_hex,
    sign,
    signed_decision,
)
from consortium.contract.names import Digest
from consortium.contract.private_files import read_private, write_private
from site_agent.errors import SiteError
from site_agent.home import FILE_BYTES_MAX, AgentHome
from site_agent.signed_events import SignedEvents
from site_agent.site_file import Policy
from site_agent.steward_approval import objection_to_approval
from site_agent.steward_rows import KeyChange, StewardRow
from site_agent.store import Decision, Store

PASSPHRASE_MIN, PASSPHRASE_MAX = 12, 1024
"""Characters. Whoever has the file tries a few passphrases a second on each core, so a short one would not hold."""
KDF_ROUNDS = 64
"""Of bcrypt's key derivation, for a new key file: half a second, each time it is opened."""
STEWARDS_MAX = 50
ONE_IS_ENOUGH = Policy()
REMOVED_WITH_ITS_KEY = "the key of a steward who approved it was removed"
NEVER_SIGNED = "it was approved without the signature of a steward"


class StewardKeyRefused(SiteError):
    """A steward's key cannot be made or used as it was asked for. Whose fault: whoever typed it."""

    code = "invalid"

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


class StewardRefused(SiteError):
    """Somebody who is no steward here, or not alone, wants to do what takes one."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


# --- the key file ----------------------------------------------------------------------------------------------------


def default_key_file(site: str, name: str) -> Path:
    """Where a steward's key is when nobody says otherwise: in the person's own folder, by hospital and name."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "steward"
    return Path.home() / ".config" / "consortium-steward" / f"{site}-{plain}.key"


def make_key_file(home: AgentHome, path: Path, passphrase: str) -> Ed25519PrivateKey:
    """A new key in an encrypted OpenSSH key file, mode 0600; raises StewardKeyRefused, and nothing is written then."""
    if path.absolute().resolve().is_relative_to(home.folder.resolve()):
        raise StewardKeyRefused(
            f"{path} is in the agent's home, and the agent must not be able to sign for a steward",
            "Name a file of the steward's own with --key.",
        )
    if not PASSPHRASE_MIN <= len(passphrase) <= PASSPHRASE_MAX:
        raise StewardKeyRefused(
            f"the passphrase has {len(passphrase)} characters; allowed: {PASSPHRASE_MIN} to {PASSPHRASE_MAX}",
            "Choose a longer one, such as five words; it protects the power to approve studies.",
        )
    key = Ed25519PrivateKey.generate()
    # Not PKCS#8 or PKCS#12: as the library writes them, a passphrase is tried with 2048 rounds of SHA-256.
    encryption = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(KDF_ROUNDS).build(passphrase.encode())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, pem)
    except FileExistsError as error:
        raise StewardKeyRefused(f"{path} exists", "Name another file with --key; no key is written over.") from error
    except OSError as error:
        raise StewardKeyRefused(
            f"{path} could not be written: {error.strerror}", "Name another file with --key."
        ) from error
    return key


def read_key_file(path: Path, passphrase: str) -> Ed25519PrivateKey:
    """A steward's key; raises StewardKeyRefused for a wrong passphrase, or a file that is none."""
    try:
        pem = read_private(path, limit_bytes=FILE_BYTES_MAX)
    except OSError as error:
        raise StewardKeyRefused(
            f"{path} cannot be read: {error.strerror}", "Name the file that `stewards add` made with --key."
        ) from error
    try:
        key = load_ssh_private_key(pem, passphrase.encode())
    except (ValueError, TypeError) as error:  # its words would say which of the two, and neither is of use to a person
        raise StewardKeyRefused(
            f"{path} does not open with this passphrase, or is no encrypted key", "Type the passphrase again."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StewardKeyRefused(f"{path} is another kind of key", "Name the file that `stewards add` made with --key.")
    return key


# --- who may sign here -----------------------------------------------------------------------------------------------


def enrol_steward(
    home: AgentHome,
    store: Store,
    name: str,
    key: Ed25519PrivateKey,
    *,
    by: Ed25519PrivateKey | None = None,
    anew: bool = False,
) -> StewardRow:
    """Register a steward's key, signed for the log.

    Args:
        home: This hospital's.
        store: Its memory.
        name: Who it is; the log has a pseudonym.
        key: The steward's.
        by: The key of a steward of before, who signs for the new one. The first steward signs alone.
        anew: All keys of before are lost: they count no more, and this one begins again, for everybody to see.

    Raises:
        StewardRefused: There are stewards, and none of them signs; or the key was registered before.
    """
    refuse_key_change(store, by=by, anew=anew)
    hexed = public_hex(key)
    if any(row.key == hexed for row in store.stewards()):
        raise StewardRefused("this key was registered here before", "Make another one.")
    row = StewardRow(key=hexed, steward=SignedEvents(home, store).pseudonym(name), at=_now(), standing=True)
    _sign_key_change(home, store, row, by or key)
    if by is None:
        withdraw_unsigned(home, store)
    return row


def refuse_key_change(store: Store, *, by: Ed25519PrivateKey | None, anew: bool) -> None:
    """Raise StewardRefused where a key would be registered without the word of whoever has to give it."""
    rows = store.stewards()
    standing = {row.key for row in rows if row.standing}
    if by is not None and public_hex(by) not in standing:
        raise StewardRefused(
            "whoever signs for the new steward is none here", "`site-agent stewards list` shows who is."
        )
    if by is None and rows and not anew:
        raise StewardRefused(
            "this hospital has had stewards, and one of them signs for a new one",
            "Name that steward with --by and --by-key. If every key is lost: --begin-anew, which the log shows to all.",
        )
    if by is None and anew and not rows:
        raise StewardRefused("there is no steward yet, so nothing begins anew", "Leave --begin-anew out.")
    if len(standing) >= STEWARDS_MAX:
        raise StewardRefused(f"there are {STEWARDS_MAX} stewards here", "Remove one first.")


def remove_steward(home: AgentHome, store: Store, name: str, by: Ed25519PrivateKey) -> tuple[StewardRow, ...]:
    """Remove the keys of a steward, signed by one; approvals that are not enough without them are taken back.

    Raises:
        StewardRefused: Nobody of that name is a steward here, or `by` is none.
    """
    pseudonym = home.vault.known(name)
    standing = {row.key: row for row in store.stewards() if row.standing}
    gone = tuple(row for row in standing.values() if row.steward == pseudonym)
    if not gone:
        raise StewardRefused("nobody of that name is a steward here", "`site-agent stewards list` shows who is.")
    if public_hex(by) not in standing:
        raise StewardRefused("whoever signs is no steward here", "`site-agent stewards list` shows who is.")
    # One's own key goes last: a key that was removed signs nothing more.
    for row in sorted(gone, key=lambda one: one.key == public_hex(by)):
        left = StewardRow(key=row.key, steward=row.steward, at=_now(), standing=False)
        _sign_key_change(home, store, left, by)
    withdraw_unsigned(home, store)
    return gone


def _sign_key_change(home: AgentHome, store: Store, row: StewardRow, by: Ed25519PrivateKey) -> None:
    """What the row says, signed by a steward and in the hospital's chain. Whoever enrols alone is alone."""
    comes = row.standing
    kind = entries.StewardEnrolled if comes else entries.StewardRemoved
    statement = key_statement(
        log=home.log_origin,
        site=home.site,
        change=ENROLLED if comes else REMOVED,
        steward=row.steward,
        key=row.key,
        at=row.at,
    )
    SignedEvents(home, store).add(
        kind,
        key_change=KeyChange(row=row, alone=comes and public_hex(by) == row.key),
        steward=row.steward,
        key=row.key,
        signed_by=public_hex(by),
        at=row.at,
        sig=sign(by, statement),
    )


def withdraw_unsigned(home: AgentHome, store: Store) -> None:
    """Take back each approval that some key under it does not count for any more; a steward may sign again."""
    events, keys = SignedEvents(home, store), {row.key for row in store.stewards() if row.standing}
    for made in store.decisions():
        left = [one for one in made.signatures if one.key in keys]
        if made.decision != APPROVED or (left and len(left) == len(made.signatures)):
            continue
        reason = REMOVED_WITH_ITS_KEY if made.signatures else NEVER_SIGNED
        withdrawn = Decision(
            study_digest=made.study_digest,
            study=made.study,
            document=made.document,
            decision=WITHDRAWN,
            steward=made.steward,
            statement=reason,
            at=time.time(),
        )
        events.add(
            entries.StudyRejected,
            decision=withdrawn,
            study=made.study,
            study_digest=made.study_digest,
            steward=events.pseudonym("agent"),
            reason=reason,
        )


# --- signing a decision ----------------------------------------------------------------------------------------------


def about_study(home: AgentHome, study: str, study_digest: Digest) -> About:
    """What a decision of this hospital about a study is about."""
    return About(log=home.log_origin, site=home.site, study=study, study_digest=study_digest)


def steward_of(home: AgentHome, store: Store, name: str, key: Ed25519PrivateKey) -> str:
    """The pseudonym of a steward who is registered under this name with this key; raises StewardRefused."""
    refuse_name("steward", "", name)
    found = next((row for row in store.stewards() if row.standing and row.key == public_hex(key)), None)
    if found is None:
        raise StewardRefused(
            "this key is not registered at this hospital",
            "`site-agent stewards add NAME` registers one; `site-agent stewards list` shows them.",
        )
    if found.steward != home.vault.known(name):
        raise StewardRefused("this key is another steward's", "Give the name that the key was registered under.")
    return found.steward


def sign_about(key: Ed25519PrivateKey, about: About, *, decision: str, steward: str, words: str) -> StewardSignature:
    """One steward's signature of one decision, as of now."""
    return signed_decision(key, about, decision=decision, steward=steward, words=words, at=_now())


def entitled(home: AgentHome, store: Store, name: str, key: Ed25519PrivateKey | None) -> str:
    """The pseudonym of a steward who may approve studies here; raises StewardRefused."""
    if key is None:
        raise StewardRefused(
            "an approval is signed with a steward's own key",
            "`site-agent stewards add NAME` makes one; name its file with --key.",
        )
    pseudonym, allowed = steward_of(home, store, name, key), home.config.policy.may_approve
    if allowed and public_hex(key) not in allowed:
        raise StewardRefused(
            "this steward may not approve studies here (may_approve in site.yaml)",
            "One of those it names approves, or whoever keeps site.yaml adds the key that `stewards list` shows.",
        )
    return pseudonym


def with_others(
    home: AgentHome, store: Store, study: str, digest: Digest, signed: StewardSignature
) -> tuple[tuple[StewardSignature, ...], int]:
    """One steward's approval with those that others gave of the same document; and how many are still missing.

    While some are, it is kept here and nobody is told; what is kept is worth nothing by itself.
    """
    policy, keys = home.config.policy, {row.key for row in store.stewards() if row.standing}
    if policy.may_approve:
        keys &= set(policy.may_approve)
    about = about_study(home, study, digest)
    kept = store.keep_signature(digest, signed)
    good = [one for one in kept if objection_to_approval(about, APPROVED, (one,), keys, ONE_IS_ENOUGH) is None]
    return tuple(good[-SIGNATURES_MAX:]), max(0, policy.approvals_needed - len(good))


def _now() -> str:
    return entries.timestamp(time.time_ns() // 1_000_000)
