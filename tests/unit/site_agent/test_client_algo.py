"""A hospital's own `ClientAlgo` takes the steps: the same sums as ours, and nothing but an update of the study's."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from consortium.contract.layout import LaneName, round_layout
from consortium.contract.messages import StudyEnded, StudyOutcome
from consortium.contract.names import Digest, RoundNumber
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.contract.server_optimizer import next_global_model
from consortium.simulate import SimulationRefused, simulate
from consortium.simulated_round import Keys, SimulatedRound
from privacy.secagg.suites import SuiteName
from site_agent.client_algo import ClientAlgoTrainer
from site_agent.client_algo_file import ClientAlgoRefused, made_client_algo
from site_agent.cohort import Records
from site_agent.description import describe
from site_agent.errors import TrainingFailed
from site_agent.evaluate import score_patients
from site_agent.local_steps import LocalStart
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.preflight import _configuration
from site_agent.site_file import ClientAlgoFile
from site_agent.training_spec import PlainSpec, plain_spec_of
from site_agent.update import global_model_of
from site_agent.update_lanes import lanes_of
from tests.fakes.client_algos import ALGO, SOURCE, register, registered, study_with_client_algo
from tests.fakes.site_world import hospital, make_home
from tests.fakes.training import patients

SPEC: PlainSpec = plain_spec_of(study_with_client_algo(), declared_patients=20)
INPUTS = SPEC.network.input_size


def algo_file(folder: Path, source: str = SOURCE, **args: object) -> ClientAlgoFile:
    return ClientAlgoFile.model_validate(registered(folder, source, **args))


def trainer_of(folder: Path, train: Records, **args: object) -> ClientAlgoTrainer:
    made = made_client_algo(algo_file(folder, **args))
    return ClientAlgoTrainer(made, SPEC, train, site="birch", folder=folder)


def test_four_hospitals_with_classes_of_their_own_sum_to_what_ours_would(tmp_path):
    """A whole study, every update under masks; a class that does gradient descent is gradient descent."""
    study = study_with_client_algo(
        optimizer={"name": "sgd", "learning_rate": 0.5, "momentum": 0.0}, sampling_rate=1.0, rounds=3
    )
    spec = plain_spec_of(study, declared_patients=20)
    cohorts = {site: patients(30, inputs=INPUTS, seed=n) for n, site in enumerate(study.sites.roster)}
    theirs = {
        site: trainer_of(tmp_path, train, answer=("weights", "difference")[n % 2])
        for n, (site, train) in enumerate(cohorts.items())
    }
    ours = {site: PlainTrainer(spec, train) for site, train in cohorts.items()}
    keys = {site: Keys.fresh() for site in cohorts}
    model = first = global_model_of(build_from(spec.network))
    layout = round_layout(study, parameters=model.parameters, kind=RoundKind.TRAIN, measured=False)
    transcript = Digest("0" * 64)
    for number in range(1, study.training.rounds + 1):
        plan = RoundPlan(
            consortium="four", suite=SuiteName.HYBRID_PQ, study=study.study_id, study_digest=study.digest(),
            kind=RoundKind.TRAIN, round=RoundNumber(number), attempt=1,
            participants=tuple(keys[site].participant(site) for site in sorted(cohorts)),
            threshold=study.aggregation.threshold, minimum=study.sites.minimum, model_digest=model.digest(),
            previous_transcript=transcript, layout=layout, round_deadline_s=20.0, upload_deadline_s=10.0,
        )  # fmt: skip
        start = LocalStart(round=number)
        updates = {site: one.train_round(model.vector, start).update for site, one in theirs.items()}
        lanes = {site: {**lanes_of(one, layout), LaneName.WEIGHT: np.ones(1)} for site, one in updates.items()}
        opened = SimulatedRound(plan, keys, lanes).run()
        plain = sum(one.train_round(model.vector, start).update.astype(np.float64) for one in ours.values())
        # 4 roundings to the lane's steps, and float32 on both sides.
        assert opened.sums[LaneName.UPDATE] == pytest.approx(plain, abs=4 / layout.lanes[0].scale + 1e-6)
        model = next_global_model(study, plan, model, opened.sums, survivors=4)
        transcript = opened.transcript
    gained = [_right(model.vector, cohorts[site]) - _right(first.vector, cohorts[site]) for site in cohorts]
    assert sum(gained) / 4 > 0.1


def _right(model, records):
    scores, positive = score_patients(build_from(SPEC.network), model, records)
    return float(((scores > 0.5) == positive).mean())


async def test_a_hospital_trains_a_study_with_it_from_its_site_file(tmp_path):
    study = study_with_client_algo()
    async with hospital(tmp_path, study, ready=False, allow_no_privacy=True) as world:
        register(tmp_path)
        text = "".join(describe(study, study.digest(), world.home.config, world.ledger).split())
        assert f"codeofeachhospital'sown,underthename{ALGO}(hereWardTrainerin{tmp_path}" in text
        assert "ownrulesallowit(allow_no_privacy" in text
        assert f"client_algos {ALGO}, each made of its file" in await _configuration(world.home)
        await world.prepare()
        before = world.model.vector.copy()
        for _ in range(3):
            assert (await world.attempt()).closed
        assert not np.array_equal(world.model.vector, before)
        algo = world.work._prepared.room._trainer._algo
        ended = StudyEnded(
            study=study.study_id, study_digest=world.digest, outcome=StudyOutcome.COMPLETED,
            model_digest=world.model.digest(), reason="",
        )  # fmt: skip
        await world.tell(ended)
        await asyncio.wait_for(world.task, 60)
    assert algo.heard.calls == ["initialize birch", "train 1", "train 2", "finalize"]
    assert world.ledger.report() == ()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("raise", r"failed in train \(ValueError at ward_trainer.py:\d+\)$"),
        ("missing", "answered no 0.bias"),
        ("shape", r"0\.weight of shape \(3,\); the study's has \(1, 3\)"),
        ("statistics", "1 floating tensors that the study's network does not have"),
        ("whole", "0.bias as Tensor, not as a tensor of real numbers"),
        ("endless", "not finite"),
        ("large", "not finite"),
        ("untyped", "no weight_type"),
    ],
)
def test_an_answer_that_is_no_update_of_the_studys_network(tmp_path, spoil, said):
    trainer = trainer_of(tmp_path, patients(10, inputs=INPUTS), spoil=spoil)
    model = np.zeros(INPUTS + 1, dtype=np.float32)
    with pytest.raises(TrainingFailed, match=said) as caught:
        trainer.train_round(model)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(TrainingFailed, match=f"the global model has 2 values; this network has {INPUTS + 1}"):
        trainer.train_round(model[:2])


def test_the_class_may_not_change_the_global_model_that_others_compare(tmp_path):
    trainer = trainer_of(tmp_path, patients(10, inputs=INPUTS), answer="difference")
    model = np.zeros(INPUTS + 1, dtype=np.float32)
    trainer._algo.train = lambda data, extra: [value.fill_(9.0) for value in data.weights.values()]
    trainer._algo.before = {"0.weight": 0, "0.bias": 0}
    trainer.train_round(model)
    assert not model.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "import nothing_of_that_name\n"}, "fails with ModuleNotFoundError"),
        ({"source": "raise SystemExit(3)\n"}, "fails with SystemExit"),
        ({"kind": "NoAlgo"}, "no class NoAlgo of monai.fl"),
        ({"kind": "Elsewhere"}, "no class Elsewhere"),
        ({"unknown": 3}, "fails with TypeError when it is made"),
    ],
)
def test_a_file_that_gives_no_client_algorithm(tmp_path, change, said):
    with pytest.raises(ClientAlgoRefused, match=said) as caught:
        made_client_algo(algo_file(tmp_path, **change))
    assert caught.value.advice()


def test_a_simulation_runs_no_hospitals_code():
    with pytest.raises(SimulationRefused, match="its own agent alone"):
        simulate(study_with_client_algo())


async def test_a_path_is_taken_from_where_the_file_lies(tmp_path):
    home = make_home(tmp_path, study_with_client_algo())
    path = register(tmp_path)
    text = (tmp_path / "site.yaml").read_text().replace(str(path), path.name)
    (tmp_path / "site.yaml").write_text(text)
    assert home.config.client_algos[ALGO].file == str(path)
