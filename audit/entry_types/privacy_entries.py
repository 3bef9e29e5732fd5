"""Entries about privacy: what a site will run, ran and promises, with events that anybody can compose again."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

from audit.entry_types.frame import SiteRoundEntry, SiteStudyEntry
from audit.errors import EntryRefused
from audit.fields import (
    Bucket,
    Count,
    Digest,
    Epsilon,
    Figures,
    Json,
    Label,
    Labels,
    Line,
    Lines,
    Name,
    Names,
    Outcome,
    Positive,
    Probability,
    Size,
    rules_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonSampledGaussian:
    """Steps with Gaussian noise of the site's own, as data that anybody can compose again."""

    KIND: ClassVar[str] = "poisson-sampled-gaussian"

    noise_multiplier: Size
    sampling_rate: Probability
    steps: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonSampledDiscreteGaussian:
    """Steps whose noise is the sum of `shares` sites' discrete Gaussians, seen as a sum only."""

    KIND: ClassVar[str] = "poisson-sampled-discrete-gaussian"

    noise_multiplier: Size  # of the sum
    sampling_rate: Probability
    steps: Positive
    clip_norm_l2: Size
    shares: Positive
    grid_spacing: Size
    dimension: Positive


PrivacyEvent: TypeAlias = PoissonSampledGaussian | PoissonSampledDiscreteGaussian
_EVENTS: dict[str, type[PrivacyEvent]] = {
    kind.KIND: kind for kind in (PoissonSampledGaussian, PoissonSampledDiscreteGaussian)
}


class EventRule:
    """Reads and writes privacy events, tagged with their kind; unknown kinds are refused."""

    def read(self, path: str, value: object) -> PrivacyEvent:
        """The event."""
        if isinstance(value, PrivacyEvent):
            value = self.write(value)
        name = value.get("kind") if isinstance(value, dict) else None
        kind = _EVENTS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise EntryRefused(path, repr(value)[:120], f"an event of a kind in {', '.join(_EVENTS)}")
        assert isinstance(value, dict)
        rules = rules_of(kind)
        if set(value) != {"kind", *rules}:
            raise EntryRefused(path, repr(value)[:120], f"a {name!r} event with {', '.join(sorted(rules))}")
        read: dict[str, Any] = {field: rule.read(f"{path}.{field}", value[field]) for field, rule in rules.items()}
        return kind(**read)

    def write(self, value: object) -> Json:
        """An object with its kind."""
        assert isinstance(value, PrivacyEvent)
        return {"kind": value.KIND} | {name: getattr(value, name) for name in rules_of(type(value))}


Event: TypeAlias = Annotated[PrivacyEvent, EventRule()]


@dataclass(frozen=True, slots=True, kw_only=True)
class DpConfigured(SiteStudyEntry):
    """What a site will run, and what it costs if all of it runs. `event` is all planned steps, to compose again."""

    TYPE: ClassVar[str] = "dp.configured"
    dataset: Name
    mechanism: Label
    unit: Label
    relation: Label
    noise_multiplier: Size
    sampling_rate: Probability
    steps_planned: Positive
    clip_norm_l2: Size
    event: Event
    epsilon_planned: Epsilon
    delta: Probability
    accountant: Label
    accountant_version: Label
    engine: Label  # how gradients are computed: it changes what a step costs, and nothing that is promised


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentEntry(SiteRoundEntry):
    """What one attempt cost a site's patients; epsilon and steps are totals of the study so far at this site."""

    dataset: Name
    event: Event
    epsilon: Epsilon
    delta: Probability
    steps_total: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class DpSpent(SpentEntry):
    """What training cost."""

    TYPE: ClassVar[str] = "dp.spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresSpent(SpentEntry):
    """What measuring a model cost, in a study whose test figures have a budget of their own.

    Beside `dp.spent`, never in it: another mechanism, another delta. The totals are those of the test figures; one step
    is one draw of noise, and other attempts at the same model get the same draw.
    """

    TYPE: ClassVar[str] = "figures.spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class DpAudited(SiteStudyEntry):
    """What a site measured of its own mechanism, on probes and never on patients, before it trained.

    `failed` names the checks that did not hold; the outcome is then '8'. `figures` are what was claimed and between
    which bounds it was measured; all bounds of one audit hold together with probability `confidence`.
    """

    TYPE: ClassVar[str] = "dp.audited"
    dataset: Name
    checks: Labels
    failed: Labels
    figures: Figures
    confidence: Probability


@dataclass(frozen=True, slots=True, kw_only=True)
class DpCertificate(SiteStudyEntry):
    """What a site promises each of its patients about one study that is over (after NIST SP 800-226).

    Everything in it is a constant of the study, a sum of the site's own dp.spent and figures.spent entries, or a range.
    Not in it: how often gradients were clipped, how many patients were sampled. These carry no noise and stay at the
    site.
    """

    TYPE: ClassVar[str] = "dp.certificate"
    study_digest: Digest
    dataset: Name
    unit: Label
    relation: Label
    patients: Bucket
    epsilon: Epsilon  # of the study's training, under the trust model
    delta: Probability
    epsilon_figures: Epsilon  # of its test figures, where they have a budget and any were drawn; else 0
    delta_figures: Probability
    trust: Label  # "local" or "distributed"
    threshold: Positive  # t: hospitals that together open a sum
    colluding: Count  # c: hospitals that may pool what they know, and withhold their noise
    honest: Positive  # h: shares of noise that the epsilon rests on; 1 under "local"
    epsilon_unmasked: Epsilon  # what is left of the guarantee if secure aggregation fails
    event: Event  # everything executed, as one event
    clip_norm_l2: Size
    steps_planned: Positive
    records_per_patient: Positive  # at most so many in a step
    sampling: Line
    generator: Line
    accountant: Label
    accountant_version: Label
    studies: Names  # all that this dataset was used for at this site, this one included
    epsilon_dataset: Epsilon  # over all of them
    delta_dataset: Probability
    outside: Lines  # what the guarantee does not cover
    audit: Label  # of the mechanism: "passed", "failed" or "not run"
    audit_figures: Figures
    software: Labels
    code_sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class DpExhausted(SiteStudyEntry):
    """A site's budget does not allow another round; which rule said so, without its numbers."""

    TYPE: ClassVar[str] = "dp.exhausted"
    outcome: Outcome = "4"
    dataset: Name
    rule: Line
