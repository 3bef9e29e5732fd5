"""Showing a kept payload to whoever may ask: with what checks it, or with where the log says that it was erased.

To check without this software: SHA-256 over one byte 01, the 32 bytes of the salt and the payload is the commitment in
the entry at the leaf that is named, and `audit proof LEAF` is the receipt of that entry.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.vault_files import PayloadUnknown, VaultFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosed:
    """A payload with its salt; or neither, if it was erased."""

    row: dict[str, Any]  # as `erasure.Row.to_json` writes it
    payload: bytes | None
    salt: bytes | None

    def to_json(self) -> dict[str, Any]:
        """The row, with salt and payload in hexadecimal where they are still there."""
        told = {"salt": self.salt and self.salt.hex(), "payload": self.payload and self.payload.hex()}
        return self.row | told


def disclose(vault: VaultFiles, rows: list[dict[str, Any]], payload: str) -> Disclosed:
    """A payload of which the log's keeper has told the rows.

    Raises:
        PayloadUnknown: Nothing of that name is kept or was.
        PayloadDamaged: It is not what was committed to.
    """
    found = [row for row in rows if row["id"] == payload]
    if not found:
        raise PayloadUnknown(f"no payload {payload[:40]!r} is kept here, and none was erased")
    if found[0]["state"] == "erased":
        return Disclosed(row=found[0], payload=None, salt=None)
    _, plain, opening = vault.open(payload)
    return Disclosed(row=found[0], payload=plain, salt=opening.expose_salt())


def line(row: dict[str, Any]) -> list[str]:
    """A row for a table: id, state, fact, part, about whom, study, leaf, erased."""
    erased = f"{row['erased_at'][:10]}, {_leaf(row['erased_leaf'])}" if row["erased_at"] else ""
    whom = row["subject_name"] or row["subject"] or ""
    leaf = _leaf(row["leaf"]) if row["named"] else "no entry here"
    return [row["id"], row["state"], row["fact"] or "", row["part"] or "", whom, row["study"] or "", leaf, erased]


def describe(shown: Disclosed, out: Path | None) -> str:
    """For a terminal: the payload itself if it is text, and what checks it."""
    row = shown.row
    if shown.payload is None or shown.salt is None:
        return f"{row['id']}: erased on {row['erased_at'][:10]} ({_leaf(row['erased_leaf'])}); nobody can open it."
    where = f"{row['fact']} at {_leaf(row['leaf'])}" if row["named"] else "no entry of the log"
    lines = [f"{row['id']}: {row['part']} of {where}, kept on {row['kept_at'][:10]}."]
    lines += [f"commitment  {row['commitment']} (agrees)", f"salt        {shown.salt.hex()}"]
    if out is not None:
        return "\n".join([*lines, f"payload     {len(shown.payload):,} bytes in {out}"])
    text = shown.payload.decode("utf-8", "replace")
    if not all(c.isprintable() or c in "\n\t" for c in text):
        return "\n".join([*lines, f"payload     {len(shown.payload):,} bytes that are no text: name a file with --out"])
    return "\n".join([*lines, "", text])


def _leaf(leaf: int | None) -> str:
    return "not in the log's copy here yet" if leaf is None else f"leaf {leaf}"
