"""The audit of a mechanism, on the healthy trainer and on every broken one."""

import math

import pytest

from privacy.dp import accountant
from site_agent.admission_audit import PARAMETERS_MAX, audited_at_admission
from site_agent.gradients.admission import EngineChoice
from site_agent.mechanism_audit import AT_ADMISSION, Effort, audit_mechanism
from site_agent.mechanism_findings import CONFIDENCE
from site_agent.trainer import DpTrainer
from tests.fakes import broken_trainers as broken
from tests.fakes.training import spec

SHORT = Effort(noise_samples=2_500, sampling_rounds=80, rounds_max=300)


def study(**changes):
    fields = {"noise_multiplier": 2.0, "sampling_rate": 0.25, "local_steps": 2, "declared_patients": 64}
    return spec(**(fields | {"max_records_per_patient": 1} | changes))


@pytest.mark.parametrize(
    ("factory", "check"),
    [
        (broken.noise_off, "noise"),
        (broken.less_noise, "noise"),
        (broken.clip_off, "sensitivity"),
        (broken.Shuffled, "poisson"),
        (broken.OneRoundCounted, "steps-counted"),
        (broken.MoreSteps, "steps"),
        (broken.divisor_counted, "divisor"),
        (broken.rate_counted, "sampling-rate"),
        (broken.one_seed, "seeds"),
        (broken.torch_noise, "seeds"),
        (broken.noise_kept, "noise-fresh"),
        (broken.nan_counts, "broken-record"),
        (broken.GoesOn, "early-break"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_broken_mechanism_is_found(factory, check):
    assert check in audit_mechanism(study(), factory, SHORT).failed


def test_without_noise_no_epsilon_is_left():
    figures = dict(audit_mechanism(study(), broken.noise_off, SHORT).figures)
    assert (figures["noise_high"], figures["epsilon_low"], figures["epsilon_high"]) == (0.0, None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling_rate": 1.0, "local_steps": 1},
        {"sampling_rate": 0.02, "noise_multiplier": 0.8},
        {"clip_norm_l2": 50.0, "network": "mlp", "args": {"hidden": (4,), "activation": "relu"}},
    ],
    ids=["usual", "everybody", "few", "mlp"],
)
def test_the_healthy_trainer_passes(changes):
    """False alarms: once in 100,000 audits at the most (CONFIDENCE)."""
    training = study(**changes)
    found = audit_mechanism(training, DpTrainer, SHORT)
    assert found.failed == (), [one for one in found.findings if not one.passed]
    figures = dict(found.figures)
    claimed = accountant.epsilon([training.privacy.study_event()], delta=training.privacy.delta)
    assert figures["epsilon_claimed"] == claimed
    assert figures["epsilon_low"] < claimed < figures["epsilon_high"]
    assert figures["noise_low"] < training.privacy.mechanism.noise_multiplier < figures["noise_high"]


def test_it_asks_for_less_than_a_hundred_thousandth_of_false_alarms():
    assert math.isclose(CONFIDENCE, 0.99999)
    assert AT_ADMISSION.rounds_max <= 600


def test_a_large_network_is_not_audited_at_admission():
    training = study()
    choice = EngineChoice(name="loop")
    assert audited_at_admission(training, choice, parameters=PARAMETERS_MAX + 1) is None
    assert audited_at_admission(training, choice, parameters=PARAMETERS_MAX) is not None
