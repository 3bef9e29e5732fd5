"""State and log move together, whenever the process stops."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from audit import entries
from audit.errors import LogUnwritable
from audit.fields import one_line
from audit.log import Log
from audit.note import NoteSigner
from consortium.contract.certificates import new_signing_key
from consortium.database import Database, outbox
from consortium.record import Recorder, now_stamp

SIGNER = NoteSigner("example.org/test", new_signing_key())


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log.create(tmp_path / "log", SIGNER)
    yield log
    log.close()


def entry(site: str) -> bytes:
    return entries.entry_bytes(entries.SiteInvited(**now_stamp(), site=site))


def queued(database: Database) -> int:
    with database.transaction() as connection:
        return len(connection.execute(sa.select(outbox.c.id)).all())


def test_entries_reach_the_log_in_order_and_leave_the_outbox(database: Database, log: Log) -> None:
    recorder = Recorder(database, log)
    written = [entry(f"site-{number}") for number in range(5)]
    recorder.record(*written[:2])
    recorder.record(*written[2:])
    assert list(log.entries()) == written
    assert queued(database) == 0
    recorder.flush()
    recorder.record()
    assert log.size == 5


def test_what_is_rolled_back_is_not_logged(database: Database, log: Log) -> None:
    recorder = Recorder(database, log)

    def fail() -> None:
        with database.transaction() as connection:
            recorder.add(connection, [entry("site-a")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    recorder.flush()
    assert log.size == 0


def test_a_crash_before_the_append_loses_nothing(database: Database, log: Log) -> None:
    first, second = entry("site-a"), entry("site-b")
    recorder = Recorder(database, log)
    with database.transaction() as connection:
        recorder.add(connection, [first, second])
    Recorder(database, log)  # the next start
    assert list(log.entries()) == [first, second]
    assert queued(database) == 0


def test_a_crash_between_append_and_delete_duplicates_nothing(
    database: Database, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, appended, waiting = entry("site-a"), entry("site-b"), entry("site-c")
    recorder = Recorder(database, log)
    recorder.record(earlier)

    rows_of = recorder._queued

    def die() -> object:
        if recorder._appended:  # asked to delete what has just been appended
            raise Crash
        return rows_of()

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "_queued", die)
        with pytest.raises(Crash):
            recorder.record(appended)
    assert queued(database) == 1
    with database.transaction() as connection:
        recorder.add(connection, [waiting])
    Recorder(database, log)
    assert list(log.entries()) == [earlier, appended, waiting]
    assert queued(database) == 0


def test_what_is_queued_for_the_background_is_durable_and_appended_together_and_in_order(
    database: Database, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(database, log)
    appends: list[int] = []
    append = log.append
    monkeypatch.setattr(log, "append", lambda entries: appends.append(len(entries)) or append(entries))
    written = [entry(f"site-{number}") for number in range(5)]
    monkeypatch.setattr("consortium.record.GATHER_S", 0.2)
    for one in written:
        with database.transaction() as connection:
            recorder.add(connection, [one])
        recorder.flush_soon()
    assert queued(database) == 5
    recorder.close()
    assert list(log.entries()) == written
    assert appends == [5]
    recorder.flush_soon()  # after the end it is left for the next start
    Recorder(database, log)
    assert list(log.entries()) == written
    assert queued(database) == 0


def test_whoever_reads_the_log_sees_what_was_recorded_before(database: Database, log: Log) -> None:
    recorder = Recorder(database, log)
    with database.transaction() as connection:
        recorder.add(connection, [entry("site-a")])
    recorder.flush_soon()
    assert recorder.log.size == 1
    recorder.close()


def test_a_background_that_cannot_write_keeps_the_entries_and_the_next_flush_says_so(
    database: Database, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(database, log)
    one = entry("site-a")

    def full(_entries: Sequence[bytes]) -> tuple[int, ...]:
        raise LogUnwritable(tmp_path, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(log, "append", full)
        with database.transaction() as connection:
            recorder.add(connection, [one])
        recorder.flush_soon()
        recorder.close()
        assert queued(database) == 1
        with pytest.raises(LogUnwritable):
            recorder.flush()
    recorder.flush()
    assert list(log.entries()) == [one]
    assert queued(database) == 0


def test_an_outbox_longer_than_the_tail_duplicates_nothing(
    database: Database, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consortium.record._TAIL", 2)
    written = [entry(f"site-{number}") for number in range(9)]
    recorder = Recorder(database, log)
    with database.transaction() as connection:
        recorder.add(connection, written)
    log.append(written)  # and then the process died
    Recorder(database, log)
    assert list(log.entries()) == written
    assert queued(database) == 0


def test_a_log_that_cannot_be_written_keeps_the_entries_for_the_next_start(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log.create(tmp_path / "log", SIGNER)
    recorder = Recorder(database, log)

    def full(_entries: Sequence[bytes]) -> tuple[int, ...]:
        raise LogUnwritable(tmp_path, "No space left on device")

    one = entry("site-a")
    with monkeypatch.context() as patched:
        patched.setattr(log, "append", full)
        with pytest.raises(LogUnwritable):
            recorder.record(one)
    assert queued(database) == 1
    log.close()
    again = Log.open(tmp_path / "log", SIGNER)
    try:
        Recorder(database, again)
        assert list(again.entries()) == [one]
    finally:
        again.close()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is", "as it is"),
        ("two\nlines\x1b[31m", "two lines [31m"),
        ("  around  ", "around"),
        ("", "unspecified"),
        ("\n\t ", "unspecified"),
        ("word " * 200, ("word " * 40).strip()),
        ("xyz" + " word" * 39 + "  es", "xyz" + " word" * 39),
        ("No space left: '/srv/hub/log/7'", "No space left: '(path)'"),
        (r"C:\data\ward.csv is gone, ~/ward.csv too", "(path) is gone, (path) too"),
        ("and/or 1/3 of policy.max_epsilon_total at 127.0.0.1:8443",) * 2,
        ("ask ada@example.org", "ask (address)"),
        ("found " + "5d" * 32, "found 5d5d5d5d..."),
        ("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQi= is", "MC4CAQAw... is"),
        ("the-longest-name-that-a-hospital-may-have", "the-longest-name-that-a-hospital-may-have"),
    ],
)
def test_text_from_elsewhere_fits_an_entry(text: str, line: str) -> None:
    assert one_line(text) == line
    made = entries.StudyPaused(**now_stamp(), study="small-study", reason=one_line(text))
    assert entries.parse_entry(entries.entry_bytes(made)) == made
