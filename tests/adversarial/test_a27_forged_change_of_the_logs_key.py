"""A-27: a log's readers are made to believe another key, by a thief of an old one or by a coordinator alone.

A hospital believes a new key only on the word of the newest one it believed, under a checkpoint that key signed. A
stranger with a policy of before the change follows it only where the policy's quorum has cosigned it.

Tried: rows a27 of `mutations.py`, such as `LogKeys` without looking who signed, and `verify.py` without the quorum.
"""

import json

import pytest

from audit import entries, verify
from audit.note import NoteSigner
from site_agent.followed_log import FORGED, UNKNOWN_KEY
from site_agent.log_keys import believed_keys
from tests.fakes.changed_keys import NEXT, ChangedLog, checkpoint, retired, rotated
from tests.fakes.growing_log import ORIGIN, SIGNER
from tests.fakes.sample_study_log import SITES, failed_steps, key, log_files, pack, unpack
from tests.fakes.watching_hospital import watching

NEW, THIEF = NoteSigner(ORIGIN, key("the next log key")), NoteSigner(ORIGIN, key("thief"))
CHECKPOINT = "checkpoint is signed by the log"


def renamed(entry: bytes) -> bytes:
    """An entry that names a key of another log's name; no coordinator of ours could write it."""
    other = NoteSigner("fl.example.org/another", key("thief")).verifier.vkey()
    record = json.loads(entry)
    record["body"]["new_vkey"] = other
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


# --- a hospital ------------------------------------------------------------------------------------------------------


async def changed(world):
    """The hospital has followed one honest change, and both keys sign."""
    await world.follows()
    world.service.log.add(rotated(SIGNER, NEW))
    world.service.log.signers = (SIGNER, NEW)
    await world.follows()
    assert believed_keys(world.home).vkeys() == (SIGNER.verifier.vkey(), NEW.verifier.vkey())


