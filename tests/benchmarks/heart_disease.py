"""Four hospitals' heart-disease records: federated with privacy, against each hospital alone and all data pooled.

    python tests/benchmarks/heart_disease.py [--seeds 5] [--write] [--json FILE]

The federated runs use the study file, the cohorts, the trainer, the averaging and the evaluation of the product, in one
process and without network or masks (which change a value by less than the rounding of the encoding, 1e-7 here). A
seed is one complete run with fresh noise and fresh patient sampling: noise has no seed, so figures vary from call to
call within the standard deviation shown. The other two methods have no privacy and are there to compare with.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from consortium.contract.metrics import metrics_of  # noqa: E402 - the path is set above
from consortium.contract.server_optimizer import federated_average  # noqa: E402
from consortium.contract.study import StudyFile, load_study  # noqa: E402
from site_agent.cohort import Cohort, read_cohort  # noqa: E402
from site_agent.datasets import CsvDataset  # noqa: E402
from site_agent.evaluate import evaluate, score_patients  # noqa: E402
from site_agent.networks import build_from  # noqa: E402
from site_agent.tally import exact_auc  # noqa: E402
from site_agent.trainer import DpTrainer  # noqa: E402
from site_agent.training_spec import spec_of  # noqa: E402
from site_agent.update import global_model_of  # noqa: E402

HEART = ROOT / "configs" / "heart-disease"
PAGE = ROOT / "docs" / "reference" / "heart-disease-results.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- table begins -->", "<!-- table ends -->"
AUC_TO_REACH, ACCURACY_TO_REACH = 0.865, 0.80


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One model on the held-out patients of all hospitals."""

    auc: float  # over all patients together
    site_accuracy: tuple[float, ...]  # in the order of the roster

    @property
    def mean_site_accuracy(self) -> float:
        return float(np.mean(self.site_accuracy))


def load() -> tuple[StudyFile, tuple[Cohort, ...]]:
    """The study and its cohorts, in the order of the roster."""
    study = load_study(HEART / "study.yaml")
    datasets = (
        CsvDataset(
            path=str(HEART / "data" / f"{site}.csv"),
            format="csv",
            patient_id=study.data.patient_id,
            declared_patients=study.data.minimum_patients,
        )
        for site in study.sites.roster
    )
    return study, tuple(read_cohort(study, dataset) for dataset in datasets)


def federated(study: StudyFile, cohorts: Sequence[Cohort]) -> tuple[Score, float, list[float]]:
    """One run of the study: its score, the epsilon each hospital spent, and the AUC of the global model by round."""
    spec = spec_of(study, declared_patients=study.data.minimum_patients)
    module = build_from(spec.network)
    model = global_model_of(module)
    trainers = [DpTrainer(spec, cohort.train) for cohort in cohorts]
    curve = []
    for _ in range(study.training.rounds):
        updates = [trainer.train_round(model.vector).update.astype(np.float64) for trainer in trainers]
        sums = {"update": np.sum(updates, axis=0), "weight": np.array([float(len(updates))])}
        model = federated_average(model, sums, weight_max=1.0, server_learning_rate=study.training.server_learning_rate)
        curve.append(_masked_auc(study, module, model.vector, cohorts) or 0.0)
    scored = [score_patients(module, model.vector, cohort.test) for cohort in cohorts]
    epsilon = max(trainer.cross_check().pld_epsilon for trainer in trainers)
    return _score(scored, study.evaluation.decision_threshold), epsilon, curve


def alone(study: StudyFile, cohorts: Sequence[Cohort]) -> tuple[Score | None, ...]:
    """Each hospital's own logistic regression, no privacy, on everybody's held-out patients; None with one class."""
    models = [_own_model(cohort) for cohort in cohorts]
    return tuple(None if model is None else _on_all([model] * len(cohorts), study, cohorts) for model in models)


def each_its_own(study: StudyFile, cohorts: Sequence[Cohort]) -> Score:
    """Every hospital's patients scored by their own hospital's model: what there is without a consortium."""
    return _on_all([_own_model(cohort) for cohort in cohorts], study, cohorts)


