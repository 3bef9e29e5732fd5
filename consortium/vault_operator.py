"""What the command line does with the coordinator's vault: it opens and seals there itself, so that nothing travels."""

from pathlib import Path
from typing import Any

from audit.disclosure import Disclosed, disclose
from audit.vault import PAYLOAD_BYTES_MAX
from consortium.contract.documents import document_sha256, read_document
from consortium.home import open_home
from consortium.operator import run_command
from consortium.vault import drop, keep

_NOT_RECORDED = frozenset({"invalid", "not_found", "conflict", "refused"})
"""Codes of errors after which it is certain that no entry was written."""


async def declare(
    folder: Path,
    kind: str,
    given: list[str],
    *,
    study: str | None,
    document: Path | None,
    keep_document: bool,
    note: str | None,
    subject: str,
    by: str,
) -> dict[str, Any]:
    """Have a fact recorded; what it commits to is sealed before, and destroyed again if the fact is refused.

    Raises:
        DocumentUnreadable: The document is none, or too large to be kept.
        EntryRefused: Not a declaration.
        ConsortiumError, WireError: The coordinator refuses it, or could not be reached.
    """
    arguments: dict[str, object] = {"kind": kind, "fields": given, "study": study, "by": by}
    if document is not None and not keep_document:
        arguments["document_sha256"] = document_sha256(document)
    data = read_document(document, PAYLOAD_BYTES_MAX) if document is not None and keep_document else None
    kept: dict[str, str] = {}
    if data is not None or note is not None:
        home = open_home(folder)
        kept = keep(home, kind, given, study=study, subject=subject, document=data, note=note)
    try:
        return await run_command(folder, "record", arguments | kept)
    except Exception as error:
        if kept and getattr(error, "code", "") in _NOT_RECORDED:
            drop(open_home(folder), kept.values())
        raise


async def show(folder: Path, payload: str) -> Disclosed:
    """A payload, checked; raises PayloadUnknown or PayloadDamaged."""
    rows = (await run_command(folder, "audit.payloads", {}))["payloads"]
    return disclose(open_home(folder).vault, rows, payload)
