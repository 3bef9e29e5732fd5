"""Which engine is taken: the first of the nearly fastest that passes its test, whatever else the machine does."""

import copy
from collections import defaultdict

import pytest
import torch
from torch import nn

from site_agent.errors import EngineUnsuited
from site_agent.gradients import admission, memory
from site_agent.gradients.admission import (
    ENGINES,
    FAST_ENOUGH_S,
    NEARLY,
    PATIENTS_MIN,
    SHORT_STUDY_S,
    TURNS_MAX,
    TURNS_MIN,
    EngineChoice,
    choose,
)
from site_agent.gradients.losses import record_loss
from site_agent.gradients.workload import Workload
from tests.fakes.odd_networks import made

LOSS = record_loss(nn.BCEWithLogitsLoss())
ADD = {name: kind.add for name, kind in ENGINES.items()}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def workload(shape, **changes):
    return Workload(**{"input_shape": shape, "patients": 4, "records_each": 1, "memory_bytes": 2**40} | changes)


class Overwrites(nn.Module):
    """What a layer has put out is written over."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, inputs):
        values = self.first(inputs)
        values += 1
        return self.second(values)


class ScriptedMachine:
    """A clock that engines move: a step takes what the script says, per patient. `steps` has the patients of each."""

    def __init__(self, monkeypatch, script):
        self.now = 0.0
        self.steps = defaultdict(list)
        self._script = script
        for name, kind in ENGINES.items():
            monkeypatch.setattr(kind, "add", self._wrapped(name, ADD[name]))
        monkeypatch.setattr(admission, "_tested", self.tested)
        self.failing = set()

    def tested(self, name, *_rest):
        if name in self.failing:
            raise EngineUnsuited(name, "its sum differs")

    def clock(self):
        return self.now

    def _wrapped(self, name, add):
        def timed(engine, part, *rest):
            add(engine, part, *rest)
            takes = self._script[name]
            self.now += (takes.pop(0) if isinstance(takes, list) else takes) * len(part.sizes)
            self.steps[name].append(len(part.sizes))

        return timed


def chosen(monkeypatch, script, shape=(5,), network="mlp", **changes):
    machine = ScriptedMachine(monkeypatch, script)
    machine.failing = changes.pop("failing", set())
    module, shape = made(network)
    return machine, choose(module, LOSS, workload(shape, **changes), clock=machine.clock)


SCRIPT = {"bookkeeping": 0.0287, "vmap": 0.0389, "hooks": 0.08, "ghost": 0.1, "loop": 0.2}


def test_the_fastest_is_taken_and_the_others_are_told_of(monkeypatch):
    _, trial = chosen(monkeypatch, SCRIPT)
    assert trial.choice.name == "bookkeeping"
    assert [candidate.engine for candidate in trial.candidates] == list(ENGINES)
    seconds = {candidate.engine: candidate.seconds for candidate in trial.candidates}
    assert seconds == pytest.approx({name: 4 * each for name, each in SCRIPT.items()})
    assert trial.patients == 4
    assert "bookkeeping (steps of 4 made-up patients; bookkeeping 115 ms" in trial.words
    _, trial = chosen(monkeypatch, SCRIPT | {"vmap": 0.01})
    assert trial.choice.name == "vmap"


def test_a_busy_moment_changes_nothing(monkeypatch):
    # A step of one patient, its pace, the memory, and a timed one; then turns. Whatever falls into a busy moment but
    # one turn, the clearly faster engine is taken.
    for quiet in range(3, 2 + TURNS_MAX):
        busy = [0.5] * (3 + TURNS_MAX)
        busy[quiet] = 0.0287
        _, trial = chosen(monkeypatch, SCRIPT | {"bookkeeping": busy, "hooks": 1.0, "ghost": 1.0, "loop": 1.0,
                                                 "vmap": [0.55] * (3 + TURNS_MAX)})  # fmt: skip
        assert trial.choice.name == "bookkeeping", quiet


def test_one_slow_step_at_first_does_not_end_an_engine_s_turns(monkeypatch):
    steps = [0.0287] * (4 + TURNS_MAX)
    steps[3] = 2 * 0.0389  # the first that is timed, after one patient's, its pace and the one for the memory
    _, trial = chosen(monkeypatch, SCRIPT | {"bookkeeping": steps})
    assert trial.choice.name == "bookkeeping"


def test_a_tie_is_always_decided_alike(monkeypatch):
    _, trial = chosen(monkeypatch, SCRIPT | {"vmap": 0.0287 / NEARLY * 1.001})
    assert trial.choice.name == "bookkeeping"
    _, trial = chosen(monkeypatch, SCRIPT | {"vmap": 0.0287 / NEARLY * 0.999})
    assert trial.choice.name == "vmap"


def test_slow_networks_are_tried_with_few_patients_in_few_turns(monkeypatch):
    machine, trial = chosen(monkeypatch, {name: 30 * each for name, each in SCRIPT.items()}, patients=64)
    assert trial.choice.name == "bookkeeping"
    assert trial.patients == PATIENTS_MIN
    # One whose memory is watched and one timed; two turns more for those who are not far slower, of 9 s each.
    taken = {name: len(sizes) - sizes.count(1) for name, sizes in machine.steps.items() if name != "loop"}
    assert taken == {"bookkeeping": 4, "vmap": 4, "hooks": 4, "ghost": 2}
    machine, trial = chosen(monkeypatch, {name: 300 * each for name, each in SCRIPT.items()}, patients=64)
    assert trial.choice.name == "bookkeeping"
    assert machine.steps["vmap"].count(PATIENTS_MIN) == 1 + TURNS_MIN


def test_nothing_is_tried_when_nothing_is_left_to_gain(monkeypatch):
    machine, trial = chosen(monkeypatch, SCRIPT | {"bookkeeping": FAST_ENOUGH_S / 5})
    assert trial.choice.name == "bookkeeping"
    assert [candidate.engine for candidate in trial.candidates] == ["bookkeeping"]
    assert set(machine.steps) == {"bookkeeping"}


def test_a_short_study_does_not_wait_for_what_it_could_not_win_back(monkeypatch):
    step_s = 4 * SCRIPT["bookkeeping"]
    machine, trial = chosen(monkeypatch, SCRIPT | {"vmap": 0.01}, steps=0.99 * SHORT_STUDY_S / step_s)
    assert trial.choice.name == "bookkeeping"
    assert set(machine.steps) == {"bookkeeping"}
    _, trial = chosen(monkeypatch, SCRIPT | {"vmap": 0.01}, steps=1.01 * SHORT_STUDY_S / step_s)
    assert trial.choice.name == "vmap"
    # A step of more patients than are tried takes so much longer.
    assert Workload.of((5,), expected_patients=128, records_each=1, steps=100).steps == 200


def test_an_engine_that_fails_its_test_is_passed_over(monkeypatch):
    for speed in (SCRIPT["bookkeeping"], FAST_ENOUGH_S / 5):
        _, trial = chosen(monkeypatch, SCRIPT | {"bookkeeping": speed}, failing={"bookkeeping"})
        assert trial.choice.name == "vmap"
        assert trial.candidates[0].unsuited == "its sum differs"
        assert "bookkeeping unsuited: its sum differs" in trial.words
    with pytest.raises(EngineUnsuited, match=r"gradient engine loop .*its sum differs"):
        chosen(monkeypatch, SCRIPT, failing=set(ENGINES))


def test_ghost_is_not_taken_where_patients_have_several_records(monkeypatch):
    _, trial = chosen(monkeypatch, SCRIPT | {"ghost": 0.002}, records_each=2)
    assert trial.choice.name == "bookkeeping"
    assert "several records" in next(found.unsuited for found in trial.candidates if found.engine == "ghost")
    module, shape = made("mlp")
    with pytest.raises(EngineUnsuited, match="several records"):
        choose(module, LOSS, workload(shape, records_each=2), pinned="ghost")


def test_an_engine_that_takes_more_memory_than_it_may_is_passed_over(monkeypatch):
    peaks = iter([2**30, 2**20, 2**20, 2**20, 2**31])
    monkeypatch.setattr(admission, "growth_bytes", lambda _device, work: (work(), next(peaks))[1])
    _, trial = chosen(monkeypatch, SCRIPT, memory_bytes=2**29)
    assert trial.choice.name == "vmap"
    assert trial.candidates[0].unsuited == "a step needed 1024.0 MiB, of 512.0 MiB that it may use"
    assert trial.candidates[-1].unsuited == ""  # there is nothing else than `loop`


def test_a_pinned_engine_is_tested_and_not_timed():
    module, shape = made("mlp")
    trial = choose(module, LOSS, workload(shape), pinned="loop")
    assert (trial.choice, trial.pinned, trial.patients) == (EngineChoice(name="loop"), True, 0)
    assert trial.words == "loop (pinned; loop)"
    with pytest.raises(EngineUnsuited, match=r"gradient engine hooks .*modified inplace") as caught:
        choose(Overwrites(), LOSS, workload(shape), pinned="hooks")
    assert "engine: auto" in caught.value.advice()


def test_what_does_not_fit_in_memory_is_passed_over_and_what_fits_is_cut():
    module, shape = made("cnn")
    trial = choose(module, LOSS, workload(shape, memory_bytes=1000))
    assert trial.choice.name == "loop"
    assert all("memory" in candidate.unsuited for candidate in trial.candidates[:-1])
    little = choose(module, LOSS, workload(shape, memory_bytes=2**20), pinned="bookkeeping").choice
    assert little.records_max < 20
    with pytest.raises(EngineUnsuited, match="memory"):
        choose(module, LOSS, workload(shape, memory_bytes=1000), pinned="vmap")


def test_the_network_and_torchs_generator_are_as_before():
    module, shape = made("cnn")
    module.insert(1, nn.Dropout(0.5))
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    choose(module, LOSS, workload(shape))
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_memory_of_a_piece_of_work_is_seen_or_not_told(monkeypatch, tmp_path):
    found = memory.growth_bytes(lambda: torch.ones(2**24).sum())  # 64 MiB
    assert found is None or 2**25 < found < 2**28
    done = []
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nothing")
    assert memory.growth_bytes(lambda: done.append(1)) is None
    assert done == [1]
