"""What this hospital says for the log: each entry signed, counted and chained to the one before, kept until it is in the log."""

import hmac
import os
import time
from typing import Any

from audit import entries
from site_agent.home import AgentHome
from site_agent.store import Decision, Store

_BUCKETS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class SignedEvents:
    """The hospital's own chain of entries."""

    def __init__(self, home: AgentHome, store: Store) -> None:
        self._home = home
        self._store = store

    def add(self, kind: type[entries.SiteEntry], *, decision: Decision | None = None, **fields: Any) -> None:
        """Sign an entry and keep it; a steward's decision is remembered in the same transaction."""

        def build(sequence: int, previous: str) -> bytes:
            entry = kind(
                **entries.stamp(time.time_ns() // 1_000_000, os.urandom(10)),
                actor=f"site:{self._home.site}",
                site_seq=sequence,
                site_prev=previous,
                **fields,
            )
            return entries.sign_site_entry(entry, self._home.signing_key)

        self._store.add_event(build, decision=decision)

    def pseudonym(self, name: str) -> str:
        """How a person of this hospital appears in the log: only this hospital can tell who it is."""
        key = self._home.long_term_secret.expose()
        return "u:" + hmac.new(key, b"consortium/pseudonym/v1\n" + name.encode(), "sha256").hexdigest()[:32]


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
