"""`consortium record`: what the coordinator declares of itself, in the log; the fields are `audit.declarations`'."""

from collections.abc import Sequence

from audit import declarations, entries
from audit.erasure import commitments_of
from audit.errors import EntryRefused
from audit.vault_files import PayloadUnknown
from consortium.home import CoordinatorHome
from consortium.record import Recorder, now_stamp
from consortium.studies import Studies


def record(
    home: CoordinatorHome,
    recorder: Recorder,
    studies: Studies,
    kind: str,
    given: Sequence[str],
    *,
    study: str | None,
    document_sha256: str | None,
    person: str,
    document_commitment: str | None = None,
    note_commitment: str | None = None,
) -> entries.Declaration:
    """Log a declaration of the coordinator's; returns it.

    Args:
        home: Whose vault makes the person's pseudonym.
        recorder: The log.
        studies: The register, for a declaration about a study.
        kind: Its type.
        given: FIELD=VALUE words.
        study: What it is about; None for no study in particular.
        document_sha256: Of the document that says so.
        person: The name of whoever records it; it stays here.
        document_commitment: Instead, to a document that lies in the vault already.
        note_commitment: To words that lie there already.

    Raises:
        EntryRefused: Not a declaration as its rules want it.
        StudyUnknown: No such study was submitted.
        PayloadUnknown: What it commits to is not in the vault; or not any more.
    """
    declared, fields = declarations.read(kind, given)
    declarations.refuse_names(kind, fields, person)
    if study is not None:
        studies.get(study)
    vault = home.vault
    entry = declared(
        **now_stamp(),
        study=study,
        on_behalf=vault.pseudonym(person),
        document_sha256=document_sha256,
        document_commitment=document_commitment,
        note_commitment=note_commitment,
        **fields,
    )
    size = recorder.log.size
    if isinstance(entry, entries.LogReviewed) and entry.last_leaf >= size:
        raise EntryRefused(f"{kind}.last_leaf", str(entry.last_leaf), f"a leaf of this log, at most {size - 1}")
    commitments = commitments_of(entry)
    if not commitments:
        recorder.record(entries.entry_bytes(entry))
        return entry
    with vault.locked():  # it cannot be erased between the look and the entry
        missing = [one for one in commitments if not vault.has(one)]
        if missing:
            raise PayloadUnknown(f"nothing in the vault here has the commitment {missing[0]}")
        recorder.record(entries.entry_bytes(entry))
    return entry
