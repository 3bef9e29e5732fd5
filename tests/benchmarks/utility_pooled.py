"""What the private models of `utility.py` are compared with: all training records in one place, no privacy."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from consortium.demo_images import joined
from site_agent.cohort import Records
from site_agent.evaluate import score_patients
from site_agent.networks import build_from
from site_agent.training_spec import NetworkSpec
from site_agent.update import vector_of
from tests.benchmarks.utility_data import Hospital
from tests.benchmarks.utility_runs import Run, figures
from tests.benchmarks.utility_settings import SETTINGS, Data

STEPS, SAMPLING_RATE, LEARNING_RATE = 300, 0.1, 0.005
SEED = 20240501


def train(data: Data, hospitals: Sequence[Hospital]) -> Run:
    """Scikit-learn's logistic regression on hearts; the studies' own network, trained with Adam, on radiographs."""
    records, test = joined([h.train for h in hospitals]), joined([h.test for h in hospitals])
    positive = test.labels > 0
    if data == "heart":
        model = LogisticRegression(max_iter=1000).fit(records.features, records.labels)
        scores = model.predict_proba(test.features)[:, 1]
    else:
        scores, positive = _network(records, test)
    threshold = next(one.decision_threshold for one in SETTINGS if one.data == data)
    return Run(epsilon=float("inf"), **figures(scores, positive, threshold))


def _network(records: Records, test: Records) -> tuple[np.ndarray, np.ndarray]:
    torch.set_num_threads(1)
    module = build_from(NetworkSpec(network="scattering", input_shape=records.features.shape[1:], seed=SEED)).train()
    steps = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    features, labels = torch.tensor(records.features), torch.tensor(records.labels)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(STEPS):
        rows = torch.nonzero(torch.rand(len(labels), generator=generator) < SAMPLING_RATE).squeeze(1)
        steps.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(module(features[rows]).squeeze(1), labels[rows])
        loss.backward()  # type: ignore[no-untyped-call] # torch has no type for it
        steps.step()
    return score_patients(module, vector_of(module), test)
