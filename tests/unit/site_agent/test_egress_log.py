"""The hospital's own log of what left: rows first, then the log, nothing lost or doubled by a crash in between."""

import hashlib
import json
from contextlib import contextmanager

import pytest

from audit.egress_entries import EgressOpened, EgressSent, egress_bytes, parse_egress
from audit.errors import EntryRefused, LogUnwritable
from audit.log import Log
from site_agent.egress_log import (
    EgressAltered,
    EgressKeeper,
    EgressLog,
    EgressUnwritable,
    NothingDamaged,
    begin_anew,
    egress_signer,
    read_egress,
    sent_entry,
)
from site_agent.egress_rows import EgressRecord
from site_agent.signed_events import SignedEvents
from site_agent.store import Store
from tests.fakes.decided import decide
from tests.fakes.site_world import ME, make_home, small_study

STUDY = small_study()


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path, STUDY)


@pytest.fixture
def store(home):
    return Store(home.folder / "agent.db")


def leaves(store, count, *, study_digest="", kind="hello"):
    """So many things leave."""
    for _ in range(count):
        store.record_egress(
            EgressRecord(at=1_795_000_000.25, kind=kind, study_digest=study_digest, sha256="a" * 64, size_bytes=7)
        )


@contextmanager
def dying(target, name, error):
    """A process that dies when it comes to a step."""
    patch = pytest.MonkeyPatch()

    def die(*_args, **_kwargs):
        raise error

    patch.setattr(target, name, die)
    try:
        yield
    finally:
        patch.undo()


def test_rows_become_entries_once_each_in_order(home, store):
    leaves(store, 3)
    EgressKeeper(home, store).close()
    assert store.egress() == ()
    leaves(store, 2, kind="refusal")
    reading = read_egress(home, store)
    assert [(line.leaf, line.sent.kind) for line in reading.lines] == [
        (1, "hello"),
        (2, "hello"),
        (3, "hello"),
        (4, "refusal"),
        (5, "refusal"),
    ]
    assert len({line.sent.id for line in reading.lines}) == 5  # equal things that leave are different entries
    assert (reading.size, reading.origin, reading.lost) == (6, "alpine-heart/birch/egress", 0)
    log = EgressLog(home, store)
    opened = parse_egress(next(log.log.entries()))
    log.close()
    assert isinstance(opened, EgressOpened)
    assert (opened.site, opened.signing_key, opened.log_vkey) == (ME, home.identity.signing_key, reading.vkey)
    assert (home.folder / "egress").stat().st_mode & 0o077 == 0


def test_the_approval_something_left_under_is_named(home, store):
    digest = STUDY.digest()
    events = SignedEvents(home, store)
    leaves(store, 1, study_digest=digest)
    decide(events, STUDY, "approved")
    leaves(store, 1, study_digest=digest)
    leaves(store, 1)
    decide(events, STUDY, "rejected")
    leaves(store, 1, study_digest=digest)
    decide(events, STUDY, "approved")
    leaves(store, 1, study_digest=digest)
    first, _, second = store.signed_entries()
    sha256 = hashlib.sha256
    under = [line.sent.approval for line in read_egress(home, store).lines]
    assert under == [None, sha256(first).hexdigest(), None, None, sha256(second).hexdigest()]


def test_an_older_memory_learns_its_approvals(home, store):
    decide(SignedEvents(home, store), STUDY, "approved")
    with store._transaction() as connection:
        connection.execute("DROP TABLE approvals")
        connection.execute("DROP TABLE egress")
        connection.execute(
            "CREATE TABLE egress (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL,"
            " study_digest TEXT NOT NULL, sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL)"
        )
        connection.execute("INSERT INTO egress VALUES (7, 1.5, 'hello', '', ?, 3)", ("b" * 64,))
    store.close()
    again = Store(home.folder / "agent.db")
    leaves(again, 1, study_digest=STUDY.digest())
    old, new = [line.sent for line in read_egress(home, again).lines]
    assert (old.kind, old.ts, old.approval) == ("hello", "1970-01-01T00:00:01.500Z", None)
    assert new.approval is not None


@pytest.mark.parametrize("step", ["before the append", "within the append", "before the rows are deleted"])
def test_a_crash_between_any_two_steps_loses_and_doubles_nothing(home, store, step):
    leaves(store, 2)
    EgressKeeper(home, store).close()
    leaves(store, 3, kind="refusal")
    target, name = {
        "before the append": (Log, "append"),
        "within the append": (Log, "_integrate"),  # the entries are durable, and no checkpoint covers them
        "before the rows are deleted": (Store, "egress_moved"),
    }[step]
    log = EgressLog(home, store)
    with dying(target, name, LogUnwritable("egress", "the process died")), pytest.raises(Exception, match="died"):
        log.move()
    log.close()
    leaves(store, 1, kind="late")
    kinds = [(line.leaf, line.sent.kind) for line in read_egress(home, Store(home.folder / "agent.db")).lines]
    assert kinds == list(enumerate(["hello"] * 2 + ["refusal"] * 3 + ["late"], start=1))
    assert store.egress() == ()


def test_a_reader_beside_a_running_agent_sees_what_waits(home, store):
    leaves(store, 1)
    running = EgressLog(home, store)
    running.move()
    leaves(store, 1, kind="refusal")
    assert [(line.leaf, line.sent.kind) for line in read_egress(home, store).lines] == [(1, "hello"), (None, "refusal")]
    EgressKeeper(home, store).step()  # another process of the agent: the one that has the log moves the rows
    assert len(store.egress()) == 1
    running.close()


def test_a_disk_that_refuses_keeps_the_rows(home, store):
    keeper = EgressKeeper(home, store)
    keeper.step()
    leaves(store, 1)
    with dying(Log, "append", LogUnwritable("egress", "no space left")), pytest.raises(EgressUnwritable) as caught:
        keeper.step()
    assert "space" in caught.value.advice()
    assert len(store.egress()) == 1
    keeper.close()
    assert store.egress() == ()


def test_a_damaged_log_is_set_aside_and_the_next_says_so(home, store):
    leaves(store, 4)
    EgressKeeper(home, store).close()
    with pytest.raises(NothingDamaged) as caught:
        begin_anew(home, store)
    assert "egress" in caught.value.advice()
    (home.folder / "egress/public/checkpoint").unlink()
    vkey = egress_signer(home).verifier.vkey()
    with pytest.raises(EgressAltered) as altered:
        EgressKeeper(home, store).step()
    assert "--begin-anew" in altered.value.advice()
    aside = begin_anew(home, store)
    assert {path.name for path in aside.iterdir()} >= {"egress.pem", "entries.sqlite3"}
    leaves(store, 1)
    reading = read_egress(home, store)
    assert (reading.size, reading.lost) == (2, 5)
    assert reading.vkey != vkey  # a key never signs two histories


def test_entries_have_one_spelling():
    sent = sent_entry(EgressRecord(at=1.0, kind="hello", study_digest="", sha256="a" * 64, size_bytes=1, number=3), ME)
    data = egress_bytes(sent)
    assert parse_egress(data) == sent
    record = json.loads(data)
    for changed in (
        b"{" + data,
        b" " + data,
        b"[]",
        data + b" " * 5000,
        data.replace(b"egress.sent", b"log.opened"),
        data.replace(b',"to":"coordinator"', b""),
        json.dumps(record | {"more": 1}, sort_keys=True, separators=(",", ":")).encode(),
        data.replace(b"site:birch", b"coordinator"),
    ):
        with pytest.raises(EntryRefused):
            parse_egress(changed)
    assert isinstance(parse_egress(data), EgressSent)
