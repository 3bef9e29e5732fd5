"""What this hospital says for the log: each entry signed, counted, chained to the last, kept until it is there."""

import os
import time
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from consortium.contract.names import Digest
from site_agent.home import AgentHome
from site_agent.own_key_rows import OwnChange, OwnKeysChanged
from site_agent.steward_rows import KeyChange
from site_agent.store import BuildEntry, ChainLink, Decision, Store
from site_agent.told import Told
from site_agent.withdrawal_rows import Retaken, Withdrawal

_BUCKETS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class SignedEvents:
    """The hospital's own chain of entries."""

    def __init__(self, home: AgentHome, store: Store) -> None:
        self._home = home
        self._store = store

    def add(
        self,
        kind: type[entries.SiteEntry],
        *,
        decision: Decision | None = None,
        closed: tuple[Digest, ChainLink] | None = None,
        key_change: KeyChange | None = None,
        own_keys: OwnChange | None = None,
        durably: bool = True,
        **fields: Any,
    ) -> bytes:
        """Sign an entry and keep it; what it is about is remembered in the same transaction. Returns its bytes.

        Args:
            kind: Which entry.
            decision: What was decided about a study.
            closed: A study and its round that this site saw closed.
            key_change: A steward's key that comes or goes.
            own_keys: The signing keys that this entry names, which every later one stands under.
            durably: Whether it outlives a power cut from now on, or from when anything else is remembered.
            fields: The entry's own.
        """
        made, _ = self._add(
            (kind, fields), decision=decision, closed=closed, key_change=key_change, own_keys=own_keys, durably=durably
        )
        return made[-1]

    def declare(self, kind: type[entries.EitherEntry], fields: dict[str, Any]) -> bytes:
        """Sign what this hospital says of itself, about a study or about none, and keep it. Returns its bytes."""
        made, _ = self._add((kind, fields))
        return made[-1]

    def add_spend(self, kind: type[entries.SiteEntry], spent: Told, **fields: Any) -> bool:
        """Sign for what was spent, and remember that it is signed; False if somebody did meanwhile."""
        return self._add((kind, fields), spent=spent)[1]

    def told(self) -> tuple[Told, ...]:
        """What this hospital has signed that it spent: the last spend of every study on every dataset."""
        return self._store.told()

    def announce(self, study_digest: Digest, *announced: tuple[type[entries.SiteEntry], dict[str, Any]]) -> bool:
        """Sign the entries that announce a study, all of them, the first time only; whether this was the first."""
        return self._add(*announced, announcing=study_digest)[1]

    def retake(self, retaken: Retaken, kind: type[entries.SiteEntry], fields: dict[str, Any]) -> bool:
        """Sign for a study's cohort again, if that is due: somebody withdrew. Whether it was."""
        return self._add((kind, fields), retaken=retaken)[1]

    def withdraw(self, withdrawal: Withdrawal, studies: Iterable[tuple[str, str]]) -> None:
        """Remember patients who withdrew, and sign that they did, for each study with its dataset."""
        said = ((entries.PatientsWithdrawn, {"study": study, "dataset": dataset}) for study, dataset in studies)
        self._add(*said, withdrawal=withdrawal)

    def pseudonym(self, name: str) -> str:
        """How a person of this hospital appears in the log: only it can tell who it is, until it erases it."""
        return self._home.vault.pseudonym(name)

    def _add(
        self, *said: tuple[type[entries.SiteEntry], dict[str, Any]], **remembered: Any
    ) -> tuple[list[bytes], bool]:
        """Sign these entries and keep them, with what is remembered of them; their bytes, and what the store says."""
        while True:
            under = self._store.own_keys()
            made: list[bytes] = []
            key = self._home.signing_key_of(under)
            builds = [self._build(kind, fields, key, made) for kind, fields in said]
            try:
                return made, self._store.add_events(builds, under=under, **remembered)
            except OwnKeysChanged:  # by another process, since they were read: once more, with the new ones
                continue

    def _build(
        self, kind: type[entries.SiteEntry], fields: dict[str, Any], key: Ed25519PrivateKey, made: list[bytes]
    ) -> BuildEntry:
        def build(sequence: int, previous: str) -> bytes:
            entry = kind(
                **entries.stamp(time.time_ns() // 1_000_000, os.urandom(10)),
                actor=f"site:{self._home.site}",
                site_seq=sequence,
                site_prev=previous,
                **fields,
            )
            made.append(entries.sign_site_entry(entry, key))
            return made[-1]

        return build


def bucket_of(count: int) -> str:
    """A count as the log may know it: a range, never the number.

    | count | bucket |
    |---|---|
    | 7 | 0-9 |
    | 199 | 100-199 |
    | 100000 | 100000+ |
    """
    low = 0
    for bound in _BUCKETS:
        if count < bound:
            return f"{low}-{bound - 1}"
        low = bound
    return f"{low}+"
