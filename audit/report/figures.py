"""What a report knows about one study, as values: read from the log, each figure with the leaf it was read from.

`reader` fills them, `as_json` writes them, `sections` tells them. What a caller states beside the log
(who exported, which software) is kept apart in `Stated`, since nothing proves it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from audit import entries
from audit.checkpoint import Checkpoint
from audit.entries import Entry
from audit.fields import Json
from audit.heartbeats import Gap

JsonObject: TypeAlias = dict[str, Json]


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
    owner: str | None = None  # the pseudonym of whoever submitted it; None if nobody signed
    owner_key: str | None = None  # 64 hexadecimal characters
    signed_at: str | None = None


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
    certificate: CertificateFigures | None = None


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
class Seen:
    """Where entries of one type are."""

    leaves: tuple[int, ...]  # by rising index
    sites: frozenset[str]  # that signed one, or that one is about


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """When a site's masked updates left it, first and last."""

    site: str
    first_ts: str
    first_leaf: int
    last_ts: str
    last_leaf: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeats:
    """The coordinator's signs of life."""

    count: int
    first_leaf: int
    last_leaf: int
    gaps: tuple[Gap, ...]  # times that none of them covers


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLife:
    """A hospital's signs of life."""

    site: str
    count: int
    first_leaf: int
    last_leaf: int
    last_ts: str
    last_state: str
    clock_ahead_ms: int | None  # the most by which it saw the coordinator's clock ahead of its own
    gaps: tuple[Gap, ...]


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
    cosigners: tuple[str, ...]  # names under the checkpoint besides the log's own; verify.py checks what they signed
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
    first_ts: str  # of the whole log
    last_ts: str
    last_round_ts: str | None  # of the last entry of a round of this study
    uploads: tuple[Uploads, ...]
    heartbeats: Heartbeats | None
    site_life: tuple[SiteLife, ...]  # by site, of those that wrote any
    seen: Mapping[str, Seen]  # by type, of this study or of no study
    facts: tuple[tuple[int, Entry], ...]  # leaf, entry: all in `seen` but those of rounds and heartbeats
    document: JsonObject  # study.json
    stated: Stated

    def of(self, *kinds: str) -> tuple[tuple[int, Entry], ...]:
        """The facts of some types, in the order of the log."""
        return tuple((leaf, entry) for leaf, entry in self.facts if entry.TYPE in kinds)
