"""`consortium simulate`: a whole study in one process, on made-up patients or on folders of data that lie here.

The real trainer, the real encoding, real secure aggregation and the real step of the coordinator; no network, no log
and no ledger, so nothing is spent and nothing can be proven to others. With canaries it sounds a smoke alarm: a lower
bound on epsilon from what the run itself gives away.

A composition root like the demo: it loads what a hospital needs (torch, pandas), so only its command imports it.
"""

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consortium.contract.digest import canonical_bytes
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import LaneName, last_round, measures, round_layout, update_lanes, weight_max
from consortium.contract.names import Digest, RoundNumber, SiteId
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.contract.server_optimizer import (
    awaits_test,
    choice_after,
    kind_of,
    next_global_model,
    why_ended,
)
from consortium.contract.study import StudyFile
from consortium.contract.study_data import TabularData
from consortium.errors import ConsortiumError
from consortium.simulated_round import Keys, SimulatedRound
from consortium.training_round import is_measured
from privacy.dp import accountant
from privacy.dp.empirical_audit import delta_max, epsilon_lower, epsilon_reach
from privacy.dp.events import DpEvent
from privacy.dp.randomness import CryptographicGenerator
from privacy.encoding import Layout, Sums
from privacy.secagg.context import default_threshold
from privacy.secagg.suites import SuiteName
from site_agent.canaries import CANARIES_MAX, Canaries, guessed
from site_agent.carried import Carried
from site_agent.cohort import Cohort, Records, read_cohort
from site_agent.datasets import Dataset
from site_agent.evaluate import evaluate, score_patients
from site_agent.local_steps import TrainedUpdate
from site_agent.mechanism_audit import Factory, Trainer
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.private_figures import drawn_lanes
from site_agent.site_file import load_site_file
from site_agent.synthetic_patients import write_synthetic
from site_agent.tally import Scores
from site_agent.trainer import DpTrainer
from site_agent.training_spec import NO_FILES, WeightFiles, network_spec_of, plain_spec_of, spec_of
from site_agent.update import global_model_of, load_kept
from site_agent.update_lanes import lanes_of

AUDIT_CONFIDENCE = 0.95


class SimulationRefused(ConsortiumError):
    """The study cannot be simulated as asked."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "See docs/reference/cli.md, consortium simulate."


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A model on the patients set aside."""

    patients: int
    auc: float | None  # None where one class is missing, and of masks
    accuracy: float | None  # None of masks
    dice: float | None = None  # of masks: mean over patients and classes but the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Which model a study that keeps its best one kept."""

    metric: str
    figure: float | None  # of the patients it was chosen by; None if no round had one
    origin: int  # the round that made it; 0 for the first model
    reason: str  # in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """What the canaries gave away."""

    canaries: int
    right: int
    delta: float  # at most 1 / (100 canaries)
    epsilon_claimed: float  # at that delta
    epsilon_lower: float  # with AUDIT_CONFIDENCE
    epsilon_reach: float  # the bound if every guess had been right: no more could be found

    @property
    def sounds(self) -> bool:
        """Whether the claim is refuted."""
        return self.epsilon_lower > self.epsilon_claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """How it went."""

    study: str
    sites: tuple[str, ...]
    rounds: int  # of training that took place
    synthetic: bool
    first: Quality
    last: Quality  # of the model that would be released
    kept: Kept | None  # where the study chooses it
    epsilon: float
    delta: float
    alarm: Alarm | None

    def rows(self) -> list[tuple[str, str]]:
        """For people: a name and a value each."""
        patients = "made-up patients" if self.synthetic else "patients"
        protected = f"with {'privacy and ' if math.isfinite(self.epsilon) else ''}secure aggregation"
        found = [
            ("sites", ", ".join(self.sites)),
            ("before training", f"{_words(self.first)} of {self.first.patients} {patients} set aside"),
            (f"after {self.rounds} rounds", f"{_words(self.last)}, trained {protected}"),
            *([] if self.kept is None else [("model", self.kept.reason)]),
            ("epsilon claimed", _claimed(self.epsilon, self.delta)),
        ]
        if self.alarm is not None:
            one = self.alarm
            bound = (
                f"at least {one.epsilon_lower:.3f} with confidence {AUDIT_CONFIDENCE:g}, where "
                f"{one.epsilon_claimed:.3f} is claimed (delta {one.delta:.2g}); {one.canaries} canaries could show "
                f"{one.epsilon_reach:.2f} at the most"
            )
            found += [
                ("canaries", f"{one.right} of {one.canaries} guessed right (a coin: {one.canaries / 2:g})"),
                ("epsilon from canaries", bound),
                ("", "A smoke alarm only: when it is silent, nothing is shown. See docs/how-to/audit-privacy.md."),
            ]
        return found

    def to_json(self) -> dict[str, Any]:
        """For programs."""

        def quality(one: Quality) -> dict[str, Any]:
            figures = {"patients": one.patients, "auc": one.auc, "accuracy": one.accuracy}
            return figures if one.dice is None else figures | {"dice": one.dice}

        record: dict[str, Any] = {
            "study": self.study,
            "sites": list(self.sites),
            "rounds": self.rounds,
            "synthetic": self.synthetic,
            "before": quality(self.first),
            "after": quality(self.last),
            "epsilon_claimed": self.epsilon if math.isfinite(self.epsilon) else None,  # JSON has no infinity
            "delta": self.delta,
            "chosen": None if self.kept is None else asdict(self.kept),
            "audit": None,
        }
        if self.alarm is not None:
            alarm = self.alarm
            record["audit"] = {
                "canaries": alarm.canaries,
                "right_guesses": alarm.right,
                "confidence": AUDIT_CONFIDENCE,
                "delta": alarm.delta,
                "epsilon_claimed": alarm.epsilon_claimed,
                "epsilon_lower_bound": alarm.epsilon_lower,
                "largest_bound_possible": alarm.epsilon_reach,
                "alarm": alarm.sounds,
            }
        return record


