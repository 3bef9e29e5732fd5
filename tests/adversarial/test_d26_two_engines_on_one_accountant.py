"""D-26: two trainings share an accountant, so that one of them is not counted or both are counted wrongly.

A published federated framework makes an engine for every round and reports the last one's epsilon; attaching a second
optimizer to a living accountant mixes two histories. Held by: `trainer.py` (an accountant of its own for every trainer,
executed steps against the plan) and the ledger, which adds up whatever any trainer ran. Tried: rows d26 of
`mutations.py`, an accountant made once for all trainers and a count that is compared with nothing.
"""

import pytest

from consortium.contract.names import Digest, StudyId
from privacy.dp import accountant
from site_agent.errors import TrainingFailed
from site_agent.ledger import Ledger, Limits
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, patients, spec

TRAINING = spec(noise_multiplier=3.4484, rounds=20, local_steps=2)
MODEL = vector_of(build_from(TRAINING.network))
LIMITS = Limits(study_epsilon=1.0, study_delta=1e-3, total_epsilon=3.0, total_delta=1e-3)


def trainer(name):
    return DpTrainer(TRAINING, patients(20), entropy=entropy_of(name))


def test_every_trainer_counts_for_itself():
    one, other = trainer("one"), trainer("other")
    one.train_round(MODEL)
    one.train_round(MODEL)
    other.train_round(MODEL)
    assert [t.cross_check().pld_epsilon for t in (one, other)] == [
        accountant.epsilon([TRAINING.privacy.study_event().with_steps(steps)], delta=1e-3) for steps in (4, 2)
    ]
    assert [t._accountant.history for t in (one, other)] == [[(3.4484, 0.2, 4)], [(3.4484, 0.2, 2)]]


def test_a_second_optimizer_on_a_living_accountant_stops_the_training():
    one, other = trainer("one"), trainer("other")
    hook = one._accountant.get_optimizer_hook_fn(sample_rate=0.2)
    own = other._ending.step_hook
    other._ending.attach_step_hook(lambda optimizer: (own(optimizer), hook(optimizer)))
    one._step = lambda step=one._step: (other._step(), step())[1]
    with pytest.raises(TrainingFailed, match="4 steps were executed where 2 were planned"):
        one.train_round(MODEL)
    # And all four count.
    assert [event.mechanism.steps for event in one.events] == [4]


def test_the_ledger_adds_up_what_any_engine_ran(tmp_path):
    for number in (1, 2, 3):  # an engine for every round, as the framework has it
        ledger = Ledger(tmp_path / "ledger.db")
        reservation = ledger.reserve(
            dataset="heart",
            study=StudyId("heart-disease"),
            study_digest=Digest("a" * 64),
            round_number=number,
            attempt=1,
            event=TRAINING.privacy.round_event(),
            limits=LIMITS,
        )
        ledger.settle(reservation, trainer(str(number)).train_round(MODEL).events[0])
    assert Ledger(tmp_path / "ledger.db").report()[0].epsilon == accountant.epsilon(
        [TRAINING.privacy.study_event().with_steps(6)], delta=1e-3
    )
