"""A hospital gets another witness key: the newer counts from its entry on, the older for what it cosigned before."""

import asyncio
import json
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from audit import entries
from audit.cosignature import WitnessKey
from consortium.record import now_stamp
from site_agent.cli import app
from site_agent.followed_log import FollowedLog, OwnChain
from site_agent.log_watch import LogWatch
from site_agent.witness_key import WitnessKeyKept, rotate
from tests.fakes.growing_log import SIGNER, GrowingLog, witness_of
from tests.fakes.watching_hospital import enrolled, named_witness, watching

OTHER = b'{"actor":"coordinator","type":"another","body":{}}'
SITE_KEY = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)


class Copy(GrowingLog):
    """A copy of the log, to hold notes against."""

    @property
    def size(self):
        return len(self.entries)

    def root_at(self, size):
        return self.tree().root(size)


def second_key(first, signer):
    """A site's second entry, which names another key."""
    chain = entries.SiteChain(site="birch-hospital")
    chain = chain.admit(first, entries.parse_entry(first))
    entry = entries.WitnessEnrolled(
        **now_stamp(),
        actor="site:birch-hospital",
        site_seq=chain.next_seq,
        site_prev=chain.previous,
        vkey=signer.key.vkey(),
    )
    return entries.sign_site_entry(entry, SITE_KEY)


def test_each_key_counts_for_its_own_time():
    older, newer = witness_of("birch-hospital", 8), witness_of("birch-hospital", 9)
    first = named_witness("birch-hospital", SITE_KEY, older)
    own_key = SITE_KEY.public_key().public_bytes_raw()
    log = Copy([enrolled("birch-hospital", own_key), first, OTHER, second_key(first, newer), OTHER])
    read = FollowedLog(OwnChain(site="amber-clinic", signed=lambda _: None), SIGNER.verifier)
    for leaf, entry in enumerate(log.entries):
        read.take(leaf, entry)
    said = log.note()
    read.hear([log.cosigned_by(older, size=5)], log, said)  # the entry that replaced it is in there
    assert read.covered(["birch-hospital"], 1) == 0
    read.hear([log.cosigned_by(older, size=3)], log, said)
    assert read.covered(["birch-hospital"], 1) == 3
    read.hear([log.cosigned_by(newer, size=5)], log, said)
    assert read.covered(["birch-hospital"], 1) == 5
    # Whoever enrols anew is heard by the keys of its new chain alone.
    read.take(5, enrolled("birch-hospital", bytes(32)))
    assert read.covered(["birch-hospital"], 1) == 0


async def test_the_agent_tells_the_log_after_its_next_start(tmp_path):
    async with watching(tmp_path) as world:
        before = await world.follows()
        with pytest.raises(WitnessKeyKept, match="running"):
            rotate(world.home)
        world.task.cancel()
        with suppress(BaseException):
            await world.task
        await world.watch.close()
        path = world.home.folder / "log/witness.pem"
        with path.open("rb") as old:
            shown = CliRunner().invoke(app, ["rotate-witness-key", "--home", str(world.home.folder)])
            assert shown.exit_code == 0
            assert set(old.read()) == {0}  # the bytes of the old key
        client = world.line._client
        world.watch = LogWatch(world.home, world.store, world.line)
        world.task = asyncio.create_task(world.watch.run(client))
        vkeys = []
        async with asyncio.timeout(60):
            while len(vkeys) < 2:
                await asyncio.sleep(0.02)
                said = [json.loads(entry) for entry in world.service.log.entries]
                vkeys = [one["body"]["vkey"] for one in said if one["type"] == "witness.enrolled"]
        assert len(set(vkeys)) == 2
        await world.follows()
        assert WitnessKey.from_vkey(vkeys[0]) == before


async def test_without_a_key_there_is_nothing_to_rotate(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        await world.watch.close()
        (world.home.folder / "log/witness.pem").unlink()
        with pytest.raises(WitnessKeyKept, match="no witness key"):
            rotate(world.home)
