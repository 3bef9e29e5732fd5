"""What this hospital's agent says of itself when it starts: that its rules or its software are not those of last time.

Signed into the hospital's own chain, so that nobody can say it for the hospital. Of site.yaml the digest alone: it
names folders and limits that are nobody else's business.
"""

import hashlib
from typing import TypeVar

from audit import entries
from consortium.contract.software import code_digest, software
from site_agent.home import AgentHome
from site_agent.signed_events import SignedEvents
from site_agent.store import Store

RULES = "site.yaml"
Said = TypeVar("Said", entries.ConfigChanged, entries.SoftwareDeployed)


def announce_start(home: AgentHome, store: Store) -> bool:
    """Sign what is new about this agent; whether there was anything. Call it once the agent's history is checked."""
    events = SignedEvents(home, store)
    rules = hashlib.sha256((home.folder / RULES).read_bytes()).hexdigest()
    versions, code = software(), code_digest()
    before = _last(store, entries.SoftwareDeployed)
    fresh = before is None or (before.software, before.code_sha256) != (versions, code)
    if fresh:
        said = {"component": "site-agent", "software": versions, "code_sha256": code}
        events.declare(entries.SoftwareDeployed, said)
    known = _last(store, entries.ConfigChanged)
    if known is None or known.sha256 != rules:
        previous = known.sha256 if known is not None else None
        events.declare(entries.ConfigChanged, {"file": RULES, "sha256": rules, "previous_sha256": previous})
        return True
    return fresh


def _last(store: Store, kind: type[Said]) -> Said | None:
    """The newest entry of a type that this hospital signed."""
    named = f'"type":"{kind.TYPE}"'.encode()
    for data in reversed(store.signed_entries()):
        if named in data:  # parsing all of a long chain takes too long
            entry = entries.parse_entry(data)
            if isinstance(entry, kind):
                return entry
    return None
