"""One study of `utility.py` in one process: the product's study file, trainer, sum, server step and evaluation.

Left out are the network and the masks. Sums are taken of the plain vectors, which gives what secure aggregation gives:
it is exact for the whole steps that distributed DP-SGD sends, and for a local update it rounds by less than 1e-6.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consortium.contract.global_model import GlobalModel
from consortium.contract.names import RoundNumber
from consortium.contract.plan import RoundPlan
from consortium.contract.server_optimizer import next_global_model
from consortium.contract.study import StudyFile, load_study
from privacy.dp import accountant
from site_agent.evaluate import score_patients
from site_agent.networks import build_from
from site_agent.tally import exact_auc
from site_agent.trainer import DpTrainer
from site_agent.training_spec import TrainingSpec, spec_of
from site_agent.update import global_model_of
from tests.benchmarks import heart_disease
from tests.benchmarks.utility_data import PIXEL_MEAN, PIXEL_STD, Hospital
from tests.benchmarks.utility_settings import DELTA, Setting
from tests.fakes.attempt_play import Play

HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One seed: the released model on everybody's held-out patients, and what the training cost a patient."""

    auc: float
    accuracy: float  # over all patients together, at the study's decision threshold
    accuracy_at_half: float  # likewise, at a threshold of one half
    epsilon: float  # of the rounds that were run; the spare ones are not in it


RADIOGRAPHS: Mapping[str, Any] = {
    "kind": "imaging",
    "task": "classification",
    "modality": "DX",
    "channels": 1,
    "shape": [28, 28],
    "intensity": {"range": [0, 255], "scale": {"mean": PIXEL_MEAN, "std": PIXEL_STD}},
    "label": {"type": "binary", "positive_above": 0},
    "split": {"test_fraction": 0.25, "seed": 1, "stratify": False},
}
"""The `data` section of the studies on chest radiographs, but for the minimum of patients."""


def study_of(setting: Setting) -> StudyFile:
    """The heart study's file with the setting's constants, and with its data and network where it is another."""
    record: dict[str, Any] = json.loads(load_study(heart_disease.HEART / "study.yaml").document())
    distributed = setting.mechanism == "distributed-dp-sgd"
    if setting.data == "pneumonia":
        record["data"], record["model"] = dict(RADIOGRAPHS), {"network": setting.network}
        del record["evaluation"]["subgroups"]  # images have no columns to make groups by
    record["data"]["minimum_patients"] = setting.minimum_patients
    record["training"] |= {
        "rounds": setting.rounds,
        "local_steps": setting.local_steps,
        "spare_rounds": setting.spare_rounds,
        "sampling_rate": setting.sampling_rate,
        "optimizer": {"name": "sgd", "learning_rate": setting.learning_rate, "momentum": setting.momentum},
    }
    if setting.averaging is not None:
        record["training"]["averaging"] = {"decay": setting.averaging}
    record["privacy"] |= {
        "mechanism": setting.mechanism,
        "epsilon": setting.epsilon,
        "delta": DELTA[setting.data],
        "clip_norm_l2": setting.clip_norm_l2,
    }
    if distributed:
        record["privacy"]["colluding"] = setting.colluding
    record["aggregation"] |= {"threshold": setting.threshold, "update_clip": setting.update_clip}
    record["evaluation"] |= {"every_rounds": setting.rounds, "decision_threshold": setting.decision_threshold}
    return StudyFile.model_validate_json(json.dumps(record))


def train(setting: Setting, hospitals: Sequence[Hospital]) -> Run:
    """A complete run with fresh noise and fresh patient sampling."""
    study = study_of(setting)
    spec = spec_of(study, declared_patients=setting.minimum_patients)
    model = global_model_of(build_from(spec.network))
    trainers = [DpTrainer(spec, hospital.train) for hospital in hospitals]
    plan = Play().plan  # any: of a plan, the step reads the number of the round
    for number in range(1, setting.rounds + 1):
        model = _round(study, replace(plan, round=RoundNumber(number)), model, trainers)
    return _measured(study, spec, model, trainers, hospitals)


def _round(study: StudyFile, plan: RoundPlan, model: GlobalModel, trainers: Sequence[DpTrainer]) -> GlobalModel:
    """One round of everybody: the vectors that would be masked, their sum, and the coordinator's step."""
    total = np.zeros(model.vector.size)
    for trainer in trainers:
        total += trainer.train_round(model.vector).update
    sums = {"update": total, "weight": np.array([float(len(trainers))])}
    return next_global_model(study, plan, model, sums, survivors=len(trainers))


def _measured(
    study: StudyFile,
    spec: TrainingSpec,
    model: GlobalModel,
    trainers: Sequence[DpTrainer],
    hospitals: Sequence[Hospital],
) -> Run:
    module = build_from(spec.network)
    found = [score_patients(module, model.vector, hospital.test) for hospital in hospitals if len(hospital.test)]
    scores, positive = (np.concatenate(part) for part in zip(*found, strict=True))
    return Run(
        epsilon=max(accountant.epsilon(trainer.events, delta=study.privacy.delta) for trainer in trainers),
        **figures(scores, positive, study.evaluation.decision_threshold),
    )


def figures(scores: NDArray[np.float64], positive: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """AUC and the two accuracies of scores in [0, 1], under the names of `Run`."""
    auc = exact_auc(scores, positive)
    if auc is None:
        raise ValueError("the test patients are all of one class")
    return {
        "auc": auc,
        "accuracy": float(((scores > threshold) == positive).mean()),
        "accuracy_at_half": float(((scores > HALF) == positive).mean()),
    }
