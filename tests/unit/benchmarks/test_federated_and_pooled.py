"""The comparison of federated with pooled training is fair: the same passes, in batches of the same size."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from consortium.contract.names import SiteId
from site_agent.cohort import Cohort, Records
from site_agent.networks import build_from
from site_agent.training_spec import PlainSpec, network_spec_of
from site_agent.update import global_model_of
from tests.benchmarks import federated_and_pooled
from tests.fakes.small_study import SITES
from tests.unit.consortium.test_simulated_algorithms import cohorts, study_with


def test_pooled_training_sees_every_record_as_often_as_the_hospitals_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[PlainSpec, Records]] = []

    class Trainer:
        def __init__(self, spec: PlainSpec, train: Records) -> None:
            asked.append((spec, train))

        def train_round(self, model: np.ndarray) -> "Trainer":
            self.update = np.ones_like(model)
            return self

    monkeypatch.setattr(federated_and_pooled, "PlainTrainer", Trainer)
    study = study_with(rounds=3, local_steps=4, sampling_rate=0.25)
    parts = {SiteId(site): cast("Cohort", SimpleNamespace(train=one)) for site, one in cohorts().items()}
    first = global_model_of(build_from(network_spec_of(study)))
    assert np.array_equal(federated_and_pooled.pooled(study, parts, first).vector, first.vector + 1)
    ((spec, train),) = asked
    assert train.patient_count == sum(one.train.patient_count for one in parts.values())
    own_batch = study.training.sampling_rate * parts[SiteId(SITES[0])].train.patient_count
    assert spec.batch_part * train.patient_count == own_batch
    passes = study.training.rounds * study.training.local_steps * study.training.sampling_rate
    assert spec.local_steps * spec.batch_part == passes
