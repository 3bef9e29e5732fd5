"""DP-SGD as the study says it, against a plain loop over patients."""

import numpy as np
import pytest
import torch

from privacy.dp.events import DpEvent
from site_agent.cohort import Records
from site_agent.errors import NetworkRefused, TrainingFailed
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import load_vector, named_parameters, parameter_count, vector_of
from tests.fakes.training import INPUTS, entropy_of, patients, spec


def start(training):
    return vector_of(build_from(training.network))


def trainer(training, train, label="t"):
    return DpTrainer(training, train, entropy=entropy_of(label))


def almost_no_noise(**changes):
    """Everyone in every step, no clipping; noise is 0.1 clip norms over a divisor that makes it invisible."""
    return spec(**({"noise_multiplier": 0.1, "sampling_rate": 1.0, "local_steps": 1} | changes))


def patient_gradients(training, train, model, rows_of):
    """The reference: one patient at a time, plain autograd, no hooks."""
    module = build_from(training.network)
    load_vector(module, model)
    gradients = []
    for rows in rows_of:
        module.zero_grad()
        logits = module(torch.tensor(train.features[rows])).squeeze(1)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(train.labels[rows])).backward()
        gradients.append(torch.cat([p.grad.flatten() for _, p in named_parameters(module)]).double().numpy())
    return np.stack(gradients)


@pytest.mark.parametrize(
    ("network", "args"), [("logistic", {}), ("mlp", {"hidden": (6, 3), "activation": "gelu"})], ids=["logistic", "mlp"]
)
@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
def test_a_step_is_the_clipped_sum_of_patients_mean_gradients(network, args, clip):
    train = patients(400, records_each=3)
    training = almost_no_noise(
        network=network, args=args, clip_norm_l2=clip, max_records_per_patient=3, declared_patients=400
    )
    model = start(training)
    update = trainer(training, train).train_round(model).update
    gradients = patient_gradients(training, train, model, np.arange(1200).reshape(400, 3))
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    expected = -0.5 * (gradients * np.minimum(1, clip / norms)).sum(axis=0) / 400
    noise = 0.5 * 0.1 * clip / 400
    assert np.abs(update - expected).max() < 6 * noise + 1e-7


def test_local_steps_follow_one_another():
    train = patients(50)
    one, two = (almost_no_noise(local_steps=n, noise_multiplier=0.1, declared_patients=50) for n in (1, 2))
    model = start(one)
    first = trainer(one, train).train_round(model).update
    both = trainer(two, train).train_round(model).update
    assert not np.allclose(both, first, atol=0.005)
    assert np.allclose(both, 2 * first, atol=0.2 * np.abs(first).max() + 0.02)


def test_momentum_starts_at_zero_in_every_round():
    training = almost_no_noise(momentum=0.9, local_steps=1, declared_patients=400)
    train = patients(400)
    model = start(training)
    one = trainer(training, train)
    first, second = (one.train_round(model).update for _ in range(2))
    assert np.allclose(first, second, atol=6 * 2 * 0.5 * 0.1 / 400)


def test_training_learns():
    train = patients(300)
    training = spec(noise_multiplier=1.0, declared_patients=300, learning_rate=2.0)
    one = trainer(training, train)
    model = start(training)
    for _ in range(10):
        model = model + one.train_round(model).update
    module = build_from(training.network)
    load_vector(module, model)
    right = ((module(torch.tensor(train.features)).squeeze(1) > 0).numpy() == (train.labels > 0)).mean()
    assert right > 0.8


def test_each_round_reports_the_steps_it_took():
    training = spec(local_steps=3)
    one = trainer(training, patients(20))
    update = one.train_round(start(training))
    assert update.events == (DpEvent(mechanism=training.privacy.mechanism).with_steps(3),)
    assert update.events == (training.privacy.round_event(),)


def test_the_update_is_float32_in_the_networks_layout():
    training = spec(network="mlp", args={"hidden": (4,), "activation": "relu"})
    update = trainer(training, patients(20)).train_round(start(training)).update
    assert update.dtype == np.float32
    assert update.shape == (parameter_count(build_from(training.network)),)


