"""The coordinator changes the key of its log: in steps, each of which survives a crash, and no step twice."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from audit.checkpoint import parse_checkpoint, verify_checkpoint
from audit.errors import LogUnwritable
from audit.note import NoteVerifier, verify_note
from consortium import log_keys
from consortium.commands import CommandRefused, execute
from consortium.contract.kit import parse_kit
from consortium.contract.messages import LogPosition
from consortium.errors import HomeInvalid, NotWitnessed
from consortium.log_keys import LogKeyring, NoKeyChange
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.small_study import SITES

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def signed_by(world):
    """The vkeys whose valid lines the present checkpoint has."""
    note = world.rooms.recorder.latest().note
    known = world.rooms.recorder.written.verifiers
    return {key.vkey() for key in verify_note(note, known)}


def rotate(world):
    return world.rooms.log_keys.rotate("planned", 30, NOW)


def finished(world):
    world.rooms.log_keys.finish()
    world.enrol(SITES[3])  # the first checkpoint after it
    return signed_by(world)


def command(world, **arguments):
    answer = asyncio.run(execute(world.coordinator, "audit.rotate-key", json.dumps(arguments).encode()))
    return json.loads(answer)


def test_both_keys_sign_during_the_overlap_and_the_new_one_after_it(tmp_path):
    with coordinator_in(tmp_path) as world:
        old = world.coordinator.home.log_vkey
        found = command(world, reason="planned", days=30)
        first, new = found["vkeys"]
        assert first == old
        assert new.partition("+")[0] == old.partition("+")[0]
        assert signed_by(world) == {old, new}
        world.enrol(SITES[0])
        assert signed_by(world) == {old, new}
        assert parse_kit(world.sites.invite(SITES[1])[0]).log_vkey == new
        assert command(world, reason="again", days=30) == found  # the change under way
        assert finished(world) == {new}
        (rotated,) = world.bodies("key.rotated")
        assert (rotated["old_vkey"], rotated["new_vkey"], rotated["reason"]) == (old, new, "planned")
        assert world.bodies("key.retired") == [{"vkey": old}]
        with pytest.raises(NoKeyChange):
            world.rooms.log_keys.finish()
        for bad in ({"reason": "x", "days": 0}, {"reason": 3, "days": 1}, {"reason": "", "days": 1}):
            with pytest.raises(CommandRefused):
                command(world, **bad)
    with coordinator_in(tmp_path) as world:
        assert world.coordinator.home.log_vkey == new
        assert signed_by(world) == {new}


@pytest.mark.parametrize("step", ["_under_way", "record", "sign_with"])
def test_a_change_that_was_cut_short_is_gone_on_with(tmp_path, monkeypatch, step):
    """Stopped before the entry, between the entry and the second line, or at the line itself."""

    def dies(*_, **__):
        raise LogUnwritable("log", "the process dies here")

    with coordinator_in(tmp_path) as world, monkeypatch.context() as patched:
        old = world.coordinator.home.log_vkey
        ring = world.rooms.log_keys
        if step == "_under_way":
            patched.setattr(log_keys, "now_stamp", dies)
        elif step == "record":
            patched.setattr(world.rooms.recorder, "flush", dies)
        else:
            patched.setattr(type(world.rooms.recorder.written), "sign_with", dies)
        with suppress(LogUnwritable):
            rotate(world)
        assert isinstance(ring, LogKeyring)
    with coordinator_in(tmp_path) as world:
        following = world.coordinator.home.next_log_signer
        found = rotate(world)
        assert found.vkeys == (old, world.coordinator.home.next_log_signer.verifier.vkey())
        assert following is None or following.verifier.vkey() == found.vkeys[-1]
        assert len(world.bodies("key.rotated")) == 1
        assert signed_by(world) == set(found.vkeys)


@pytest.mark.parametrize("step", ["keep_stepping_stone", "record", "_replace"])
def test_an_end_that_was_cut_short_is_gone_on_with(tmp_path, monkeypatch, step):
    def dies(*_, **__):
        raise LogUnwritable("log", "the process dies here")

    with coordinator_in(tmp_path) as world, monkeypatch.context() as patched:
        old, new = rotate(world).vkeys
        owner = {"record": world.rooms.recorder, "_replace": LogKeyring}.get(step, world.rooms.recorder.written)
        patched.setattr(owner, step, dies)
        with pytest.raises(LogUnwritable):
            world.rooms.log_keys.finish()
    with coordinator_in(tmp_path) as world:
        assert signed_by(world) >= {new}
        if step != "_replace":  # the log does not say yet that it is over
            assert world.coordinator.home.log_vkey == old
            world.rooms.log_keys.finish()
        assert (world.coordinator.home.log_vkey, world.coordinator.home.next_log_signer) == (new, None)
        assert world.bodies("key.retired") == [{"vkey": old}]


def test_the_old_key_signs_until_most_hospitals_have_cosigned_both(tmp_path):
    with coordinator_in(tmp_path) as world:
        hospitals = [world.enrol(site) for site in SITES]
        world.witnessed_by(*hospitals)
        before = world.rooms.recorder.latest().to_bytes()
        old, new = rotate(world).vkeys
        with pytest.raises(NotWitnessed, match=hospitals[0].site):
            world.rooms.log_keys.finish()
        assert not world.bodies("key.retired")
        assert not world.rooms.log_keys.finish_if_due(NOW + timedelta(days=29))
        world.witnessed_by(*hospitals[:3])
        assert world.rooms.log_keys.finish_if_due(datetime.now(UTC) + timedelta(days=3651))
        assert not world.rooms.log_keys.finish_if_due(datetime.now(UTC))
        world.enrol("extra-clinic")
        assert signed_by(world) == {new}
        # A hospital that slept gets the checkpoint of both keys first, then the newest one.
        position = LogPosition(size=parse_checkpoint(before).checkpoint.size, note=before)
        growth, _ = world.rooms.witnesses.follow(hospitals[3].site, position)
        stone = verify_checkpoint(growth.note, NoteVerifier.from_vkey(old))
        assert len(stone.note.signatures) == 2 + 3
        assert stone.checkpoint.size > position.size
        growth, _ = world.rooms.witnesses.follow(
            hospitals[3].site, LogPosition(size=stone.checkpoint.size, note=growth.note)
        )
        assert verify_checkpoint(growth.note, NoteVerifier.from_vkey(new)).checkpoint.size >= stone.checkpoint.size


def test_after_a_second_change_the_first_stepping_stone_has_the_newest_key_too(tmp_path):
    with coordinator_in(tmp_path) as world:
        rotate(world)
        world.rooms.log_keys.finish()
        newest = rotate(world).vkeys[-1]
        world.rooms.log_keys.finish()
        growth, _ = world.rooms.witnesses.follow("amber-clinic", LogPosition(size=0, note=b""))
        assert verify_checkpoint(growth.note, NoteVerifier.from_vkey(newest)).checkpoint.size == 2


def test_a_key_that_the_log_names_and_nobody_has_stops_the_coordinator(tmp_path):
    with coordinator_in(tmp_path) as world:
        rotate(world)
    (tmp_path / "home/keys/log-next.pem").unlink()
    with pytest.raises(HomeInvalid, match="is not in"), coordinator_in(tmp_path):
        pass


async def test_a_serving_coordinator_ends_an_overlap_when_its_time_has_come(tmp_path, monkeypatch):
    with coordinator_in(tmp_path) as world:
        rotate(world)
        monkeypatch.setattr(log_keys, "LOOK_S", 0.01)
        ended = asyncio.Event()
        finish = LogKeyring.finish

        def due(ring, now):
            finish(ring)
            loop.call_soon_threadsafe(ended.set)
            return True

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(LogKeyring, "finish_if_due", due)
        async with world.rooms.log_keys.watched():
            async with asyncio.timeout(60):
                await ended.wait()
        assert len(world.bodies("key.retired")) == 1
