"""Entries -> Report: the fold that reads a whole log once, in order, and keeps what one study's report needs.

Evidence sections R1 to R14. Every figure carries the index of the leaf it was read from. `verify.py` counts the same
figures again with its own code and compares them with report.json.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from audit import entries
from audit.checkpoint import Checkpoint
from audit.entries import (
    Declaration,
    EitherEntry,
    Entry,
    RoundEntry,
    SiteRoundEntry,
    SiteStudyEntry,
    StudyEntry,
    parse_entry,
)
from audit.errors import ExportRefused
from audit.heartbeats import Gap, gaps
from audit.report.figures import (
    CertificateFigures,
    Dropout,
    Heartbeats,
    Line,
    Release,
    Report,
    RoundFigures,
    Seen,
    SiteFigures,
    SiteLife,
    Spent,
    Stated,
    StudyFigures,
    Uploads,
)

_NUMEROUS = frozenset({"heartbeat", "site.heartbeat", "auth.ok", "access.repeated"})
"""Types, besides those of rounds, of which a log may hold any number: the report counts them and keeps none."""


@dataclass(slots=True)
class _Tally:
    """What is counted of one site, entry by entry: mutable, because a long log has many of them."""

    invited: int = 0
    survived: int = 0
    updates: int = 0
    bytes_sent: int = 0
    first: tuple[int, str] = (0, "")  # leaf and time of the first upload, and of the last
    last: tuple[int, str] = (0, "")
    spent: tuple[int, entries.DpSpent] | None = None  # the last

    def upload(self, leaf: int, entry: entries.UpdateSubmitted) -> None:
        self.last = (leaf, entry.ts)
        if not self.updates:
            self.first = self.last
        self.updates += 1
        self.bytes_sent += entry.size_bytes

    def onto(self, line: SiteFigures) -> SiteFigures:
        line = replace(
            line,
            rounds_invited=self.invited,
            rounds_survived=self.survived,
            updates=self.updates,
            bytes_sent=self.bytes_sent,
        )
        if self.spent is None:
            return line
        leaf, said = self.spent
        return replace(line, steps=said.steps_total, epsilon=said.epsilon, delta=said.delta, epsilon_leaf=leaf)

    def uploads(self, site: str) -> Uploads:
        (first_leaf, first_ts), (last_leaf, last_ts) = self.first, self.last
        return Uploads(site=site, first_ts=first_ts, first_leaf=first_leaf, last_ts=last_ts, last_leaf=last_leaf)


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
        self.tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
        self.spent: dict[tuple[int, int], list[Spent]] = {}
        self.chosen: tuple[int, entries.ModelChosen] | None = None
        self.first_ts: str | None = None
        self.last_ts: str | None = None
        self.last_round_ts: str | None = None
        self.heard: list[tuple[int, Entry]] = []  # signs of life, and who is not expected to give any more
        self.coordinator_ts = ""
        self.seen: dict[str, tuple[list[int], set[str]]] = {}
        self.facts: list[tuple[int, Entry]] = []

    def site(self, name: str) -> SiteFigures:
        return self.sites.setdefault(name, SiteFigures(site=name))

    def finished_sites(self) -> tuple[SiteFigures, ...]:
        """Every site that this study concerns, by name, with what was counted of it."""
        return tuple(self.tallies[name].onto(self.site(name)) for name in sorted(self.concerned))

    def finished_rounds(self) -> tuple[RoundFigures, ...]:
        """Every attempt with what it cost; what was spent before an attempt began is of no attempt."""
        return tuple(
            replace(one, spent=tuple(spent for spent in self.spent.get(key, ()) if spent.leaf > one.started_leaf))
            for key, one in self.rounds.items()
        )

    def take(self, leaf: int, entry: Entry) -> None:
        self.first_ts, self.last_ts = self.first_ts or entry.ts, entry.ts
        if entry.actor == entries.COORDINATOR:
            self.coordinator_ts = entry.ts
        if getattr(entry, "study", None) not in (None, self.id):
            return
        self._see(leaf, entry)
        if entry.TYPE in self.refusals:
            self.refusals[entry.TYPE] += 1
        if isinstance(entry, Declaration):
            self.key_leaves.append(leaf)
        match entry:
            case entries.LogOpened():
                self.opened = self.opened or entry
                self.key_leaves.append(leaf)
            case entries.SiteEnrolled():
                self.sites[entry.site] = replace(self.site(entry.site), enrolled_leaf=leaf)
            case entries.AuthFailed():
                self.refused.append(_line(leaf, entry, "unknown", entry.reason))
            case entries.AuthzDenied():
                self.refused.append(
                    _line(leaf, entry, entry.subject.removeprefix("site:"), f"{entry.action}: {entry.rule}")
                )
            case StudyEntry():
                self._take_study(leaf, entry)
            case EitherEntry(study=study, actor=actor) if study is not None and actor.startswith("site:"):
                self.concerned.add(actor.removeprefix("site:"))
            case _:
                pass

    def _see(self, leaf: int, entry: Entry) -> None:
        leaves, sites = self.seen.setdefault(entry.TYPE, ([], set()))
        leaves.append(leaf)
        site = entry.actor.removeprefix("site:") if entry.actor.startswith("site:") else getattr(entry, "site", None)
        if site is not None:
            sites.add(site)
        if isinstance(entry, RoundEntry):
            self.last_round_ts = entry.ts
        elif entry.TYPE not in _NUMEROUS:
            self.facts.append((leaf, entry))
        if isinstance(entry, entries.Heartbeat | entries.SiteHeartbeat | entries.SiteRevoked):
            self.heard.append((leaf, entry))

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
                    owner=entry.owner,
                    owner_key=entry.owner_key,
                    signed_at=entry.signed_at,
                )
                self.concerned.update(entry.sites)
                self.key_leaves.append(leaf)
            case entries.StudyStarted():
                self.status, self.started_at, self.model_digest = "running", entry.ts, entry.model_digest
                self.key_leaves.append(leaf)
            case entries.StudyRefused():
                self.refused.append(_line(leaf, entry, entry.site, f"study refused: {entry.rule}: {entry.explanation}"))
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
                who = f"{name}, steward {entry.steward}{_keys(entry)}"
                self.approvals.append(_line(leaf, entry, who, entry.statement))
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
                self.tallies[name].upload(leaf, entry)
                return
            case entries.DpSpent():
                self.tallies[name].spent = (leaf, entry)
                spent = Spent(site=name, epsilon=entry.epsilon, steps_total=entry.steps_total, leaf=leaf)
                self.spent.setdefault((entry.round, entry.attempt), []).append(spent)
                return
            case entries.ModelVerified():
                return
            case entries.FiguresSpent():
                line = replace(line, figures_epsilon=entry.epsilon, figures_delta=entry.delta, figures_leaf=leaf)
            case _:
                pass
        self.sites[name] = line

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
                    self.tallies[name].invited += 1
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
                    self.tallies[name].survived += 1
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


def _heartbeats(heard: Sequence[tuple[int, Entry]], found: Sequence[Gap]) -> Heartbeats | None:
    """The coordinator's."""
    leaves = [leaf for leaf, entry in heard if isinstance(entry, entries.Heartbeat)]
    if not leaves:
        return None
    own = tuple(gap for gap in found if gap.who == entries.COORDINATOR)
    return Heartbeats(count=len(leaves), first_leaf=leaves[0], last_leaf=leaves[-1], gaps=own)


