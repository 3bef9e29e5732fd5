"""New signing keys for this hospital: `site-agent rotate-signing-keys`. ADR 50; log format section 14.

    1 the command makes the keys, has a steward sign for them, and keeps both in keys/next-signing-keys.json
    2 between two rounds the agent (or, where none runs, the command) checks that, and signs `site.keys_rotated` with
      the old key; in the same transaction entries begin to stand under the new ones
    3 the new keys are put in the place of the old ones, which are destroyed
    4 the entry is handed over, and a certificate for the new keys and a new TLS key is asked for, as at every renewal
Whatever is interrupted is gone on with: 3 when the home is used next, 4 when the agent is connected.
"""

import asyncio
import base64
import time
from datetime import UTC, datetime
from typing import Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.site_keys import SigningKeys, keys_statement
from audit.stewards import StewardKeys, keys_after, public_hex, sign
from consortium.wire.client import CoordinatorClient
from privacy.p256 import EcdsaSigner
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.own_key_rows import OwnChange, StewardGone
from site_agent.renewal import renew
from site_agent.signed_events import SignedEvents
from site_agent.signing_keys import (
    OwnPair,
    StewardWord,
    discard_next_keys,
    keep_next_keys,
    new_pair,
    read_next_keys,
    settle,
)
from site_agent.stewards import steward_of
from site_agent.store import Store

log = structlog.get_logger(__name__)


class SigningKeysKept(SiteError):
    """The signing keys were not changed; those that are there go on."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


class HandsOver(Protocol):
    """The connection, as far as a change of keys needs it."""

    async def submit_events(self) -> None:
        """Hand over what is signed and not in the log yet."""


def settle_keys(home: AgentHome, store: Store) -> None:
    """Finish with the files what a process that died has left; raises SigningKeysKept if the disk refuses."""

    def finish(standing: SigningKeys | None) -> None:
        try:
            settle(home.folder, standing)
        except OSError as error:
            raise _unwritable(home, error) from error

    store.settle_own_keys(finish)


def prepare(home: AgentHome, store: Store, name: str, steward_key: Ed25519PrivateKey) -> SigningKeys:
    """Make the next keys and have a steward sign for them; nothing is changed yet. Returns their public halves.

    Raises:
        StewardRefused: Whoever signs is no steward here.
        SigningKeysKept: This hospital has no steward whom the log knows from before, its stewards' keys were begun
            anew, a change is under way already, or the disk refuses.
    """
    settle_keys(home, store)
    if not any(row.standing for row in store.stewards()):
        raise SigningKeysKept(
            "this hospital has no steward with a key of their own, whose word a change of signing keys takes",
            "Register one first: site-agent stewards add NAME. Or have the hospital revoked and invited again.",
        )
    steward = steward_of(home, store, name, steward_key)
    _require_steward(_stewards_by_own_entries(home, store), public_hex(steward_key), steward)
    pair, at, old = new_pair(), entries.timestamp(time.time_ns() // 1_000_000), home.signing_keys
    statement = keys_statement(log=home.log_origin, site=home.site, old=old, new=pair.public, steward=steward, at=at)
    word = StewardWord(
        steward=steward, steward_key=public_hex(steward_key), at=at, steward_sig=sign(steward_key, statement)
    )
    try:
        following = OwnPair(signing=pair.signing, ecdsa=pair.ecdsa, word=word)
        store.settle_own_keys(lambda _: keep_next_keys(home.folder, following))
    except FileExistsError as error:
        raise SigningKeysKept(
            "a change of the signing keys is under way already",
            "Start the agent if it does not run: it carries the change out between two rounds.",
        ) from error
    except OSError as error:
        raise _unwritable(home, error) from error
    return pair.public


def is_prepared(home: AgentHome) -> bool:
    """Whether keys wait to be changed to."""
    return read_next_keys(home.folder) is not None


def sign_change(home: AgentHome, store: Store) -> bool:
    """Steps 2 and 3: sign the change that was prepared; from here on the new keys are the hospital's.

    To be called by the process that holds the home's lock, with no round under way. False if nothing is prepared.

    Raises:
        SigningKeysKept: What was prepared does not hold any more, and is discarded; or the disk refuses.
    """
    settle_keys(home, store)
    following, old = read_next_keys(home.folder), home.signing_keys
    if following is None or following.word is None:
        return False
    word, new = following.word, following.public
    statement = keys_statement(log=home.log_origin, site=home.site, old=old, new=new, steward=word.steward, at=word.at)
    try:
        _require_steward(_stewards_by_own_entries(home, store), word.steward_key, word.steward)
        SignedEvents(home, store).add(
            entries.SiteKeysRotated,
            own_keys=OwnChange(keys=new, steward_key=word.steward_key),
            old_signing_key=old.signing,
            old_ecdsa_key=old.ecdsa,
            signing_key=new.signing,
            ecdsa_key=new.ecdsa,
            **word.model_dump(),
            signing_sig=sign(following.signing, statement),
            ecdsa_sig=base64.b64encode(EcdsaSigner(following.ecdsa).sign(statement)).decode(),
        )
    except (SigningKeysKept, StewardGone) as error:
        store.settle_own_keys(lambda standing: discard_next_keys(home.folder, standing))
        raise SigningKeysKept(
            "whoever signed for the new signing keys is no steward here any more; they are discarded",
            "Run site-agent rotate-signing-keys again, with a steward whose key counts.",
        ) from error
    settle_keys(home, store)
    log.info("keys.changed", signing_key=new.signing, steward=word.steward)
    return True


async def carry_out(home: AgentHome, store: Store, line: HandsOver, client: CoordinatorClient) -> bool:
    """Steps 2 to 4 over a connection, all of them. False if nothing is prepared.

    Raises:
        SigningKeysKept: See `sign_change`.
        CertificateRefused, RenewalUnwritable, WireError: The keys are changed, and the certificate is still to come.
    """
    if not await asyncio.to_thread(sign_change, home, store):
        return False
    await line.submit_events()
    await renew(home, client, datetime.now(UTC))
    return True


def _stewards_by_own_entries(home: AgentHome, store: Store) -> StewardKeys:
    """The stewards as everybody who reads the log knows them: by this hospital's own entries."""
    signed = (entries.parse_entry(data) for data in store.signed_entries() if b'"type":"steward.' in data)
    changes = (one for one in signed if isinstance(one, entries.StewardEnrolled | entries.StewardRemoved))
    return keys_after(changes, home.log_origin)


def _require_steward(stewards: StewardKeys, key: str, steward: str) -> None:
    if stewards.begun_anew:
        raise SigningKeysKept(
            "the stewards' keys of this hospital were begun anew, without the word of a steward of before",
            "Have the hospital revoked and invited again; other hospitals confirm its new keys by telephone.",
        )
    if stewards.standing.get(key) != steward:
        raise SigningKeysKept(
            "the log does not have this steward's key", "Register it first: site-agent stewards add NAME."
        )


def _unwritable(home: AgentHome, error: OSError) -> SigningKeysKept:
    return SigningKeysKept(
        f"{home.folder / 'keys'} could not be written: {error.strerror or error}",
        "Free some space or mend the permissions, then try again; the keys that are there go on.",
    )
