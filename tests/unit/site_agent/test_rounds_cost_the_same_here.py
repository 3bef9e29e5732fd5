"""Round 2,000 costs a hospital what its first rounds did. Counted are statements and SQLite's steps, not seconds.

The agent's memory with its signed entries and the entries about spends; the ledger alone is in `test_ledger_file.py`.
"""

import sqlite3
from collections import Counter

from audit import entries
from consortium.contract.names import Digest
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledGaussian
from site_agent.ledger import Ledger
from site_agent.ledger_caps import Limits
from site_agent.signed_events import SignedEvents
from site_agent.spend_entries import sign_spends
from site_agent.store import ChainLink, Store
from site_agent.told import Told
from tests.fakes.site_world import make_home, small_study

STUDY = small_study(training={"rounds": 4000})
DIGEST = STUDY.digest()
EVENT = DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=60.0, sampling_rate=0.2, steps=1, clip_norm_l2=1.0))
LIMITS = Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3, study_steps=4000)
WINDOW, BETWEEN, STEPS_AT_ONCE = 20, 2000, 10

counted: Counter[str] = Counter()


class Counting(sqlite3.Connection):
    """Counts what every statement of every file here does; a handler that returns nothing stops nothing."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.set_progress_handler(lambda: counted.update(steps=STEPS_AT_ONCE), STEPS_AT_ONCE)
        self.set_trace_callback(lambda _: counted.update(statements=1))


def one_round(ledger, store, events, number):
    """What is written down at a hospital in a round, and handed over after it."""
    reservation = spend(ledger, number)
    ledger.settle(reservation, EVENT)
    sign_spends(ledger, events, STUDY, DIGEST, "ward")
    link = ChainLink(round=number, model_digest=Digest(f"{number:064x}"), transcript=Digest("c3" * 32))
    events.add(
        entries.ModelVerified,
        closed=(DIGEST, link),
        study=STUDY.id,
        round=number,
        attempt=1,
        next_model_digest=link.model_digest,
    )
    pending = store.pending_events()
    assert len(pending) == 2
    assert store.acknowledge(pending[-1][0]) == 2


def spend(ledger, number):
    return ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest=DIGEST,
        round_number=number,
        attempt=1,
        event=EVENT,
        limits=LIMITS,
    )


def test_ledger_entries_and_memory(tmp_path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: connect(*a, **{**o, "factory": Counting}))
    # Compositions cost time, not statements.
    monkeypatch.setattr("site_agent.spend_entries.epsilon_so_far", lambda *_, **__: 0.5)
    monkeypatch.setattr("site_agent.ledger_caps.epsilon", lambda *_: 0.5)
    store = Store(tmp_path / "agent.db")
    ledger = Ledger(tmp_path / "ledger.db", connect=sqlite3.connect, told=store.told)
    events = SignedEvents(make_home(tmp_path, STUDY), store)

    def window(first):
        counted.clear()
        for number in range(first, first + WINDOW):
            one_round(ledger, store, events, number)
        return Counter(counted)

    one_round(ledger, store, events, 1)
    early = window(2)
    # As so many more rounds would have left both files.
    with ledger._file.transaction() as connection:
        columns = "dataset, study, study_digest, attempt, mechanism, steps, delta, state, reserved_at, settled_at"
        connection.executemany(
            f"INSERT INTO spends (round, {columns}) SELECT ?, {columns} FROM spends WHERE round = 1",
            [(number,) for number in range(WINDOW + 2, WINDOW + 2 + BETWEEN)],
        )
    last = WINDOW + 1 + BETWEEN
    told = Told(study_digest=DIGEST, study=STUDY.id, dataset="ward", round=last, attempt=1, steps=last)
    store.add_events([lambda sequence, _: b"entry %d" % sequence] * 2 * BETWEEN, spent=told)
    store.acknowledge(store.last_sequence())
    late = window(last + 1)

    assert early["statements"] > 10 * WINDOW  # they are counted
    assert late["statements"] <= 1.02 * early["statements"]
    assert late["steps"] <= 1.15 * early["steps"], (early["steps"] / WINDOW, late["steps"] / WINDOW)
    assert len(ledger.spends("ward", DIGEST, after=(0, 0))) == 1 + 2 * WINDOW + BETWEEN
    ledger.close()
    store.close()
