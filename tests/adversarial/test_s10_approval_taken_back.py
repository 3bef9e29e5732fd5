"""S-10: a round goes on at a hospital whose steward has said no meanwhile.

Held by: `study_work._still_approved`, asked before the masked update leaves and before shares do.
Tried: rows s10 of `mutations.py`.
"""

from consortium.contract.messages import BundleList
from privacy.secagg.messages import UnmaskRequest, UnmaskShares
from tests.fakes.site_world import hospital


def rejecting_before(world, kind):
    def hook(message):
        if isinstance(message, kind):
            world.decide("rejected")
        return message

    return hook


async def test_before_the_upload(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(to_victim=rejecting_before(world, BundleList))
        assert outcome.said_kinds() == ["KeyBundle", "Refusal"]
        assert outcome.said[-1].rule == "require_approval"
        assert world.line.uploads == []


async def test_before_the_shares(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(to_victim=rejecting_before(world, UnmaskRequest), result=False)
        assert outcome.said_kinds() == ["KeyBundle", "SealedShares", "UploadHeader", "Confirmation", "Refusal"]
        assert world.store.releases(world.digest) == ()


async def test_at_the_next_invitation(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        world.decide("rejected")
        assert (await world.ask(world.plan())).rule == "require_approval"
        assert (await world.prepare()).rule == "require_approval"
        assert len([m for m in world.line.sent if isinstance(m, UnmaskShares)]) == 1
