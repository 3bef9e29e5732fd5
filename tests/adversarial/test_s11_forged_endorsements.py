"""S-11: a hospital that missed a round is shown endorsements that are forged, doubled, of another round or too few.

Held by: `plan_check._endorsers` and the threshold (ADR 6). Tried: rows s11 of `mutations.py`.
"""

import dataclasses

import pytest

from audit import entries
from consortium.contract.names import Digest
from privacy.secagg.messages import KeyBundle
from tests.fakes.site_world import ME, endorsement, hospital, keys, new_authority, new_member

OTHERS = ("alder", "cedar", "dogwood")


def forged(sign, good):
    stranger = dataclasses.replace(keys().members["dogwood"], signing_key=keys().members["cedar"].signing_key)
    return (*good[:2], sign(stranger))


FORGERIES = {
    "none": lambda sign, good: (),
    "too few": lambda sign, good: good[:2],
    "one three times": lambda sign, good: (good[0],) * 3,
    "one twice, under other counters": lambda sign, good: (*good[:2], sign(keys().members["alder"], site_seq=2)),
    "signed by another": forged,
    "of another round": lambda sign, good: (*good[:2], sign(keys().members["dogwood"], round=2)),
    "of another model": lambda sign, good: (
        *good[:2],
        sign(keys().members["dogwood"], next_model_digest=Digest("a" * 64)),
    ),
    "of another study": lambda sign, good: (*good[:2], sign(keys().members["dogwood"], study="another-study")),
    "by one who does not take part": lambda sign, good: (
        *good[:2],
        sign(new_member(new_authority(), "elm")),
    ),
    "not entries": lambda sign, good: (*good[:2], b"{}", b"\xff" * 100),
    "behind many that are worth nothing": lambda sign, good: (b"{}",) * 4 + good,
}


async def missed_one(world):
    """The site missed round 1; what it is shown then, and how to sign."""
    outcome = await world.attempt(result=False)
    world.go_on(outcome)
    world.work.session_ended()
    await world.stop()
    await world.start()
    await world.prepare()

    def sign(member, **changes):
        return endorsement(member, outcome.plan, world.model.digest(), **changes)

    return sign, tuple(sign(keys().members[name]) for name in OTHERS)


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_the_model_is_not_accepted(tmp_path, forgery):
    async with hospital(tmp_path) as world:
        sign, good = await missed_one(world)
        answer = await world.ask(world.plan(), endorsements=FORGERIES[forgery](sign, good))
        assert answer.rule == "plan: model"


async def test_entries_that_say_something_else(tmp_path):
    async with hospital(tmp_path) as world:
        _, good = await missed_one(world)
        member = keys().members["dogwood"]
        submitted = entries.UpdateSubmitted(
            **entries.stamp(1_700_000_000_000, bytes(10)),
            actor="site:dogwood",
            study=world.study.id,
            round=1,
            attempt=1,
            masked_update_sha256=world.model.digest(),
            size_bytes=1,
            site_seq=1,
            site_prev=entries.NO_ENTRY,
        )
        signed = entries.sign_site_entry(submitted, member.signing_key)
        assert (await world.ask(world.plan(), endorsements=(*good[:2], signed))).rule == "plan: model"


async def test_real_ones_are(tmp_path):
    async with hospital(tmp_path) as world:
        sign, good = await missed_one(world)
        own = sign(keys().members[ME])
        assert isinstance(await world.ask(world.plan(), endorsements=(*good[:2], own)), KeyBundle)
