"""A crash or hostile code in training takes the agent or its keys, or makes it believe what is not so. Threat T-28.

Held by: a process of its own for every study, which is told no secret (`training_child/orders.py`), whose end is
noticed (`child_process.py`), and whose answers are read like a stranger's (`answers.py`). Tried: each check that
`mutations.py` has under t28 was taken out, and the test it names failed.
"""

import asyncio
import math
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consortium.contract.global_model import GlobalModel
from site_agent.errors import TrainingFailed
from site_agent.left_out import NOBODY
from site_agent.preparation import order_for
from site_agent.progress import unheard
from site_agent.site_file import TrainingChild
from site_agent.study_work import LOSSES_MAX
from site_agent.training_child import answers
from site_agent.training_child.child_process import ChildProcess
from site_agent.training_child.frames import MAGIC, ArraySpec, FrameRefused, read_prefix
from site_agent.training_child.orders import _without_home, order_fields, readable_by, writable_by
from site_agent.training_child.pipe import Pipe
from site_agent.training_room import JobFailed, RoomLost, RoundJob
from tests.fakes.bad_child import FIGURES, LAYOUT, SEEN
from tests.fakes.site_world import hospital, make_world, small_study

BAD = Path(__file__).parents[1] / "fakes/bad_child.py"
STUDY = small_study()
PARAMETERS = tuple((name, tuple(shape)) for name, shape in LAYOUT)


def child(how):
    """A room whose process goes wrong in this way."""
    return lambda order: ChildProcess(order, (sys.executable, "-I", str(BAD), how))


# --- a process that ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("crashes", "SIGSEGV: a fault in a library"),
        ("is killed", "SIGKILL: somebody ended it"),
        ("leaves", "it ended with exit status 3"),
        ("talks rubbish", "what it answered is no answer: what came begins like no frame"),
    ],
)
async def test_the_agent_lives_on_says_what_happened_and_what_was_reserved_stays_counted(tmp_path, how, said, capfd):
    async with hospital(tmp_path, STUDY, rooms=child(how)) as world:
        outcome = await world.attempt()
        refusal = outcome.said[-1]
        assert (refusal.rule, refusal.explanation) == ("training", "training at this hospital ended before it was done")
        assert not world.task.done()
        (row,) = world.ledger.report()
        assert (row.rounds, row.open_rounds) == (1, 1)
        logged = capfd.readouterr().out
        assert said in logged
        assert "while it was training round 1" in logged
        # What it printed is in a file of this hospital's, readable by it alone, and in no log or message.
        kept = tmp_path / "training/small-study.last-words.txt"
        assert "SECRET-001" in kept.read_text()
        assert kept.stat().st_mode & 0o777 == 0o600
        assert "SECRET-001" not in logged + str(world.line.sent)


async def test_a_study_is_prepared_anew_but_not_for_ever(tmp_path):
    study, made = small_study(training={"rounds": 9}), []

    def rooms(order):
        made.append(child("leaves")(order))
        return made[-1]

    async with hospital(tmp_path, study, rooms=rooms) as world:
        for number in range(1, LOSSES_MAX + 1):
            refusal = (await world.attempt(world.plan(attempt=number))).said[-1]
            assert refusal.explanation == "training at this hospital ended before it was done"
            assert (len(made), world.ledger.report()[0].rounds) == (number, number)
        last = (await world.attempt(world.plan(attempt=number + 1))).said[-1]
        assert last.explanation.endswith("several times in a row")
        assert (len(made), world.ledger.report()[0].rounds) == (LOSSES_MAX, LOSSES_MAX)  # nothing more was charged


def test_one_that_hangs_is_killed(tmp_path):
    world = make_world(tmp_path)
    order = order_for(world.home, STUDY, world.digest, world.home.config.datasets["ward"], NOBODY)
    room = child("hangs")(order)
    model = looked_at(room)
    room._order = replace(order, limits=TrainingChild(hours=0.3 / 3600))  # not while it starts
    with pytest.raises(RoomLost, match=r"it took longer than the 8\.33333e-05 hours that site\.yaml allows"):
        room.train(RoundJob(round=1, model=model), unheard)
    assert_gone(room)


