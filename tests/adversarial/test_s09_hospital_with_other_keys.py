"""S-09: the coordinator, which certifies, gives another hospital's name to keys of its own.

Held by: `store.pin_peer`, which remembers keys at first sight. Nobody takes part with a changed peer until a person has
compared fingerprints.
"""

import dataclasses

from privacy.secagg.messages import KeyBundle
from tests.fakes.site_world import hospital, keys, new_member


def with_impostor(world, **changes):
    impostor = new_member(keys().authority, "alder")
    honest = world.plan(**changes)
    plan = dataclasses.replace(honest, participants=(impostor.participant, *honest.participants[1:]))
    return plan, (impostor.certificate_der, *world.invitation(honest).certificates[1:])


async def test_a_peer_that_changed(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        plan, certificates = with_impostor(world)
        answer = await world.ask(plan, certificates=certificates)
        assert (answer.rule, answer.explanation) == ("site", "this site cannot take part (PeerChanged)")
        assert isinstance(await world.ask(world.plan()), KeyBundle)


async def test_also_after_a_restart(tmp_path):
    async with hospital(tmp_path) as world:
        await world.ask(world.plan())
        await world.stop()
        await world.start()
        await world.prepare()
        plan, certificates = with_impostor(world, attempt=2)
        assert (await world.ask(plan, certificates=certificates)).rule == "site"


async def test_until_a_person_forgets_the_old_keys(tmp_path):
    async with hospital(tmp_path) as world:
        await world.ask(world.plan())
        plan, certificates = with_impostor(world, attempt=2)
        assert world.store.forget_peer("alder")
        assert isinstance(await world.ask(plan, certificates=certificates), KeyBundle)
