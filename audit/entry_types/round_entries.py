"""Entries about one attempt at one round, from the invitation to the model that came of it."""

from dataclasses import dataclass
from typing import ClassVar

from audit.entry_types.frame import RoundEntry, SiteRoundEntry
from audit.fields import (
    Count,
    Digest,
    Figures,
    Label,
    Line,
    MaybeDigest,
    MaybeFigure,
    MaybeName,
    Name,
    Names,
    Outcome,
    Positive,
    RoundKind,
)

EXACT_SUMS = "exact sums over all survivors under secure aggregation; not differentially private"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStarted(RoundEntry):
    """Sites were invited with one signed plan."""

    TYPE: ClassVar[str] = "round.started"
    kind: RoundKind
    plan_sha256: Digest
    participants: Names
    threshold: Positive
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRefused(RoundEntry):
    """A site answered an invitation with a refusal, naming its rule."""

    TYPE: ClassVar[str] = "round.refused"
    outcome: Outcome = "4"
    site: Name
    rule: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggDropout(RoundEntry):
    """A participant whose masked update is not in the sum."""

    TYPE: ClassVar[str] = "secagg.dropout"
    outcome: Outcome = "4"
    site: Name
    phase: Label
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggFailed(RoundEntry):
    """Somebody broke a rule of the protocol; `blamed` is a site, or null when the signature proves nobody.

    `evidence_sha256` is of the very message that broke it, as the coordinator keeps it, if there is one.
    """

    TYPE: ClassVar[str] = "secagg.failed"
    outcome: Outcome = "8"
    blamed: MaybeName
    phase: Label
    rule: Line
    evidence_sha256: MaybeDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggAccused(SiteRoundEntry):
    """A site left an attempt because another site, or the coordinator, broke a rule of the protocol.

    `evidence_sha256` is of the message in which the site found it, as the site keeps it.
    """

    TYPE: ClassVar[str] = "secagg.accused"
    outcome: Outcome = "8"
    accused: Name
    phase: Label
    rule: Line
    evidence_sha256: MaybeDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSubmitted(SiteRoundEntry):
    """A site uploaded one masked update: its digest and how many bytes left the building."""

    TYPE: ClassVar[str] = "update.submitted"
    masked_update_sha256: Digest
    size_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed(RoundEntry):
    """The sum is in, and makes the next global model. After an evaluation the model is the same."""

    TYPE: ClassVar[str] = "round.closed"
    survivors: Names
    transcript: Digest
    aggregate_sha256: Digest
    model_digest: Digest
    next_model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAborted(RoundEntry):
    """This attempt is over and revealed nothing."""

    TYPE: ClassVar[str] = "round.aborted"
    outcome: Outcome = "4"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVerified(SiteRoundEntry):
    """A site computed the next global model itself and got the same digest."""

    TYPE: ClassVar[str] = "model.verified"
    next_model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvaluated(RoundEntry):
    """Aggregate metrics of a model over the survivors' test patients."""

    TYPE: ClassVar[str] = "model.evaluated"
    model_digest: Digest
    metrics: Figures
    basis: Line = EXACT_SUMS


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChosen(RoundEntry):
    """The study ends with this round, and keeps the best model that was measured (`evaluation.keep_best`).

    The coordinator's word; every hospital that verified the round computed the same choice, and verify.py computes it
    again from the figures in the log.
    """

    TYPE: ClassVar[str] = "model.chosen"
    model_digest: Digest  # of its parameters alone
    metric: Label
    figure: MaybeFigure  # rounded to millionths; null if no round had one
    origin: Count  # the round that made it; 0 for the first model
    reason: Line