def _site_life(heard: Sequence[tuple[int, Entry]], found: Sequence[Gap]) -> tuple[SiteLife, ...]:
    """Each hospital's."""
    beats: dict[str, list[tuple[int, entries.SiteHeartbeat]]] = {}
    for leaf, entry in heard:
        if isinstance(entry, entries.SiteHeartbeat):
            beats.setdefault(entry.actor.removeprefix("site:"), []).append((leaf, entry))
    return tuple(
        SiteLife(
            site=site,
            count=len(own),
            first_leaf=own[0][0],
            last_leaf=own[-1][0],
            last_ts=own[-1][1].ts,
            last_state=own[-1][1].state,
            clock_ahead_ms=max(
                (beat.clock_offset_ms for _, beat in own if beat.clock_offset_ms is not None), default=None
            ),
            gaps=tuple(gap for gap in found if gap.who == site),
        )
        for site, own in sorted(beats.items())
    )


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one time of an entry to another; a leap second counts as the second before it."""
    first, second = (datetime.fromisoformat(text.replace(":60.", ":59.")) for text in (earlier, later))
    return (second - first).total_seconds()


def _keys(entry: entries.StudyApproved) -> str:
    """By whose keys an approval is signed: the first characters of each."""
    keys = [one.key[:16] for one in entry.signed or ()]
    return f", signed with key {', '.join(keys)}" if keys else ""


def _line(leaf: int, entry: Entry, who: str, text: str) -> Line:
    return Line(leaf=leaf, ts=entry.ts, type=entry.TYPE, who=who, text=text)


def read_report(
    log_entries: Iterable[bytes | None],
    *,
    study: str,
    checkpoint: Checkpoint,
    document: bytes,
    stated: Stated,
    cosigners: Sequence[str] = (),
) -> Report:
    """Read every entry of a log, in order, and tell the story of one study.

    Args:
        log_entries: stored bytes of all entries under `checkpoint`, None for each that a retention policy let go.
        study: the study's name.
        checkpoint: the tree head the figures are read under.
        document: study.json, the canonical study document.
        stated: what the exporter adds beside the log.
        cosigners: names of those who signed `checkpoint` besides the log.

    Raises:
        ExportRefused: the log does not begin with log.opened, or has no such study, or the document is not JSON.
        EntryRefused: an entry is not one of ours.
    """
    reader = _Reader(study)
    for leaf, data in enumerate(log_entries):
        if data is not None:
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
    sites = reader.finished_sites()
    last = [leaf for site in sites for leaf in (site.epsilon_leaf, site.figures_leaf) if leaf is not None]
    silences = gaps(reader.heard, until=reader.coordinator_ts)
    return Report(
        checkpoint=checkpoint,
        cosigners=tuple(cosigners),
        log_vkey=reader.opened.log_vkey,
        export_vkey=reader.opened.export_vkey,
        consortium=reader.opened.consortium,
        study=reader.study,
        status=reader.status,
        started_at=reader.started_at,
        ended_at=reader.ended_at,
        sites=sites,
        rounds=reader.finished_rounds(),
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
        key_leaves=tuple(sorted({*reader.key_leaves, *last})),
        first_ts=reader.first_ts or "",
        last_ts=reader.last_ts or "",
        last_round_ts=reader.last_round_ts,
        uploads=tuple(one.uploads(site) for site, one in sorted(reader.tallies.items()) if one.updates),
        heartbeats=_heartbeats(reader.heard, silences),
        site_life=_site_life(reader.heard, silences),
        seen={
            kind: Seen(leaves=tuple(leaves), sites=frozenset(sites))
            for kind, (leaves, sites) in sorted(reader.seen.items())
        },
        facts=tuple(reader.facts),
        document=content,
        stated=stated,
    )
