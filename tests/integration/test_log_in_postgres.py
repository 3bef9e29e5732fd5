"""A log whose entries are in a real PostgreSQL: what holds for SQLite holds here, and one writer on all machines."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from audit import merkle
from audit.errors import LogCorrupt, LogExists, LogFork, LogUnwritable
from audit.fsck import examine
from audit.log import Log, LogView
from audit.storage import DirectoryStorage
from audit.storage_postgres import FILES, TABLE, PostgresStorage
from tests.fakes import postgres_server
from tests.fakes.failing_storage import FailingStorage
from tests.fakes.old_log import OldConsortium, drop
from tests.fakes.sample_study_log import SampleConsortium

SAMPLE = SampleConsortium(rounds=1)
SAMPLE.opening()
SAMPLE.agreeing()
SAMPLE.one_round(1)
SIGNER, LINES = SAMPLE.log_signer, SAMPLE.lines
NUMBERS = itertools.count()


server = pytest.fixture(scope="module")(postgres_server.running)


@pytest.fixture
def url(server):
    return server.url(f"s{next(NUMBERS)}")


def test_a_log_from_its_first_entry_on(url, tmp_path):
    log = Log.create(tmp_path / "log", SIGNER, url)
    assert log.append(LINES[:9]) == tuple(range(9))
    view = LogView.read(tmp_path / "log", SIGNER.verifier, url)
    assert log.append(LINES[9:]) == tuple(range(9, len(LINES)))
    head = log.checkpoint().checkpoint
    assert (head.size, head.root) == (len(LINES), merkle.root(map(merkle.leaf_hash, LINES)))
    assert (view.size, list(view.entries())) == (9, LINES[:9])
    view.close()
    log.close()
    assert not (tmp_path / "log/entries.sqlite3").exists()
    found = examine(tmp_path / "log", SIGNER.verifier, url)
    assert (found.entries, found.root) == (head.size, head.root)
    again = Log.open(tmp_path / "log", SIGNER, url)
    assert list(again.entries()) == LINES
    many = [b"%d" % number for number in range(300)]
    assert again.append([*many, b"\x00" * 65_535])[-1] == len(LINES) + 300
    assert list(again.entries(len(LINES))) == [*many, b"\x00" * 65_535]
    assert again.fsck() == again.size
    again.close()


def test_entries_are_never_changed_through_sql(url, tmp_path):
    log = Log.create(tmp_path / "log", SIGNER, url)
    log.append(LINES)
    for statement in (f"UPDATE {TABLE} SET bytes = ''", f"DELETE FROM {TABLE}", f"TRUNCATE {TABLE}"):
        with psycopg.connect(url, autocommit=True) as connection, pytest.raises(psycopg.Error, match="never changed"):
            connection.execute(statement)
    log.close()


def test_one_writer_for_a_database_whatever_the_folder(url, tmp_path):
    log = Log.create(tmp_path / "here", SIGNER, url)
    log.append(LINES)
    shutil.copytree(tmp_path / "here", tmp_path / "there")  # as if on another machine
    code = f"""
from pathlib import Path
from audit.errors import LogLocked
from audit.log import Log
from tests.fakes.sample_study_log import SampleConsortium
try:
    Log.open(Path({str(tmp_path / "there")!r}), SampleConsortium().log_signer, {url!r})
except LogLocked as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert "already open in another process" in told.stdout
    log.append([b"goes on"])
    log.close()
    # The other folder's checkpoint is older; it may go on from the entries that there are, and signs no other history.
    there = Log.open(tmp_path / "there", SIGNER, url)
    assert list(there.entries()) == [*LINES, b"goes on"]
    there.close()


def test_a_connection_that_is_lost_stops_the_log(server, url, tmp_path):
    log = Log.create(tmp_path / "log", SIGNER, url)
    log.append(LINES)
    server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datid > 0")
    for _ in range(2):
        with pytest.raises(LogUnwritable, match="PostgreSQL") as stopped:
            log.append([b"next"])
    assert "start the coordinator again" in stopped.value.advice()
    log.close()
    again = Log.open(tmp_path / "log", SIGNER, url)
    assert list(again.entries()) == LINES
    again.append([b"next"])
    again.close()


def test_a_server_that_dies_keeps_what_was_acknowledged(server, url, tmp_path):
    log = Log.create(tmp_path / "log", SIGNER, url)
    log.append(LINES)
    server.kill()
    with pytest.raises(LogUnwritable):
        log.append([b"next"])
    log.close()
    with pytest.raises(LogUnwritable, match="PostgreSQL: connection"):
        Log.open(tmp_path / "log", SIGNER, url)
    server.start("fsync=off")
    with pytest.raises(LogUnwritable, match="fsync off"):
        Log.open(tmp_path / "log", SIGNER, url)
    server.kill()
    server.start()
    again = Log.open(tmp_path / "log", SIGNER, url)
    assert list(again.entries()) == LINES
    assert again.fsck() == len(LINES)
    again.close()