def test_at_most_k_records_of_a_patient_are_used_and_they_vary():
    # The first patient's ten records differ; with k = 1 each step uses one of them.
    train = patients(1, records_each=10)
    one = trainer(almost_no_noise(), train)
    chosen = {len(one._at_most(np.arange(10))) for _ in range(20)}
    drawn = {int(one._at_most(np.arange(10))[0]) for _ in range(200)}
    assert chosen == {1}
    assert drawn == set(range(10))


def test_records_of_a_patient_need_not_stand_together():
    train = patients(30, records_each=2)
    order = np.random.default_rng(1).permutation(60)
    mixed = Records(
        features=train.features[order], labels=train.labels[order], patients=train.patients[order], patient_count=30
    )
    training = almost_no_noise(max_records_per_patient=2, declared_patients=30)
    model = start(training)
    first = trainer(training, train).train_round(model)
    second = trainer(training, mixed).train_round(model)
    assert np.allclose(first.update, second.update, atol=1e-6)
    assert first.local == second.local


def test_local_figures_count_and_print_as_nothing():
    training = almost_no_noise(clip_norm_l2=1e-3, declared_patients=20)
    local = trainer(training, patients(20)).train_round(start(training)).local
    assert local.sampled_patients == (20,)
    assert local.clipped_fraction == 1.0
    assert repr(local) == "LocalFigures()"


def test_a_hospital_without_patients_sends_noise():
    none = Records(
        features=np.zeros((0, INPUTS), dtype=np.float32),
        labels=np.zeros(0, dtype=np.float32),
        patients=np.zeros(0, dtype=np.int64),
        patient_count=0,
    )
    training = spec()
    update = trainer(training, none).train_round(start(training))
    assert update.local.sampled_patients == (0, 0)
    assert update.events == (training.privacy.round_event(),)
    assert (update.update != 0).all()


def test_the_accountants_agree():
    training = spec(noise_multiplier=3.4484, rounds=20)
    one = trainer(training, patients(20))
    assert one.cross_check().pld_epsilon == one.cross_check().opacus_epsilon == 0
    model = start(training)
    for _ in range(20):
        one.train_round(model)
    check = one.cross_check()
    assert check.pld_epsilon == pytest.approx(1.0, abs=1e-3)
    assert check.renyi_epsilon == pytest.approx(check.opacus_epsilon, rel=0.01)
    assert check.pld_epsilon < check.opacus_epsilon < 1.3


def test_a_model_that_does_not_fit_is_refused_before_anything_is_spent():
    one = trainer(spec(), patients(20))
    with pytest.raises(TrainingFailed):
        one.train_round(np.zeros(3, dtype=np.float32))
    assert one.events == ()


def test_records_that_do_not_fit_the_network_are_refused():
    with pytest.raises(TrainingFailed, match="inputs"):
        trainer(spec(inputs=4), patients(20))


def test_a_network_that_is_not_allowed_is_refused():
    with pytest.raises(NetworkRefused):
        trainer(spec(network="unknown"), patients(20))


def test_training_that_leaves_the_finite_numbers_is_an_error_and_is_counted():
    training = spec(learning_rate=1e38, noise_multiplier=100.0, clip_norm_l2=1e6, declared_patients=1)
    one = trainer(training, patients(20))
    with pytest.raises(TrainingFailed, match="finite"):
        one.train_round(start(training))
    assert one.events == (training.privacy.round_event(),)


def test_a_step_that_fails_half_way_is_counted_for_what_it_did(monkeypatch):
    training = spec(local_steps=3)
    one = trainer(training, patients(20))
    step, calls = one._step, []

    def fails_second():
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return step()

    monkeypatch.setattr(one, "_step", fails_second)
    with pytest.raises(MemoryError):
        one.train_round(start(training))
    assert [event.mechanism.steps for event in one.events] == [1]


def test_no_step_may_be_skipped():
    one = trainer(spec(), patients(20))
    with pytest.raises(TrainingFailed, match="skipped"):
        one._ending.signal_skip_step()


def test_torch_uses_one_thread():
    torch.set_num_threads(2)
    trainer(spec(), patients(20))
    assert torch.get_num_threads() == 1
