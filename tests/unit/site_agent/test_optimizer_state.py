"""An optimizer that goes on from round to round: as torch would go on, from noisy gradients, and across any crash."""

from dataclasses import replace

import numpy as np
import pytest

from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid
from consortium.contract.global_model import GlobalModel
from consortium.contract.study import StudyFile
from site_agent import round_files
from site_agent.carried import Carried
from site_agent.errors import TrainingFailed
from site_agent.local_steps import LocalStart
from site_agent.networks import build_from
from site_agent.optimizer_state import opened, sealed, state_layout
from site_agent.plain_trainer import PlainTrainer
from site_agent.trainer import DpTrainer
from site_agent.training_spec import OptimizerSpec, plain_spec_of
from site_agent.update import global_model_of
from tests.fakes.site_world import small_study
from tests.fakes.training import INPUTS, entropy_of, patients, spec
from tests.unit.site_agent.test_local_algorithms import nobody

ROUNDS, RATE = 4, 0.1
ADAM = {"name": "adam", "learning_rate": RATE, "betas": [0.9, 0.99], "eps": 1e-6}
SGD = {"name": "sgd", "learning_rate": RATE, "momentum": 0.9}


class Died(BaseException):
    """The process is gone."""


def study_with(optimizer, **training):
    record = small_study().model_dump(mode="json", by_alias=True, exclude_none=True)
    record["training"] |= {"rounds": ROUNDS, "local_steps": 3, "sampling_rate": 1.0, "optimizer": optimizer, **training}
    record["privacy"] = {
        "mechanism": "none", "unit": "patient", "justification": "Made-up patients.", "max_records_per_patient": 1,
    }  # fmt: skip
    return StudyFile.from_document(canonical_bytes(record))


class Hospital:
    """What trains, round after round; `restart` forgets everything but the disk."""

    def __init__(self, study, folder):
        self.study, self.folder = study, folder
        self.spec = plain_spec_of(study, declared_patients=40)
        self.first = global_model_of(build_from(self.spec.network))
        self.released: set[int] = set()
        self.restart()

    def restart(self):
        inputs = self.spec.network.input_size
        self.trainer = PlainTrainer(self.spec, patients(40, inputs=inputs), entropy=entropy_of("batches"))
        self.carried = Carried(
            self.study, self.folder, model=self.first, was_released=lambda number: number in self.released
        )

    def round(self, number, model):
        trained = self.trainer.train_round(model.vector, self.carried.start(number, model))
        self.carried.after(number, model, trained)
        return trained

    def close(self, number, model, trained):
        self.released.add(number)
        return GlobalModel(model.parameters, model.vector + trained.update)


def whole_run(hospital, between=lambda *_: None):
    model = hospital.first
    for number in range(1, ROUNDS + 1):
        between(number, model)
        model = hospital.close(number, model, hospital.round(number, model))
    return model.vector


@pytest.mark.parametrize("optimizer", [ADAM, SGD])
def test_a_hospital_killed_at_any_write_trains_as_if_it_had_not_been(tmp_path, monkeypatch, optimizer):
    """Killed before or after each file is there, in every round, and restarted: the last model is the same.

    Batches are everybody, so that fresh randomness changes the order of a sum and nothing else.
    """
    study = study_with(optimizer, optimizer_state="carried")
    expected = whole_run(Hospital(study, tmp_path / "undisturbed"))
    fresh = whole_run(Hospital(study_with(optimizer), tmp_path / "fresh"))
    assert np.abs(fresh - expected).max() > 0.01  # the state matters
    write, place = round_files.write_private, [0, ""]

    def dies(path, data, *, replace):
        place[0] -= 1
        if place[0] == 0 and place[1] == "before":
            raise Died
        write(path, data, replace=replace)
        if place[0] == 0 and place[1] == "after":
            raise Died

    monkeypatch.setattr(round_files, "write_private", dies)
    for moment in range(1, ROUNDS + 1):
        for when in ("before", "after"):
            place[:] = [2 * moment - 1, when]  # every round is trained twice
            hospital = Hospital(study, tmp_path / f"{moment}-{when}")
            deaths = 0

            def disturbed(number, model, hospital=hospital):
                nonlocal deaths
                try:
                    hospital.round(number, model)  # an attempt that comes to nothing, or the one that dies
                except Died:
                    deaths += 1
                hospital.restart()

            found = whole_run(hospital, disturbed)
            assert deaths == 1
            assert found == pytest.approx(expected, abs=2e-6), (moment, when)


