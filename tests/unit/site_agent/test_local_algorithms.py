"""The hospital's steps against each paper's update: what is added comes after the noise, and what is kept is noised."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from consortium.contract.parameter_parts import PartsRefused
from site_agent.cohort import Records
from site_agent.errors import TrainingFailed
from site_agent.local_steps import LocalStart
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.round_files import RoundFiles
from site_agent.trainer import DpTrainer
from site_agent.training_spec import OptimizerSpec, PlainSpec
from site_agent.update import kept_vector_of, load_kept, load_vector, vector_of
from tests.fakes.training import INPUTS, entropy_of, patients, spec

RATE = 0.5
LAYOUT = (("0.bias", (1,)), ("0.weight", (1, INPUTS)))


def nobody():
    return Records(
        features=np.zeros((0, INPUTS), np.float32), labels=np.zeros(0, np.float32),
        patients=np.zeros(0, np.int64), patient_count=0,
    )  # fmt: skip


def noise_alone(steps, *, start=None, **optimizer):
    """A round's update without a patient: the same noise for the same number of steps, whatever is added to it."""
    training = spec(local_steps=steps, learning_rate=RATE)
    training = replace(training, optimizer=OptimizerSpec(**({"learning_rate": RATE} | optimizer)))
    trainer = DpTrainer(training, nobody(), entropy=entropy_of("noise"))
    model = np.linspace(-1, 1, INPUTS + 1, dtype=np.float32)
    return trainer.train_round(model, *([start] if start else [])).update.astype(np.float64)


def test_the_proximal_term_is_added_to_the_noisy_gradient():
    """Li et al. 2020: y_2 = y_1 - r (g_2 + mu (y_1 - x)), where g is noise here; so D = D(mu=0) - r mu D_1."""
    first, both = noise_alone(1), noise_alone(2)
    assert np.abs(first).min() > 0
    assert noise_alone(2, proximal_mu=0.7) == pytest.approx(both - RATE * 0.7 * first, abs=1e-6)
    assert noise_alone(1, proximal_mu=0.7) == pytest.approx(first, abs=1e-7)


def test_scaffolds_shift_is_added_to_every_noisy_gradient():
    """Karimireddy et al. 2020, line 10: y = y - r (g + c - c_i)."""
    shift = np.linspace(0.1, 0.6, INPUTS + 1, dtype=np.float32)
    found = noise_alone(3, start=LocalStart(shift=shift))
    assert found == pytest.approx(noise_alone(3) - 3 * RATE * shift, abs=1e-6)
    with pytest.raises(TrainingFailed, match="a control variate of 2 values"):
        noise_alone(1, start=LocalStart(shift=shift[:2]))


def test_adam_at_the_hospital_is_torchs_on_the_noisy_gradients():
    gradients = np.diff([np.zeros(INPUTS + 1), *(noise_alone(steps) for steps in (1, 2, 3))], axis=0) / -RATE
    weights = torch.zeros(INPUTS + 1, requires_grad=True)
    steps = torch.optim.Adam([weights], lr=0.1, betas=(0.8, 0.9), eps=1e-3)
    for gradient in gradients:
        weights.grad = torch.tensor(gradient, dtype=torch.float32)
        steps.step()
    found = noise_alone(3, learning_rate=0.1, betas=(0.8, 0.9), eps=1e-3)
    assert found == pytest.approx(weights.detach().numpy(), abs=1e-5)


def test_what_is_kept_is_clipped_and_noised_with_the_rest():
    training, train = spec(sampling_rate=1.0, clip_norm_l2=0.05, local_steps=2), patients(30)
    every = DpTrainer(training, train, entropy=entropy_of("kept"))
    keeps = replace(training, network=replace(training.network, site_kept=("0.bias",)))
    keeping = DpTrainer(keeps, train, entropy=entropy_of("kept"))
    model = np.linspace(-1, 1, INPUTS + 1, dtype=np.float32)
    whole = every.train_round(model)
    part = keeping.train_round(model[1:], LocalStart(kept=model[:1]))
    assert whole.kept is None
    assert part.update.tolist() == whole.update[1:].tolist()
    assert part.kept.tolist() == (model[:1] + whole.update[:1]).tolist()
    # Without anything kept yet, and in every round anew: what the study builds.
    fresh = DpTrainer(keeps, nobody(), entropy=entropy_of("fresh"))
    first, second = (fresh.train_round(model[1:]).kept for _ in range(2))
    assert abs(float(first[0])) < 1
    assert abs(float(second[0])) < 1


def test_what_is_frozen_is_neither_in_the_gradient_nor_in_the_update():
    network = spec(network="mlp", args={"hidden": (3,), "activation": "tanh"}).network
    training = replace(
        spec(noise_multiplier=0.1, sampling_rate=1.0, local_steps=1, clip_norm_l2=100.0, declared_patients=400),
        network=replace(network, trainable=("2.*",)),
    )
    train = patients(400)
    trainer = DpTrainer(training, train, entropy=entropy_of("frozen"))
    module = build_from(training.network)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    update = trainer.train_round(vector_of(module)).update
    logits = module(torch.from_numpy(train.features)).squeeze(1)
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(train.labels)).backward()
    gradient = torch.cat([module.get_parameter(name).grad.flatten() for name in ("2.bias", "2.weight")]).numpy()
    assert update == pytest.approx(-0.5 * gradient, abs=6 * 0.5 * 0.1 * 100 / 400)
    assert module.get_parameter("0.weight").grad is None
    after = dict(trainer._module.named_parameters())
    assert torch.equal(after["0.weight"], before["0.weight"])
    with pytest.raises(PartsRefused, match="no parameter of the network has"):
        build_from(replace(network, trainable=("3.*",)))


