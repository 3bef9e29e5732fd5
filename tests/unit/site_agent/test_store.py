"""What the agent must not forget: two processes, a full disk, a restart."""

import hashlib
import sqlite3
import stat
import threading

import pytest

from audit.entries import NO_ENTRY
from consortium.contract.names import Digest, SiteId, StudyId
from site_agent.egress_rows import EgressRecord
from site_agent.store import ChainLink, Decision, PeerChanged, Release, Store, StoreUnwritable

STUDY = Digest("5d" * 32)
MODEL = Digest("3f" * 32)
SECOND = Digest("77" * 32)
SHARES = b"the message with the shares"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "agent.db")


def decision(kind="approved", digest=STUDY, at=1.0):
    return Decision(
        study_digest=digest,
        study=StudyId("small-study"),
        document=b"{}",
        decision=kind,
        steward="Dr Somebody",
        statement="",
        at=at,
    )


def release(context=b"c" * 32, survivors=("alder", "birch", "cedar"), *, measured=True):
    return Release(
        context=context,
        model_digest=MODEL,
        transcript=b"t" * 32,
        survivors=tuple(SiteId(name) for name in survivors),
        measured=measured,
        plan=b"plan",
    )


def test_only_its_owner_may_read_it(tmp_path):
    Store(tmp_path / "agent.db")
    assert stat.S_IMODE((tmp_path / "agent.db").stat().st_mode) == 0o600
    (tmp_path / "agent.db").chmod(0o644)
    Store(tmp_path / "agent.db")
    assert stat.S_IMODE((tmp_path / "agent.db").stat().st_mode) == 0o600


def test_the_last_decision_stands(store):
    assert store.decision(STUDY) is None
    store.add_events([], decision=decision())
    store.add_events([], decision=decision("rejected", at=2.0))
    store.add_events([], decision=decision(digest=MODEL, at=3.0))
    assert store.decision(STUDY) == decision("rejected", at=2.0)
    assert [made.at for made in store.decisions()] == [2.0, 3.0]


def test_events_are_counted_and_chained(store, tmp_path):
    seen = []

    def build(sequence, previous):
        seen.append((sequence, previous))
        return f"entry {sequence}".encode()

    store.add_events([build, build])
    Store(tmp_path / "agent.db").add_events([build])
    one, two = (hashlib.sha256(f"entry {n}".encode()).hexdigest() for n in (1, 2))
    assert seen == [(1, NO_ENTRY), (2, one), (3, two)]
    assert store.pending_events() == ((1, b"entry 1"), (2, b"entry 2"), (3, b"entry 3"))
    assert store.pending_events(2) == ((1, b"entry 1"), (2, b"entry 2"))
    assert store.acknowledge(2) == 2
    assert store.acknowledge(2) == 0
    assert store.pending_events() == ((3, b"entry 3"),)


def test_an_entry_that_cannot_be_made_leaves_nothing_of_its_transaction(store):
    def fails(_sequence, _previous):
        raise ValueError

    link = ChainLink(round=1, model_digest=MODEL, transcript=STUDY)
    with pytest.raises(ValueError):
        store.add_events([lambda *_: b"one", fails], decision=decision(), closed=(STUDY, link), announcing=STUDY)
    assert store.pending_events() == ()
    assert store.decision(STUDY) is None
    assert store.chain(STUDY) is None
    assert store.add_events([lambda *_: b"one"], announcing=STUDY)


def test_a_study_is_announced_once(store):
    assert store.add_events([lambda *_: b"one"], announcing=STUDY)
    assert not store.add_events([lambda *_: b"two"], announcing=STUDY)
    assert store.add_events([lambda *_: b"two"], announcing=MODEL)
    assert len(store.pending_events()) == 2


def test_two_processes_share_one_chain_of_events(tmp_path):
    path = tmp_path / "agent.db"
    Store(path)
    errors = []

    def work(name):
        try:
            store = Store(path)
            for _ in range(15):
                store.add_events([lambda sequence, previous: f"{sequence} {previous} {name}".encode()])
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    pending = Store(path).pending_events()
    assert [sequence for sequence, _ in pending] == list(range(1, 31))
    previous = NO_ENTRY
    for sequence, entry in pending:
        assert entry.decode().startswith(f"{sequence} {previous} ")
        previous = hashlib.sha256(entry).hexdigest()


def test_only_one_of_two_processes_may_release(tmp_path):
    path = tmp_path / "agent.db"
    Store(path)
    answers, together = [], threading.Barrier(4)

    def work():
        store = Store(path)
        together.wait()
        answers.append(store.record_release(STUDY, release(), SHARES))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, False, False, True]


def test_releases_are_remembered_in_order(store, tmp_path):
    first, second = release(), release(b"d" * 32, ("birch", "cedar", "dogwood"), measured=False)
    assert store.record_release(STUDY, first, SHARES)
    assert store.record_release(STUDY, second, SHARES)
    assert store.record_release(MODEL, release(b"e" * 32), SHARES)
    assert not store.record_release(STUDY, release(survivors=("alder",)), b"others")
    assert Store(tmp_path / "agent.db").releases(STUDY) == (first, second)
    assert store.release(b"d" * 32) == second
    assert store.release(b"f" * 32) is None
    assert store.measured_releases(STUDY, MODEL) == (first,)
    assert store.measured_releases(STUDY, STUDY) == (first,)  # the last one, whatever its model
    assert store.measured_releases(SECOND, MODEL) == ()
    assert store.released_in(b"e" * 32) == MODEL
    assert store.released_in(b"f" * 32) is None


