"""D-06: a new accountant in every round, so that a study of 20 rounds reports the epsilon of one.

The field's classic: a published example reports 2.50 where 9.78 was spent. Here one accountant lives as long as the
study's trainer, counts the steps in the optimizer's own hook, and is compared with the plan after every round.
Tried: rows d06 of `mutations.py`.
"""

import pytest

from privacy.dp import accountant
from site_agent.errors import TrainingFailed
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, patients, spec

TRAINING = spec(noise_multiplier=3.4484, rounds=20, local_steps=2)


def _trainer():
    return DpTrainer(TRAINING, patients(20), entropy=entropy_of("rounds")), vector_of(build_from(TRAINING.network))


def test_epsilon_grows_with_every_round_up_to_the_studys():
    one, model = _trainer()
    spent = [0.0]
    for _ in range(20):
        one.train_round(model)
        check = one.cross_check()
        assert check.pld_epsilon > spent[-1]
        assert check.opacus_epsilon >= check.pld_epsilon
        spent.append(check.pld_epsilon)
    whole = accountant.epsilon([TRAINING.privacy.study_event()], delta=TRAINING.privacy.delta)
    assert spent[-1] == whole
    assert spent[1] < 0.25 * whole  # what the bug would report


def test_one_opacus_accountant_has_seen_every_step():
    one, model = _trainer()
    for _ in range(5):
        one.train_round(model)
    assert one._accountant.history == [(3.4484, 0.2, 10)]


@pytest.mark.parametrize("attribute", ["noise_multiplier", "max_grad_norm"])
def test_noise_changed_behind_the_plan_is_noticed(attribute):
    one, model = _trainer()
    one.train_round(model)
    setattr(one._ending, attribute, 0.5)
    with pytest.raises(TrainingFailed, match="another noise"):
        one.train_round(model)
    assert len(one.events) == 1


def test_a_step_too_few_or_too_many_is_noticed(monkeypatch):
    one, model = _trainer()
    step = one._step

    def twice():
        step()
        return step()

    monkeypatch.setattr(one, "_step", twice)
    with pytest.raises(TrainingFailed, match="4 steps were executed where 2 were planned"):
        one.train_round(model)
    assert [event.mechanism.steps for event in one.events] == [4]


def test_a_sum_cannot_be_used_for_two_steps():
    one, model = _trainer()
    one.train_round(model)
    with pytest.raises(TrainingFailed):
        one._ending.add_noise()