# --- without differential privacy -----------------------------------------------------------------------------------


def plain(**changes):
    fields = {
        "network": spec().network, "optimizer": OptimizerSpec(learning_rate=RATE), "local_steps": 1, "batch_part": 1.0,
        "max_records_per_patient": 3, "declared_patients": 10,
    }  # fmt: skip
    return PlainSpec(**(fields | changes))


def gradient_at(weights, train):
    """Of the mean over patients of the mean over each one's records, for a logistic model: bias first."""
    inputs = np.concatenate([np.ones((len(train.labels), 1)), train.features.astype(np.float64)], axis=1)
    residuals = 1 / (1 + np.exp(-inputs @ weights)) - train.labels
    sizes = np.bincount(train.patients)[train.patients]
    return (inputs * (residuals / sizes)[:, None]).sum(axis=0) / train.patient_count


def uneven():
    """Patients of one, two and three records."""
    whole = patients(24, records_each=3)
    rows = np.concatenate([np.flatnonzero(whole.patients == patient)[: 1 + patient % 3] for patient in range(24)])
    return Records(
        features=whole.features[rows], labels=whole.labels[rows], patients=whole.patients[rows], patient_count=24
    )


@pytest.mark.parametrize("at_once", [2**22, 15], ids=["whole batches", "cut batches"])
@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_full_batches_are_gradient_descent_on_the_mean_over_patients(mu, at_once, monkeypatch):
    monkeypatch.setattr("site_agent.plain_trainer.VALUES_AT_ONCE", at_once)
    train, model = uneven(), np.linspace(-1, 1, INPUTS + 1, dtype=np.float32)
    optimizer = OptimizerSpec(learning_rate=RATE, momentum=0.5, proximal_mu=mu)
    trainer = PlainTrainer(plain(local_steps=3, optimizer=optimizer), train)
    expected, velocity = model.astype(np.float64), np.zeros(INPUTS + 1)
    for _ in range(3):
        velocity = 0.5 * velocity + gradient_at(expected, train) + mu * (expected - model)
        expected = expected - RATE * velocity
    for _ in range(2):  # nothing is carried from round to round
        trained = trainer.train_round(model)
        assert trained.update == pytest.approx(expected - model, abs=2e-6)
        assert (trained.events, trained.local.sampled_patients) == ((), (24, 24, 24))


def test_a_pass_goes_through_every_patient_once():
    train = patients(10)
    trainer = PlainTrainer(plain(batch_part=0.3, local_steps=6), train)
    batches = trainer._batches()
    passes = [[next(batches) for _ in range(4)] for _ in range(2)]
    for one in passes:
        assert [len(batch.sizes) for batch in one] == [3, 3, 3, 1]
        rows = torch.cat([batch.features for batch in one])
        assert sorted(rows[:, 0].tolist()) == sorted(train.features[:, 0].tolist())
    assert not torch.equal(passes[0][0].features, passes[1][0].features)
    update = trainer.train_round(np.zeros(INPUTS + 1, np.float32))
    assert update.local.sampled_patients == (3, 3, 3, 1, 3, 3)


def test_a_patient_brings_at_most_so_many_records():
    trainer = PlainTrainer(plain(max_records_per_patient=2), patients(5, records_each=3))
    assert next(trainer._batches()).sizes == (2,) * 5


def test_bad_beginnings_and_bad_ends():
    with pytest.raises(TrainingFailed, match="no patient"):
        PlainTrainer(plain(), nobody())
    broken = patients(3)
    broken.features[1, 2] = np.nan
    with pytest.raises(TrainingFailed, match="1 records hold"):
        PlainTrainer(plain(), broken)
    with pytest.raises(TrainingFailed, match="do not fit"):
        PlainTrainer(plain(), patients(3, inputs=2))
    wild = PlainTrainer(plain(optimizer=OptimizerSpec(learning_rate=1e38, proximal_mu=1e3), local_steps=9), patients(9))
    with pytest.raises(TrainingFailed, match="left the finite numbers"):
        wild.train_round(np.ones(INPUTS + 1, np.float32))


# --- what is kept, on disk -----------------------------------------------------------------------------------


def test_loading_what_is_kept_leaves_what_is_sent():
    module = build_from(replace(spec().network, site_kept=("0.bias",)))
    load_vector(module, np.full(INPUTS, 2, np.float32))
    load_kept(module, np.full(1, 3, np.float32))
    assert (vector_of(module).tolist(), kept_vector_of(module).tolist()) == ([2.0] * INPUTS, [3.0])


def test_a_round_starts_from_the_newest_file_of_an_earlier_one(tmp_path):
    files = RoundFiles(tmp_path / "kept", LAYOUT)
    assert files.newest_before(9) is None
    for number in range(1, 6):
        files.save(number, np.full(INPUTS + 1, number, np.float32))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        f"round-00000{number}.safetensors" for number in (3, 4, 5)
    ]
    assert files.newest_before(5)[0] == 4
    assert files.newest_before(9, lambda number: number != 5)[0] == 4
    files.save(5, np.full(INPUTS + 1, 50, np.float32))
    assert files.newest_before(6)[0] == 50
    (tmp_path / "kept/round-000005.safetensors").write_bytes(b"damaged")
    (tmp_path / "kept/notes.txt").write_text("of somebody's")
    assert files.newest_before(6)[0] == 4
    assert RoundFiles(tmp_path / "kept", (("0.bias", (1,)),)).newest_before(6) is None
