"""A log with entries from eight years ago: heartbeats, a study that ended then, and one of today.

sample = OldConsortium().whole_study()
log = sample.open_log(folder)
leaves = drop(sample, log)      # as `consortium audit retention --drop` does it, without witnesses
"""

from datetime import date
from pathlib import Path
from typing import Any

from audit import entries
from audit.dropped import Dropped
from audit.evidence import policy_text
from audit.log import Log
from audit.retention import Plan, cutoff, due, plan
from tests.fakes.sample_study_log import DELTA, RATE, SIGMA, SITES, START_MS, STUDY, SampleConsortium, digest, key

OLDER = "older-study"
LONG_AGO_MS = START_MS - 8 * 366 * 86_400_000
TODAY = date(2026, 11, 18)  # the day of START_MS
YEARS = 6
PROMISED = {STUDY: 10, OLDER: 6}


class OldConsortium(SampleConsortium):
    """Nearly three bundles are old; the third has entries of today in it."""

    def __init__(self, *, heartbeats: int = 560, **changed: Any) -> None:
        super().__init__(**changed)
        self.heartbeats = heartbeats

    def opening(self) -> None:
        self.clock_ms = LONG_AGO_MS
        super().opening()
        self._older()
        for _ in range(self.heartbeats):
            self.coordinator(entries.Heartbeat, state="alive", interval_s=60, uptime_s=60, clock_moved_ms=0)
        self.clock_ms = START_MS

    def _older(self) -> None:
        at = {"round": 1, "attempt": 1}
        self.coordinator(
            entries.StudyCreated,
            study=OLDER,
            study_digest=digest(OLDER),
            document_sha256=digest(OLDER),
            title="What was known eight years ago",
            sites=SITES,
            rounds=1,
            threshold=3,
            minimum=3,
            epsilon=1.0,
            delta=DELTA,
            unit="patient",
            mechanism="local-dp-sgd",
        )
        for site in SITES:
            about = {"study_digest": digest(OLDER), "steward": f"u:{digest(site)[:32]}"}
            self.of_older(site, entries.StudyApproved, **about, statement="Approved.")
        event = entries.PoissonSampledGaussian(noise_multiplier=SIGMA, sampling_rate=RATE, steps=1)
        for site in SITES[:2]:
            spent = {"dataset": "older-heart", "event": event, "epsilon": 0.3, "delta": DELTA, "steps_total": 1}
            self.of_older(site, entries.DpSpent, **at, **spent)
            masked = digest(f"older masked {site}")
            self.of_older(site, entries.UpdateSubmitted, **at, masked_update_sha256=masked, size_bytes=1272)
        self.coordinator(entries.StudyCompleted, study=OLDER, model_digest=digest("older model"))

    def of_older(self, name: str, kind: type[Any], /, **fields: Any) -> None:
        """An entry of the older study that a site signs."""
        chain = self.chains[name]
        about = {"actor": f"site:{name}", "site_seq": chain.next_seq, "site_prev": chain.previous, "study": OLDER}
        entry = kind(**self.stamp(), **about, **fields)
        data = entries.sign_site_entry(entry, key(name))
        self.chains[name] = chain.admit(data, entry)
        self.lines.append(data)


def planned(log: Log, **changed: Any) -> Plan:
    """What may go."""
    found = due(log.known(), cutoff(TODAY, YEARS))
    values: dict[str, Any] = {"found": found, "dropped": log.dropped, "today": TODAY, "promised": PROMISED}
    return plan(log.known(), **(values | changed))


def applied(sample: SampleConsortium, leaves: Dropped, **changed: Any) -> bytes:
    """The entry that announces a drop."""
    values: dict[str, Any] = {
        "on_behalf": "u:" + "0" * 32,
        "document_sha256": digest("policy of retention"),
        "years": YEARS,
        "older_than": cutoff(TODAY, YEARS).isoformat(),
        "entries_due": 600,
        "action": "dropped",
        "first_leaf": leaves.first,
        "last_leaf": leaves.last,
        "entries_dropped": leaves.count,
        "dropped_sha256": leaves.digest,
    }
    return entries.entry_bytes(entries.RetentionApplied(**sample.stamp(), **(values | changed)))


def drop(sample: SampleConsortium, log: Log, leaves: Dropped | None = None, **changed: Any) -> Dropped:
    """Announce it and carry it out; what was dropped."""
    leaves = planned(log).dropped if leaves is None else leaves
    log.append([applied(sample, leaves, **changed)])
    log.drop(leaves)
    return leaves


def evidence_of(folder: Path, **changed: Any) -> tuple[Path, bytes, Dropped]:
    """Evidence of today's study from a log that has dropped the older one; its policy, and what was dropped."""
    sample = OldConsortium().whole_study()
    log = sample.open_log(folder / "log")
    try:
        leaves = drop(sample, log, **changed)
        return sample.export(log, folder / "evidence.zip").path, policy_text(log), leaves
    finally:
        log.close()
