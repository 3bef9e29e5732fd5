"""`site-agent record`: what the hospital declares of itself, signed into its own chain; see `audit.declarations`."""

from collections.abc import Mapping, Sequence

from audit import declarations, entries
from audit.errors import EntryRefused
from audit.vault import Sealed
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.log_copy import open_copy
from site_agent.signed_events import SignedEvents
from site_agent.store import Store


class StudyUndecided(SiteError):
    """A declaration about a study that this hospital never decided about. Whose fault: who typed the name."""

    def __init__(self, study: str, known: Sequence[str]) -> None:
        super().__init__(
            f"this hospital never decided about a study {study!r}; it did about: {', '.join(known) or 'none'}"
        )

    def advice(self) -> str:
        """What to do next."""
        return "`site-agent studies list` shows the names; nothing was signed."


def declare(
    home: AgentHome,
    store: Store,
    kind: str,
    given: Sequence[str],
    *,
    study: str | None,
    document_sha256: str | None,
    person: str,
    kept: Mapping[str, Sealed] | None = None,
) -> bytes:
    """Sign a declaration, and keep it until the log has it; returns its bytes.

    Args:
        home: Whose keys sign, and make the person's pseudonym.
        store: What the agent remembers.
        kind: The declaration's type.
        given: FIELD=VALUE words.
        study: What it is about; None for no study in particular.
        document_sha256: Of the document that says so.
        person: The name of whoever records it; it stays here.
        kept: What goes into the vault with it, by the field of the entry that commits to it.

    Raises:
        EntryRefused: Not a declaration as its rules want it; nothing was signed.
        StudyUndecided: The coordinator would refuse it, and with it all that is signed later.
        CopyMissing: A review of a log that this hospital has no copy of.
    """
    declared, fields = declarations.read(kind, given)
    declarations.refuse_names(kind, fields, person)
    known = sorted({str(made.study) for made in store.decisions()})
    if study is not None and study not in known:
        raise StudyUndecided(study, known)
    if declared is entries.LogReviewed and fields["last_leaf"] >= (size := open_copy(home).size):
        raise EntryRefused(
            f"{kind}.last_leaf", str(fields["last_leaf"]), f"a leaf of the copy here, at most {size - 1}"
        )
    events = SignedEvents(home, store)
    about = {"study": study, "on_behalf": events.pseudonym(person), "document_sha256": document_sha256}
    sealed = kept or {}
    commitments = {field: one.kept.commitment for field, one in sealed.items()}
    if not sealed:
        return events.declare(declared, fields | about)
    vault = home.vault
    with vault.locked():  # so that it cannot be erased before it is signed for
        for one in sealed.values():
            vault.keep(one)
        try:
            return events.declare(declared, fields | about | commitments)
        except EntryRefused:
            for one in sealed.values():
                vault.destroy(one.kept.id)
            raise
