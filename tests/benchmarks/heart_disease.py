"""Four hospitals' heart-disease records: federated with privacy, against each hospital alone and all data pooled.

    python tests/benchmarks/heart_disease.py [--seeds 5] [--markdown FILE] [--json FILE]

The federated runs use the study file, the cohorts, the trainer, the averaging and the evaluation of the product, in one
process and without network or masks (which change a value by less than the rounding of the encoding, 1e-7 here). A
seed is one complete run with fresh noise and fresh patient sampling: noise has no seed, so figures vary from call to
call within the standard deviation shown. The other two methods have no privacy and are there to compare with.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
from site_agent.evaluate import evaluate, exact_auc, score_patients  # noqa: E402
from site_agent.networks import build_from  # noqa: E402
from site_agent.site_file import Dataset  # noqa: E402
from site_agent.trainer import DpTrainer  # noqa: E402
from site_agent.training_spec import spec_of  # noqa: E402
from site_agent.update import global_model_of  # noqa: E402

HEART = ROOT / "configs" / "heart-disease"


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
        Dataset(
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


def alone(study: StudyFile, cohorts: Sequence[Cohort]) -> list[Score | None]:
    """Each hospital's own logistic regression, no privacy, on everybody's held-out patients; None with one class."""
    scores: list[Score | None] = []
    for cohort in cohorts:
        if len(np.unique(cohort.train.labels)) < 2:
            scores.append(None)
            continue
        model = LogisticRegression(max_iter=1000).fit(cohort.train.features, cohort.train.labels)
        scores.append(_fitted(model, study, cohorts))
    return scores


def pooled(study: StudyFile, cohorts: Sequence[Cohort]) -> Score:
    """One logistic regression on all training patients in one place, no privacy."""
    features = np.concatenate([c.train.features for c in cohorts])
    labels = np.concatenate([c.train.labels for c in cohorts])
    return _fitted(LogisticRegression(max_iter=1000).fit(features, labels), study, cohorts)


def measure(seeds: int) -> dict[str, object]:
    """Everything, as facts."""
    study, cohorts = load()
    runs = [federated(study, cohorts) for _ in range(seeds)]
    scores = [score for score, _, _ in runs]
    return {
        "seeds": seeds,
        "epsilon": max(epsilon for _, epsilon, _ in runs),
        "delta": study.privacy.delta,
        "noise_multiplier": spec_of(study, declared_patients=1).privacy.mechanism.noise_multiplier,
        "sites": list(study.sites.roster),
        "federated": {
            "auc": [s.auc for s in scores],
            "mean_site_accuracy": [s.mean_site_accuracy for s in scores],
            "site_accuracy": [list(s.site_accuracy) for s in scores],
            "curve": np.mean([curve for _, _, curve in runs], axis=0).tolist(),
        },
        "alone": [None if s is None else _facts(s) for s in alone(study, cohorts)],
        "pooled": _facts(pooled(study, cohorts)),
    }


def table(facts: dict[str, object]) -> str:
    """The facts as a markdown table."""
    sites: list[str] = facts["sites"]  # type: ignore[assignment]
    runs: dict[str, list[float]] = facts["federated"]  # type: ignore[assignment]
    by_site = np.mean(runs["site_accuracy"], axis=0)
    lines = [
        f"| training | AUC, all test patients | mean of sites' accuracy | {' | '.join(sites)} |",
        "|---" * (3 + len(sites)) + "|",
        f"| federated, epsilon {facts['epsilon']:.3f}, delta {facts['delta']:g}, {facts['seeds']} seeds"
        f" | {_mean_sd(runs['auc'])} | {_mean_sd(runs['mean_site_accuracy'])}"
        f" | {' | '.join(f'{a:.3f}' for a in by_site)} |",
    ]
    for site, score in zip(sites, facts["alone"], strict=True):  # type: ignore[call-overload]
        lines.append(_line(f"{site} alone, no privacy", score, len(sites)))
    lines.append(_line("pooled in one place, no privacy", facts["pooled"], len(sites)))  # type: ignore[arg-type]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, and say by the exit code whether the study's figures are reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    facts = measure(options.seeds)
    text = table(facts)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1))
    reached = np.mean(facts["federated"]["auc"]) >= 0.865 and np.mean(facts["federated"]["mean_site_accuracy"]) >= 0.80  # type: ignore[index]
    print("AUC >= 0.865 and mean-of-sites accuracy >= 0.80:", "reached" if reached else "NOT reached")
    return 0 if reached else 1


def _masked_auc(
    study: StudyFile, module: nn.Module, vector: NDArray[np.float32], cohorts: Sequence[Cohort]
) -> float | None:
    """AUC as the coordinator computes it, from sums of score histograms."""
    bins, threshold = study.evaluation.score_bins, study.evaluation.decision_threshold
    lanes = [evaluate(module, vector, c.test, score_bins=bins, decision_threshold=threshold).lanes() for c in cohorts]
    return metrics_of({name: np.sum([lane[name] for lane in lanes], axis=0) for name in lanes[0]}).auc


def _fitted(model: LogisticRegression, study: StudyFile, cohorts: Sequence[Cohort]) -> Score:
    scored = [(model.predict_proba(c.test.features)[:, 1], c.test.labels > 0) for c in cohorts]
    return _score(scored, study.evaluation.decision_threshold)


def _score(scored: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]], threshold: float) -> Score:
    auc = exact_auc(np.concatenate([s for s, _ in scored]), np.concatenate([p for _, p in scored]))
    assert auc is not None
    return Score(auc=auc, site_accuracy=tuple(float(((s > threshold) == p).mean()) for s, p in scored))


def _facts(score: Score) -> dict[str, object]:
    return {
        "auc": score.auc,
        "mean_site_accuracy": score.mean_site_accuracy,
        "site_accuracy": list(score.site_accuracy),
    }


def _mean_sd(values: list[float]) -> str:
    return f"{np.mean(values):.3f} (sd {np.std(values):.3f})"


def _line(name: str, score: dict[str, object] | None, sites: int) -> str:
    if score is None:
        return f"| {name} | " + " | ".join(["one class only: nothing to learn"] + ["-"] * (sites + 1)) + " |"
    accuracies = " | ".join(f"{a:.3f}" for a in score["site_accuracy"])  # type: ignore[attr-defined]
    return f"| {name} | {score['auc']:.3f} | {score['mean_site_accuracy']:.3f} | {accuracies} |"


if __name__ == "__main__":
    sys.exit(main())