def pooled(study: StudyFile, cohorts: Sequence[Cohort]) -> Score:
    """One logistic regression on all training patients in one place, no privacy."""
    features = np.concatenate([c.train.features for c in cohorts])
    labels = np.concatenate([c.train.labels for c in cohorts])
    model = LogisticRegression(max_iter=1000).fit(features, labels)
    return _on_all([model] * len(cohorts), study, cohorts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that was measured."""

    sites: tuple[str, ...]
    epsilon: float
    delta: float
    noise_multiplier: float
    federated: tuple[Score, ...]  # one per seed
    curve: tuple[float, ...]  # mean AUC after each round, from masked histograms
    alone: tuple[Score | None, ...]
    each_its_own: Score
    pooled: Score

    @property
    def auc(self) -> tuple[float, float]:
        """Mean and standard deviation over seeds."""
        return _mean_sd([score.auc for score in self.federated])

    @property
    def accuracy(self) -> tuple[float, float]:
        """Mean and standard deviation over seeds of the mean of sites' accuracy."""
        return _mean_sd([score.mean_site_accuracy for score in self.federated])

    @property
    def reached(self) -> bool:
        """Whether the figures the demonstration is held to are reached."""
        return self.auc[0] >= AUC_TO_REACH and self.accuracy[0] >= ACCURACY_TO_REACH


def measure(seeds: int) -> Facts:
    """Run everything."""
    study, cohorts = load()
    runs = [federated(study, cohorts) for _ in range(seeds)]
    return Facts(
        sites=study.sites.roster,
        epsilon=max(epsilon for _, epsilon, _ in runs),
        delta=study.privacy.delta,
        noise_multiplier=spec_of(study, declared_patients=1).privacy.mechanism.noise_multiplier,
        federated=tuple(score for score, _, _ in runs),
        curve=tuple(np.mean([curve for _, _, curve in runs], axis=0).tolist()),
        alone=alone(study, cohorts),
        each_its_own=each_its_own(study, cohorts),
        pooled=pooled(study, cohorts),
    )


def table(facts: Facts) -> str:
    """The facts as a markdown table."""
    by_site = np.mean([score.site_accuracy for score in facts.federated], axis=0)
    (auc, auc_sd), (accuracy, accuracy_sd) = facts.auc, facts.accuracy
    rows = [
        ["training", "AUC, all test patients", "mean of sites' accuracy", *facts.sites],
        ["---"] * (3 + len(facts.sites)),
        [
            f"federated, epsilon {facts.epsilon:.3f}, delta {facts.delta:g} ({len(facts.federated)} runs)",
            f"{auc:.3f} (sd {auc_sd:.3f})",
            f"{accuracy:.3f} (sd {accuracy_sd:.3f})",
            *(f"{value:.3f}" for value in by_site),
        ],
        _row("no consortium: each hospital's own model on its own patients, no privacy", facts.each_its_own, facts),
        *(
            _row(f"{site}'s model on everybody's patients, no privacy", score, facts)
            for site, score in zip(facts.sites, facts.alone, strict=True)
        ),
        _row("pooled in one place, no privacy", facts.pooled, facts),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> int:
    """Measure, print, and say by the exit code whether the figures are reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="complete runs of the study, each with fresh noise")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reference")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    facts = measure(options.seeds)
    text = table(facts)
    print(text)
    print("AUC after rounds 1, 5, 10 ...:", *(f"{facts.curve[n]:.3f}" for n in (0, *range(4, len(facts.curve), 5))))
    print(
        f"noise multiplier {facts.noise_multiplier}, figures to reach {'reached' if facts.reached else 'NOT reached'}"
    )
    if options.write:
        page = PAGE.read_text()
        head, found, rest = page.partition(TABLE_BEGINS)
        _, closed, tail = rest.partition(TABLE_ENDS)
        if not (found and closed):
            sys.exit(f"{PAGE} has lost the marks the table stands between")
        PAGE.write_text(f"{head}{TABLE_BEGINS}\n{text}{TABLE_ENDS}{tail}")
    if options.json:
        options.json.write_text(json.dumps(asdict(facts), indent=1))
    return 0 if facts.reached else 1


def _masked_auc(
    study: StudyFile, module: nn.Module, vector: NDArray[np.float32], cohorts: Sequence[Cohort]
) -> float | None:
    """AUC as the coordinator computes it, from sums of score histograms."""
    lanes = [evaluate(module, vector, c.test, study.evaluation, c.test_groups).lanes() for c in cohorts]
    sums = {name: np.sum([lane[name] for lane in lanes], axis=0) for name in lanes[0]}
    auc = metrics_of(sums, study.evaluation).overall.auc
    return None if auc is None else auc.value


def _own_model(cohort: Cohort) -> LogisticRegression | None:
    """A hospital's own model; None if its training patients are all of one class."""
    if len(np.unique(cohort.train.labels)) < 2:
        return None
    return LogisticRegression(max_iter=1000).fit(cohort.train.features, cohort.train.labels)


def _on_all(models: Sequence[LogisticRegression | None], study: StudyFile, cohorts: Sequence[Cohort]) -> Score:
    """Each cohort's held-out patients under its model; a hospital without a model can only say what it always saw."""
    scored = [
        (
            np.full(len(c.test), float(c.train.labels[0])) if m is None else m.predict_proba(c.test.features)[:, 1],
            c.test.labels > 0,
        )
        for m, c in zip(models, cohorts, strict=True)
    ]
    return _score(scored, study.evaluation.decision_threshold)


def _score(scored: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]], threshold: float) -> Score:
    auc = exact_auc(np.concatenate([s for s, _ in scored]), np.concatenate([p for _, p in scored]))
    assert auc is not None
    return Score(auc=auc, site_accuracy=tuple(float(((s > threshold) == p).mean()) for s, p in scored))


def _mean_sd(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


def _row(name: str, score: Score | None, facts: Facts) -> list[str]:
    if score is None:
        return [name, "one class only, nothing to learn", *["-"] * (1 + len(facts.sites))]
    figures = (score.auc, score.mean_site_accuracy, *score.site_accuracy)
    return [name, *(f"{value:.3f}" for value in figures)]


if __name__ == "__main__":
    sys.exit(main())
