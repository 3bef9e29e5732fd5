"""Caps: what fits and what does not, answered without composing exactly each time."""

import pytest

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import STEPS_MAX, PoissonSampledGaussian
from privacy.errors import BudgetExceeded
from site_agent import ledger_caps
from site_agent.errors import StepsExceeded
from site_agent.ledger_caps import Caps, Limits, added


def event(noise=3.4484, steps=1):
    return DpEvent(
        mechanism=PoissonSampledGaussian(noise_multiplier=noise, sampling_rate=0.2, steps=steps, clip_norm_l2=1.0)
    )


def limits(**changed):
    return Limits(**{"study_epsilon": 1.0, "study_delta": 1e-3, "total_epsilon": 3.0, "total_delta": 1e-3, **changed})


@pytest.mark.parametrize("edge", [1, 2, 3, 7, 40, 41, 1000, STEPS_MAX])
def test_one_step_at_a_time_up_to_the_edge_and_no_further(edge, monkeypatch):
    asked = []

    def cost(events, *, delta):
        asked.append(sum(e.mechanism.steps for e in events))
        return 1.0 if asked[-1] <= edge else 1.5

    monkeypatch.setattr(ledger_caps.accountant, "epsilon", cost)
    caps, studies, taken = Caps(), {}, max(0, edge - 2000)
    if taken:
        studies = {"s": added({}, [event(steps=taken)])}
    while taken < min(edge, STEPS_MAX - 1):
        caps.require_room("heart", studies, "s", event(), limits())
        studies, taken = {"s": added(studies.get("s", {}), [event()])}, taken + 1
    if edge < STEPS_MAX:
        with pytest.raises(BudgetExceeded):
            caps.require_room("heart", studies, "s", event(), limits())
    assert len(asked) < 2 * edge.bit_length() ** 2 + 20


def test_what_was_admitted_is_never_composed_again(monkeypatch):
    caps = Caps()
    caps.require_room("heart", {}, "s", event(steps=40), limits())
    monkeypatch.setattr(ledger_caps.accountant, "epsilon", lambda *_, **__: pytest.fail("composed again"))
    for steps in range(1, 40):
        caps.require_room("heart", {"s": added({}, [event(steps=steps)])}, "s", event(), limits())


def test_a_lower_cap_is_looked_at_afresh():
    caps = Caps()
    caps.require_room("heart", {}, "s", event(steps=40), limits())
    with pytest.raises(BudgetExceeded):
        caps.require_room("heart", {}, "s", event(steps=40), limits(study_epsilon=0.9))
    with pytest.raises(BudgetExceeded):
        caps.require_room("heart", {}, "s", event(steps=40), limits(study_delta=1e-4))


def test_the_hospital_reads_what_was_spent_and_what_was_wanted():
    before = {"s": added({}, [event(steps=39)])}
    with pytest.raises(BudgetExceeded) as caught:
        Caps().require_room("heart", before, "s", event(steps=10), limits())
    spent, wanted = (accountant.epsilon([event(steps=n)], delta=1e-3) for n in (39, 49))
    assert (caught.value.spent, caught.value.requested) == (spent, wanted - spent)


def test_a_second_study_is_held_against_the_filter():
    """Two studies of epsilon 1: exactly composed they would fit under 1.6, as the filter counts they do not."""
    whole = {"one": added({}, [event(steps=40)])}
    exact = accountant.epsilon([event(steps=80)], delta=1e-3)
    counted = accountant.filter_epsilon([event(steps=80)], delta=1e-3, cap=1.6)
    assert exact < 1.6 < counted
    with pytest.raises(BudgetExceeded) as caught:
        Caps().require_room("heart", whole, "two", event(steps=40), limits(total_epsilon=1.6))
    assert caught.value.cap == 1.6
    Caps().require_room("heart", whole, "two", event(steps=40), limits(total_epsilon=3.0))


def test_steps_are_capped_where_epsilon_would_let_one_more_pass():
    assert accountant.epsilon([event(steps=41)], delta=1e-3) < 1.02
    Caps().require_room("heart", {}, "s", event(steps=40), limits(study_epsilon=1.02, study_steps=40))
    with pytest.raises(StepsExceeded) as caught:
        Caps().require_room(
            "heart", {"s": added({}, [event(steps=40)])}, "s", event(), limits(study_epsilon=1.02, study_steps=40)
        )
    assert (
        str(caught.value)
        == "dataset 'heart': 40 noisy steps are spent or reserved, and 41 are more than the 40 planned"
    )
    assert "spare_rounds" in caught.value.advice()
    assert isinstance(caught.value, BudgetExceeded)  # the log is told that the budget is exhausted
