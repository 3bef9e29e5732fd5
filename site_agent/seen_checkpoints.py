"""The last checkpoint that each hospital is known to have cosigned, kept beside the copy: `log/cosigned.json`.

Whoever reads it verifies every note again: the file is a convenience, and proves nothing by being there.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from audit.checkpoint import SignedCheckpoint
from consortium.contract.names import SiteId

_NAME = "cosigned.json"
_BYTES_MAX = 4 << 20


def keep_seen(folder: Path, cosigned: Mapping[SiteId, SignedCheckpoint]) -> None:
    """Write it anew; a disk that refuses leaves the older one, or none."""
    notes = {str(site): signed.to_bytes().decode() for site, signed in sorted(cosigned.items())}
    path = folder / _NAME
    scratch = path.with_suffix(".partial")
    with suppress(OSError):
        scratch.write_text(json.dumps(notes), encoding="utf-8")
        scratch.replace(path)


def read_seen(folder: Path) -> tuple[bytes, ...]:
    """The notes, believed by nobody yet; none if there is no such file, or it is damaged."""
    try:
        with (folder / _NAME).open("rb") as file:
            found = json.loads(file.read(_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return ()
    notes = found.values() if isinstance(found, dict) else ()
    return tuple(note.encode() for note in notes if isinstance(note, str))
