"""S-24: a home is copied, by mistake or by a thief, and two agents with the same keys are at work.

They must not take turns for ever, nor spend the same budget twice, nor mask two updates with the same keys. Tried: rows
s24 of `mutations.py`, which delete each of the two refusals in `Sessions.take_note` (a copy then throws the other out
again and again, and an old one throws out the one that knows more), and the entropy in `draw_seeds` (both then have the
same keys).
"""

import os
import shutil
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consortium.contract.messages import EARLIER_STARTS_MAX, Hello, Welcome
from consortium.contract.names import SiteId
from consortium.sessions import AgentCopied, Sessions
from consortium.wire.errors import CallRefused, RefusalCode
from privacy.secagg.keys import draw_seeds
from privacy.secret import Secret
from site_agent.starts import new_start
from site_agent.store import Store
from tests.fakes.memory_round import consortium, site_name
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES

SITE = SiteId("birch")
AMBER = SITES[0]


class Started:
    """An agent that was started with a home, as far as its Hello goes."""

    def __init__(self, folder: Path, *, takes_over: bool = False) -> None:
        self.store = Store(folder / "agent.db")
        self.start = new_start()
        self.earlier = self.store.begin_start(self.start)
        self.takes_over = takes_over
        self.signed = 0

    def hello(self) -> Hello:
        return Hello(
            agent_version="0.1.0",
            protocol_version=1,
            start=self.start,
            earlier_starts=self.earlier,
            signed_entries=self.signed,
            takes_over=self.takes_over,
        )

    def welcomed(self) -> None:
        self.store.start_welcomed(self.start)


def copied(folder: Path, name: str) -> Path:
    """A copy of the home, as a snapshot of a running machine has it."""
    Store(folder / "agent.db").close()  # what is in the write-ahead log goes along
    shutil.copytree(folder, folder.parent / name)
    return folder.parent / name


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_the_newer_one_stays_and_the_other_does_not_come_back(home: Path) -> None:
    """The copy knows the start of the original, but not the other way round."""
    sessions = Sessions()
    first = Started(home)
    assert not sessions.take_note(SITE, first.hello(), 0)
    first.welcomed()
    with sessions.opened(SITE):
        second = Started(copied(home, "copy"))
        assert sessions.take_note(SITE, second.hello(), 0)  # whose hospital is told
        second.welcomed()
    for _ in range(3):
        with sessions.opened(SITE), pytest.raises(AgentCopied, match="was started after it was made") as caught:
            sessions.take_note(SITE, Started(home).hello(), 0)
        assert "--take-over" in caught.value.advice()
        assert caught.value.code == "conflict"  # for good: it does not dial again
    with sessions.opened(SITE):
        assert not sessions.take_note(SITE, second.hello(), 0)  # its own session over a line that nobody missed yet


def test_a_copy_from_before_does_not_disturb_the_other(home: Path) -> None:
    old = copied(home, "old")
    sessions = Sessions()
    sessions.take_note(SITE, Started(home).hello(), 0)
    with pytest.raises(AgentCopied):
        sessions.take_note(SITE, Started(old).hello(), 0)


def test_one_that_remembers_less_does_not_end_one_that_remembers_all(home: Path) -> None:
    """It would find that out by itself, but only after the other was told to stop."""
    sessions = Sessions()
    first = Started(home)
    sessions.take_note(SITE, first.hello(), 0)
    second = Started(copied(home, "copy"))
    second.signed = 7
    with sessions.opened(SITE), pytest.raises(AgentCopied, match="remembers 7 of 9 signed entries"):
        sessions.take_note(SITE, second.hello(), 9)
    assert not sessions.take_note(SITE, second.hello(), 9)  # nobody is there: HistoryLost says more about it


def test_a_person_may_say_which_copy_goes_on(home: Path) -> None:
    old = copied(home, "old")
    sessions = Sessions()
    sessions.take_note(SITE, Started(home).hello(), 0)
    chosen = Started(old, takes_over=True)
    sessions.take_note(SITE, chosen.hello(), 0)
    with pytest.raises(AgentCopied):
        sessions.take_note(SITE, Started(home).hello(), 0)


def test_a_home_that_was_started_often_is_still_known(home: Path) -> None:
    """None of many starts was welcomed, or heard so: the one that was is still told, and the newest of the others."""
    sessions = Sessions()
    known = Started(home)
    sessions.take_note(SITE, known.hello(), 0)
    known.welcomed()
    last = Started(home)
    for _ in range(3 * EARLIER_STARTS_MAX):
        last = Started(home)
    assert len(last.earlier) == EARLIER_STARTS_MAX
    sessions.take_note(SITE, last.hello(), 0)
    sessions.take_note(SITE, Started(home).hello(), 0)  # it died before it heard that it was welcome


def test_agents_from_before_there_were_starts_are_taken_as_they_come() -> None:
    sessions = Sessions()
    plain = Hello(agent_version="0.1.0", protocol_version=1)
    assert not sessions.take_note(SITE, plain, 5)
    with sessions.opened(SITE):
        assert sessions.take_note(SITE, plain, 5)


async def test_over_the_wire_a_copy_is_refused_for_good_and_the_other_stays(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with serving(tmp_path) as world:
            member = world.home.enrol(AMBER)
            hello = Hello(agent_version="0.1.0", protocol_version=1, start=new_start(), unix_time_ms=1)
            async with world.connect(member) as client, client.session(hello) as session:
                welcome = await anext(session)
                assert isinstance(welcome, Welcome)
                assert abs(welcome.unix_time_ms / 1000 - time.time()) < 60
                other = Hello(agent_version="0.1.0", protocol_version=1, start=new_start())
                with pytest.raises(CallRefused, match="runs on a copy of its home") as caught:
                    async with world.connect(member) as second, second.session(other) as refused:
                        await anext(refused)
                assert caught.value.code is RefusalCode.CONFLICT
                own = world.home.coordinator.rooms.sessions.get(SiteId(AMBER))
                assert own is not None
                assert not own.ended.is_set()
    (said,) = [log for log in logs if log["event"] == "site.copy_refused"]
    assert said["site"] == AMBER
    # What the hello said of the clock, too.
    (clock,) = [log for log in logs if log["event"] == "clock.differs"]
    assert clock["reason"].startswith(f"the clock of {AMBER} is ")
    assert clock["reason"].endswith(" days behind this computer's")


def test_two_agents_of_one_home_have_no_key_in_common() -> None:
    """The same secret of the home, the same attempt: what tells them apart is each process' own randomness."""
    group = consortium(4)
    drawn = [
        draw_seeds(os.urandom, Secret(b"of the home" + bytes(21)), group.context.digest(), site_name(0))
        for _ in range(2)
    ]
    first, second = ({seeds.root.expose(), seeds.self_mask.expose(), seeds.private.expose()} for seeds in drawn)
    assert not first & second
