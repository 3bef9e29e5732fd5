"""A steward of every hospital in the tests: the key, registered in the agent's memory, and decisions it signed.

Registered without an entry in the log, so that a test which counts entries counts its own. `tests/unit/site_agent/
test_stewards.py` registers keys as the command line does.
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.entry_types.steward_entries import StewardSignature
from audit.stewards import APPROVED, public_hex
from consortium.contract.study import StudyFile
from site_agent.home import AgentHome
from site_agent.steward_rows import KeyChange, StewardRow
from site_agent.stewards import about_study, enrol_steward, sign_about
from site_agent.store import Store

KEY = Ed25519PrivateKey.from_private_bytes(b"a steward's key, for tests alone")
NAME = "Dr Ada Steward"


def registered(home: AgentHome, store: Store, name: str = NAME, key: Ed25519PrivateKey = KEY) -> Ed25519PrivateKey:
    """The steward's key, which counts at this hospital from now on."""
    if public_hex(key) not in {row.key for row in store.stewards()}:
        row = StewardRow(
            key=public_hex(key), steward=home.vault.pseudonym(name), at="2026-01-01T00:00:00.000Z", standing=True
        )
        store.add_events([], key_change=KeyChange(row=row))
    return key


def in_log(home: AgentHome, store: Store, name: str = NAME, key: Ed25519PrivateKey = KEY) -> Ed25519PrivateKey:
    """The same, with the entry that says so, as `site-agent stewards add` makes it."""
    enrol_steward(home, store, name, key)
    return key


def signed(
    home: AgentHome, store: Store, study: StudyFile, decision: str = APPROVED, words: str = "I have read it."
) -> tuple[StewardSignature, ...]:
    """What the steward's signature under a decision is, by a key that counts."""
    key = registered(home, store)
    about = about_study(home, study.id, study.digest())
    return (sign_about(key, about, decision=decision, steward=home.vault.pseudonym(NAME), words=words),)
