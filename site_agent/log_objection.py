"""What this hospital signs when the log contradicts it: `log.omission` or `witness.refused`, into its own chain.

The agent stops in any case, and keeps the signed checkpoints (`log_mirror.py`). This is the same in its own words,
under its own key: kept in `agent.db` whatever the coordinator does, and handed over like every other entry once one
answers. Each fact is signed once, however often the agent is started again and stops again.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from audit import entries
from audit.checkpoint import Checkpoint, verify_checkpoint
from audit.errors import VerificationError
from audit.fields import one_line
from audit.note import NoteVerifier
from site_agent.followed_log import OMITTED, LogBroken
from site_agent.home import AgentHome
from site_agent.signed_events import SignedEvents
from site_agent.store import Store


def object_to(
    home: AgentHome,
    store: Store,
    broken: LogBroken,
    *,
    witness: str,
    cosigned: int | None,
    missing: int,
    keys: Sequence[NoteVerifier],
) -> bool:
    """Sign what was found; whether that is news.

    Args:
        home: Whose agent this is.
        store: Its memory.
        broken: What was found. Its last note is the checkpoint that is not cosigned.
        witness: Name of the key that this hospital cosigns with.
        cosigned: Entries of the log that it cosigned last, if that is known.
        missing: Counter of its first entry that is not in the log; counts where an entry is missing.
        keys: The log's, one of which must have signed the checkpoint: what nobody signed is no checkpoint of this log.
    """
    try:
        shown = verify_checkpoint(broken.notes[-1] if broken.notes else b"", *keys).checkpoint
    except VerificationError:
        return False
    if broken.kind == OMITTED:
        return _say_omission(SignedEvents(home, store), store, shown, missing)
    where = _where(shown)
    if any(where.items() <= json.loads(data)["body"].items() for data in _all(store, entries.WitnessRefused)):
        return False
    SignedEvents(home, store).declare(
        entries.WitnessRefused,
        {
            "witness": witness,
            "rule": one_line(f"{broken.kind}: {broken.what}"),
            "status": broken.status,
            "witness_size": cosigned,
            "basis": "checkpoint",
            **where,
        },
    )
    return True


def _say_omission(events: SignedEvents, store: Store, shown: Checkpoint, missing: int) -> bool:
    entry = store.signed_entry(missing)
    said = (json.loads(data)["body"]["missing_seq"] for data in _all(store, entries.LogOmission))
    if entry is None or missing in said:
        return False
    events.add(
        entries.LogOmission, missing_seq=missing, missing_sha256=hashlib.sha256(entry).hexdigest(), **_where(shown)
    )
    return True


def _where(shown: Checkpoint) -> dict[str, Any]:
    return {"checkpoint_size": shown.size, "checkpoint_root": shown.root.hex()}


def _all(store: Store, kind: type[entries.Entry]) -> list[bytes]:
    """What this hospital signed of a type before."""
    named = f'"type":"{kind.TYPE}"'.encode()
    return [data for data in store.signed_entries() if named in data]
