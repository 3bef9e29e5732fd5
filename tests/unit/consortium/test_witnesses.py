"""Which checkpoint is held out to hospitals, what counts as a cosignature, and when there are enough."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest

from audit import entries
from audit.checkpoint import parse_checkpoint
from audit.note import Note
from consortium import status as status_of
from consortium import witnesses
from consortium.contract.messages import LogPosition
from consortium.errors import CosignatureRefused, EventRefused
from consortium.record import now_stamp
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.growing_log import witness_of
from tests.fakes.small_study import SITES


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s

    def time(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(witnesses, "time", clock)
    return clock


def test_a_checkpoint_is_held_until_everybody_here_cosigned_it_or_for_a_while(tmp_path, clock):
    with coordinator_in(tmp_path) as world:
        one, two = world.enrol(SITES[0]), world.enrol(SITES[1])
        held = world.rooms.witnesses
        first = held.candidate({one.site, two.site})
        world.enrol(SITES[2])
        clock.now_s += witnesses.EVERY_S
        assert held.candidate({one.site, two.site}) == first
        assert held.candidate({one.site}) == first  # it has not cosigned either
        clock.now_s += witnesses.HOLD_S
        second = held.candidate({one.site, two.site})
        assert second.size > first.size
        world.enrol(SITES[3])
        assert held.candidate(()) == second  # nobody is waited for, but not more often than once a second
        clock.now_s += witnesses.EVERY_S
        assert held.candidate(()).size > second.size


def test_cosignatures_outlive_the_process_and_make_a_quorum(tmp_path):
    with coordinator_in(tmp_path) as world:
        hospitals = [world.enrol(site) for site in SITES]
        assert world.rooms.witnesses.quorum_checkpoint(SITES, 1) is None
        world.witnessed_by(*hospitals[:2])
        early = world.rooms.recorder.log.size
        world.witnessed_by(hospitals[2])
        late = world.rooms.recorder.log.size
    with coordinator_in(tmp_path) as world:
        found = world.rooms.witnesses
        assert [found.quorum_checkpoint(SITES, needed) is None for needed in (1, 2, 3)] == [False, False, True]
        assert found.quorum_checkpoint(SITES, 1).checkpoint.size == late
        assert found.quorum_checkpoint(SITES, 2).checkpoint.size == early
        assert [found.covered(SITES, needed) for needed in (1, 2, 3, 4, 5)] == [late, early, early, 0, 0]
        assert found.quorum_checkpoint(SITES[:1], 1).checkpoint.size == early
        outside = witness_of("auditor", 5)
        assert found.quorum_checkpoint(SITES, 1, [outside.key]) is None
        growth, parts = found.follow(hospitals[0].site, LogPosition(size=0, note=b""))
        assert sum(len(part) for part in parts) == parse_checkpoint(growth.note).checkpoint.size
        assert len(growth.cosigned) == 2  # the others', not one's own


def test_older_notes_are_let_go_once_their_witnesses_cosigned_a_newer_one(tmp_path):
    with coordinator_in(tmp_path) as world:
        hospitals = [world.enrol(site) for site in SITES[:3]]
        world.witnessed_by(*hospitals)
        before = world.rooms.recorder.log.size
        world.enrol(SITES[3])
        world.witnessed_by(*hospitals[:2])
        found = world.rooms.witnesses
        assert found.quorum_checkpoint(SITES, 3).checkpoint.size == before  # still needed: of three
        world.witnessed_by(*hospitals)
        assert found.quorum_checkpoint(SITES, 3).checkpoint.size == world.rooms.recorder.log.size


def test_a_line_that_is_none_is_refused(tmp_path):
    with coordinator_in(tmp_path) as world:
        one, two = world.enrol(SITES[0]), world.enrol(SITES[1])
        world.witnessed_by(one)
        held = world.rooms.witnesses.candidate()
        note = held.signed.note
        other = witness_of("cedar-institute", 4).cosign(note.text, 1)
        for site, lines, why in (
            (two.site, [other], "has not said which key"),
            (one.site, [other], "no line of the key"),
            (one.site, [], "no line of the key"),
        ):
            with pytest.raises(CosignatureRefused, match=why):
                world.rooms.witnesses.admit(
                    site, Note(text=note.text, signatures=(*note.signatures, *lines)).to_bytes()
                )
        with pytest.raises(CosignatureRefused):
            world.rooms.witnesses.admit(one.site, b"no note")
        with pytest.raises(CosignatureRefused, match="not this log's"):
            world.rooms.witnesses.follow(one.site, LogPosition(size=3, note=b"no note"))


def test_a_witness_key_stands_under_its_hospitals_name_and_goes_with_it(tmp_path):
    with coordinator_in(tmp_path) as world:
        one = world.enrol(SITES[0])
        vkey = witness_of(SITES[1], 1).key.vkey()
        with pytest.raises(EventRefused, match="not under its name"):
            world.sites.submit_events(
                one.site, [one.signed_as(entries.WitnessEnrolled, 1, entries.NO_ENTRY, vkey=vkey)]
            )
        world.witnessed_by(one)
        assert set(world.rooms.witnesses.keys()) == {one.site}
        world.sites.revoke(one.site)
        world.enrol(SITES[0])
        assert world.rooms.witnesses.keys() == {}


def test_lines_that_come_at_the_same_time_are_all_kept(tmp_path, monkeypatch):
    """Of two notes under one checkpoint, the one that was written last has both lines."""
    written = Barrier(2, timeout=60)
    keep = witnesses.Witnesses._keep

    def slowly(self, candidate):
        with suppress(BrokenBarrierError):
            written.wait(0.3)  # if nobody sees to the order, both are here with one line each
        keep(self, candidate)

    with coordinator_in(tmp_path) as world:
        hospitals = [world.enrol(site) for site in SITES[:2]]
        world.witnessed_by(*hospitals)
        world.enrol(SITES[2])
        monkeypatch.setattr(witnesses.Witnesses, "_keep", slowly)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(world.witnessed_by, hospitals))
        found = world.rooms.witnesses.quorum_checkpoint(SITES, 2)
        assert found.checkpoint.size == world.rooms.recorder.log.size


def test_who_does_not_cosign_is_shown_until_it_does(tmp_path):
    """What hospitals sign, and what is written of a witness outside: once for each status."""
    with coordinator_in(tmp_path) as world:
        one, two = world.enrol(SITES[0]), world.enrol(SITES[1])
        at = {"checkpoint_size": 3, "checkpoint_root": "ab" * 32}
        omission = one.signs(entries.LogOmission, missing_seq=1, missing_sha256="cd" * 32, **at)
        world.sites.submit_events(one.site, [omission])
        says = {"witness": "w/witness/two", "rule": "forked: two roots", "status": 422, "witness_size": 2, **at}
        world.sites.submit_events(two.site, [two.signs(entries.WitnessRefused, **says, basis="checkpoint")])
        outside = {**says, "witness": "irb.example.org", "status": 409}
        for status in (409, 409, 422, 409):
            entry = entries.WitnessRefused(**now_stamp(), **{**outside, "status": status}, basis="word")
            world.rooms.witnesses.refused("irb.example.org", status, "says so", entries.entry_bytes(entry))
        assert world.types().count("witness.refused") == 1 + 3
        shown = status_of.snapshot(world.rooms, {})["objections"]
        assert [(row["witness"], row["said"]) for row in shown] == sorted(
            [
                (one.site, "its entry 1 is not in the log, which had taken it in"),
                (two.site, "forked: two roots"),
                ("irb.example.org", "says so"),
            ]
        )
    with coordinator_in(tmp_path) as world:
        assert len(world.rooms.witnesses.objections()) == 3
        world.witnessed_by(one)
        assert [name for name, _ in world.rooms.witnesses.objections()] == sorted([two.site, "irb.example.org"])
