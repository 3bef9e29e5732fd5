"""W-14: a message that was sent already comes again, and one that is larger than any honest one.

Over the real wire: every message of every phase is sent twice, and everything of the earlier attempts is sent again
before each message of the present one. What the protocol machine does with each kind is in T-05, T-19, T-04, S-02 and
S-03; tokens are in W-09 and `tests/integration/test_coordinator_refusals.py`, sizes in W-04 and T-24. Tried: row w14 of
`mutations.py`, with which `Running.hears` accepts any context: the messages of before are taken, and the round goes
wrong.
"""

import resource
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from audit import entries
from consortium.contract.messages import MaskedUpdate, SiteMessage
from consortium.wire import limits
from consortium.wire.client import _answered
from consortium.wire.errors import CallRefused, RefusalCode
from tests.fakes.scripted_site import ScriptedSite, serving
from tests.fakes.small_study import SITES, small_study
from tests.fakes.wire_world import coordinator

LOUD = SITES[0]


async def test_everything_twice_and_everything_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(rounds=2)
    sent: list[SiteMessage] = []
    send = ScriptedSite._send

    async def send_and_repeat(self: ScriptedSite, message: Any) -> None:
        if self.name != LOUD or not (hasattr(message, "site") or hasattr(message, "context")):
            await send(self, message)
            return
        for old in sent:  # of this attempt, too: by now it is in another phase
            await send(self, old)
        await send(self, message)
        await send(self, message)
        sent.append(message)

    monkeypatch.setattr(ScriptedSite, "_send", send_and_repeat)
    with capture_logs() as logs:
        async with serving(tmp_path) as world:
            sites = await world.hospitals(study)
            for site in sites.values():
                site.fast = True
            await world.command("study.start", study=study.id)
            await world.until(lambda: world.state(study) == "completed", timeout_s=60)
            closed = [one["round"] for one in world.history(study)]
            uploads = world.home.bodies(entries.UpdateSubmitted.TYPE)
    assert closed == [1, 2, 3]
    assert any(isinstance(message, MaskedUpdate) for message in sent)
    assert len(sent) >= 10
    # A masked update of an attempt that is over gets the operator's line, and nothing else.
    assert {log["site"] for log in logs if log["event"] == "upload.unwanted"} <= {LOUD}
    assert not [log for log in logs if log["event"] in ("study.failed", "wire.internal")]
    assert len({(one["masked_update_sha256"]) for one in uploads}) == len(uploads)


async def test_a_huge_message_is_refused_from_its_prefix() -> None:
    """Forty of them, twice what a message may have: the process does not grow by their size."""
    data = b"\x00" * (2 * limits.MESSAGE_BYTES_MAX)
    async with coordinator() as world, world.connect() as client:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(40):
            call = client._line.unary_unary("/consortium.wire.v1.Coordinator/SubmitEvents")
            with pytest.raises(CallRefused, match="larger than max") as caught:
                await _answered(call(data))
            assert caught.value.code is RefusalCode.INVALID  # for good: an agent that sends such a thing ends
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert world.service.peers == []
    assert grown < 20 * len(data)  # of 40; both ends are in this process, and the sender holds copies of its own