def test_the_shares_that_were_sent_are_kept_until_the_round_is_closed(store, tmp_path):
    assert store.shares_sent(release().context) is None
    store.record_release(STUDY, release(), SHARES)
    store.record_release(STUDY, release(), b"others")
    store.record_release(MODEL, release(b"e" * 32), SHARES)
    assert store.shares_sent(release().context) == SHARES
    store.add_events([], closed=(STUDY, ChainLink(round=1, model_digest=MODEL, transcript=STUDY)))
    assert store.shares_sent(release().context) is None
    assert store.shares_sent(b"e" * 32) == SHARES


def test_the_shares_of_a_closed_round_are_not_left_in_the_file(store, tmp_path):
    store.record_release(STUDY, release(), SHARES)
    store.add_events([], closed=(STUDY, ChainLink(round=1, model_digest=MODEL, transcript=STUDY)))
    with sqlite3.connect(tmp_path / "agent.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert not any(SHARES in path.read_bytes() for path in tmp_path.iterdir())


def test_no_file_has_the_shares_once_the_study_has_ended(store, tmp_path):
    store.record_release(STUDY, release(), SHARES)
    store.record_release(MODEL, release(b"e" * 32), b"the shares of another study")
    assert any(SHARES in path.read_bytes() for path in tmp_path.iterdir())
    store.forget_shares(STUDY)
    assert not any(SHARES in path.read_bytes() for path in tmp_path.iterdir())
    assert store.shares_sent(b"e" * 32) == b"the shares of another study"
    assert store.releases(STUDY) == (release(),)  # that they left stays known


def test_the_chain_moves_on(store):
    for number in (1, 2):
        link = ChainLink(round=number, model_digest=MODEL, transcript=STUDY)
        store.add_events([], closed=(STUDY, link))
    assert store.chain(STUDY) == link
    assert store.chain(MODEL) is None


def test_what_left_is_listed_in_order(store):
    records = [
        EgressRecord(at=float(n), kind="key-bundle", study_digest=STUDY, sha256=MODEL, size_bytes=n) for n in (3, 1)
    ]
    for record in records:
        store.record_egress(record)
    assert store.egress() == tuple(records)


def test_peers_are_pinned_at_first_sight(store):
    known = ("a" * 64, "b" * 64, "e" * 130)
    store.pin_peer(SiteId("alder"), *known)
    store.pin_peer(SiteId("alder"), *known)
    for changed in ((known[0], "c" * 64, known[2]), (*known[:2], "f" * 130)):
        with pytest.raises(PeerChanged) as caught:
            store.pin_peer(SiteId("alder"), *changed)
        assert "alder" in caught.value.advice()
    assert store.peers() == (("alder", *known),)
    store.pin_peer(SiteId("alder"), "c" * 64, *known[1:])  # its certificate was renewed
    assert store.peers() == (("alder", "c" * 64, *known[1:]),)
    assert store.forget_peer("alder")
    assert not store.forget_peer("alder")
    store.pin_peer(SiteId("alder"), "c" * 64, "d" * 64, "f" * 130)


# --- when the disk refuses -------------------------------------------------------------------------------------------


def test_a_full_disk(store, monkeypatch):
    connect = sqlite3.connect

    def cramped(*args, **kwargs):
        connection = connect(*args, **kwargs)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", cramped)
    store.close()
    with pytest.raises(StoreUnwritable) as caught:
        store.add_events([lambda *_: bytes(100_000)])
    assert "full" in str(caught.value)
    assert "space" in caught.value.advice()
    monkeypatch.undo()
    assert store.pending_events() == ()


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "agent.db").write_bytes(b"this is not a database, " * 100)
    with pytest.raises(StoreUnwritable):
        Store(tmp_path / "agent.db")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreUnwritable):
        Store(tmp_path / "nowhere" / "agent.db")


def test_a_file_that_went_away(store, tmp_path):
    (tmp_path / "agent.db").unlink()
    (tmp_path / "agent.db").mkdir()
    with pytest.raises(StoreUnwritable):
        store.egress()
    (tmp_path / "agent.db").rmdir()
    with pytest.raises(StoreUnwritable, match="not there"):
        store.egress()


def test_a_file_that_was_replaced_while_it_was_open(store, tmp_path):
    """A release that is written into a file nobody will open again would be forgotten."""
    (tmp_path / "agent.db").rename(tmp_path / "taken")
    Store(tmp_path / "agent.db")
    with pytest.raises(StoreUnwritable, match="replaced"):
        store.record_release(STUDY, release(), SHARES)


def test_one_connection_serves_many_threads(store):
    def work():
        for _ in range(20):
            store.record_egress(EgressRecord(at=1.0, kind="k", study_digest="", sha256="a" * 64, size_bytes=1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.egress()) == 80
