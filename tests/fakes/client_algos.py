"""Client algorithms as hospitals would write them, as text: registered by the digest of their file."""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from consortium.contract.study import StudyFile
from tests.fakes.site_world import small_study

ALGO = "ward-trainer"

SOURCE = '''\
"""Gradient descent on the study's own network: a class as a hospital would write it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from monai.fl.client import ClientAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject


@dataclass
class Heard:
    calls: list[str]


class WardTrainer(ClientAlgo):
    def __init__(self, rate=0.5, answer="weights", spoil=""):
        self.rate, self.answer, self.spoil = rate, answer, spoil
        self.heard = Heard([])

    def initialize(self, extra=None):
        self.heard.calls.append("initialize " + extra[ExtraItems.CLIENT_NAME])
        self.network = extra["consortium_network"]
        records = extra["consortium_training_part"]
        self.features = torch.tensor(records.features)
        self.labels = torch.tensor(records.labels)
        self.steps = extra["consortium_settings"].local_steps

    def train(self, data, extra=None):
        self.heard.calls.append(f"train {extra['consortium_round']}")
        if self.spoil == "raise":
            raise ValueError("patient SECRET-007 has no label")
        self.network.load_state_dict(data.weights)
        self.before = {name: value.clone() for name, value in data.weights.items()}
        optimizer = torch.optim.SGD(self.network.parameters(), lr=self.rate)
        for _ in range(self.steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits
            loss(self.network(self.features).squeeze(1), self.labels).backward()
            optimizer.step()

    def get_weights(self, extra=None):
        weights = dict(self.network.state_dict())
        kind = WeightType.WEIGHTS
        if self.answer == "difference":
            weights = {name: value - self.before[name] for name, value in weights.items()}
            kind = WeightType.WEIGHT_DIFF
        if self.spoil == "missing":
            del weights["0.bias"]
        elif self.spoil == "shape":
            weights["0.weight"] = weights["0.weight"].ravel()
        elif self.spoil == "statistics":
            weights["1.running_mean"] = torch.zeros(3)
        elif self.spoil == "whole":
            weights["0.bias"] = torch.zeros(1, dtype=torch.int64)
        elif self.spoil == "endless":
            weights["0.bias"] = torch.full((1,), float("inf"))
        elif self.spoil == "large":
            weights["0.bias"] = torch.full((1,), 1e300, dtype=torch.float64)
        elif self.spoil == "untyped":
            kind = None
        weights["1.num_batches_tracked"] = torch.tensor(7)
        return ExchangeObject(weights=weights, weight_type=kind)

    def abort(self, extra=None):
        self.heard.calls.append("abort")

    def finalize(self, extra=None):
        self.heard.calls.append("finalize")


class NoAlgo:
    pass
'''


def registered(folder: Path, source: str = SOURCE, *, kind: str = "WardTrainer", **args: Any) -> dict[str, Any]:
    """A file with a class, and its entry under `client_algos` of a site.yaml."""
    path = folder / "ward_trainer.py"
    path.write_text(source)
    return {"file": str(path), "sha256": hashlib.sha256(source.encode()).hexdigest(), "class": kind, "args": args}


def register(folder: Path, **args: Any) -> Path:
    """Write the class's file and name it in the site.yaml of a home; returns the file."""
    path = folder / "site.yaml"
    record = yaml.safe_load(path.read_text())
    record["client_algos"] = {ALGO: registered(folder, **args)}
    path.write_text(yaml.safe_dump(record))
    return folder / "ward_trainer.py"


def study_with_client_algo(**training: Any) -> StudyFile:
    """A small study without differential privacy that hospitals train with classes of their own."""
    record = small_study().model_dump(mode="python", by_alias=True, exclude_none=True)
    why = "Twelve volumes at each hospital: noise of any use would drown them."
    record["privacy"] = {"mechanism": "none", "unit": "patient", "justification": why, "max_records_per_patient": 1}
    record["training"] |= {"client_algo": ALGO, "local_steps": 3, **training}
    return StudyFile.model_validate(record)
