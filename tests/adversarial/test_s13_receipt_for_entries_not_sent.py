"""S-13: the coordinator acknowledges more entries than it was sent, so that the rest never reach the log.

Held by: `agent.CoordinatorLine.submit_events`: what was not sent stays pending. Tried: row s13 of `mutations.py`.
"""

from audit import entries
from consortium.contract.messages import EventReceipt
from site_agent import agent as agent_module
from site_agent.agent import CoordinatorLine
from site_agent.signed_events import SignedEvents
from tests.fakes.site_world import make_world


class Liar:
    """A coordinator that says it has everything, for ever."""

    def __init__(self):
        self.got = []

    async def submit_events(self, events):
        self.got += events
        return EventReceipt(last_sequence=2**40)


async def test_every_entry_is_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(agent_module, "EVENTS_AT_ONCE", 3)
    world = make_world(tmp_path)
    events = SignedEvents(world.home, world.store)
    for _ in range(8):
        events.add(
            entries.StudyRejected,
            study="small-study",
            study_digest="a" * 64,
            steward=events.pseudonym("x"),
            reason="no",
        )
    liar, line = Liar(), CoordinatorLine(world.store)
    line.bind(liar, None)
    await line.submit_events()
    assert [entries.parse_entry(entry).site_seq for entry in liar.got] == list(range(1, 9))
    assert world.store.pending_events() == ()
