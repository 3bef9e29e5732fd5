"""Small CSV, TSV and JSON files that list images or labels, read whole as text cells.

A table that cannot be read at all, or lacks a column, is the dataset's fault; a line that cannot be used is left out.
"""

import csv
import json
import stat
from pathlib import Path
from typing import Any

from site_agent.data_faults import Faults

LIST_BYTES_MAX = 256 * 2**20
RECORDS_MAX = 5_000_000


def read_rows(path: Path, columns: dict[str, str], faults: Faults, *, delimiter: str = ",") -> list[dict[str, str]]:
    """The cells of the named columns (name -> what for), one dict a line; raises DataInvalid.

    A line with too few cells has empty ones at its end.
    """
    text = _text(path, "a CSV file in UTF-8", faults)
    try:
        rows = csv.reader(text.splitlines(), strict=True, delimiter=delimiter)
        header = [name.strip() for name in next(rows, [])]
        for name, role in columns.items():
            if header.count(name) != 1:
                faults.add(name, f"{header.count(name)} columns of that name", f"one, it is {role}")
        if any(header.count(name) != 1 for name in columns):
            raise faults.error()
        places = {name: header.index(name) for name in columns}
        found = [
            {name: row[place].strip() if place < len(row) else "" for name, place in places.items()}
            for row in rows
            if row
        ]
    except csv.Error:
        faults.add("", "a list that is not CSV", "comma-separated values, with one line of column names")
        raise faults.error() from None
    return _bounded(found, faults)


def read_list(path: Path, section: str, faults: Faults) -> list[Any]:
    """The list under `section` of a JSON file; raises DataInvalid."""
    text = _text(path, "a JSON file in UTF-8", faults)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        faults.add("", "a list that is not JSON", "a JSON object with a list of images")
        raise faults.error() from None
    entries = document.get(section) if isinstance(document, dict) else None
    if not isinstance(entries, list):
        faults.add("", f"no list under {section}", f"a JSON object with a list of images under {section}")
        raise faults.error()
    return _bounded(entries, faults)


def _bounded(found: list[Any], faults: Faults) -> list[Any]:
    if len(found) > RECORDS_MAX:
        faults.add("", f"{len(found)} records", f"at most {RECORDS_MAX}")
        raise faults.error()
    return found


def _text(path: Path, allowed: str, faults: Faults) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LIST_BYTES_MAX:
            faults.add("", "a list that is not a file, or too large", f"{allowed}, of at most {LIST_BYTES_MAX} bytes")
            raise faults.error()
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        faults.add("", "a list with bytes that are not UTF-8", allowed)
    except OSError as error:
        faults.add("", f"a list that cannot be read ({error.strerror})", allowed)
    raise faults.error() from None
