"""Entries -> Report: who took part, what was computed, what it cost in privacy, where each figure is in the log.

Evidence sections R1 to R13. Every figure carries the index of the leaf it was read from. What a caller states beside
the log (who exported, which software) is kept apart under `stated`, since nothing proves it.

`verify.py` counts the same figures again with its own code and compares them with report.json.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import TypeAlias

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from audit import certificate_view, charts, entries, quality
from audit.checkpoint import Checkpoint
from audit.entries import Entry, RoundEntry, SiteRoundEntry, SiteStudyEntry, StudyEntry, parse_entry
from audit.errors import ExportRefused
from audit.fields import Json

SCHEMA = "consortium/evidence-report/v1"

JsonObject: TypeAlias = dict[str, Json]

LIMITS = (
    "That a hospital's patients, counts or labels are real, or that a patient consented.",
    "That a hospital ran the privacy code it says it ran. Its signed statements are shown, not a measurement.",
    "That no event was withheld before it was submitted. Only gaps between a site's entries can be seen.",
    "Anything that happened before the first entry of this log.",
    "The exact time of an event. Times are those of the clocks of the coordinator and the sites.",
    "That everybody was shown the same log. This release has no witnesses: compare checkpoints with the hospitals.",
    "Legal conclusions, such as a lawful basis, or that data are anonymous or a use compliant.",
    "Policies, training of staff, physical safeguards and risk analyses.",
    "What the final model remembers beyond the privacy bound given here; no attack tests are in this log.",
    "This report is not a certification.",
)
"""Printed in every report, whatever it shows."""

NOT_COVERED = (
    ("R3", "Legal basis, agreements, transfers", "Only what the study document declares; no agreement is in this log."),
    ("R10", "Incidents", "No incident entries are written by this release."),
    ("R11", "Reviews and sign-offs", "No review entries are written by this release."),
    ("R12", "Retention and restore tests", "Declared in the study document; no test of it is in this log."),
    ("R14", "Control matrix", "Not part of this release."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What the exporter says beside the log. Nothing here is evidence."""

    exported_at: str  # RFC 3339
    exported_by: str
    software: tuple[tuple[str, str], ...]  # name, version


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFigures:
    """The study as it was created."""

    id: str
    digest: str
    title: str
    leaf: int
    epsilon: float
    delta: float
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFigures:
    """One site's part in the study, as far as the log shows it."""

    site: str
    enrolled_leaf: int | None = None
    approved_leaf: int | None = None
    patients: str | None = None
    patients_leaf: int | None = None
    rounds_invited: int = 0
    rounds_survived: int = 0
    updates: int = 0
    bytes_sent: int = 0
    steps: int = 0
    steps_planned: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    epsilon_leaf: int | None = None
    figures_epsilon: float | None = None  # of test figures with a budget of their own
    figures_delta: float | None = None
    figures_leaf: int | None = None
    certificate: "CertificateFigures | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFigures:
    """The figures of a site's last privacy certificate."""

    leaf: int
    trust: str
    epsilon: float
    delta: float
    epsilon_figures: float
    delta_figures: float
    epsilon_unmasked: float
    epsilon_dataset: float
    steps: int
    patients: str
    audit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A site's running total after one attempt."""

    site: str
    epsilon: float
    steps_total: int
    leaf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """A participant whose update is not in the sum."""

    site: str
    phase: str
    leaf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """One attempt at one round; `state` is open, closed or aborted."""

    round: int
    attempt: int
    kind: str
    state: str = "open"
    participants: tuple[str, ...]
    survivors: tuple[str, ...] = ()
    dropouts: tuple[Dropout, ...] = ()
    threshold: int
    model_digest: str
    next_model_digest: str | None = None
    metrics: tuple[tuple[str, float | None], ...] | None = None
    metrics_leaf: int | None = None
    spent: tuple[Spent, ...] = ()
    started_leaf: int
    ended_leaf: int | None = None

    def metric(self, name: str) -> float | None:
        """A metric's value, or None."""
        return dict(self.metrics or ()).get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A model that left the consortium."""

    model_digest: str
    leaf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry in words, for the tables of the report."""

    leaf: int
    ts: str
    type: str
    who: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the report says."""

    checkpoint: Checkpoint
    log_vkey: str
    export_vkey: str
    consortium: str
    study: StudyFigures
    status: str
    started_at: str | None
    ended_at: str | None
    sites: tuple[SiteFigures, ...]
    rounds: tuple[RoundFigures, ...]
    model_digest: str | None
    released: tuple[Release, ...]
    refusals: tuple[tuple[str, int], ...]
    approvals: tuple[Line, ...]
    cohorts: tuple[Line, ...]
    plans: tuple[Line, ...]
    refused: tuple[Line, ...]
    certificates: tuple[tuple[int, str, entries.DpCertificate], ...]  # leaf, site; the last of each site
    model_certificate: tuple[int, entries.ModelCertificate] | None  # leaf; the last
    chosen: tuple[int, entries.ModelChosen] | None  # leaf; where the study keeps its best model and has ended
    key_leaves: tuple[int, ...]  # of the entries that get a receipt of their own
    document: JsonObject  # study.json
    stated: Stated

    def figures(self) -> JsonObject:
        """What verify.py counts again."""
        head = self.checkpoint
        return {
            "log": {"origin": head.origin, "size": head.size, "root": head.root.hex()},
            "study": asdict(self.study),
            "model_digest": self.model_digest,
            "released": [asdict(release) for release in self.released],
            "model_certificate": _model_certificate_json(self.model_certificate),
            "refusals": dict(self.refusals),
            "sites": [asdict(site) for site in self.sites],
            "rounds": [_round_json(one) for one in self.rounds],
            "chosen": _chosen_json(self.chosen),
        }

    def to_json(self) -> bytes:
        """report.json."""
        record: JsonObject = {
            "schema": SCHEMA,
            "figures": self.figures(),
            "stated": {
                "exported_at": self.stated.exported_at,
                "exported_by": self.stated.exported_by,
                "software": dict(self.stated.software),
            },
            "limits": list(LIMITS),
            "not_covered": [{"section": s, "title": t, "why": w} for s, t, w in NOT_COVERED],
        }
        return (json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _model_certificate_json(found: "tuple[int, entries.ModelCertificate] | None") -> JsonObject | None:
    if found is None:
        return None
    leaf, said = found
    return {
        "leaf": leaf,
        "model_digest": said.model_digest,
        "trust": said.trust,
        "sites": list(said.sites),
        "missing": list(said.missing),
        "epsilon": said.epsilon,
        "delta": said.delta,
        "epsilon_two_sites": said.epsilon_two_sites,
        "delta_two_sites": said.delta_two_sites,
        "epsilon_unmasked": said.epsilon_unmasked,
        "log_size": said.log_size,
    }


def _chosen_json(found: "tuple[int, entries.ModelChosen] | None") -> JsonObject | None:
    if found is None:
        return None
    leaf, said = found
    return {
        "leaf": leaf,
        "round": said.round,
        "model_digest": said.model_digest,
        "metric": said.metric,
        "figure": said.figure,
        "origin": said.origin,
        "reason": said.reason,
    }


def _round_json(one: RoundFigures) -> JsonObject:
    record = asdict(one) | {"metrics": None if one.metrics is None else dict(one.metrics)}
    for name in ("participants", "survivors", "dropouts", "spent"):
        record[name] = list(record[name])
    return record


class _Reader:
    """Takes entries one after the other; the fold behind `read_report`, mutable until it is done."""

    def __init__(self, study: str) -> None:
        self.id = study
        self.opened: entries.LogOpened | None = None
        self.study: StudyFigures | None = None
        self.status = "created"
        self.started_at: str | None = None
        self.ended_at: str | None = None
        self.model_digest: str | None = None
        self.sites: dict[str, SiteFigures] = {}
        self.concerned: set[str] = set()
        self.rounds: dict[tuple[int, int], RoundFigures] = {}
        self.released: list[Release] = []
        self.refusals = {
            "auth.failed": 0,
            "authz.denied": 0,
            "round.refused": 0,
            "secagg.failed": 0,
            "secagg.accused": 0,
        }
        self.approvals: list[Line] = []
        self.cohorts: list[Line] = []
        self.plans: list[Line] = []
        self.refused: list[Line] = []
        self.key_leaves: list[int] = []
        self.certificates: dict[str, tuple[int, entries.DpCertificate]] = {}
        self.model_certificate: tuple[int, entries.ModelCertificate] | None = None
        self.last_spent: dict[str, int] = {}
        self.chosen: tuple[int, entries.ModelChosen] | None = None

    def last_figures(self) -> list[int]:
        """The last `figures.spent` of each site."""
        return [site.figures_leaf for site in self.sites.values() if site.figures_leaf is not None]

    def site(self, name: str) -> SiteFigures:
        return self.sites.setdefault(name, SiteFigures(site=name))

    def take(self, leaf: int, entry: Entry) -> None:
        if entry.TYPE in self.refusals:
            self.refusals[entry.TYPE] += 1
        match entry:
            case entries.LogOpened():
                self.opened = self.opened or entry
                self.key_leaves.append(leaf)
            case entries.SiteEnrolled():
                self.sites[entry.site] = replace(self.site(entry.site), enrolled_leaf=leaf)
            case entries.AuthFailed():
                self.refused.append(_line(leaf, entry, "unknown", entry.reason))
            case entries.AuthzDenied():
                self.refused.append(_line(leaf, entry, entry.subject, f"{entry.action}: {entry.rule}"))
            case StudyEntry() if entry.study == self.id:
                self._take_study(leaf, entry)
            case _:
                pass

    def _take_study(self, leaf: int, entry: StudyEntry) -> None:
        match entry:
            case SiteStudyEntry() | SiteRoundEntry():
                name = entry.actor.removeprefix("site:")
                self.concerned.add(name)
                self._take_site(leaf, entry, name)
            case RoundEntry():
                self._take_round(leaf, entry)
            case entries.StudyCreated():
                self.study = StudyFigures(
                    id=entry.study,
                    digest=entry.study_digest,
                    title=entry.title,
                    leaf=leaf,
                    epsilon=entry.epsilon,
                    delta=entry.delta,
                    rounds=entry.rounds,
                )
                self.concerned.update(entry.sites)
                self.key_leaves.append(leaf)
            case entries.StudyStarted():
                self.status, self.started_at, self.model_digest = "running", entry.ts, entry.model_digest
                self.key_leaves.append(leaf)
            case entries.StudyPaused():
                self.status = "paused"
            case entries.StudyResumed():
                self.status = "running"
            case entries.StudyAborted():
                self.status, self.ended_at = "aborted", entry.ts
                self.refused.append(_line(leaf, entry, "coordinator", f"study aborted: {entry.reason}"))
                self.key_leaves.append(leaf)
            case entries.StudyCompleted():
                self.status, self.ended_at = "completed", entry.ts
                self.key_leaves.append(leaf)
            case entries.ModelCertificate():
                self.model_certificate = (leaf, entry)
                self.key_leaves.append(leaf)
            case entries.ModelReleased():
                self.released.append(Release(model_digest=entry.model_digest, leaf=leaf))
                self.key_leaves.append(leaf)
            case _:
                pass

    def _take_site(self, leaf: int, entry: SiteStudyEntry | SiteRoundEntry, name: str) -> None:
        line = self.site(name)
        match entry:
            case entries.StudyApproved():
                line = replace(line, approved_leaf=leaf)
                self.approvals.append(_line(leaf, entry, f"{name}, steward {entry.steward}", entry.statement))
                self.key_leaves.append(leaf)
            case entries.StudyRejected():
                self.refused.append(_line(leaf, entry, name, f"study rejected: {entry.reason}"))
            case entries.CohortSnapshot():
                line = replace(line, patients=entry.patients, patients_leaf=leaf)
                self.cohorts.append(_line(leaf, entry, name, ", ".join(entry.columns)))
            case entries.DpConfigured():
                line = replace(line, steps_planned=entry.steps_planned)
                text = (
                    f"{entry.mechanism}; noise multiplier {entry.noise_multiplier:g}, sampling rate"
                    f" {entry.sampling_rate:g}, {entry.steps_planned} steps, clip {entry.clip_norm_l2:g} (L2);"
                    f" epsilon {entry.epsilon_planned:.4g} at delta {entry.delta:g} if all run;"
                    f" {entry.accountant} {entry.accountant_version}"
                )
                self.plans.append(_line(leaf, entry, name, text))
                self.key_leaves.append(leaf)
            case entries.DpAudited(failed=failed) if failed:
                self.refused.append(_line(leaf, entry, name, f"audit of its mechanism failed: {', '.join(failed)}"))
            case entries.DpCertificate():
                self.certificates[name] = (leaf, entry)
                line = replace(line, certificate=_certificate_figures(leaf, entry))
                self.key_leaves.append(leaf)
            case entries.DpExhausted():
                self.refused.append(_line(leaf, entry, name, f"budget exhausted: {entry.rule}"))
            case entries.SecaggAccused():
                where = f"round {entry.round}, attempt {entry.attempt}"
                self.refused.append(_line(leaf, entry, name, f"{where}, left because of {entry.accused}: {entry.rule}"))
            case entries.UpdateSubmitted():
                line = replace(line, updates=line.updates + 1, bytes_sent=line.bytes_sent + entry.size_bytes)
            case entries.DpSpent():
                line = replace(
                    line, steps=entry.steps_total, epsilon=entry.epsilon, delta=entry.delta, epsilon_leaf=leaf
                )
                self._spend(leaf, entry, name)
            case entries.FiguresSpent():
                line = replace(line, figures_epsilon=entry.epsilon, figures_delta=entry.delta, figures_leaf=leaf)
            case _:
                pass
        self.sites[name] = line

    def _spend(self, leaf: int, entry: entries.DpSpent, name: str) -> None:
        self.last_spent[name] = leaf
        key = (entry.round, entry.attempt)
        if key in self.rounds:
            spent = Spent(site=name, epsilon=entry.epsilon, steps_total=entry.steps_total, leaf=leaf)
            self.rounds[key] = replace(self.rounds[key], spent=(*self.rounds[key].spent, spent))

    def _take_round(self, leaf: int, entry: RoundEntry) -> None:
        key = (entry.round, entry.attempt)
        where = f"round {entry.round}, attempt {entry.attempt}"
        match entry:
            case entries.RoundStarted():
                self.rounds[key] = RoundFigures(
                    round=entry.round,
                    attempt=entry.attempt,
                    kind=entry.kind,
                    participants=entry.participants,
                    threshold=entry.threshold,
                    model_digest=entry.model_digest,
                    started_leaf=leaf,
                )
                self.concerned.update(entry.participants)
                for name in entry.participants:
                    self.sites[name] = replace(self.site(name), rounds_invited=self.site(name).rounds_invited + 1)
            case entries.RoundRefused():
                self.refused.append(_line(leaf, entry, entry.site, f"{where} refused: {entry.rule}"))
            case entries.SecaggFailed():
                self.refused.append(_line(leaf, entry, entry.blamed or "nobody proven", f"{where}: {entry.rule}"))
            case entries.RoundAborted():
                self.refused.append(_line(leaf, entry, "coordinator", f"{where} aborted: {entry.reason}"))
            case _:
                pass
        one = self.rounds.get(key)
        if one is None:
            return
        match entry:
            case entries.SecaggDropout():
                dropout = Dropout(site=entry.site, phase=entry.phase, leaf=leaf)
                self.rounds[key] = replace(one, dropouts=(*one.dropouts, dropout))
            case entries.RoundClosed():
                self.model_digest = entry.next_model_digest
                self.rounds[key] = replace(
                    one,
                    state="closed",
                    survivors=entry.survivors,
                    next_model_digest=entry.next_model_digest,
                    ended_leaf=leaf,
                )
                for name in entry.survivors:
                    self.sites[name] = replace(self.site(name), rounds_survived=self.site(name).rounds_survived + 1)
                self.key_leaves.append(leaf)
            case entries.RoundAborted():
                self.rounds[key] = replace(one, state="aborted", ended_leaf=leaf)
            case entries.ModelChosen():
                self.chosen = (leaf, entry)
                self.key_leaves.append(leaf)
            case entries.ModelEvaluated():
                self.rounds[key] = replace(one, metrics=entry.metrics, metrics_leaf=leaf)
            case _:
                pass


def _certificate_figures(leaf: int, said: entries.DpCertificate) -> CertificateFigures:
    return CertificateFigures(
        leaf=leaf,
        trust=said.trust,
        epsilon=said.epsilon,
        delta=said.delta,
        epsilon_figures=said.epsilon_figures,
        delta_figures=said.delta_figures,
        epsilon_unmasked=said.epsilon_unmasked,
        epsilon_dataset=said.epsilon_dataset,
        steps=said.event.steps,
        patients=said.patients,
        audit=said.audit,
    )


def _line(leaf: int, entry: Entry, who: str, text: str) -> Line:
    return Line(leaf=leaf, ts=entry.ts, type=entry.TYPE, who=who, text=text)


def read_report(
    log_entries: Iterable[bytes], *, study: str, checkpoint: Checkpoint, document: bytes, stated: Stated
) -> Report:
    """Read every entry of a log, in order, and tell the story of one study.

    Args:
        log_entries: stored bytes of all entries under `checkpoint`.
        study: the study's name.
        checkpoint: the tree head the figures are read under.
        document: study.json, the canonical study document.
        stated: what the exporter adds beside the log.

    Raises:
        ExportRefused: the log does not begin with log.opened, or has no such study, or the document is not JSON.
        EntryRefused: an entry is not one of ours.
    """
    reader = _Reader(study)
    for leaf, data in enumerate(log_entries):
        reader.take(leaf, parse_entry(data))
    if reader.opened is None:
        raise ExportRefused("log", "no log.opened entry", "a log opened by `consortium init`")
    if reader.study is None:
        raise ExportRefused("study", f"no study {study!r} in the log", "a study that was submitted")
    try:
        content = json.loads(document)
    except ValueError as error:
        raise ExportRefused("study document", "no JSON", "the canonical study document") from error
    if not isinstance(content, dict):
        raise ExportRefused("study document", "no JSON object", "the canonical study document")
    return Report(
        checkpoint=checkpoint,
        log_vkey=reader.opened.log_vkey,
        export_vkey=reader.opened.export_vkey,
        consortium=reader.opened.consortium,
        study=reader.study,
        status=reader.status,
        started_at=reader.started_at,
        ended_at=reader.ended_at,
        sites=tuple(reader.site(name) for name in sorted(reader.concerned)),
        rounds=tuple(reader.rounds.values()),
        model_digest=reader.model_digest,
        released=tuple(reader.released),
        refusals=tuple(reader.refusals.items()),
        approvals=tuple(reader.approvals),
        cohorts=tuple(reader.cohorts),
        plans=tuple(reader.plans),
        refused=tuple(reader.refused),
        certificates=tuple((leaf, name, said) for name, (leaf, said) in sorted(reader.certificates.items())),
        model_certificate=reader.model_certificate,
        chosen=reader.chosen,
        key_leaves=tuple(sorted({*reader.key_leaves, *reader.last_spent.values(), *reader.last_figures()})),
        document=content,
        stated=stated,
    )


def render_html(report: Report) -> bytes:
    """report.html: one file, no script, nothing loaded from elsewhere."""
    template = _page()
    closed = [one for one in report.rounds if one.state == "closed"]
    measured = [one for one in closed if one.metrics is not None]
    charted = charts.training(
        [(one.round, dict(one.metrics or ())) for one in measured], quality.values_of(report.document)
    )
    epsilons = [(one.round, spent.site, spent.epsilon) for one in report.rounds for spent in one.spent]
    final = _final(report, measured)
    shown = quality.quality_of(dict(final.metrics or ()), report.document) if final else None
    return template.render(
        report=report,
        study=report.document,
        closed=closed,
        final=final,
        largest_epsilon=max((site.epsilon for site in report.sites if site.epsilon is not None), default=None),
        threshold=min((one.threshold for one in report.rounds), default="the agreed number of"),
        charts=charted,
        quality=shown,
        figures_budget=quality.budget_of(report.document),
        without_privacy=quality.without_privacy(report.document),
        columns=_columns(measured),
        dice_chart=_dice_chart(shown) if shown else None,
        calibration=charts.calibration([(p.score, p.rate, p.low, p.high, p.patients) for p in shown.curve])
        if shown
        else None,
        epsilon_chart=charts.epsilon(epsilons, budget=report.study.epsilon) if epsilons else None,
        participation=charts.participation(
            [site.site for site in report.sites],
            [
                (
                    f"{one.round}" if one.attempt == 1 else f"{one.round}.{one.attempt}",
                    one.state,
                    set(one.participants),
                    set(one.survivors),
                    {dropout.site: dropout.phase for dropout in one.dropouts},
                )
                for one in report.rounds
            ],
        ),
        limits=LIMITS,
        not_covered=NOT_COVERED,
        certificates=certificate_view.view(report.certificates, report.model_certificate),
        guesses=certificate_view.GUESSES,
    ).encode()


def _final(report: Report, measured: Sequence[RoundFigures]) -> RoundFigures | None:
    """The round with the figures of the model that is kept: it starts from it. Without a choice, the last measured."""
    if report.chosen is not None:
        _, said = report.chosen
        return next((one for one in measured if one.round == said.origin + 1), None)
    return measured[-1] if measured else None


def _columns(measured: list[RoundFigures]) -> list[tuple[str, str]]:
    """The figures that the table of rounds shows, by their names in the log, with what they are called."""
    known = [("auc", "AUC"), ("dice", "Dice"), ("accuracy", "Accuracy"), ("loss", "Loss")]
    return [(name, label) for name, label in known if any(one.metric(name) is not None for one in measured)]


def _dice_chart(shown: quality.Quality) -> Markup | None:
    rows = [(r.name, r.quantiles, r.mean.value, r.mean.low, r.mean.high, r.patients or 0) for r in shown.dice if r.mean]
    return charts.boxes("Dice over test patients", rows)


@lru_cache(maxsize=1)
def _page() -> Template:
    source = resources.files("audit").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = _figure
    environment.filters["bytes"] = _bytes
    return environment.from_string(source)


def _figure(value: float | None, digits: int = 3) -> str:
    return "\u2013" if value is None else f"{value:.{digits}f}"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
