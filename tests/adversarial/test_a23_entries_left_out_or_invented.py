"""A-23: a coordinator takes a hospital's entry in and never shows it, or puts one into the log in its name.

A hospital looks for its own entries in every growth of the log: each once, in its order, as it signed them; and what it
handed over a while ago must be there.

Tried: rows a23 of `mutations.py`: `require_own`, `_take_own`, and the signature in `_take_witness`. And by deleting
`_object` in `LogWatch.run`, and the look in `log_objection.py` whether the same was said before.
"""

import hashlib
import json

import pytest

from audit import entries
from audit.checkpoint import parse_checkpoint
from consortium.errors import EventRefused
from site_agent import log_watch
from site_agent.followed_log import FORGED, MALFORMED, OMITTED, LogBroken
from site_agent.log_mirror import LogMirror
from tests.fakes.growing_log import witness_of
from tests.fakes.watching_hospital import enrolled, named_witness, watching


def _own(world, kind):
    """What the hospital signed of a type."""
    found = [entries.parse_entry(data) for data in world.store.signed_entries()]
    return [entry for entry in found if isinstance(entry, kind)]


async def _nobody_listens(*_):
    raise EventRefused("not now")


def about():
    return {"study": "small-study", "study_digest": "5d" * 32, "steward": "u:" + "0" * 16}


async def test_an_entry_that_was_handed_over_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(log_watch, "MERGE_DELAY_S", 3600.0)
    async with watching(tmp_path) as world:
        world.service.swallows = entries.StudyRejected.TYPE
        await world.follows()
        world.signs(entries.StudyRejected, **about(), reason="no")
        await world.line.submit_events()
        await world.looks(3)  # it may be on its way
        assert not world.task.done()
        monkeypatch.setattr(log_watch, "MERGE_DELAY_S", 0.0)  # it had an hour
        broken = await world.breaks()
        assert broken.kind == OMITTED
        (kept,) = world.kept()
        missing = world.store.signed_entry(2)
        (said,) = _own(world, entries.LogOmission)
        assert (said.missing_seq, said.missing_sha256) == (2, hashlib.sha256(missing).hexdigest())
        checkpoint = parse_checkpoint(kept).checkpoint
        assert (said.checkpoint_size, said.checkpoint_root) == (checkpoint.size, checkpoint.root.hex())
        # It is in the log, too, if the coordinator takes it: behind the gap, where everybody can see it.
        assert json.loads(world.service.log.entries[-1])["type"] == entries.LogOmission.TYPE


async def test_an_omission_is_signed_once_however_often_the_agent_stops_over_it(tmp_path, monkeypatch):
    monkeypatch.setattr(log_watch, "MERGE_DELAY_S", 0.0)
    async with watching(tmp_path) as world:
        world.service.swallows = entries.StudyRejected.TYPE
        await world.follows()
        world.signs(entries.StudyRejected, **about(), reason="no")
        await world.line.submit_events()
        world.service.swallows = ""
        world.service.submit_events = _nobody_listens
        await world.breaks()
        for _ in range(2):
            broken = LogBroken(OMITTED, "again", *world.kept())
            mirror = world.watch._mirror
            await world.watch._object(mirror, broken)
        assert len(_own(world, entries.LogOmission)) == 1
        assert world.store.pending_events()  # it is kept until somebody takes it


async def test_a_later_entry_stands_where_a_withheld_one_belongs(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.swallows = entries.StudyRejected.TYPE
        world.signs(entries.StudyRejected, **about(), reason="no")
        world.signs(entries.StudyApproved, **about(), statement="yes")
        await world.line.submit_events()
        assert (await world.breaks()).kind == FORGED


@pytest.mark.parametrize("sequence", [1, 2, 7])
async def test_an_entry_this_hospital_never_signed(tmp_path, sequence):
    async with watching(tmp_path) as world:
        await world.follows()
        invented = {"actor": f"site:{world.site}", "type": "study.approved", "body": {}, "site_seq": sequence}
        world.service.log.add(json.dumps(invented).encode())
        broken = await world.breaks()
        assert broken.kind == FORGED
        assert len(world.kept()) == 1


async def test_its_own_entry_twice(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(next(one for one in world.service.log.entries if b"witness.enrolled" in one))
        assert (await world.breaks()).kind == FORGED


async def test_a_witness_key_that_the_other_hospital_did_not_sign(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(enrolled("birch-hospital", bytes(31) + b"\1"))
        signer = witness_of("birch-hospital", 9)
        world.service.log.add(named_witness("birch-hospital", world.home.signing_key, signer))
        assert (await world.breaks()).kind == FORGED


@pytest.mark.parametrize("entry", [b"not json", b"[]", b"{}", b'{"actor":1}'])
async def test_something_that_is_no_entry(tmp_path, entry):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(entry)
        assert (await world.breaks()).kind == MALFORMED


async def test_what_is_broken_stays_broken(tmp_path):
    """The agent that is started again reads its copy again, and stops again."""
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(b"{}")
        await world.breaks()
        await world.watch.close()
        with pytest.raises(LogBroken):
            LogMirror(world.home, world.store)
