"""StudyFile: everything hospitals agree to before a study runs, read from YAML or from its canonical document.

A study is data, never code: names from the allow-lists of `catalogue.py`, numbers within bounds, and rules between
them. Its canonical document is what stewards approve, what the log records and what every digest refers to; comments,
blanks and the order of keys in the YAML do not change it.

Raises, here and in the loader: FileInvalid for a file, with every problem and its line; DocumentInvalid for bytes.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen
from pydantic import AfterValidator, Field, ValidationError

from consortium.contract import yaml_file
from consortium.contract.best_model import (
    ChoiceMetric,
    StopEarly,
    choice_fits_metrics,
    choice_fits_study,
    validation_fits,
)
from consortium.contract.catalogue import LABELS_OF_LOSS, MetricName, SuiteChoice
from consortium.contract.client_algos import client_algo_takes_the_steps, records_go_as_they_are
from consortium.contract.digest import canonical_bytes, digest_of
from consortium.contract.errors import DocumentInvalid, Problem, shown
from consortium.contract.fields import Line, Prose, Seconds, SiteName, StudyName
from consortium.contract.global_model import ParameterLayout
from consortium.contract.label_metrics import metrics_fit_label
from consortium.contract.names import Digest, SiteId, StudyId
from consortium.contract.networks import Model, ModelChoice, misfits_of_data, parameters_of
from consortium.contract.parameter_parts import ParameterPattern, parts_of, parts_problems
from consortium.contract.participation_schedule import in_turn, rounds_at_most
from consortium.contract.schema import Finding, Refused, Rule, Section, Words, field_problems
from consortium.contract.starting_point import InitialWeights, LoraAdapter, adapter_fits_network
from consortium.contract.study_data import CategoryFeature, Feature, ImagingData, Split, StudyData, TabularData
from consortium.contract.study_training import (
    DISTRIBUTED,
    NONE,
    PrivacyChoice,
    Training,
    algorithm_fits_mechanism,
    no_budget_without_privacy,
    no_privacy_stays_in_sums,
    turns_fit_algorithm,
    turns_fit_figures,
    turns_fit_mechanism,
    turns_fit_sites,
)
from consortium.contract.subgroups import (
    CALIBRATION_BINS,
    CELLS_MAX,
    MINIMUM_CELL,
    NOISE_TAIL,
    SUBGROUP_BINS,
    EvaluationPrivacy,
    Subgroup,
)
from consortium.contract.tensor_clips import PATTERNS_MAX, misfits_of
from consortium.contract.witnessing import Witnessing, cosignatures_needed, enough_witnesses
from privacy.encoding import Lane, Layout, lane_scale
from privacy.errors import EncodingOverflow
from privacy.secagg.context import GROUPED_SITES_MAX
from privacy.secagg.context import SITES_MAX as _GRAPH_MAX
from privacy.secagg.groups import scaled

SITES_MIN = 3
"""With two sites, each could subtract its own update from the sum and read the other's."""

SITES_MAX = GROUPED_SITES_MAX
"""The most hospitals of a study; above `GRAPH_MAX` it must divide them into groups (protocol section 10)."""

GRAPH_MAX = _GRAPH_MAX
"""The largest complete graph of pairs (protocol section 1)."""

SPREAD_SITES_MIN = 4
"""The fewest hospitals in a sum of which mean and standard deviation of the hospitals' own figures may be taken."""

DOCUMENT_BYTES_MAX = yaml_file.FILE_BYTES_MAX
STEPS_MIN = 256
"""An update encoded in fewer steps than this, from zero to the clip bound, would be mostly rounding."""
_RINGS_BITS = (16, 32, 64)


class Ethics(Section):
    """The decision of the committee that looked at this study."""

    reference: Line
    authority: Line


def _one_of(allowed: Sequence[str]) -> AfterValidator:
    def check(text: str) -> str:
        if text not in allowed:
            raise Refused
        return text

    return AfterValidator(check)


Article6 = Annotated[
    str, _one_of([f"6(1)({letter})" for letter in "abcdef"]), Words("a paragraph of GDPR article 6: 6(1)(a) to 6(1)(f)")
]
Article9 = Annotated[
    str,
    _one_of([f"9(2)({letter})" for letter in "abcdefghij"]),
    Words("a paragraph of GDPR article 9: 9(2)(a) to 9(2)(j)"),
]


