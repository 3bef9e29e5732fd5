"""S-09: the coordinator, which certifies, gives another hospital's name to keys of its own.

Held by: `store.pin_peer`, which remembers keys at first sight. Nobody takes part with a changed peer until a person has
compared fingerprints. Tried: rows s09 of `mutations.py`.
"""

import dataclasses
from datetime import timedelta

from consortium.contract import certificates
from privacy.secagg.messages import KeyBundle
from tests.fakes.site_world import NAME, hospital, keys, new_member, now


def with_impostor(world, impostor=None, **changes):
    impostor = impostor or new_member(keys().authority, "alder")
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


def with_another_ecdsa_key(member):
    """A certificate with a hospital's own TLS and Ed25519 keys, and an ECDSA key that the coordinator has."""
    ecdsa_key = certificates.new_ecdsa_key()
    request = certificates.site_request(
        tls_key=certificates.load_tls_key(member.tls_key_pem),
        signing_key=member.signing_key,
        ecdsa_key=ecdsa_key,
        site=member.site,
        consortium=NAME,
    )
    pem = certificates.issue_site(keys().authority, member.site, request, now=now(), valid_for=timedelta(days=365))
    return dataclasses.replace(member, certificate_pem=pem, ecdsa_key=ecdsa_key)


async def test_a_peer_of_which_only_the_ecdsa_key_changed(tmp_path):
    """It signs all the peer says in studies of the suite p256. Fails when `pin_peer` compares the other two only."""
    async with hospital(tmp_path) as world:
        await world.attempt()
        plan, certificates_ = with_impostor(world, with_another_ecdsa_key(keys().members["alder"]))
        answer = await world.ask(plan, certificates=certificates_)
        assert (answer.rule, answer.explanation) == ("site", "this site cannot take part (PeerChanged)")
        assert isinstance(await world.ask(world.plan()), KeyBundle)