async def test_a_study_that_is_stopped_ends_its_process_at_once(tmp_path):
    made = []

    def rooms(order):
        made.append(child("hangs")(order))
        return made[-1]

    async with hospital(tmp_path, STUDY, rooms=rooms) as world:
        running = asyncio.create_task(world.attempt())
        while not world.ledger.report():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)
        await world.work.stop_computing()
        assert_gone(made[0])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert not world.task.done()
    assert world.work._room is None


# --- a process that says what is not so ----------------------------------------------------------------------------


def asked(read, kind, fields, *arrays):
    """What `read` makes of an answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parts = [(ArraySpec(n, v.dtype.str, v.shape), memoryview(v.reshape(-1).view(np.uint8))) for n, v in arrays]
        Pipe(theirs).send(kind, fields, parts)  # so little that it fits between the two
        theirs.shutdown(socket.SHUT_WR)  # whoever waits for more than was said is not kept waiting
        pipe = Pipe(ours)
        return read(pipe, pipe.receive_head())


def trained(update, sampled=(3,), **figures):
    spec = answers.update_spec(STUDY, 4)
    arrays = (("update", update), ("sampled", np.array(sampled, dtype="<i8")))
    return asked(lambda p, h: answers.read_trained(p, h, spec, 10), "trained", FIGURES | figures, *arrays)


GOOD = np.zeros(4, dtype="<f4")


@pytest.mark.parametrize(("head_bytes", "body_bytes"), [(101, 0), (10, 17), (2**32 - 1, 2**64 - 1)])
def test_a_long_frame_takes_no_memory(head_bytes, body_bytes):
    prefix = MAGIC + head_bytes.to_bytes(4, "little") + body_bytes.to_bytes(8, "little")
    with pytest.raises(FrameRefused, match="allowed: at most 100 \\+ 16"):
        read_prefix(prefix, head_max=100, body_max=16)


def test_a_good_answer_is_read():
    found = trained(GOOD)
    assert (found.noisy_steps, found.local.sampled_patients, found.update.tolist()) == (1, (3,), [0, 0, 0, 0])


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(5, dtype="<f4"),
        np.zeros(3, dtype="<f4"),
        np.zeros((2, 2), dtype="<f4"),
        np.zeros(4, dtype="<f8"),
        np.array([0, np.nan, 0, 0], dtype="<f4"),
        np.array([0, 0, 0, -np.inf], dtype="<f4"),
    ],
)
def test_an_update_of_another_form_is_refused(update):
    with pytest.raises(FrameRefused):
        trained(update)


@pytest.mark.parametrize(
    "figures",
    [
        {"noisy_steps": -1}, {"noisy_steps": 1.0}, {"noisy_steps": True}, {"clipped_patients": 10**20}, {"more": 1},
        {"sampled": (-1,)}, {"sampled": (10**9,)}, {"sampled": (1,) * 11},
    ],
)  # fmt: skip
def test_figures_that_no_round_has_are_refused(figures):
    with pytest.raises(FrameRefused):
        trained(GOOD, **figures)


async def test_other_steps_than_reserved_are_not_settled(tmp_path):
    async with hospital(tmp_path, STUDY, rooms=child("counts no step")) as world:
        refusal = (await world.attempt(world.plan(measured=False))).said[-1]
        assert refusal.rule == "site"
        (row,) = world.ledger.report()
        assert (row.rounds, row.open_rounds) == (1, 1)


def test_a_network_of_any_size_takes_no_memory():
    huge = SEEN | {"parameters": [["a", [2**33]], ["b", [2**33]]]}
    for fields in (huge, SEEN | {"parameters": [["b", [1]], ["a", [1]]]}, SEEN | {"test_patients": 46}, {}):
        with pytest.raises(FrameRefused):
            asked(lambda _, head: answers.read_seen(head), "looked", fields)
    assert asked(lambda _, head: answers.read_seen(head), "looked", SEEN).parameters == PARAMETERS


def test_a_first_model_of_another_size_is_refused():
    said = {"engine": "loop", "audit": None}

    def read(pipe, head):
        return answers.read_equipped(pipe, head, PARAMETERS)

    for vector in (np.zeros(5, dtype="<f4"), np.full(4, math.nan, dtype="<f4")):
        with pytest.raises(FrameRefused):
            asked(read, "equipped", said, ("first_model", vector))
    assert asked(read, "equipped", said, ("first_model", GOOD)).first_model.vector.size == 4


@pytest.mark.parametrize(
    ("name", "value"), [("scores", 1.5), ("scores", math.nan), ("positive", 2), ("groups", 2), ("groups", -2)]
)
def test_figures_of_other_patients_are_refused(name, value):
    def read(pipe, head):
        return answers.read_measured(pipe, head, STUDY, 3)

    arrays = {
        "scores": np.full(3, 0.5),
        "positive": np.zeros(3, dtype="|u1"),
        "groups": np.zeros((3, 1), dtype="<i8"),
    }
    assert len(asked(read, "measured", {}, *arrays.items())) == 3
    with pytest.raises(FrameRefused):
        asked(read, "measured", {}, *(arrays | {"scores": np.full(4, 0.5)}).items())
    arrays[name].flat[0] = value
    with pytest.raises(FrameRefused):
        asked(read, "measured", {}, *arrays.items())


def test_what_the_coordinator_is_told_of_an_error_is_not_the_childs_to_say():
    def read(_, head):
        return answers.failure_of(head)

    said = {"error": "DataInvalid", "place": " at cohort.py:3", "words": "row of SECRET-001"}
    failed = asked(read, "failed", said)
    assert isinstance(failed, JobFailed)
    assert failed.refusal.explanation == "this site cannot take part (DataInvalid)"
    assert "SECRET" not in str(failed) + failed.kind_and_place
    odd = asked(read, "failed", said | {"error": "SECRET-001"})
    assert odd.refusal.rule == "failure"
    assert "SECRET" not in odd.refusal.explanation + str(odd.refusal.rule)
    about_training = asked(read, "failed", said | {"error": "TrainingFailed", "words": "left the finite numbers"})
    assert isinstance(about_training, TrainingFailed)
    with pytest.raises(FrameRefused):
        asked(read, "failed", said | {"place": "\nat any place"})


def test_only_known_facts_come_into_the_agents_log(capsys):
    for event, fields in (("patient.seen", {"device": "SECRET-001"}), ("device.chosen", {"patient": "SECRET-001"})):
        asked(lambda _, head: answers.say_fact(head), "fact", {"event": event, "level": "info", "fields": fields})
    logged = capsys.readouterr().out
    assert "device.chosen" in logged
    assert "SECRET" not in logged
    assert "patient" not in logged


# --- what it is told -----------------------------------------------------------------------------------------------


def test_it_is_told_nothing_of_keys_ledger_and_people(tmp_path):
    world = make_world(tmp_path)
    order = order_for(world.home, STUDY, world.digest, world.home.config.datasets["ward"], NOBODY)
    writable = writable_by(order)
    said = str(order_fields(order))
    for secret in ("hedge.key", "signing.pem", "tls.pem", "ledger.db", "agent.db", "Dr Somebody"):
        assert secret not in said
    kept = [tmp_path / name for name in ("keys", "ledger.db", "agent.db", "vault", "site.yaml", "identity.json")]
    # Also where data lie in the agent's own folder, or in one around it.
    around = (*_without_home(tmp_path, tmp_path), *_without_home(tmp_path.parent, tmp_path))
    assert around.count(tmp_path / "patients.csv") == 2
    for given in (*readable_by(order), *writable, *around):
        assert not any(path == given or given in path.parents for path in kept), given


def looked_at(room):
    """The first model of a room that has looked at its cohort."""
    room.look()
    return GlobalModel(PARAMETERS, np.zeros(4, dtype=np.float32))


def assert_gone(room):
    with pytest.raises(ProcessLookupError):
        os.kill(room.pid, 0)
    assert room.lost is not None
    assert not room._order.scratch.exists()