def _legal_basis(article_6: str | None, article_9: str | None, hipaa: str | None) -> Iterator[Finding]:
    if article_6 is None and article_9 is None and hipaa is None:
        yield Finding("", "no legal basis", "gdpr_article_6 together with gdpr_article_9, or hipaa, or all three")
    elif (article_6 is None) != (article_9 is None):
        given, other = ("6", "9") if article_9 is None else ("9", "6")
        yield Finding(
            "", f"gdpr_article_{given} without gdpr_article_{other}", "both: health data needs a basis in each"
        )


class LegalBasis(Section):
    """What allows the hospitals to process these records for this purpose."""

    gdpr_article_6: Article6 | None = None
    gdpr_article_9: Article9 | None = None
    hipaa: Literal["authorization", "waiver", "limited-data-set", "de-identified"] | None = None

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("gdpr_article_6", "gdpr_article_9", "hipaa"), check=_legal_basis),)


class Governance(Section):
    """Who is responsible, for what purpose, on what ground, and until when."""

    sponsor: Line
    contact: Line
    purpose: Prose
    ethics: Ethics
    legal_basis: LegalBasis
    retention_years: Annotated[int, Ge(1), Le(100)]
    expires: date  # after this day no site takes part


def _roster(required: tuple[SiteId, ...]) -> Iterator[Finding]:
    for index, site in enumerate(required):
        if site in required[:index]:
            yield Finding(f"required[{index}]", f"{shown(site)} a second time", "every hospital once")


def _minimum_within_roster(required: tuple[SiteId, ...], minimum: int) -> Iterator[Finding]:
    if minimum > len(required) >= SITES_MIN:
        yield Finding(
            "minimum", f"{minimum} with {len(required)} hospitals in sites.required",
            f"a whole number from {SITES_MIN} to {len(required)}",
        )  # fmt: skip


class Sites(Section):
    """The roster, and how many of it a round needs."""

    required: Annotated[tuple[SiteName, ...], Len(SITES_MIN, SITES_MAX)]
    minimum: Annotated[int, Ge(SITES_MIN), Le(SITES_MAX)]

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("required",), check=_roster),
        Rule(reads=("required", "minimum"), check=_minimum_within_roster),
    )

    @property
    def roster(self) -> tuple[SiteId, ...]:
        """The hospitals, sorted."""
        return tuple(SiteId(site) for site in sorted(self.required))


def _upload_within_round(round_deadline_s: float, upload_deadline_s: float) -> Iterator[Finding]:
    if upload_deadline_s > round_deadline_s:
        yield Finding(
            "upload_deadline_s",
            shown(upload_deadline_s),
            f"a number of at most round_deadline_s, {shown(round_deadline_s)}",
        )


Clip: TypeAlias = Annotated[float, Ge(1e-9), Le(1e6)]


def _clips_by_name(clips: Mapping[str, float]) -> Mapping[str, float]:
    # As with features: the order of keys in a file means nothing.
    return dict(sorted(clips.items()))


class Aggregation(Section):
    """How updates are summed without anyone seeing one."""

    protocol: Literal["secagg-v1"]
    suite: SuiteChoice = "hybrid-pq"  # hybrid post-quantum, or algorithms that FIPS 140 knows
    modulus_bits: Literal[16, 32, 64]
    threshold: Annotated[int, Ge(2), Le(SITES_MAX)]  # sites whose shares open the sum
    # The fewest hospitals of a group whose sum the coordinator sees, when there are too many for one sum.
    group_size: Annotated[int, Ge(64), Le(128)] | None = None
    round_deadline_s: Seconds
    upload_deadline_s: Seconds
    # Largest absolute value of one coordinate of an update, after weighting; in distributed-dp-sgd, noise included.
    update_clip: Clip
    # Parameters with a clip of their own, by name or pattern (`tensor_clips.py`).
    tensor_clips: (
        Annotated[Mapping[ParameterPattern, Clip], Len(1, PATTERNS_MAX), AfterValidator(_clips_by_name)] | None
    ) = None
    max_patients_per_site: Annotated[int, Ge(1), Le(10_000_000)]  # bounds counts and weights in the ring

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("round_deadline_s", "upload_deadline_s"), check=_upload_within_round),
    )


def _metrics_differ(metrics: tuple[str, ...]) -> Iterator[Finding]:
    for index, metric in enumerate(metrics):
        if metric in metrics[:index]:
            yield Finding(f"metrics[{index}]", f"{metric} a second time", "every metric once")