async def test_a_key_that_the_log_never_named(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(rotated(SIGNER, THIEF))
        world.service.log.signers = (THIEF,)
        broken = await world.breaks()
        assert broken.kind == UNKNOWN_KEY
        assert "--accept" in broken.advice()
        assert believed_keys(world.home).vkeys() == (SIGNER.verifier.vkey(),)


async def test_the_new_key_is_replaced_by_one_that_it_did_not_sign_for(tmp_path):
    async with watching(tmp_path) as world:
        await changed(world)
        world.service.log.add(rotated(NEW, THIEF))
        world.service.log.signers = (SIGNER,)
        assert (await world.breaks()).kind == FORGED


async def test_the_old_key_names_a_second_successor(tmp_path):
    async with watching(tmp_path) as world:
        await changed(world)
        world.service.log.add(rotated(SIGNER, THIEF))
        broken = await world.breaks()
        assert (broken.kind, "newest" in str(broken)) == (FORGED, True)


async def test_a_key_of_another_name(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log.add(renamed(rotated(SIGNER, THIEF)))
        broken = await world.breaks()
        assert (broken.kind, "of the name" in str(broken)) == (FORGED, True)


async def test_a_retired_key_signs_on(tmp_path):
    async with watching(tmp_path) as world:
        await changed(world)
        world.service.log.add(retired(SIGNER))
        await world.follows()
        world.service.log.add(b'{"actor":"coordinator","type":"another","body":{}}')
        world.service.log.signers = (SIGNER,)
        assert (await world.breaks()).kind == UNKNOWN_KEY


async def test_a_hospital_says_that_the_log_has_another_key(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        record = json.loads(rotated(SIGNER, THIEF)) | {"actor": "site:birch-hospital"}
        world.service.log.add(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
        broken = await world.breaks()
        assert (broken.kind, "not the coordinator's" in str(broken)) == (FORGED, True)


# --- a stranger with evidence ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The log after an honest change, and the files of its evidence."""
    world = ChangedLog(tmp_path_factory.mktemp("honest"))
    return world, unpack(world.export(world.stone()))


def checked(tmp_path, files, policy):
    return failed_steps(verify.check(str(pack(tmp_path / "evidence.zip", files)), policy))


def with_log(files, lines, *signers):
    """The same archive over another log, which these keys and every hospital signed."""
    return files | log_files(lines, NEXT) | {"log/checkpoint": checkpoint(lines, signers, SITES)}


def test_the_honest_change_is_followed_from_either_key(honest, tmp_path):
    world, files = honest
    for signer in (world.old, NEXT):
        assert checked(tmp_path, files, world.policy(signer)) == {}
    result = verify.check(str(tmp_path / "evidence.zip"), world.policy(world.old))
    said = next(step["detail"] for step in result["steps"] if step["title"] == CHECKPOINT)
    assert f"followed to {NEXT.verifier.vkey()} by leaf {world.leaf}" in said
    assert "cosigned" in said.rpartition("signed and")[2]
    assert any("has changed its key" in note for note in result["notes"])
    told = files["report.json"].decode()
    assert "A key that followed it" in told
    assert NEXT.verifier.vkey() in told
    before = checkpoint(world.consortium.lines[:9], [world.old])
    assert verify.check(str(tmp_path / "evidence.zip"), world.policy(NEXT), before)["verified"]


def test_too_few_witnesses_saw_the_change(honest, tmp_path):
    world, files = honest
    stone = {f"log/key-changes/{world.leaf}": world.stone(SITES[:2])}
    failed = checked(tmp_path, files | stone, world.policy(world.old))
    assert failed[CHECKPOINT]["where"] == f"log/key-changes/{world.leaf}, cosignatures"


def test_nobody_signed_the_change(honest, tmp_path):
    world, files = honest
    stone = {f"log/key-changes/{world.leaf}": world.stone(signers=[NEXT])}
    failed = checked(tmp_path, files | stone, world.policy(world.old))
    assert "only lines of other keys" in failed[CHECKPOINT]["found"]


def test_a_policy_without_a_quorum_follows_nobody(honest, tmp_path):
    world, files = honest
    failed = checked(tmp_path, files, world.policy(world.old, 0))
    assert "a quorum that vouches" in failed[CHECKPOINT]["expected"]


def test_the_witnesses_saw_another_log_change_its_key(honest, tmp_path):
    """A true stepping stone, of a log that differs before the change."""
    world, files = honest
    lines = [*world.consortium.lines[: world.leaf + 1]]
    lines[5] = lines[4]
    stone = {f"log/key-changes/{world.leaf}": checkpoint(lines, [world.old, NEXT], SITES)}
    failed = checked(tmp_path, files | stone, world.policy(world.old))
    assert failed["root recomputed from all entries"]["where"] == f"log/key-changes/{world.leaf}"


@pytest.mark.parametrize("needed", [0, 3])
def test_evidence_changes_to_a_key_of_another_name(honest, tmp_path, needed):
    world, files = honest
    lines = [*world.consortium.lines[: world.leaf], renamed(rotated(world.old, NEXT))]
    failed = checked(tmp_path, with_log(files, lines, world.old), world.policy(world.old, needed))
    assert "another of its name" in failed["entries are well formed"]["expected"]


def test_a_stepping_stone_to_a_key_of_another_name(honest, tmp_path):
    world, files = honest
    lines = [*world.consortium.lines[: world.leaf], renamed(rotated(world.old, NEXT))]
    stone = {f"log/key-changes/{world.leaf}": checkpoint(lines, [world.old], SITES)}
    failed = checked(tmp_path, with_log(files, lines, NEXT) | stone, world.policy(world.old))
    assert "a key of the name" in failed[CHECKPOINT]["expected"]


def test_a_thief_of_the_retired_key_goes_on_with_the_log(honest, tmp_path):
    world, files = honest
    failed = checked(tmp_path, with_log(files, world.consortium.lines, world.old), world.policy(world.old))
    assert "which the log has retired" in failed["entries are well formed"]["found"]


def test_a_key_that_was_replaced_names_another_successor(honest, tmp_path):
    world, files = honest
    lines = [*world.consortium.lines, rotated(world.old, NoteSigner(NEXT.name, key("thief")))]
    failed = checked(tmp_path, with_log(files, lines, NEXT), world.policy(NEXT))
    assert "the newest key" in failed["entries are well formed"]["expected"]


def test_the_stepping_stone_lies_beside_an_entry_that_is_no_change(honest, tmp_path):
    world, files = honest
    other = entries.entry_bytes(entries.SiteInvited(**world.consortium.stamp(), site="birch-hospital"))
    lines = [*world.consortium.lines[: world.leaf], other]
    stone = {f"log/key-changes/{world.leaf}": checkpoint(lines, [world.old], SITES)}
    failed = checked(tmp_path, with_log(files, lines, NEXT) | stone, world.policy(world.old))
    assert failed[CHECKPOINT]["where"] == f"log/key-changes/{world.leaf}, leaf {world.leaf}"


def test_a_log_that_begins_with_another_key_than_it_changed_from(honest, tmp_path):
    world, files = honest
    forged = [*world.consortium.lines[:9], rotated(NoteSigner(NEXT.name, key("thief")), NEXT)]
    failed = checked(tmp_path, with_log(files, forged, NEXT), world.policy(NEXT))
    assert "the key of leaf 0 replaced first" in failed["entries are well formed"]["expected"]
