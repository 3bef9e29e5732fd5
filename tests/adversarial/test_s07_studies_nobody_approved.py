"""S-07: a coordinator names studies that no steward of this hospital has approved, one after the other.

Held by: `agent.Agent._begin_with`: a refusal for each, and nothing that stays in memory.
Tried: rows s07 of `mutations.py`.
"""

import numpy as np

from consortium.contract.digest import digest_of
from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import Invitation, PrepareStudy, SendInitialModel, StudyEnded, StudyOutcome
from consortium.contract.names import Digest, StudyId
from site_agent.agent import Agent
from tests.fakes.site_world import make_world, small_study


class Told:
    """The agent's line, in a list."""

    def __init__(self):
        self.sent = []

    async def send(self, message, study_digest):
        self.sent.append((message, study_digest))


def agent_of(world):
    agent = Agent(world.home, world.store, world.ledger)
    agent._line = Told()
    return agent


async def test_a_refusal_for_each_and_no_memory(tmp_path):
    agent = agent_of(make_world(tmp_path, approved=False))
    for number in range(50):
        digest = digest_of(str(number).encode())
        await agent._hear(PrepareStudy(study_digest=digest))
        refusal, about = agent._line.sent[-1]
        assert (refusal.rule, refusal.round, refusal.study_digest, about) == ("require_approval", 0, digest, digest)
    assert agent._works == {}
    assert agent._tasks == set()


async def test_an_invitation_to_one(tmp_path):
    world = make_world(tmp_path, approved=False)
    world.model = GlobalModel((("w", (4,)),), np.zeros(4, dtype=np.float32))
    agent = agent_of(world)
    await agent._hear(world.invitation(world.plan(attempt=3)))
    ((refusal, _),) = agent._line.sent
    assert (refusal.rule, refusal.round, refusal.attempt) == ("require_approval", 1, 3)
    assert agent._works == {}


async def test_rejected_is_not_approved(tmp_path):
    world = make_world(tmp_path)
    world.decide("rejected")
    agent = agent_of(world)
    await agent._hear(PrepareStudy(study_digest=world.digest))
    assert agent._works == {}


async def test_what_cannot_begin_a_study_is_not_even_answered(tmp_path):
    agent = agent_of(make_world(tmp_path))
    nothing = Digest("0" * 64)
    await agent._hear(SendInitialModel(study_digest=nothing, model_digest=nothing))
    await agent._hear(
        StudyEnded(
            study=StudyId("another"),
            study_digest=nothing,
            outcome=StudyOutcome.ABORTED,
            model_digest=nothing,
            reason="",
        )
    )
    await agent._hear(Invitation(plan=b"no plan", signature=bytes(64), certificates=(), endorsements=()))
    assert agent._line.sent == []
    assert agent._works == {}


async def test_another_version_of_an_approved_study_is_another_study(tmp_path):
    world = make_world(tmp_path)
    changed = small_study(governance={"purpose": "Something else."})
    agent = agent_of(world)
    await agent._hear(PrepareStudy(study_digest=changed.digest()))
    assert agent._line.sent[0][0].rule == "require_approval"
