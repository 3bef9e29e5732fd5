"""A-24: a coordinator goes on with a hospital on a log that it shows to that hospital alone.

Without others' cosignatures over what a hospital sees, the hospital takes part in no round. Tried: rows
a24 of `mutations.py`: no `StudyWork._require_witnesses`, and a `FollowedLog.covered` that counts the most cosigned.
"""

import pytest

from privacy.secagg.messages import KeyBundle
from site_agent.log_watch import PATIENCE_S
from tests.fakes.growing_log import witness_of
from tests.fakes.site_world import hospital
from tests.fakes.watching_hospital import enrolled, named_witness, watching

OTHER = b'{"actor":"coordinator","type":"model.released","body":{}}'


@pytest.mark.parametrize(("unwitnessed_s", "joins"), [(0.0, True), (PATIENCE_S, True), (PATIENCE_S + 1, False)])
async def test_an_invitation_on_such_a_log_is_declined(tmp_path, unwitnessed_s, joins):
    async with hospital(tmp_path) as world:
        world.line.unwitnessed_for_s = unwitnessed_s
        answer = await world.ask(world.plan())
        assert isinstance(answer, KeyBundle) is joins
        assert joins or answer.rule == "witnesses"


async def test_it_is_joined_if_others_cosigned_since_the_log_was_asked_for_last(tmp_path):
    async with hospital(tmp_path) as world:
        world.line.unwitnessed_for_s, world.line.unwitnessed_after_all_s = 10 * PATIENCE_S, 0.0
        assert isinstance(await world.ask(world.plan()), KeyBundle)


async def test_what_others_have_not_cosigned_is_unwitnessed(tmp_path):
    async with watching(tmp_path) as world:
        roster = (world.site, "birch-hospital", "cedar-institute")
        signers = {}
        for seed, site in enumerate(roster[1:], 21):
            key, signers[site] = world.home.signing_key, witness_of(site, seed)
            world.service.log.add(enrolled(site, key.public_key().public_bytes_raw()))
            world.service.log.add(named_witness(site, key, signers[site]))
        await world.follows()
        assert world.watch.unwitnessed_s(roster, 1) == 0.0  # one's own is one
        assert world.watch.unwitnessed_s(roster, 2) > 0.0
        world.service.gossip = [world.service.log.cosigned_by(signers["birch-hospital"])]
        await world.follows()
        covered = len(world.service.log.entries)
        world.service.log.add(OTHER)
        await world.follows()
        read = world.watch._mirror.read
        assert [read.covered(roster, needed) for needed in (1, 2, 3)] == [covered + 1, covered, 0]
        assert world.watch.unwitnessed_s(roster, 3) > world.watch.unwitnessed_s(roster, 2) > 0.0
