"""A-01: somebody with the coordinator's disk changes, swaps or removes an entry that was already signed.

Held by: recomputing the root from the stored entries at every start and in fsck; in evidence, by steps 4 and 5.
Tried: rows a01 of `mutations.py`.
"""

import sqlite3

import pytest

from audit import verify
from audit.errors import LogCorrupt, LogFork
from audit.log import Log, LogView
from tests.fakes.sample_study_log import SampleConsortium, evidence, failed_steps, pack, unpack

SWAP = (
    "UPDATE entry SET leaf = leaf + 9999 WHERE leaf IN (7, 8); UPDATE entry SET leaf = 10014 - leaf WHERE leaf > 9999"
)
UNGUARDED = "DROP TRIGGER entry_is_never_changed; DROP TRIGGER entry_is_never_deleted;"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET bytes = CAST(replace(bytes, 'cleveland', 'clevelanx') AS BLOB) WHERE leaf = 1",
        "UPDATE entry SET bytes = 'text' WHERE leaf = 1",
        SWAP,
        "DELETE FROM entry WHERE leaf = (SELECT max(leaf) FROM entry)",
        "DELETE FROM entry WHERE leaf = 3",
        "DELETE FROM entry",
    ],
    ids=["changed", "of another type", "swapped", "last one dropped", "gap", "emptied"],
)
def test_the_log_does_not_open(tmp_path, change):
    sample = SampleConsortium().whole_study()
    sample.open_log(tmp_path / "log").close()
    database = sqlite3.connect(tmp_path / "log/entries.sqlite3")
    database.executescript("PRAGMA ignore_check_constraints = 1;" + UNGUARDED + change)
    database.close()
    for opening in (
        lambda: Log.open(tmp_path / "log", sample.log_signer),
        lambda: LogView.read(tmp_path / "log", sample.log_signer.verifier),
    ):
        with pytest.raises((LogFork, LogCorrupt)) as refused:
            opening()
        assert "backup" in refused.value.advice()


def test_an_entry_changed_in_the_evidence_is_named_by_its_leaf(tmp_path):
    archive, policy = evidence(tmp_path)
    files = unpack(archive)
    name = next(n for n in files if n.startswith("log/tile/entries"))
    parts = list(_entries(files[name]))
    leaf = next(number for number, part in enumerate(parts) if b"round.closed" in part)
    parts[leaf] = parts[leaf].replace(b'"switzerland",', b"")
    files[name] = b"".join(len(part).to_bytes(2) + part for part in parts)
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", files)), policy))
    assert f"leaf {leaf} hashes to" in failed["root recomputed from all entries"]["found"]
    assert failed["tiles agree with the entries"]["where"].endswith(f"leaf {leaf}")


def _entries(data: bytes):
    at = 0
    while at + 2 <= len(data):
        yield data[at + 2 : at + 2 + int.from_bytes(data[at : at + 2])]
        at += 2 + int.from_bytes(data[at : at + 2])


def test_two_entries_swapped_in_the_evidence(tmp_path):
    archive, policy = evidence(tmp_path)
    files = unpack(archive)
    name = next(n for n in files if n.startswith("log/tile/entries"))
    parts = list(_entries(files[name]))
    parts[4], parts[6] = parts[6], parts[4]
    files[name] = b"".join(len(part).to_bytes(2) + part for part in parts)
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", files)), policy))
    assert "leaf 4 hashes to" in failed["root recomputed from all entries"]["found"]
    assert failed["tiles agree with the entries"]["where"].endswith("leaf 4")
