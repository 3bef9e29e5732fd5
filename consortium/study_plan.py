"""`consortium study plan`: what a study file's privacy will cost and do, before anybody is asked to approve it.

Everything is computed from the file alone. No data is needed, so nothing is spent by looking, however often.
"""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from audit.certificate import percent_right
from consortium.contract.best_model import choice_costs
from consortium.contract.figures_budget import figures_privacy, mechanism_of
from consortium.contract.global_model import parameter_count
from consortium.contract.shared_noise import expected_parameters, shared_noise
from consortium.contract.study import StudyFile
from consortium.errors import ConsortiumError
from privacy.dp import accountant, distributed
from privacy.dp.calibrate import calibrate
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Mechanism
from privacy.dp.plan import Design, odds
from privacy.errors import LocalProtocolError

BETTER = 0.97
"""An alternative is worth a line if noise to signal falls to this part of the study's."""

WIDTH = 110

_NOISE_TO_SIGNAL = (
    "Noise to signal, the expected length of the noise over that of the best signal there can be (full clip norms in "
    "one direction); above 1 the noise is longer:"
)

NOISY_COUNT = 0.01
"""Noise on a count of test patients, as a part of all patients, from which figures will be hard to read."""

_UNBUILT = (
    "its parameters are counted when hospitals build it: multiply noise to signal, below, by the square root of their "
    "number"
)

LOUD = 1.0
"""Noise to signal of a whole study from which its noise is longer than the best signal there can be."""