def with_settings(study: StudyFile, *, sites: int, rounds: int | None = None) -> StudyFile:
    """The study with so many sites and rounds; its own names where the number is its own.

    Raises:
        StudyInvalid: A rule of studies stands against it.
    """
    document = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    if sites != len(study.sites.required):
        document["sites"] = {
            "required": [f"site-{number:02d}" for number in range(1, sites + 1)],
            "minimum": min(study.sites.minimum, sites),
        }
        document["aggregation"]["threshold"] = default_threshold(sites)
        per_round = study.training.participants_per_round
        if per_round is not None:  # the same part of them, as far as that leaves enough for a round
            least = max(document["aggregation"]["threshold"], document["sites"]["minimum"])
            part = round(per_round * sites / len(study.sites.required))
            document["training"]["participants_per_round"] = max(least, min(part, sites - 1))
    if rounds is not None:
        document["training"]["rounds"] = rounds
        by_turns = study.training.participants_per_round is not None  # then only the last model is measured
        document["evaluation"]["every_rounds"] = rounds if by_turns else min(study.evaluation.every_rounds, rounds)
    return StudyFile.from_document(canonical_bytes(document))


def simulate(
    study: StudyFile,
    *,
    seed: int = 0,
    data: Path | None = None,
    audit: bool = False,
    weights: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    factory: Factory = DpTrainer,
) -> Simulation:
    """Run a study's training rounds, and with `audit` a second time on canaries.

    Args:
        study: With the roster that takes part.
        seed: Of made-up patients and canaries. Noise, sampling and keys are never seeded.
        data: A folder with `<site>/site.yaml` for every site; made-up patients without it.
        audit: Whether to run the canaries too.
        weights: The file of a study's initial weights.
        say: Hears how it goes, a line at a time.
        factory: Makes the trainers; the real one unless a test says otherwise.

    Raises:
        SimulationRefused: The study has groups, is trained by hospitals' own classes, has no differential privacy to
            audit, or `data` lacks a site.
        SimulationFailed, and what reading data and training raise: See there.
    """
    if study.aggregation.group_size is not None:
        raise SimulationRefused("studies in groups are not simulated: each group is a round of its own")
    if study.training.client_algo is not None:
        raise SimulationRefused("training.client_algo is code of each hospital's own, which its own agent alone runs")
    if audit and not study.is_private:
        raise SimulationRefused("the study promises patients no differential privacy: there is nothing to audit")
    if audit and not isinstance(study.data, TabularData):
        raise SimulationRefused("canaries stand out in one column, and images have none: leave --audit-privacy away")
    named = study.initial_weights
    run = _Run(study, factory, NO_FILES if named is None or weights is None else {named.sha256: str(weights)})
    cohorts = _cohorts(study, data, seed)
    first = run.first_model
    before = run.quality(first, cohorts)
    last = run.train({site: cohort.train for site, cohort in cohorts.items()}, say=say, measured=cohorts)
    after = run.quality(last, cohorts)
    # Before the canaries are trained on, which stops at no figure.
    rounds, kept, delta, epsilon = run.trained, run.kept, study.privacy.delta, math.inf
    if study.is_private:
        epsilon = max(accountant.epsilon(events, delta=delta) for events in run.spent.values())
    alarm = run.sound(seed, say=say) if audit else None
    return Simulation(
        study=study.id,
        sites=study.sites.roster,
        rounds=rounds,
        synthetic=data is None,
        first=before,
        last=after,
        kept=kept,
        epsilon=epsilon,
        delta=delta,
        alarm=alarm,
    )


