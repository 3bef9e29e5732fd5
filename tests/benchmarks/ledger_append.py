"""How many rounds a second the privacy ledger can reserve and settle, late in a study of a hundred thousand rounds.

The reference, measured in turns with it: SQLite alone, with the same two transactions of one row, each synced to disk.
What the ledger does besides (is the attempt there already, is the file current, do all caps hold, the sums) must not
grow with the rounds that went before, so the file holds 90,000 of them.
"""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from consortium.contract.names import Digest, StudyId
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledGaussian
from site_agent.ledger import Ledger, Limits
from site_agent.ledger_file import encode
from site_agent.told import Told
from tests.benchmarks.figures import Figure, cpu_s, in_turns, ratio

ROUNDS_BEFORE, ROUNDS_PLANNED = 90_000, 100_000
PAIRS = 200
REPEATS = 7
STUDY = Digest("a" * 64)
EVENT = DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=60.0, sampling_rate=0.2, steps=1, clip_norm_l2=1.0))
LIMITS = Limits(study_epsilon=10.0, study_delta=1e-5, total_epsilon=10.0, total_delta=1e-5, study_steps=ROUNDS_PLANNED)
OTHERS = 4
"""Other studies on the same dataset: from the second on, the Renyi filter decides."""


def measure() -> list[Figure]:
    """One figure: pairs of reserve and settle per second."""
    with tempfile.TemporaryDirectory(dir=Path.cwd() / "build" if Path("build").is_dir() else None) as folder:
        ledger = _filled(Path(folder) / "ledger.db")
        plain = _plain(Path(folder) / "plain.db")
        numbers = iter(range(ROUNDS_BEFORE + 1, ROUNDS_PLANNED))
        cpu: list[float] = []

        def reserve_and_settle() -> None:
            for _ in range(PAIRS):
                reservation = ledger.reserve(
                    dataset="heart",
                    study=StudyId("heart-disease"),
                    study_digest=STUDY,
                    round_number=next(numbers),
                    attempt=1,
                    event=EVENT,
                    limits=LIMITS,
                )
                ledger.settle(reservation, EVENT)

        def timed() -> float:
            begun = time.perf_counter()
            cpu.append(cpu_s(reserve_and_settle) / PAIRS)
            return time.perf_counter() - begun

        ours, theirs = in_turns(timed, lambda: _timed(plain), REPEATS)
    slower, _ = ratio(ours, theirs)
    rates = [PAIRS / seconds for seconds in ours]
    return [
        Figure(
            name="ledger_append_per_s",
            value=PAIRS / statistics.median(ours),
            unit="rounds reserved and settled per second",
            reference=100.0,
            better="at least",
            spread=(min(rates), max(rates)),
            note=f"after {ROUNDS_BEFORE:,} rounds, {OTHERS} other studies; CPU time of a round "
            f"{1e3 * statistics.median(cpu):.2f} ms; SQLite alone, the same two transactions: "
            f"{PAIRS / statistics.median(theirs):.0f} per second "
            f"(the ledger takes {slower:.2f} times as long)",
            binding=False,
        )
    ]


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _filled(path: Path) -> Ledger:
    """A ledger as `ROUNDS_BEFORE` rounds and other studies leave it, with what was signed beside it."""
    told = [Told(study_digest=STUDY, study="heart-disease", dataset="heart", round=1, attempt=1, steps=ROUNDS_BEFORE)]
    ledger = Ledger(path, told=lambda: told)
    mechanism, steps = encode(EVENT)
    insert = (
        "INSERT INTO spends (dataset, study, study_digest, round, attempt, mechanism, steps, delta, state, reserved_at)"
        " VALUES ('heart', 'heart-disease', ?, ?, 1, ?, ?, 1e-5, 'settled', 0)"
    )
    with ledger._file.transaction() as connection:
        connection.executemany(insert, ((STUDY, number, mechanism, steps) for number in range(1, ROUNDS_BEFORE + 1)))
        for other in range(OTHERS):
            connection.execute(insert, (format(other, "064x"), 1, mechanism, 1000))
    return ledger


def _plain(path: Path) -> Callable[[], None]:
    """One row inserted and one changed, `PAIRS` times, each in a transaction that is on disk when it ends."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE spends (id INTEGER PRIMARY KEY, record TEXT NOT NULL)")
    record = "\n".join([*map(str, encode(EVENT)), STUDY])

    def work() -> None:
        for _ in range(PAIRS):
            connection.execute("BEGIN IMMEDIATE")
            cursor = connection.execute("INSERT INTO spends (record) VALUES (?)", (record,))
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE spends SET record = ? WHERE id = ?", (record, cursor.lastrowid))
            connection.execute("COMMIT")

    return work