class NoPlan(ConsortiumError):
    """No noise gives this study its epsilon. Whose fault: the numbers asked for."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Ask for another epsilon with --epsilon, or change rounds, sampling_rate or the ring in the study."


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The same epsilon with another number of rounds, or another sampling rate."""

    rounds: int
    sampling_rate: float
    noise_multiplier: float
    noise_to_signal_sum: float
    noise_to_signal_study: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A distributed study when all goes as promised, better, or worse."""

    name: str
    shares: int
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresPlan:
    """Test figures with a budget of their own: what every hospital's dataset is charged besides the training."""

    epsilon: float
    delta: float
    draws: int  # measured rounds that are planned for
    patients_std: float  # of the noise on one count at one hospital, in patients
    patients_std_sum: float  # and on the smallest sum


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What `plan` found."""

    study: StudyFile
    epsilon: float  # the target, of the training
    design: Design
    figures: FiguresPlan | None
    cumulative: tuple[tuple[int, float], ...]  # after so many rounds: epsilon
    cases: tuple[Case, ...]  # of a distributed study
    alternatives: tuple[Alternative, ...]
    warnings: tuple[str, ...]

    @property
    def together(self) -> tuple[float, float]:
        """Epsilon and delta of training and test figures, simply added: what one patient pays for all of the study."""
        figures = self.figures
        if figures is None:
            return self.epsilon, self.design.delta
        return self.epsilon + figures.epsilon, self.design.delta + figures.delta

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        design, mechanism = self.design, self.design.mechanism
        return {
            "study": self.study.id,
            "mechanism": self.study.privacy.mechanism,
            "epsilon": self.epsilon,
            "delta": design.delta,
            "noise_multiplier": mechanism.noise_multiplier,
            "clip_norm_l2": mechanism.clip_norm_l2,
            "sampling_rate": mechanism.sampling_rate,
            "steps": mechanism.steps,
            "steps_per_round": design.local_steps,
            "rounds": self.study.training.rounds,
            "spare_rounds": self.study.training.spare_rounds,
            "rounds_of_one_site": self.study.rounds_of_a_site,
            "epsilon_of_one_round": self.cumulative[0][1],
            "epsilon_after": [{"rounds": rounds, "epsilon": epsilon} for rounds, epsilon in self.cumulative],
            "patients": design.patients,
            "expected_batch": design.expected_batch,
            "chance_of_empty_batch": design.chance_of_empty_batch,
            "parameters": None if self.study.parameters is None else design.parameters,
            "sites_in_smallest_sum": design.sites,
            "noise_to_signal": {
                "one_site_step": design.noise_to_signal_site,
                "sum_step": design.noise_to_signal_sum,
                "study": design.noise_to_signal_study,
            },
            "delta_times_patients": design.exposed_patients,
            "test_figures": None if self.figures is None else asdict(self.figures),
            "together": {"epsilon": self.together[0], "delta": self.together[1]},
            "right_at_most": odds(self.together[0]),
            "cases": [{"case": c.name, "shares": c.shares, "epsilon": c.epsilon} for c in self.cases],
            "alternatives": [
                {
                    "rounds": a.rounds,
                    "sampling_rate": a.sampling_rate,
                    "noise_multiplier": a.noise_multiplier,
                    "noise_to_signal": {"sum_step": a.noise_to_signal_sum, "study": a.noise_to_signal_study},
                }
                for a in self.alternatives
            ],
            "warnings": list(self.warnings),
            "accountant": accountant.versions(),
        }


def plan(study: StudyFile, *, epsilon: float | None = None) -> StudyPlan:
    """The plan of a study, for its own epsilon or another one.

    Raises:
        NoPlan: No noise that is allowed gives it that epsilon.
        NoiseRefused: The noise that the hospitals would share does not fit the study's ring.
    """
    if not study.is_private:
        raise NoPlan("the study promises patients no differential privacy: there is no noise to plan")
    target = study.privacy.epsilon if epsilon is None else epsilon
    study = study.model_copy(update={"privacy": study.privacy.model_copy(update={"epsilon": target})})
    try:
        design, figures = _design(study), _figures(study)
        cumulative = tuple((rounds, design.epsilon_after(rounds)) for rounds in design.milestones())
    except LocalProtocolError as error:
        raise NoPlan(f"epsilon {target:g} at delta {study.privacy.delta:g}: {error}") from error
    return StudyPlan(
        study=study,
        epsilon=target,
        design=design,
        figures=figures,
        cumulative=cumulative,
        cases=tuple(_cases(study, design)),
        alternatives=tuple(_alternatives(study, design)),
        warnings=tuple(_warnings(study, design)),
    )


def _design(study: StudyFile) -> Design:
    training = study.training
    return Design(
        mechanism=_mechanism(study),
        delta=study.privacy.delta,
        local_steps=study.training.local_steps,
        patients=study.data.minimum_patients,
        sites=max(study.sites_in_a_sum, study.sites_that_open),
        # Unknown before a hospital builds the network: then noise to signal is that of a single parameter.
        parameters=1 if study.parameters is None else parameter_count(study.parameters),
        steps_summed=(training.rounds + training.spare_rounds) * training.local_steps,
    )


def _figures(study: StudyFile) -> FiguresPlan | None:
    budget = figures_privacy(study)
    if budget is None:
        return None
    mechanism = mechanism_of(study)
    return FiguresPlan(
        epsilon=budget.epsilon,
        delta=budget.delta,
        draws=mechanism.steps,
        patients_std=mechanism.share_std,
        patients_std_sum=mechanism.share_std * math.sqrt(study.sites_that_open),
    )


def _mechanism(study: StudyFile) -> Mechanism:
    """The noise that every hospital computes for itself from the study."""
    if study.is_distributed:
        return shared_noise(study, parameters=expected_parameters(study)).mechanism
    training, privacy = study.training, study.privacy
    return calibrate(
        epsilon_target=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=training.sampling_rate,
        steps=study.steps_of_a_site,
        clip_norm_l2=privacy.clip_norm_l2,
    )


def _cases(study: StudyFile, design: Design) -> Iterator[Case]:
    if not study.is_distributed:
        return
    event, sites = DpEvent(mechanism=design.mechanism), len(study.sites.required)
    t, c, h = study.aggregation.threshold, study.privacy.colluding or 0, study.honest_shares

    def case(name: str, shares: int, event: DpEvent) -> Case:
        return Case(name=name, shares=shares, epsilon=accountant.epsilon([event], delta=design.delta))

    yield case(f"as promised: {t} hospitals in the sum, {c} of them against the patients", h, event)
    yield case(f"all {sites} hospitals in the sum, none against", sites, distributed.when_all_contribute(event, sites))
    if h > 1:
        one_less = distributed.when_shares_are_missing(event, 1)
        yield case(f"one hospital more than {c} leaves its noise out", h - 1, one_less)
    yield case("secure aggregation fails: one hospital's vector is seen", 1, distributed.site_alone(event))


def _alternatives(study: StudyFile, design: Design) -> Iterator[Alternative]:
    """Half and double the rounds, half and double the sampling rate: those with less noise to signal over the study."""
    training = study.training
    for rounds, rate in (
        (max(1, training.rounds // 2), training.sampling_rate),
        (2 * training.rounds, training.sampling_rate),
        (training.rounds, training.sampling_rate / 2),
        (training.rounds, min(1.0, 2 * training.sampling_rate)),
    ):
        if (rounds, rate) == (training.rounds, training.sampling_rate):
            continue
        changed = training.model_copy(update={"rounds": rounds, "sampling_rate": rate})
        try:
            other = _design(study.model_copy(update={"training": changed}))
        except (ConsortiumError, LocalProtocolError, ValueError):
            continue  # no alternative: the noise would not fit
        if other.noise_to_signal_study <= BETTER * design.noise_to_signal_study:
            yield Alternative(
                rounds=rounds,
                sampling_rate=rate,
                noise_multiplier=other.mechanism.noise_multiplier,
                noise_to_signal_sum=other.noise_to_signal_sum,
                noise_to_signal_study=other.noise_to_signal_study,
            )


def _warnings(study: StudyFile, design: Design) -> Iterator[str]:
    """What the guarantee does not cover, and what in the design deserves a second look."""
    if study.parameters is not None and design.noise_to_signal_study > LOUD:
        yield (
            f"over the whole study noise is {design.noise_to_signal_study:.1f} times the best signal there can be at "
            f"hospitals of {design.patients} patients: expect little, or ask for more patients (data.minimum_patients)."
        )
    if design.exposed_patients > 0.1:
        yield (
            f"delta {design.delta:g} against {design.patients} patients: choose it well below 1/patients "
            f"({1 / design.patients:.2g})."
        )
    if design.chance_of_empty_batch > 0.01:
        yield (
            f"{design.chance_of_empty_batch:.0%} of a hospital's steps sample nobody and are noise alone; a higher "
            "sampling_rate would use them."
        )
    if study.training.spare_rounds == 0:
        yield "no spare_rounds: a round that breaks off after its sum was opened ends the study a round early."
    if study.evaluation.metrics and study.aggregation.group_size is None and study.evaluation.privacy is None:
        yield (
            "not covered: the test figures of evaluation.metrics, exact sums over hospitals that only secure "
            "aggregation hides; evaluation.privacy gives them a budget."
        )
    if study.evaluation.keep_best is not None:
        has_budget = study.evaluation.privacy is not None
        has_validation = study.has_validation
        costs = choice_costs(has_budget=has_budget, is_private=study.is_private, has_validation=has_validation)
        whom = "validation patients" if has_validation else "the patients set aside"
        yield f"the model is chosen by {study.evaluation.keep_best} of {whom}. {costs}"
        if not has_validation:
            yield "data.split.validation_fraction would choose it by other patients than those it is tested on."
    figures = _figures(study)
    if figures is not None:
        share = figures.patients_std_sum / (study.data.minimum_patients * study.sites_that_open)
        if share > NOISY_COUNT:
            yield (
                f"the noise on every count of test patients, {figures.patients_std_sum:.3g} in the smallest sum, is "
                f"{share:.0%} of the patients its hospitals have at least: ask for fewer measured rounds "
                "(evaluation.every_rounds), fewer bins, or a larger evaluation.privacy."
            )
        yield (
            "a hospital's max_epsilon_per_study must allow training and test figures together, and its dataset is "
            "charged for both."
        )
    yield (
        "not covered: whatever else is learned from the same patients, such as trying other settings, choosing when to "
        "stop, scales or class weights taken from the data. Each needs a budget of its own."
    )
    yield "a patient of two hospitals is in both their guarantees: for that patient the epsilons add up."


def describe_plan(found: StudyPlan) -> str:
    """The plan in words and short tables, at most `WIDTH` characters wide."""
    design, mechanism, training = found.design, found.design.mechanism, found.study.training
    spare = f" and {training.spare_rounds} spare" if training.spare_rounds else ""
    whose = "of the sum, which hospitals add in shares" if found.study.is_distributed else "each hospital adds it"
    lines = [
        found.study.title,
        "",
        *_row(
            "Target",
            f"epsilon {found.epsilon:g} at delta {design.delta:g} for one patient, over "
            f"{'the whole study' if found.figures is None else 'all of the training'}",
        ),
        *_row(
            "Noise",
            f"sigma {mechanism.noise_multiplier:.4f} times the clip norm {mechanism.clip_norm_l2:g} ({whose})",
        ),
        *_row("Steps", f"{mechanism.steps}: {_rounds(found.study)}{spare}, of {_counted(design.local_steps, 'step')}"),
        *_turns(found.study),
        *_row(
            "Sampling",
            f"every patient with probability {mechanism.sampling_rate:g}; of {design.patients} patients "
            f"{design.expected_batch:.3g} in a step on average, and nobody in {design.chance_of_empty_batch:.2g} of "
            "the steps",
        ),
        *_row("Network", _UNBUILT if found.study.parameters is None else f"{design.parameters:,} parameters"),
        *_row("Epsilon", "; ".join(f"{eps:.4f} after {_counted(n, 'round')}" for n, eps in found.cumulative)),
        *_figures_row(found),
        *_row(
            "In words",
            f"somebody who would guess even odds that a patient took part is right at most "
            f"{percent_right(found.together[0]):g}% of the time after seeing everything (but for a chance of "
            f"{'delta' if found.figures is None else f'{found.together[1]:g}'})",
        ),
        *_row(
            "Delta",
            f"times {design.patients} patients is {design.exposed_patients:.3g}: so many are exposed, on average and "
            "at worst",
        ),
        "",
        *textwrap.wrap(_NOISE_TO_SIGNAL, WIDTH),
        f"  one step at one hospital              {design.noise_to_signal_site:9.3f}",
        f"  {f'one step, summed over {design.sites} hospitals':<36}{design.noise_to_signal_sum:11.3f}",
        f"  the whole study, summed               {design.noise_to_signal_study:9.3f}",
        "",
    ]
    if found.cases:
        lines.append("Epsilon, by whose noise is in the sum:")
        lines += [f"  {case.epsilon:9.4f}  {case.name} ({_counted(case.shares, 'share')})" for case in found.cases]
        lines.append("")
    if found.alternatives:
        lines.append("The same epsilon with less noise to signal over the study:")
        lines += [
            f"  rounds {a.rounds}, sampling_rate {a.sampling_rate:g}: sigma {a.noise_multiplier:.4f}; "
            f"{a.noise_to_signal_study:.3f} over the study, {a.noise_to_signal_sum:.3f} in a step"
            for a in found.alternatives
        ]
    else:
        lines.append("Neither half nor double the rounds or sampling_rate gives less noise to signal over the study.")
    lines += ["", "Mind:"]
    for warning in found.warnings:
        lines += textwrap.wrap(warning, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join(lines)


def _rounds(study: StudyFile) -> str:
    if study.training.participants_per_round is None:
        return f"{study.training.rounds} rounds"
    return f"{study.rounds_of_a_site} of {study.training.rounds} rounds, the most that one hospital is in"


def _turns(study: StudyFile) -> list[str]:
    if study.training.participants_per_round is None:
        return []
    return _row(
        "Turns",
        f"{study.training.participants_per_round} of {len(study.sites.required)} hospitals in every round, in turn. "
        "Epsilon counts the rounds that a hospital is in. Turns are known beforehand, so they make no patient more "
        "private.",
    )


def _figures_row(found: StudyPlan) -> list[str]:
    if found.figures is None:
        return []
    one = found.figures
    return _row(
        "Figures",
        f"test figures have a budget of their own: epsilon {one.epsilon:g} at delta {one.delta:g} over "
        f"{_counted(one.draws, 'measured round')}; noise of {one.patients_std:.3g} patients on every count of a "
        f"hospital, {one.patients_std_sum:.3g} in the smallest sum. With the training, epsilon {found.together[0]:g} "
        f"at delta {found.together[1]:g} for one patient, simply added",
    )


def _row(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{name:<10}", subsequent_indent=" " * 10)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
