"""A hospital follows a change of the log's key: while it is connected, after a restart, and after a long sleep."""

from contextlib import suppress

import pytest
from typer.testing import CliRunner

from audit.key_rotation import LogKeys
from audit.note import NoteSigner, parse_note
from audit.verify import check
from consortium.contract.certificates import new_signing_key, private_pem
from consortium.contract.private_files import write_private
from site_agent.app import policy_text
from site_agent.cli import app
from site_agent.followed_log import UNKNOWN_KEY
from site_agent.home import HomeInvalid
from site_agent.log_copy import open_copy
from site_agent.log_keys import NAME, LogKeyRefused, accept_key, believed_keys
from site_agent.log_mirror import LogMirror
from site_agent.site_evidence import export_study
from tests.fakes.changed_keys import NEXT, retired, rotated
from tests.fakes.evidence_home import STUDY, EvidenceHome
from tests.fakes.growing_log import ORIGIN, SIGNER, GrowingLog
from tests.fakes.sample_study_log import key, unpack
from tests.fakes.watching_hospital import watching

NEW = NoteSigner(ORIGIN, key("the next log key"))
OLD_VKEY, NEW_VKEY = SIGNER.verifier.vkey(), NEW.verifier.vkey()
MORE = b'{"actor":"coordinator","type":"another","body":{}}'


async def restarted(world):
    """The copy is closed and opened again: what was believed is read from the disk."""
    await world.watch.close()
    mirror = LogMirror(world.home, world.store)
    try:
        return mirror.read.keys.vkeys(), mirror.size
    finally:
        mirror.close()


async def test_it_follows_while_connected_and_remembers(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(rotated(SIGNER, NEW))
        await world.follows()  # under a checkpoint of the old key alone
        assert believed_keys(world.home).vkeys() == (OLD_VKEY, NEW_VKEY)
        world.service.log.signers = (SIGNER, NEW)
        world.service.log.add(MORE)
        await world.follows()
        (stone,) = (world.home.folder / "log/public/key-changes").iterdir()
        assert len(parse_note(stone.read_bytes()).signatures) >= 2
        world.service.log.add(retired(SIGNER))
        await world.follows()
        assert believed_keys(world.home).vkeys() == (NEW_VKEY,)
        world.service.log.signers = (NEW,)
        world.service.log.add(MORE)
        await world.follows()
        world.task.cancel()
        with suppress(BaseException):
            await world.task
        assert await restarted(world) == ((NEW_VKEY,), len(world.service.log.entries))
        assert policy_text(world.home.folder, None).decode().count(NEW_VKEY) == 1
        open_copy(world.home).close()


async def test_one_that_died_before_it_wrote_the_new_key_down_reads_it_again(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(rotated(SIGNER, NEW))
        world.service.log.signers = (SIGNER, NEW)
        await world.follows()
        world.task.cancel()
        with suppress(BaseException):
            await world.task
        (world.home.folder / NAME).unlink()
        assert (await restarted(world))[0] == (OLD_VKEY, NEW_VKEY)
        assert believed_keys(world.home).vkeys() == (OLD_VKEY, NEW_VKEY)


async def test_one_that_slept_steps_over_the_checkpoint_of_both_keys(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        now = GrowingLog([*world.service.log.entries, rotated(SIGNER, NEW)], (SIGNER, NEW))
        world.service.log = now
        await world.follows()
        world.service.log = GrowingLog([*world.service.log.entries, retired(SIGNER), MORE], (NEW,))
        await world.follows()
        assert believed_keys(world.home).vkeys() == (NEW_VKEY,)


async def test_one_that_missed_it_stops_until_a_person_has_compared_the_key(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        entries = [*world.service.log.entries, rotated(SIGNER, NEW), retired(SIGNER), MORE]
        world.service.log = GrowingLog(entries, (NEW,))
        broken = await world.breaks()
        assert broken.kind == UNKNOWN_KEY
        await world.watch.close()
        folder = world.home.folder
        shown = CliRunner().invoke(app, ["log-key", "--home", str(folder), "--accept", NEW_VKEY])
        assert (shown.exit_code, shown.stdout) == (0, f"{NEW_VKEY}\n")
        open_copy(world.home).close()  # it stands under the old key still
        mirror = LogMirror(world.home, world.store)
        growth, missing = world.service.log.since(mirror.size)
        with mirror.begin(growth) as growing:
            mirror.add(growing, missing)
            mirror.complete(growing)
        assert (mirror.size, mirror.read.keys.vkeys()) == (len(entries), (NEW_VKEY,))
        mirror.close()


def test_keys_that_are_none_of_this_log(tmp_path):
    made = EvidenceHome(tmp_path)
    other = NoteSigner("fl.example.org/another", key("thief")).verifier.vkey()
    for bad in (other, "no key"):
        with pytest.raises(LogKeyRefused):
            accept_key(made.home, bad)
    assert believed_keys(made.home).vkeys() == (made.home.identity.log_vkey,)
    for bad in (b"{", b'{"vkeys":["x"]}', b"[]", f'{{"vkeys":["{other}"]}}'.encode()):
        (made.folder / NAME).write_bytes(bad)
        with pytest.raises(HomeInvalid):
            believed_keys(made.home)


def test_its_evidence_has_the_checkpoint_of_both_keys(tmp_path):
    made = EvidenceHome(tmp_path)
    consortium = made.consortium.whole_study()
    old = consortium.log_signer
    consortium.lines.append(rotated(old, NEXT))
    made.build()
    leaf = len(consortium.lines) - 1
    write_private(made.folder / "log/witness.pem", private_pem(new_signing_key()))
    mirror = LogMirror(made.home, made.store)
    mirror.keep_cosignatures()
    mirror.close()
    assert believed_keys(made.home) == LogKeys(accepted=(old.verifier, NEXT.verifier))
    exported = export_study(made.home, made.store, STUDY, tmp_path / "evidence.zip")
    result = check(str(exported.path), made.policy)
    assert result["verified"], result
    assert f"log/key-changes/{leaf}" in unpack(exported.path)
