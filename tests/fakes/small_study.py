"""A study small enough for tests of the coordinator: a logistic model of two inputs, four hospitals."""

import json
from typing import Any

import numpy as np

from consortium.contract.global_model import GlobalModel
from consortium.contract.study import StudyFile

SITES = ("amber-clinic", "birch-hospital", "cedar-institute", "delta-medical")

DOCUMENT: dict[str, Any] = {
    "schema": "consortium/study/v1",
    "id": "small-study",
    "title": "A small study",
    "governance": {
        "sponsor": "Test",
        "contact": "lead@example.org",
        "purpose": "Testing",
        "ethics": {"reference": "none", "authority": "none"},
        "legal_basis": {"gdpr_article_6": "6(1)(e)", "gdpr_article_9": "9(2)(j)"},
        "retention_years": 1,
        "expires": "2099-12-31",
    },
    "sites": {"required": list(SITES), "minimum": 3},
    "data": {
        "kind": "tabular",
        "patient_id": "patient",
        "features": {
            "age": {"type": "number", "range": [0.0, 120.0]},
            "sex": {"type": "number", "range": [0.0, 1.0]},
        },
        "label": {"name": "ill", "type": "binary", "positive_above": 0.0},
        "missing": "drop",
        "minimum_patients": 10,
        "split": {"test_fraction": 0.3, "seed": 1, "stratify": True},
    },
    "model": {"network": "logistic", "args": {}},
    "training": {
        "rounds": 2,
        "local_steps": 1,
        "sampling_rate": 0.5,
        "optimizer": {"name": "sgd", "learning_rate": 0.5, "momentum": 0.0},
        "algorithm": "fedavg",
        "server_learning_rate": 1.0,
        "weighting": "uniform",
        "loss": "binary-cross-entropy",
        "seed": 1,
    },
    "privacy": {
        "mechanism": "local-dp-sgd",
        "unit": "patient",
        "epsilon": 1.0,
        "delta": 0.001,
        "clip_norm_l2": 1.0,
        "max_records_per_patient": 1,
    },
    "aggregation": {
        "protocol": "secagg-v1",
        "modulus_bits": 32,
        "threshold": 3,
        "round_deadline_s": 20.0,
        "upload_deadline_s": 10.0,
        "update_clip": 4.0,
        "max_patients_per_site": 1000,
    },
    "evaluation": {
        "split": "site-held-out",
        "metrics": ["accuracy"],
        "every_rounds": 1,
        "score_bins": 10,
        "decision_threshold": 0.5,
    },
}


def small_study(
    *,
    name: str = "small-study",
    rounds: int = 2,
    every_rounds: int = 1,
    round_deadline_s: float = 20.0,
    upload_deadline_s: float = 10.0,
    suite: str = "hybrid-pq",
) -> StudyFile:
    """The study, with what tests vary."""
    record = json.loads(json.dumps(DOCUMENT))
    record["id"] = name
    record["training"]["rounds"] = rounds
    record["evaluation"]["every_rounds"] = every_rounds
    record["aggregation"]["suite"] = suite
    record["aggregation"]["round_deadline_s"] = round_deadline_s
    record["aggregation"]["upload_deadline_s"] = upload_deadline_s
    return StudyFile.model_validate_json(json.dumps(record))


def first_model(parameters: int = 3, fill: float = 0.0) -> GlobalModel:
    """The first global model of the study: what every site builds."""
    return GlobalModel(
        (("layer.bias", (1,)), ("layer.weight", (1, parameters - 1))), np.full(parameters, fill, np.float32)
    )
