"""S-04: two sums of exact metrics whose survivors differ by one hospital give that hospital's metrics away.

Held by: the rule about survivor sets that `study_work` makes from the durable record of releases, protocol section 2. A
coordinator may say nothing about a sum that it has: what counts is that shares left. Tried: row s04 of `mutations.py`.
"""

from tests.fakes.site_world import endorsement, hospital, keys

LEFT = ["KeyBundle", "SealedShares", "UploadHeader", "Refusal"]


async def test_the_next_round_without_one_hospital(tmp_path):
    async with hospital(tmp_path) as world:
        assert (await world.attempt()).closed
        outcome = await world.attempt(drops=("dogwood",), result=False)
        assert outcome.said_kinds() == LEFT
        assert world.line.refusals()[-1].rule == "secure aggregation"
        assert len(world.store.releases(world.digest)) == 1


async def test_the_same_round_again_without_one_hospital(tmp_path):
    async with hospital(tmp_path) as world:
        assert (await world.attempt(result=False)).closed  # the coordinator keeps it to itself
        outcome = await world.attempt(world.plan(attempt=2), drops=("dogwood",), result=False)
        assert outcome.said_kinds() == LEFT
        assert len(world.store.releases(world.digest)) == 1


async def test_one_model_is_measured_over_one_set_however_far_the_sets_are_apart(tmp_path):
    async with hospital(tmp_path) as world:
        one, other = ("alder", "birch", "cedar"), ("birch", "cedar", "dogwood")
        assert (await world.attempt(world.plan(sites=one), result=False)).closed
        outcome = await world.attempt(world.plan(sites=other, attempt=2), result=False)
        assert outcome.said_kinds() == LEFT


async def test_the_same_also_after_a_restart(tmp_path):
    async with hospital(tmp_path) as world:
        assert (await world.attempt(result=False)).closed
        await world.stop()
        await world.start()
        await world.prepare()
        outcome = await world.attempt(world.plan(attempt=2), drops=("dogwood",), result=False)
        assert outcome.said_kinds() == LEFT


async def test_a_kept_back_sum_counts_for_the_next_model_too(tmp_path):
    async with hospital(tmp_path) as world:
        assert (await world.attempt(world.plan(measured=False))).closed
        kept_back = await world.attempt(result=False)
        world.go_on(kept_back)
        others = [keys().members[name] for name in ("alder", "cedar", "dogwood")]
        signed = tuple(endorsement(other, kept_back.plan, world.model.digest()) for other in others)
        outcome = await world.attempt(drops=("dogwood",), endorsements=signed, result=False)
        assert outcome.said_kinds() == LEFT


async def test_the_final_model_is_measured_over_one_set_only(tmp_path):
    async with hospital(tmp_path) as world:
        for _ in range(2):
            assert (await world.attempt()).closed
        assert (await world.attempt(result=False)).closed
        outcome = await world.attempt(world.plan(attempt=2), drops=("dogwood",), result=False)
        assert outcome.said_kinds() == LEFT
        same = await world.attempt(world.plan(attempt=3), result=False)
        assert same.said_kinds() == ["KeyBundle", "SealedShares", "UploadHeader", "Confirmation", "UnmaskShares"]


async def test_without_metrics_any_survivors_will_do(tmp_path):
    async with hospital(tmp_path) as world:
        assert (await world.attempt()).closed
        assert (await world.attempt(world.plan(measured=False), drops=("dogwood",))).closed