def _specificity_with_sensitivity(metrics: tuple[str, ...], specificity: float | None) -> Iterator[Finding]:
    if ("sensitivity" in metrics) != (specificity is not None):
        given = "nothing" if specificity is None else shown(specificity)
        yield Finding("specificity", given, "a number between 0 and 1, together with sensitivity in metrics")


def _cells_not_too_many(subgroups: tuple[Subgroup, ...] | None) -> Iterator[Finding]:
    cells = sum(one.cells for one in subgroups or ())
    if cells > CELLS_MAX:
        yield Finding("subgroups", f"{cells} groups of patients", f"at most {CELLS_MAX} together")


def _private_figures_from_histograms(
    privacy: EvaluationPrivacy | None, per_site: str | None, score_bins: int, calibration_bins: int | None
) -> Iterator[Finding]:
    """With a budget every figure comes from noisy histograms: what cannot be read off those cannot be had."""
    if privacy is None:
        return
    if per_site is not None:
        yield Finding("per_site", per_site, "nothing, with evaluation.privacy: a hospital's own figures have no noise")
    if score_bins % (calibration_bins or CALIBRATION_BINS):
        yield Finding(
            "calibration_bins", shown(calibration_bins or CALIBRATION_BINS),
            f"a divisor of score_bins, {score_bins}, with evaluation.privacy: the curve is read off the histograms",
        )  # fmt: skip


class Evaluation(Section):
    """What is measured on the patients set aside, and summed under the same masks."""

    split: Literal["site-held-out"]
    metrics: Annotated[tuple[MetricName, ...], Len(1, 16)]
    every_rounds: Annotated[int, Ge(1), Le(100_000)]
    score_bins: Annotated[int, Ge(2), Le(10_000)] = 100  # of the histograms AUC is computed from
    decision_threshold: Annotated[float, Gt(0), Lt(1)] = 0.5  # of the score of a binary label
    specificity: Annotated[float, Gt(0), Lt(1)] | None = None  # at which the sensitivity is given
    calibration_bins: Annotated[int, Ge(2), Le(50)] | None = None  # of the calibration curve; see `curve_bins`
    per_site: Literal["spread"] | None = None  # mean and standard deviation over hospitals of each one's own figures
    subgroups: Annotated[tuple[Subgroup, ...], MaxLen(16)] | None = None
    subgroup_bins: Annotated[int, Ge(2), Le(1_000)] | None = None  # of each cell's score histograms; see `cell_bins`
    minimum_cell: Annotated[int, Ge(2), Le(10_000)] | None = None  # see `smallest_cell`
    privacy: EvaluationPrivacy | None = None  # a budget for the test figures; without it they are exact sums
    keep_best: ChoiceMetric | None = None  # the metric by which the model that is released is chosen; without, the last
    stop_early: StopEarly | None = None  # when training ends before its last round, by the same metric

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("metrics",), check=_metrics_differ),
        Rule(reads=("metrics", "specificity"), check=_specificity_with_sensitivity),
        Rule(reads=("metrics", "keep_best", "stop_early"), check=choice_fits_metrics),
        Rule(reads=("subgroups",), check=_cells_not_too_many),
        Rule(reads=("privacy", "per_site", "score_bins", "calibration_bins"), check=_private_figures_from_histograms),
    )

    @property
    def curve_bins(self) -> int:
        """Bins of the calibration curve."""
        return self.calibration_bins or CALIBRATION_BINS

    @property
    def cell_bins(self) -> int:
        """Bins of the score histograms of every cell of a subgroup."""
        return self.subgroup_bins or SUBGROUP_BINS

    @property
    def smallest_cell(self) -> int:
        """A hospital withholds cells of fewer test patients, and a report leaves out figures of fewer."""
        return self.minimum_cell or MINIMUM_CELL


def _threshold_fits(required: tuple[SiteId, ...], threshold: int) -> Iterator[Finding]:
    sites = len(required)
    # Section 2: with 2t <= n a lying coordinator could have two disjoint groups open two different sums.
    if not sites // 2 < threshold <= sites:
        yield Finding(
            "aggregation.threshold",
            f"{threshold} with {sites} hospitals in sites.required",
            f"a whole number from {sites // 2 + 1} to {sites}: more than half of the hospitals and not more than all",
        )


