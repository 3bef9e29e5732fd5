"""How long a report of a log with a hundred thousand entries takes: read, then written as JSON and as a page.

The log is that of one study of eight hospitals and some 3,700 rounds, every entry as agents and a coordinator would
have written it. Reading parses each entry strictly, as an export does; nothing is kept ready. The PDF is not in it.
"""

import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.checkpoint import Checkpoint
from audit.report import Stated, document_of, read_report, render_document, to_json
from tests.benchmarks.figures import Figure, cpu_s

NAME = "report_100k_events_s"
ENTRIES = 100_000
LIMIT_S = 15.0
REPEATS = 3
SITES = tuple(f"hospital-{number}" for number in range(1, 9))
STUDY = "long-study"
STUDY_JSON = json.dumps(
    {
        "schema": "consortium/study/v1",
        "id": STUDY,
        "privacy": {"mechanism": "local-dp-sgd", "unit": "patient", "epsilon": 8.0, "delta": 1e-5},
        "sites": {"required": list(SITES), "minimum": 5},
    }
).encode()
VKEY = "log.example.org+00000000+" + "A" * 44


def measure() -> list[Figure]:
    """One figure: seconds by the clock, with the CPU time and the sizes in its note."""
    lines = log_of(ENTRIES)
    walls, cpus, sizes = [], [], (0, 0)

    def report() -> None:
        nonlocal sizes
        told = read_report(lines, study=STUDY, checkpoint=HEAD, document=STUDY_JSON, stated=STATED)
        page = document_of(told)
        sizes = (len(to_json(told, page)), len(render_document(page)))

    for _ in range(REPEATS):
        begun = time.perf_counter()
        cpus.append(cpu_s(report))
        walls.append(time.perf_counter() - begun)
    half = lines[: len(lines) // 2]
    half_cpu = cpu_s(
        lambda: to_json(read_report(half, study=STUDY, checkpoint=HEAD, document=STUDY_JSON, stated=STATED))
    )
    return [
        Figure(
            name=NAME,
            value=min(walls),
            unit=f"s for {len(lines):,} entries",
            reference=LIMIT_S,
            better="at most",
            spread=(min(walls), max(walls)),
            note=f"CPU time {min(cpus):.1f} s; half the log without the page {half_cpu:.1f} s; report.json "
            f"{sizes[0] / 1e6:.1f} MB, report.html {sizes[1] / 1e6:.1f} MB; the least of {REPEATS}",
        )
    ]


HEAD = Checkpoint(origin="log.example.org", size=ENTRIES, root=bytes(32))
STATED = Stated(exported_at="2026-11-23T09:00:00.000Z", exported_by="benchmark", software=())


def log_of(count: int) -> list[bytes]:
    """The stored bytes of a log of so many entries, or a few more: a round is never broken off."""
    log = _Log()
    log.open()
    number = 0
    while len(log.lines) < count:
        number += 1
        log.round(number)
    return log.lines


class _Log:
    """Writes entries with real signatures under one key for all sites; the chains are those of the sites."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"benchmark").digest())
        self._chains = {site: entries.SiteChain(site=site) for site in SITES}
        self._now_ms = 1_795_000_000_000

    def _stamp(self) -> entries.Stamp:
        self._now_ms += 100
        return entries.stamp(self._now_ms, self._now_ms.to_bytes(10))

    def _coordinator(self, kind: type[entries.Entry], /, **fields: Any) -> None:
        self.lines.append(entries.entry_bytes(kind(**self._stamp(), **fields)))

    def _site(self, site: str, kind: type[entries.SiteRoundEntry], /, **fields: Any) -> None:
        chain = self._chains[site]
        entry = kind(
            **self._stamp(),
            actor=f"site:{site}",
            site_seq=chain.next_seq,
            site_prev=chain.previous,
            study=STUDY,
            **fields,
        )
        data = entries.sign_site_entry(entry, self._key)
        self._chains[site] = chain.admit(data, entry)
        self.lines.append(data)

    def open(self) -> None:
        """Until the study starts."""
        key = self._key.public_key().public_bytes_raw().hex()
        self._coordinator(
            entries.LogOpened, consortium="Benchmark", log_vkey=VKEY, export_vkey=VKEY, coordinator_signing_key=key
        )
        digest = hashlib.sha256(STUDY_JSON).hexdigest()
        self._coordinator(
            entries.StudyCreated,
            study=STUDY,
            study_digest=digest,
            document_sha256=digest,
            title="A study of many rounds",
            sites=SITES,
            rounds=10_000,
            threshold=5,
            minimum=5,
            epsilon=8.0,
            delta=1e-5,
            unit="patient",
            mechanism="local-dp-sgd",
        )
        self._coordinator(entries.StudyStarted, study=STUDY, study_digest=digest, sites=SITES, model_digest="0" * 64)

    def round(self, number: int) -> None:
        """One training round with a test: three entries of the coordinator and three of each hospital."""
        at = {"round": number, "attempt": 1}
        before, after = f"{number - 1:064x}", f"{number:064x}"
        self._coordinator(
            entries.RoundStarted,
            study=STUDY,
            **at,
            kind="train",
            plan_sha256=after,
            participants=SITES,
            threshold=5,
            model_digest=before,
        )
        event = entries.PoissonSampledGaussian(noise_multiplier=1.1, sampling_rate=0.01, steps=10)
        for site in SITES:
            spent = {"event": event, "epsilon": 1e-3 * number, "delta": 1e-5, "steps_total": 10 * number}
            self._site(site, entries.DpSpent, **at, dataset="records", **spent)
            self._site(site, entries.UpdateSubmitted, **at, masked_update_sha256=after, size_bytes=4_000_000)
        self._coordinator(
            entries.RoundClosed,
            study=STUDY,
            **at,
            survivors=SITES,
            transcript=after,
            aggregate_sha256=after,
            model_digest=before,
            next_model_digest=after,
        )
        metrics = {"auc": 0.5 + 0.4 * number / (number + 100), "loss": 100 / (number + 100), "patients": 9000.0}
        self._coordinator(
            entries.ModelEvaluated, study=STUDY, **at, model_digest=before, metrics=tuple(sorted(metrics.items()))
        )
        for site in SITES:
            self._site(site, entries.ModelVerified, **at, next_model_digest=after)