class _Run:
    """A study's rounds in memory. Mutable: it remembers how the last training went, and what was spent in it."""

    def __init__(self, study: StudyFile, factory: Factory, weights: WeightFiles = NO_FILES) -> None:

        self._study = study
        self._factory = factory
        self._keys: Mapping[SiteId, Keys] = {site: Keys.fresh() for site in study.sites.roster}
        self._weights = weights
        self._network = network_spec_of(study, weights)
        self.first_model: GlobalModel = global_model_of(build_from(self._network))
        self.spent: dict[SiteId, tuple[DpEvent, ...]] = {}
        self.trained = 0  # rounds of training
        self.kept: Kept | None = None  # where the study chose
        self._carried: dict[SiteId, Carried] = {}
        self._kept: dict[SiteId, NDArray[np.float32] | None] = {}  # after the last round

    def train(
        self,
        cohorts: Mapping[SiteId, Records],
        *,
        say: Callable[[str], None],
        watch: Callable[[GlobalModel, Mapping[SiteId, NDArray[Any]], NDArray[np.float64]], None] | None = None,
        measured: Mapping[SiteId, Cohort] | None = None,
    ) -> GlobalModel:
        """All rounds, as the coordinator would go through them.

        Args:
            cohorts: Who is trained on.
            say: Hears how it goes.
            watch: Sees each training round's model, the sites' own updates and their sum.
            measured: Whose figures choose the model and stop training, where the study says so; all rounds without.
        """
        with tempfile.TemporaryDirectory(prefix="consortium-simulation-") as folder:
            return self._train(cohorts, Path(folder), say=say, watch=watch, measured=measured)

    def _train(
        self,
        cohorts: Mapping[SiteId, Records],
        folder: Path,  # where sites carry what they keep from round to round
        *,
        say: Callable[[str], None],
        watch: Callable[[GlobalModel, Mapping[SiteId, NDArray[Any]], NDArray[np.float64]], None] | None,
        measured: Mapping[SiteId, Cohort] | None,
    ) -> GlobalModel:
        study = self._study
        trainers: dict[SiteId, PlainTrainer | Trainer]
        if study.is_private:
            spec = spec_of(study, declared_patients=study.data.minimum_patients, weights=self._weights)
            trainers = {site: self._factory(spec.at(site), cohorts[site]) for site in study.sites.roster}
        else:
            plain = plain_spec_of(study, declared_patients=study.data.minimum_patients, weights=self._weights)
            trainers = {site: PlainTrainer(plain.at(site), cohorts[site]) for site in study.sites.roster}
        model, transcript = self.first_model, Digest("0" * 64)
        self._carried = {
            site: Carried(study, folder / site, model=model, was_released=lambda _: True) for site in trainers
        }
        choosing = None if study.evaluation.keep_best is None else measured
        last = study.training.rounds if choosing is None else last_round(study)
        self.trained, self.kept = 0, None
        for number in range(1, last + 1):
            kind = RoundKind.TRAIN if choosing is None else kind_of(study, number, model)
            plan = self._plan(kind, number, model, transcript, measured=choosing is not None)
            sites = study.sites_of_round(number)
            lanes: dict[SiteId, dict[str, NDArray[Any]]] = {site: {} for site in sites}
            updates: dict[SiteId, NDArray[Any]] = {}
            if kind is RoundKind.TRAIN:
                self.trained += 1
                updates = {site: self._update(site, trainers[site], plan, model) for site in sites}
                for site, update in updates.items():
                    lanes[site] |= self._weighted(update, plan.layout)
            if choosing is not None and is_measured(plan):
                for site in sites:
                    lanes[site] |= self._figures(plan, model, choosing[site])
            opened = SimulatedRound(plan, self._keys, lanes).run()
            if watch is not None and updates:
                total = np.concatenate([opened.sums[lane.name] for lane in update_lanes(plan.layout)])
                watch(model, updates, total)
            if choosing is not None:
                self.kept = self._kept_after(plan, model, opened.sums)
            model = next_global_model(study, plan, model, opened.sums, survivors=len(sites))
            transcript = opened.transcript
            if kind is RoundKind.TRAIN and (number == study.training.rounds or number % 5 == 0):
                say(f"round {number} of {study.training.rounds}: the sum of {len(sites)} sites is open")
            if self.kept is not None:
                say(self.kept.reason)
                break
        self.spent = {site: trainer.events for site, trainer in trainers.items()}
        return model

    def _plan(
        self, kind: RoundKind, number: int, model: GlobalModel, transcript: Digest, *, measured: bool
    ) -> RoundPlan:
        study = self._study
        return RoundPlan(
            consortium="simulation",
            suite=SuiteName(study.aggregation.suite),
            study=study.study_id,
            study_digest=study.digest(),
            kind=kind,
            round=RoundNumber(number),
            attempt=1,
            participants=tuple(self._keys[site].participant(site) for site in study.sites_of_round(number)),
            threshold=study.aggregation.threshold,
            minimum=study.sites.minimum,
            model_digest=model.digest(),
            previous_transcript=transcript,
            layout=round_layout(
                study,
                parameters=model.parameters,
                kind=kind,
                measured=measured and measures(study, kind, RoundNumber(number)),
            ),
            round_deadline_s=study.aggregation.round_deadline_s,
            upload_deadline_s=study.aggregation.upload_deadline_s,
        )

    def _weighted(self, update: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
        """The lanes of a site's update and of its weight."""
        study = self._study
        weight = float(study.data.minimum_patients) if study.training.weighting == "patients" else 1.0
        share = weight / weight_max(study)
        lanes = lanes_of(update if share == 1 else update * np.float32(share), layout)
        return {**lanes, LaneName.WEIGHT: np.array([weight])}

    def _figures(self, plan: RoundPlan, model: GlobalModel, cohort: Cohort) -> dict[str, NDArray[Any]]:
        """The metric lanes of a site, with its noise where the study has a budget for them."""
        study = self._study
        patients, groups = cohort.measured(chosen=awaits_test(study, model.state))
        evaluation = evaluate(
            build_from(self._network),
            model.vector,
            patients,
            study.evaluation,
            groups,
            outputs=self._network.outputs,
            patch=study.data.patch,
        )
        if study.evaluation.privacy is not None:
            assert isinstance(evaluation.scores, Scores)  # a rule of the study file: a budget is for binary labels
            return dict(drawn_lanes(study, plan.layout, evaluation.scores, CryptographicGenerator(os.urandom)))
        names = {lane.name for lane in plan.layout.lanes}
        return {name: figures for name, figures in evaluation.lanes().items() if name in names}

    def _kept_after(self, plan: RoundPlan, model: GlobalModel, sums: Sums) -> Kept | None:
        """What the round ends the study with; None if it does not end it."""
        choice = choice_after(self._study, plan, model, sums)
        if choice is None or not choice.ends:
            return None
        tally = choice.tally
        reason = why_ended(self._study, plan, choice)
        return Kept(metric=choice.metric, figure=tally.figure, origin=tally.origin, reason=reason)

    def _update(
        self, site: SiteId, trainer: PlainTrainer | Trainer, plan: RoundPlan, model: GlobalModel
    ) -> NDArray[Any]:
        carried = self._carried[site]
        trained = trainer.train_round(model.vector, carried.start(plan.round, model))
        if isinstance(trained, TrainedUpdate):
            carried.after(plan.round, model, trained)
        self._kept[site] = carried.kept(plan.round + 1)
        return trained.update

    def quality(self, model: GlobalModel, cohorts: Mapping[SiteId, Cohort]) -> Quality:
        """Over all sites' patients that were set aside, at each site with the parameters that it keeps."""
        modules = {site: self._module_at(site) for site in cohorts}
        if self._network.outputs > 1:
            return self._of_classes(modules, model, cohorts)
        found = [score_patients(modules[site], model.vector, one.test) for site, one in cohorts.items()]
        scores = np.concatenate([scores for scores, _ in found])
        positive = np.concatenate([positive for _, positive in found])
        right = (scores > self._study.evaluation.decision_threshold) == positive
        return Quality(patients=len(scores), auc=_auc(scores, positive), accuracy=float(right.mean()))

    def _module_at(self, site: SiteId) -> Any:
        """The network, a module of torch, with what the site has kept to itself."""
        module = build_from(self._network)
        if (kept := self._kept.get(site)) is not None:
            load_kept(module, kept)
        return module

    def _of_classes(
        self, modules: Mapping[SiteId, Any], model: GlobalModel, cohorts: Mapping[SiteId, Cohort]
    ) -> Quality:
        """Of labels with several classes, and of masks: the sites' own figures, each patient counted once."""
        wanted, outputs, patch = self._study.evaluation, self._network.outputs, self._study.data.patch
        own = [
            evaluate(modules[site], model.vector, one.test, wanted, outputs=outputs, patch=patch).own_figures()
            for site, one in cohorts.items()
        ]

        def mean(name: str) -> float | None:
            known = [one for one in own if one.get(name) is not None]
            total = sum(one[name] * one["patients"] for one in known)
            return total / sum(one["patients"] for one in known) if known else None

        # AUC of patients of different sites is not that of each site's own, so none is given.
        patients = sum(one["patients"] for one in own)
        return Quality(patients=patients, auc=None, accuracy=mean("accuracy"), dice=mean("dice"))

    def sound(self, seed: int, *, say: Callable[[str], None]) -> Alarm:
        """Train on canaries, and see who was in."""
        study = self._study
        random = np.random.default_rng((seed, 1_000_003))
        inputs = min(self._network.input_size, CANARIES_MAX)
        roster = study.sites.roster
        canaries: dict[SiteId, Canaries] = {}
        for place, site in enumerate(roster):
            # In one sum two canaries of one direction could not be told apart: there every input has one canary.
            own = range(place, inputs, len(roster)) if study.is_distributed else range(inputs)
            canaries[site] = Canaries.drawn(self._network, study.privacy.clip_norm_l2, own, random)
        scores = {site: np.zeros(len(one.labels)) for site, one in canaries.items()}

        def watch(model: GlobalModel, updates: Mapping[SiteId, NDArray[Any]], total: NDArray[np.float64]) -> None:
            for site, one in canaries.items():
                if len(one.labels) and site in updates:
                    # An update goes against the gradient; a sum of gradients goes with it.
                    seen = total if study.is_distributed else -np.asarray(updates[site], dtype=np.float64)
                    scores[site] += one.directions(self._network, model.vector) @ seen

        say(f"{sum(len(one.labels) for one in canaries.values())} canaries, each in or out by a coin:")
        self.train({site: one.cohort() for site, one in canaries.items()}, say=say, watch=watch)
        included = np.concatenate([canaries[site].included for site in roster])
        guesses = np.concatenate([guessed(scores[site]) for site in roster if len(scores[site])])
        if study.is_distributed:
            guesses = guessed(np.concatenate([scores[site] for site in roster]))
        count, right = len(included), int((guesses == included).sum())
        delta = min(study.privacy.delta, delta_max(count))
        return Alarm(
            canaries=count,
            right=right,
            delta=delta,
            epsilon_claimed=max(accountant.epsilon(events, delta=delta) for events in self.spent.values()),
            epsilon_lower=epsilon_lower(
                canaries=count, guesses=count, right=right, delta=delta, confidence=AUDIT_CONFIDENCE
            ),
            epsilon_reach=epsilon_reach(canaries=count, delta=delta, confidence=AUDIT_CONFIDENCE),
        )


def _cohorts(study: StudyFile, data: Path | None, seed: int) -> dict[SiteId, Cohort]:

    found: dict[SiteId, Cohort] = {}
    with tempfile.TemporaryDirectory(prefix="consortium-simulation-") as folder:
        for number, site in enumerate(study.sites.roster):
            if data is None:
                if not isinstance(study.data, TabularData):
                    raise SimulationRefused("no patients are made up for images: name a folder of data with --data")
                dataset: Dataset = write_synthetic(Path(folder) / f"{site}.csv", study, site=number, seed=seed)
            else:
                path = data / site / "site.yaml"
                if not path.is_file():
                    raise SimulationRefused(f"{path} is missing: --data needs a folder with a site.yaml for {site}")
                named = load_site_file(path).dataset_for(study.study_id)
                if named is None:
                    raise SimulationRefused(f"{path} names no dataset for {study.id} under `studies`")
                dataset = named
            found[site] = read_cohort(study, dataset)
    return found


def _claimed(epsilon: float, delta: float) -> str:
    if math.isinf(epsilon):
        return "none: the study promises patients no differential privacy"
    return f"{epsilon:.4f} at delta {delta:g}, if these rounds were run for real"


def _words(quality: Quality) -> str:
    if quality.dice is not None:
        return f"Dice {quality.dice:.3f}"
    auc, accuracy = ("n/a" if value is None else f"{value:.3f}" for value in (quality.auc, quality.accuracy))
    return f"AUC {auc}, accuracy {accuracy}"


def _auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Chance that a patient with the label scores higher than one without; ties count half."""
    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        return None
    order = np.searchsorted(np.sort(below), above, side="left") + np.searchsorted(np.sort(below), above, side="right")
    return float(order.sum() / (2 * len(above) * len(below)))