def _groups_fit(
    required: tuple[SiteId, ...], minimum: int, group_size: int | None, weighting: str
) -> Iterator[Finding]:
    """Section 10: many hospitals are divided, into groups of the size that was promised, over private values only."""
    if group_size is None:
        if len(required) > GRAPH_MAX:
            yield Finding(
                "aggregation.group_size", f"nothing with {len(required)} hospitals in sites.required",
                f"a whole number from 64 to 128: more than {GRAPH_MAX} hospitals are summed in groups",
            )  # fmt: skip
        return
    if group_size > minimum:
        yield Finding(
            "aggregation.group_size", shown(group_size),
            f"a whole number of at most sites.minimum, {minimum}: a round of so few has no group of that size",
        )  # fmt: skip
    if weighting != "uniform":
        # The numbers of patients stay the same while the groups change: each could be solved for.
        yield Finding(
            "training.weighting", weighting, "uniform, with aggregation.group_size: weights would show in group sums"
        )


def _mechanism_fits(
    required: tuple[SiteId, ...],
    mechanism: str,
    colluding: int | None,
    threshold: int,
    group_size: int | None,
) -> Iterator[Finding]:
    """Whose noise a sum has: of every t survivors all but c are honest, so that h = t - c shares are in it.

    With 2t > n + c, h is at least 1: t > c + (n - t), and t is at most n.
    """
    if mechanism != DISTRIBUTED:
        if colluding is not None:
            yield Finding(
                "privacy.colluding", shown(colluding),
                f"nothing with {mechanism}, which trusts no other hospital; it belongs to {DISTRIBUTED}",
            )  # fmt: skip
        return
    if group_size is not None:
        yield Finding(
            "aggregation.group_size", shown(group_size),
            f"nothing with {DISTRIBUTED}: the sum of a group would carry the noise of that group alone",
        )  # fmt: skip
    sites, dishonest = len(required), colluding or 0
    # Section 2, with c in both of two groups: else they could open two sums, each with less than the noise of h.
    if 2 * threshold <= sites + dishonest:
        yield Finding(
            "aggregation.threshold" if dishonest == 0 else "privacy.colluding",
            f"threshold {threshold}, {sites} hospitals and colluding {dishonest}",
            "a threshold of which the double is more than the hospitals and the colluding ones together",
        )


def _round_fits_mechanism(
    mechanism: str,
    local_steps: int,
    weighting: str,
    server_learning_rate: float,
    tensor_clips: Mapping[str, float] | None,
) -> Iterator[Finding]:
    """In distributed-dp-sgd one round is one step, and the coordinator's optimizer takes it."""
    if mechanism != DISTRIBUTED:
        return
    if local_steps != 1:
        yield Finding(
            "training.local_steps", shown(local_steps), f"1 with {DISTRIBUTED}: every step is a sum over the hospitals"
        )
    if weighting != "uniform":
        yield Finding(
            "training.weighting", weighting, f"uniform with {DISTRIBUTED}: a weight would multiply a site's noise too"
        )
    if server_learning_rate != 1:
        yield Finding(
            "training.server_learning_rate", shown(server_learning_rate),
            f"1.0 with {DISTRIBUTED}: training.optimizer.learning_rate is the coordinator's",
        )  # fmt: skip
    if tensor_clips is not None:
        yield Finding(
            "aggregation.tensor_clips", "clips by parameter",
            f"nothing with {DISTRIBUTED}: the noise of all parameters is drawn on one grid",
        )  # fmt: skip


def _delta_protects_one(minimum_patients: int, delta: float) -> Iterator[Finding]:
    # At delta >= 1/n, publishing one patient's record at random would count as private.
    if delta * minimum_patients >= 1:
        yield Finding(
            "privacy.delta", shown(delta),
            f"a number less than 1/{minimum_patients}, one in data.minimum_patients; well below it is better",
        )  # fmt: skip