def test_a_database_that_is_not_the_one_of_the_checkpoint(server, url, tmp_path):
    log = Log.create(tmp_path / "log", SIGNER, url)
    log.append(LINES)
    log.close()
    with pytest.raises(LogCorrupt, match="the log's table"):
        LogView.read(tmp_path / "log", SIGNER.verifier, server.url("empty"))
    with pytest.raises(LogFork, match="at least"):  # set back to before the first entry
        Log.open(tmp_path / "log", SIGNER, server.url("older"))
    with pytest.raises(LogExists):
        Log.create(tmp_path / "other", SIGNER, url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER ALL; DELETE FROM {TABLE} WHERE leaf = 5")
    with pytest.raises(LogCorrupt, match="entries 0 to"):
        Log.open(tmp_path / "log", SIGNER, url)


@pytest.mark.parametrize("kept", [False, True])
def test_a_crash_at_every_durable_write(url, tmp_path, kept, server):
    fail_at = 1
    while True:
        directory, own = tmp_path / f"{fail_at}", server.url(f"c{fail_at}{kept}")
        Log.create(directory, SIGNER, own).close()
        failing = FailingStorage(PostgresStorage(directory, own, writable=True), fail_at=fail_at, kept=kept)
        log = Log(failing, SIGNER)
        acknowledged: list[bytes] = []
        try:
            for part in (LINES[:3], LINES[3:4]):
                log.append(part)
                acknowledged += part
        except LogUnwritable:
            log.close()
        else:
            log.close()
            break
        again = Log.open(directory, SIGNER, own)
        stored = list(again.entries())
        assert stored[: len(acknowledged)] == acknowledged
        assert stored == LINES[: len(stored)]
        assert again.fsck() == len(stored)
        again.close()
        fail_at += 1
    assert fail_at == 9  # four durable writes for each of two appends


def test_without_psycopg_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "audit.storage_postgres", None)
    with pytest.raises(LogUnwritable, match=r"hospital-consortium\[postgres\]"):
        Log.create(tmp_path / "log", SIGNER, "postgresql://nobody@nowhere/none")
    DirectoryStorage(tmp_path / "log", writable=True).close()  # nothing is held


def test_the_coordinators_commands(server, url, tmp_path):
    """From `consortium init` on: the log is in the database, and whoever reads it finds it there."""
    home = tmp_path / "hub"
    program = [sys.executable, "-m", "consortium"]
    made = [*program, "init", str(home), "--name", "cardio", "--address", "localhost:8443", "--log-entries", url]
    subprocess.run(made, check=True, capture_output=True)
    invited = [*program, "site", "invite", "north", "--home", str(home), "--out", str(tmp_path / "kit.zip")]
    subprocess.run(invited, check=True, capture_output=True)
    sound = [*program, "audit", "fsck", "--home", str(home)]
    told = subprocess.run(sound, check=True, capture_output=True, text=True).stdout
    with psycopg.connect(url) as connection:
        ((count,),) = connection.execute(
            f'SELECT count(*) FROM {TABLE} WHERE bytes LIKE \'%"site":"north"%\''
        ).fetchall()
    assert count == 1
    assert "is sound: 2 entries" in told
    assert not (home / "log/entries.sqlite3").exists()


def test_entries_that_a_policy_let_go(url, tmp_path):
    sample = OldConsortium(heartbeats=300)
    sample.opening()
    log = Log.create(tmp_path / "log", sample.log_signer, url)
    log.append(sample.lines)
    leaves = drop(sample, log)
    log.close()
    again = Log.open(tmp_path / "log", sample.log_signer, url)
    assert again.fsck() == len(sample.lines) + 1
    assert [data is None for data in again.known(0, 256)] == [leaf in leaves for leaf in range(256)]
    again.append([b"more"])
    again.close()
    with psycopg.connect(url, autocommit=True) as connection:
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall()
        assert rows == len(sample.lines) + 2 - leaves.count
        with pytest.raises(psycopg.Error, match="never changed"):
            connection.execute(f"DELETE FROM {TABLE}")


def test_another_machine_goes_on_with_keys_and_database_alone(url, tmp_path):
    """Its folder is empty, then older than the database; what cannot be derived comes from there."""
    log = Log.create(tmp_path / "one", SIGNER, url)
    log.append(LINES[:9])
    log.keep_stepping_stone(3, b"a stone")
    log.close()
    two = Log.open(tmp_path / "two", SIGNER, url)
    assert (list(two.entries()), two.stepping_stone(3)) == (LINES[:9], b"a stone")
    assert two.append(LINES[9:])[-1] == len(LINES) - 1
    assert two.fsck() == len(LINES)
    two.close()
    back = Log.open(tmp_path / "one", SIGNER, url)
    assert back.fsck() == len(LINES)
    back.close()


def test_another_machine_has_the_hashes_of_what_was_dropped(url, tmp_path):
    past = OldConsortium(heartbeats=300)
    past.whole_study()
    log = Log.create(tmp_path / "one", past.log_signer, url)
    log.append(past.lines)
    gone = drop(past, log)
    log.close()
    two = Log.open(tmp_path / "two", past.log_signer, url)
    assert two.dropped.bits == gone.bits
    two.append([b"{}"])
    assert two.fsck() == two.size
    two.close()


def test_a_database_set_back_does_not_pass_with_a_folder_that_knows_more(url, tmp_path):
    log = Log.create(tmp_path / "log", SIGNER, url)
    log.append(LINES[:9])
    older = (tmp_path / "log/public/checkpoint").read_bytes()
    log.append(LINES[9:])
    log.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER ALL")
        connection.execute(f"DELETE FROM {TABLE} WHERE leaf >= 9")
        connection.execute(f"UPDATE {FILES} SET bytes = %s WHERE path = 'checkpoint'", (older,))
    with pytest.raises(LogFork):
        Log.open(tmp_path / "log", SIGNER, url)
