"""Studies to measure with: thirteen made-up inputs, and a network with exactly as many parameters as are wanted.

No record of any patient is used; the cohort is made of random numbers, and nothing is trained on it.
"""

import json
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from consortium.contract.study import StudyFile

INPUTS = tuple(f"input-{number:02}" for number in range(1, 14))
PATIENTS = 60

LOGISTIC = 14
HUNDRED_THOUSAND = 100_000
MILLION = 1_000_000
TEN_MILLION = 10_000_000
HIDDEN = MappingProxyType({HUNDRED_THOUSAND: (253, 213, 197), MILLION: (1385, 707), TEN_MILLION: (2343, 2193, 2199)})
"""Widths of the hidden layers that give so many parameters with thirteen inputs and one output."""


def bench_study(name: str, sites: Sequence[str], *, parameters: int, rounds: int, private: bool = True) -> StudyFile:
    """A study over `sites` whose network has `parameters` parameters; metrics only in the first round and the last.

    Args:
        name: The study's id.
        sites: The roster, sorted or not.
        parameters: 14 (logistic regression) or a key of `HIDDEN`.
        rounds: Training rounds.
        private: Whether patients are promised differential privacy; without, no agent composes epsilon.
    """
    hidden = HIDDEN.get(parameters)
    model: dict[str, Any] = {"network": "logistic", "args": {}}
    if hidden is not None:
        model = {"network": "mlp", "args": {"hidden": list(hidden), "activation": "relu"}}
    record = {
        "schema": "consortium/study/v1",
        "id": name,
        "title": f"Rounds with {parameters} parameters",
        "governance": {
            "sponsor": "Benchmark",
            "contact": "lead@example.org",
            "purpose": "Measuring how long rounds take",
            "ethics": {"reference": "none", "authority": "none"},
            "legal_basis": {"gdpr_article_6": "6(1)(e)", "gdpr_article_9": "9(2)(j)"},
            "retention_years": 1,
            "expires": "2099-12-31",
        },
        "sites": {"required": list(sites), "minimum": 3},
        "data": {
            "kind": "tabular",
            "patient_id": "patient",
            "features": {column: {"type": "number", "range": [-10.0, 10.0]} for column in INPUTS},
            "label": {"name": "ill", "type": "binary", "positive_above": 0.0},
            "missing": "drop",
            "minimum_patients": 30,
            "split": {"test_fraction": 0.3, "seed": 1, "stratify": True},
        },
        "model": model,
        "training": {
            "rounds": rounds,
            "local_steps": 1,
            "sampling_rate": 0.1,
            "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.0},
            "algorithm": "fedavg",
            "server_learning_rate": 1.0,
            "weighting": "uniform",
            "loss": "binary-cross-entropy",
            "seed": 1,
        },
        "privacy": {
            "mechanism": "local-dp-sgd",
            "unit": "patient",
            "epsilon": 8.0,
            "delta": 1e-3,
            "clip_norm_l2": 1.0,
            "max_records_per_patient": 1,
        },
        "aggregation": {
            "protocol": "secagg-v1",
            "modulus_bits": 32,
            "threshold": 2 * len(sites) // 3 + 1,
            "round_deadline_s": 300.0,
            "upload_deadline_s": 120.0,
            "update_clip": 4.0,
            "max_patients_per_site": 100_000,
        },
        "evaluation": {
            "split": "site-held-out",
            "metrics": ["accuracy"],
            "every_rounds": rounds,
            "score_bins": 10,
            "decision_threshold": 0.5,
        },
    }
    if not private:
        reason = "There are no patients: every value is made up."
        record["privacy"] = {
            "mechanism": "none",
            "unit": "patient",
            "justification": reason,
            "max_records_per_patient": 1,
        }
    return StudyFile.model_validate_json(json.dumps(record))


def made_up_records() -> str:
    """A CSV file of patients that do not exist."""
    random = np.random.default_rng(1)
    lines = [",".join(("patient", *INPUTS, "ill"))]
    for patient in range(PATIENTS):
        values = (f"{value:.3f}" for value in random.uniform(-1, 1, len(INPUTS)))
        lines.append(",".join((f"p{patient}", *values, str(patient % 2))))
    return "\n".join(lines) + "\n"


def site_file(site: str, studies: Sequence[str]) -> str:
    """A site.yaml that lets the studies run on the made-up records."""
    return json.dumps(  # JSON is YAML
        {
            "schema": "consortium/site/v1",
            "site": site,
            "datasets": {
                study: {
                    "path": "records.csv",
                    "format": "csv",
                    "patient_id": "patient",
                    "declared_patients": 42,
                }
                for study in studies
            },
            "studies": {study: study for study in studies},
            "policy": {
                "max_epsilon_per_study": 8.0,
                "max_epsilon_total": 8.0,
                "max_egress_bytes_per_round": 2**30,
                "allow_no_privacy": True,
            },
        }
    )