def _sums_fit(
    required: tuple[SiteId, ...],
    bits: int,
    update_clip: float,
    tensor_clips: Mapping[str, float] | None,
    patients: int,
) -> Iterator[Finding]:
    """Section 5: the ring holds every sum over the whole roster, and an update is more than rounding."""
    sites = len(required)
    clips = [(update_clip, "update_clip"), *((clip, "its clip") for clip in (tensor_clips or {}).values())]
    too_coarse = [(steps, clip, name) for clip, name in clips if (steps := _steps(sites, clip, bits)) < STEPS_MIN]
    if too_coarse:
        steps, clip, name = min(too_coarse)
        fitting = next((b for b in _RINGS_BITS if b > bits and _steps(sites, clip, b) >= STEPS_MIN), None)
        larger = f"{fitting}, or fewer hospitals" if fitting else "fewer hospitals"
        yield Finding(
            "aggregation.modulus_bits", f"{bits} with {sites} hospitals",
            f"{larger}: with {bits} bits an update would travel in {steps:g} steps from 0 to {name}, {shown(clip)}; at "
            f"least {STEPS_MIN} are needed, which {bits} bits have for up to {_sites_most(clip, bits)} hospitals",
        )  # fmt: skip
    counts = Lane(name="patients", length=1, clip=float(patients), scale=1.0)
    try:
        Layout(modulus_bits=bits, lanes=(counts,)).check(sites)
    except EncodingOverflow:
        room = (2 ** (bits - 1) - 1) // sites - 1
        fitting = next((b for b in _RINGS_BITS if (2 ** (b - 1) - 1) // sites - 1 >= patients), 64)
        yield Finding(
            "aggregation.max_patients_per_site", f"{patients} with {sites} hospitals and modulus_bits {bits}",
            f"at most {room}, or modulus_bits {fitting}: the sum over all hospitals would wrap",
        )  # fmt: skip


def _steps(sites: int, clip: float, bits: int) -> float:
    """Steps from 0 to the clip; less than 1 where not even those fit."""
    try:
        return clip * lane_scale(sites, clip, bits)
    except EncodingOverflow:
        return 0.0


def _sites_most(clip: float, bits: int) -> int:
    """The most hospitals for which the ring has `STEPS_MIN` steps from 0 to the clip."""
    scale = Fraction(2) ** (math.frexp(STEPS_MIN / clip)[1])
    while scale / 2 * Fraction(clip) >= STEPS_MIN:
        scale /= 2
    return int((2 ** (bits - 1) - 1) // (scale * Fraction(clip) + 1))


def _parts_fit_network(
    model: Model,
    data: TabularData | ImagingData,
    trainable: tuple[str, ...] | None,
    site_kept: tuple[str, ...] | None,
) -> Iterator[Finding]:
    parameters = parameters_of(model, data.input_shape, data.outputs)
    if parameters is None:  # not known before a hospital builds the network, which checks it then
        return
    for problem in parts_problems(parameters, trainable, site_kept):
        yield Finding(problem.path, problem.found, problem.allowed)


def _clips_fit_network(  # noqa: PLR0917 - the values of a rule
    model: Model,
    data: TabularData | ImagingData,
    trainable: tuple[str, ...] | None,
    site_kept: tuple[str, ...] | None,
    update_clip: float,
    tensor_clips: Mapping[str, float] | None,
) -> Iterator[Finding]:
    parameters = parameters_of(model, data.input_shape, data.outputs)
    if tensor_clips is None or parameters is None:
        return
    # Said here, with the line, rather than at the first hospital that builds the network.
    if parts_problems(parameters, trainable, site_kept):
        return
    parameters = parts_of(parameters, trainable, site_kept).sent
    for misfit in misfits_of(parameters, update_clip, tensor_clips):
        at = ("aggregation", "tensor_clips", *filter(None, [misfit.pattern]))
        yield Finding(at, misfit.found, misfit.allowed)


def _evaluates_once(rounds: int, every_rounds: int) -> Iterator[Finding]:
    if every_rounds > rounds:
        yield Finding(
            "evaluation.every_rounds", shown(every_rounds), f"a whole number of at most training.rounds, {rounds}"
        )


def _subgroups_of_a_table(kind: str, subgroups: tuple[Subgroup, ...] | None) -> Iterator[Finding]:
    if kind != "tabular" and subgroups:
        yield Finding("evaluation.subgroups", f"groups of patients with {kind} data", "nothing: images have no columns")


def _network_takes_data(model: Model, data: TabularData | ImagingData) -> Iterator[Finding]:
    if isinstance(data, ImagingData):
        for at, found, allowed in misfits_of_data(model, kind=data.kind, task=data.task, shape=data.network_sides):
            # What the network sees may be a patch, whose sides stand elsewhere in the file.
            sides = at if data.patch is None else str(at).replace("data.shape", "data.patch.shape")
            yield Finding(sides, found, allowed)
    else:
        yield from misfits_of_data(model, kind=data.kind)


def _loss_fits_label(data: TabularData | ImagingData, loss: str) -> Iterator[Finding]:
    if data.label.type not in LABELS_OF_LOSS[loss]:
        fitting = ", ".join(name for name, labels in LABELS_OF_LOSS.items() if data.label.type in labels)
        yield Finding("training.loss", loss, f"one of {fitting}, with labels of type {data.label.type}")


def _subgroups_fit(features: Mapping[str, Feature], subgroups: tuple[Subgroup, ...] | None) -> Iterator[Finding]:
    for index, subgroup in enumerate(subgroups or ()):
        at: tuple[str | int, ...] = ("evaluation", "subgroups", index)
        feature = features.get(subgroup.column)
        if feature is None:
            yield Finding((*at, "column"), shown(subgroup.column), "a column that is one of the features")
        elif isinstance(feature, CategoryFeature):
            if subgroup.bands is not None:
                yield Finding((*at, "bands"), "bands of a category", "values: only numbers have bands")
            for place, value in enumerate(subgroup.values or ()):
                if value not in feature.values:
                    allowed = "one of " + ", ".join(map(str, feature.values))
                    yield Finding((*at, "values", place), shown(value), allowed)
        else:
            low, high = feature.range
            for name, numbers in (("values", subgroup.values), ("bands", subgroup.bands)):
                for place, number in enumerate(numbers or ()):
                    if isinstance(number, str) or not low <= number <= high:
                        allowed = f"a number within the range of the column, {shown(low)} to {shown(high)}"
                        yield Finding((*at, name, place), shown(number), allowed)


def _noisy_counts_fit(
    required: tuple[SiteId, ...], bits: int, patients: int, privacy: EvaluationPrivacy | None
) -> Iterator[Finding]:
    """Noise of at least one patient is drawn in so many steps that its steps do not show."""
    if privacy is not None and _steps(len(required), patients + NOISE_TAIL, bits) < STEPS_MIN * (patients + NOISE_TAIL):
        yield Finding(
            "evaluation.privacy", f"modulus_bits {bits} with {len(required)} hospitals",
            f"a larger ring, or a smaller max_patients_per_site: noisy counts need {STEPS_MIN} steps for each patient",
        )  # fmt: skip


def _validation_fits(
    split: Split, patients: int, threshold: int, minimum: int, evaluation: Evaluation
) -> Iterator[Finding]:
    yield from validation_fits(
        evaluation.keep_best,
        split,
        patients=patients,
        sites=max(threshold, minimum),
        smallest_cell=evaluation.smallest_cell,
    )


def _spread_over_enough(threshold: int, minimum: int, per_site: str | None) -> Iterator[Finding]:
    # A mean and a standard deviation are two equations: a hospital of three would solve them for the other two.
    if per_site == "spread" and max(threshold, minimum) < SPREAD_SITES_MIN:
        yield Finding(
            "evaluation.per_site", per_site,
            f"nothing, or sites.minimum of at least {SPREAD_SITES_MIN}: of three hospitals' figures, mean and standard "
            "deviation tell each hospital the figures of both others",
        )  # fmt: skip


def _patients_bounds(minimum: int, maximum: int) -> Iterator[Finding]:
    if minimum > maximum:
        yield Finding(
            "data.minimum_patients", shown(minimum),
            f"a whole number of at most aggregation.max_patients_per_site, {maximum}",
        )  # fmt: skip


class StudyFile(Section):
    """A study, as its YAML file says it."""

    schema_version: Annotated[Literal["consortium/study/v1"], Field(alias="schema")]
    id: StudyName
    title: Line
    governance: Governance
    sites: Sites
    data: StudyData
    model: ModelChoice
    initial_weights: InitialWeights | None = None  # the first weights are those of a file, and not drawn from the seed
    adapter: LoraAdapter | None = None  # what is trained in the place of a transformer's own layers
    training: Training
    privacy: PrivacyChoice
    aggregation: Aggregation
    evaluation: Evaluation
    witnesses: Witnessing | None = None  # whose cosignatures of the log are needed; without it, a majority of hospitals

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("sites.required", "aggregation.threshold"), check=_threshold_fits),
        Rule(reads=("sites.required", "aggregation.threshold", "witnesses"), check=enough_witnesses),
        Rule(
            reads=("sites.required", "sites.minimum", "aggregation.group_size", "training.weighting"),
            check=_groups_fit,
        ),
        Rule(
            reads=(
                "sites.required",
                "privacy.mechanism",
                "privacy.colluding",
                "aggregation.threshold",
                "aggregation.group_size",
            ),
            check=_mechanism_fits,
        ),
        Rule(
            reads=("privacy.mechanism", "training.algorithm", "training.site_kept", "training.optimizer_state"),
            check=algorithm_fits_mechanism,
        ),
        Rule(
            reads=(
                "privacy.mechanism",
                "training.client_algo",
                "training.algorithm",
                "training.trainable",
                "training.site_kept",
                "training.schedule",
                "training.optimizer_state",
                "adapter",
            ),
            check=client_algo_takes_the_steps,
        ),
        Rule(reads=("training.client_algo", "data.augmentation"), check=records_go_as_they_are),
        Rule(reads=("privacy.mechanism", "aggregation.group_size"), check=no_privacy_stays_in_sums),
        Rule(reads=("privacy.mechanism", "evaluation.privacy"), check=no_budget_without_privacy),
        Rule(
            reads=("sites.required", "sites.minimum", "aggregation.threshold", "training.participants_per_round"),
            check=turns_fit_sites,
        ),
        Rule(
            reads=("training.participants_per_round", "training.algorithm", "training.weighting"),
            check=turns_fit_algorithm,
        ),
        Rule(
            reads=("training.participants_per_round", "privacy.mechanism", "aggregation.group_size"),
            check=turns_fit_mechanism,
        ),
        Rule(
            reads=(
                "training.participants_per_round",
                "training.rounds",
                "evaluation.every_rounds",
                "evaluation.keep_best",
                "evaluation.stop_early",
            ),
            check=turns_fit_figures,
        ),
        Rule(
            reads=(
                "privacy.mechanism",
                "training.local_steps",
                "training.weighting",
                "training.server_learning_rate",
                "aggregation.tensor_clips",
            ),
            check=_round_fits_mechanism,
        ),
        Rule(reads=("data.minimum_patients", "privacy.delta"), check=_delta_protects_one),
        Rule(
            reads=(
                "sites.required",
                "aggregation.modulus_bits",
                "aggregation.update_clip",
                "aggregation.tensor_clips",
                "aggregation.max_patients_per_site",
            ),
            check=_sums_fit,
        ),
        Rule(reads=("model", "data", "training.trainable", "training.site_kept"), check=_parts_fit_network),
        Rule(
            reads=(
                "model",
                "data",
                "training.trainable",
                "training.site_kept",
                "aggregation.update_clip",
                "aggregation.tensor_clips",
            ),
            check=_clips_fit_network,
        ),
        Rule(reads=("training.rounds", "evaluation.every_rounds"), check=_evaluates_once),
        Rule(
            reads=("evaluation.keep_best", "aggregation.group_size", "training.averaging", "training.site_kept"),
            check=choice_fits_study,
        ),
        Rule(
            reads=(
                "data.split",
                "data.minimum_patients",
                "aggregation.threshold",
                "sites.minimum",
                "evaluation",
            ),
            check=_validation_fits,
        ),
        Rule(reads=("data.features", "evaluation.subgroups"), check=_subgroups_fit),
        Rule(
            reads=("data.label", "evaluation.metrics", "evaluation.score_bins", "evaluation.privacy"),
            check=metrics_fit_label,
        ),
        Rule(reads=("data.kind", "evaluation.subgroups"), check=_subgroups_of_a_table),
        Rule(reads=("model", "data"), check=_network_takes_data),
        Rule(reads=("model", "adapter"), check=adapter_fits_network),
        Rule(reads=("data", "training.loss"), check=_loss_fits_label),
        Rule(
            reads=(
                "sites.required",
                "aggregation.modulus_bits",
                "aggregation.max_patients_per_site",
                "evaluation.privacy",
            ),
            check=_noisy_counts_fit,
        ),
        Rule(reads=("aggregation.threshold", "sites.minimum", "evaluation.per_site"), check=_spread_over_enough),
        Rule(reads=("data.minimum_patients", "aggregation.max_patients_per_site"), check=_patients_bounds),
    )

    @property
    def study_id(self) -> StudyId:
        """The study's name, as its type."""
        return StudyId(self.id)

    @property
    def sites_in_a_sum(self) -> int:
        """The fewest hospitals in any sum that the coordinator may see: in groups, in the sum of one group."""
        return self._in_a_group(max(self.aggregation.threshold, self.sites.minimum))

    @property
    def sites_that_open(self) -> int:
        """The fewest hospitals whose shares open any sum."""
        return self._in_a_group(self.aggregation.threshold)

    def _in_a_group(self, of_all: int) -> int:
        size = self.aggregation.group_size
        return of_all if size is None else scaled(of_all, size, len(self.sites.required))

    def sites_of_round(self, round_number: int) -> tuple[SiteId, ...]:
        """The hospitals that may be invited to a round, sorted; to the evaluation after training all of them are."""
        per_round = self.training.participants_per_round
        if per_round is None or round_number > self.training.rounds:
            return self.sites.roster
        return in_turn(self.digest(), self.sites.roster, per_round, round_number)

    def turns_of(self, site: SiteId) -> tuple[int, ...]:
        """The training rounds that a hospital of the study may be invited to, in order."""
        numbers, per_round = range(1, self.training.rounds + 1), self.training.participants_per_round
        if per_round is None:
            return tuple(numbers)
        digest, roster = self.digest(), self.sites.roster
        return tuple(number for number in numbers if site in in_turn(digest, roster, per_round, number))

    @property
    def rounds_of_a_site(self) -> int:
        """The most training rounds that any hospital is in; its noise and its budget are for so many."""
        rounds, per_round = self.training.rounds, self.training.participants_per_round
        return rounds if per_round is None else rounds_at_most(rounds, len(self.sites.required), per_round)

    @property
    def steps_of_a_site(self) -> int:
        """The most steps that any hospital takes, spare rounds included: what noise is calibrated for."""
        return (self.rounds_of_a_site + self.training.spare_rounds) * self.training.local_steps

    @property
    def is_distributed(self) -> bool:
        """Whether the noise that protects a patient is the sum of the hospitals' shares."""
        return self.privacy.mechanism == DISTRIBUTED

    @property
    def has_validation(self) -> bool:
        """Whether the model is chosen by patients who are neither trained on nor tested on."""
        return self.data.split.validation_fraction is not None

    @property
    def is_private(self) -> bool:
        """Whether patients are promised differential privacy at all."""
        return self.privacy.mechanism != NONE

    @property
    def honest_shares(self) -> int:
        """The h of the design, t - c: so many shares of the noise are in every sum, whoever drops out or cheats."""
        return self.aggregation.threshold - (self.privacy.colluding or 0)

    @property
    def parameters(self) -> ParameterLayout | None:
        """Names and shapes of the parameters that are sent, as far as they are known without building the network.

        None for the networks of MONAI: those are known when the hospitals have built the first model.
        """
        parameters = parameters_of(self.model, self.data.input_shape, self.data.outputs)
        if parameters is None:
            return None
        return parts_of(parameters, self.training.trainable, self.training.site_kept).sent

    @property
    def cosignatures_needed(self) -> int:
        """Of so many of its hospitals a checkpoint must have cosignatures before the study relies on it."""
        return cosignatures_needed(len(self.sites.required), self.witnesses.lying if self.witnesses is not None else 0)

    def document(self) -> bytes:
        """The canonical bytes that stewards approve and digests refer to."""
        return canonical_bytes(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def digest(self) -> Digest:
        """SHA-256 of the document."""
        return digest_of(self.document())

    @classmethod
    def from_document(cls, document: bytes) -> Self:
        """Read a canonical document from a peer or a store; raises DocumentInvalid unless it is exactly canonical.

        Bytes that mean a study but are not its document (other order, blanks, a key twice) are refused too: one study
        has one document, so whoever compares digests compares studies.
        """
        if len(document) > DOCUMENT_BYTES_MAX:
            size = Problem(
                path="", line=None, found=f"{len(document)} bytes", allowed=f"at most {DOCUMENT_BYTES_MAX} bytes"
            )
            raise DocumentInvalid("study document", [size])
        try:
            study = cls.model_validate_json(document)
        except ValidationError as error:
            raise DocumentInvalid("study document", _document_problems(cls, document, error)) from None
        if study.document() != document:
            found = Problem(path="", line=None, found="bytes that are not canonical", allowed="canonical JSON")
            raise DocumentInvalid("study document", [found])
        return study


def load_study(path: Path) -> StudyFile:
    """The study in the YAML file at `path`; raises FileInvalid with every problem in it."""
    return yaml_file.load(path, StudyFile)


def _document_problems(model: type[Section], document: bytes, error: ValidationError) -> list[Problem]:
    try:
        data = _as_read(json.loads(document))
    except (ValueError, RecursionError):
        return [Problem(path="", line=None, found="bytes that are not JSON", allowed="a canonical study document")]
    return [problem for _, problem in field_problems(model, data, error)]


def _as_read(value: object) -> object:
    """JSON values in the form the YAML reader gives them: tuples for lists."""
    if isinstance(value, dict):
        return {key: _as_read(inner) for key, inner in value.items()}
    return tuple(_as_read(inner) for inner in value) if isinstance(value, list) else value