def test_a_round_starts_from_the_last_one_whose_sum_was_opened(tmp_path):
    hospital = Hospital(study_with(ADAM, optimizer_state="carried"), tmp_path)
    first = hospital.round(1, hospital.first)
    assert hospital.carried.start(2, hospital.first).optimizer is None  # no share of round 1 was released here
    hospital.released.add(1)
    found = hospital.carried.start(2, hospital.first).optimizer
    assert found is not None
    assert found.tolist() == first.optimizer.tolist()
    # A file of another round, or with one value changed, is none at all.
    (path,) = (tmp_path / "optimizer").iterdir()
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    assert hospital.carried.start(2, hospital.first).optimizer is None


def test_the_seal_is_over_study_round_and_values():
    layout = state_layout((("a", (2,)), ("b", (1,))), OptimizerSpec(learning_rate=RATE, betas=(0.9, 0.99)))
    vector = np.arange(7, dtype=np.float32)
    whole = sealed(vector, "1" * 64, 3, layout)
    assert opened(whole, "1" * 64, 3, layout).tolist() == vector.tolist()
    assert opened(whole, "1" * 64, 4, layout) is None
    assert opened(whole, "2" * 64, 3, layout) is None


def private(local_steps):
    """DP-SGD over nobody, so that every gradient is noise, and the same noise however it is cut into rounds."""
    training = spec(local_steps=local_steps, learning_rate=RATE)
    optimizer = OptimizerSpec(learning_rate=RATE, betas=(0.8, 0.9), eps=1e-3, carries_state=True)
    return DpTrainer(replace(training, optimizer=optimizer), nobody(), entropy=entropy_of("noise"))


def test_under_differential_privacy_the_state_is_a_function_of_noise_and_goes_on_as_torchs():
    model = np.zeros(INPUTS + 1, dtype=np.float32)
    at_once = private(4).train_round(model)
    halves = private(2)
    first = halves.train_round(model)
    second = halves.train_round(model + first.update, LocalStart(round=2, optimizer=first.optimizer))
    assert first.update + second.update == pytest.approx(at_once.update, abs=1e-6)
    assert second.optimizer == pytest.approx(at_once.optimizer, abs=1e-6)
    assert np.abs(first.optimizer).max() > 0
    anew = halves.train_round(model + first.update, LocalStart(round=3))
    assert not np.allclose(anew.optimizer, second.optimizer)
    with pytest.raises(TrainingFailed, match="does not fit the network"):
        halves.train_round(model, LocalStart(optimizer=first.optimizer[1:]))


def test_the_rate_of_a_step_is_the_schedules():
    """With one step of sgd from one model on everybody, the update is the rate times one gradient."""
    plain = {"name": "sgd", "learning_rate": RATE, "momentum": 0.0}
    study = study_with(plain, local_steps=1, schedule={"name": "cosine", "final": 0.0})
    found = plain_spec_of(study, declared_patients=40)
    inputs = found.network.input_size
    constant = replace(found, optimizer=OptimizerSpec(learning_rate=RATE))
    model = np.full(inputs + 1, 0.3, dtype=np.float32)
    whole = PlainTrainer(constant, patients(40, inputs=inputs)).train_round(model).update
    trainer = PlainTrainer(found, patients(40, inputs=inputs))
    for number, factor in ((1, 1.0), (3, 0.5), (4, 0.5 - 0.25 * 2**0.5)):
        assert trainer.train_round(model, LocalStart(round=number)).update == pytest.approx(whole * factor, abs=1e-6)
    private = spec(local_steps=1, learning_rate=RATE)
    model = np.zeros(INPUTS + 1, dtype=np.float32)
    noisy = []
    for rates in (None, found.optimizer.rates):
        optimizer = OptimizerSpec(learning_rate=RATE, rates=rates)
        hospital = DpTrainer(replace(private, optimizer=optimizer), nobody(), entropy=entropy_of("rates"))
        noisy.append(hospital.train_round(model, LocalStart(round=3)).update)
    assert noisy[1] == pytest.approx(noisy[0] / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("mechanism", "algorithm", "momentum"),
    [("distributed-dp-sgd", "fedavg", 0.5), ("local-dp-sgd", "scaffold", 0.0), ("local-dp-sgd", "fedavg", 0.0)],
)
def test_where_there_is_no_state_of_the_hospitals_own_none_is_carried(mechanism, algorithm, momentum):
    record = small_study().model_dump(mode="json", by_alias=True, exclude_none=True)
    record["training"] |= {"algorithm": algorithm, "optimizer_state": "carried"}
    record["training"]["optimizer"] = {"name": "sgd", "learning_rate": RATE, "momentum": momentum}
    record["privacy"]["mechanism"] = mechanism
    with pytest.raises(DocumentInvalid, match=r"training\.optimizer_state"):
        StudyFile.from_document(canonical_bytes(record))
