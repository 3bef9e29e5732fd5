"""G-12: a patient who withdrew is trained on, or tested on, again.

By a study at work that keeps the cohort it read; by one that is prepared later; because the process that trains is not
told; or by an update, a cache or carried state that was made with the patient.
Held by: `StudyWork` reads the cohort again before the next round it takes part in, `read_cohort` puts nobody who
withdrew on a side, `prepare` throws away what was carried, and the log gets a new `cohort.snapshot`.

Tried: rows g12 of `mutations.py`: each test failed with its check taken out.
"""

import pytest

from audit import entries
from consortium.contract.messages import Refusal
from privacy.secagg.messages import KeyBundle
from site_agent.cohort import read_cohort
from site_agent.left_out import withdrawn_at
from site_agent.withdrawing import withdraw
from tests.fakes.site_world import hospital, make_world, small_study

WHO = tuple(f"SECRET-{n:03}" for n in range(4))


async def they_withdraw(world, who=WHO):
    return await withdraw(world.home, world.store, world.ledger, "ward", who)


def seen(world):
    prepared = world.work._prepared
    assert prepared is not None
    return prepared.seen.patients


async def test_it_is_in_no_cohort_from_the_next_round_on(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        before, room = seen(world), world.work._room
        carried = world.home.folder / "carried" / world.study.digest()[:16]
        carried.mkdir(parents=True, exist_ok=True)
        (carried / "of-a-round").write_bytes(b"made with them")
        await they_withdraw(world)
        assert isinstance(await world.ask(world.plan(round=2)), KeyBundle | Refusal)
        assert seen(world) == before - len(WHO)
        assert world.work._room is not room
        assert not (carried / "of-a-round").exists()
        signed = [type(e).__name__ for e in map(entries.parse_entry, world.store.signed_entries())]
        assert signed.count("CohortSnapshot") == 2
        assert signed.index("PatientsWithdrawn") > signed.index("CohortSnapshot")
        assert signed.count("DpConfigured") == 1


async def test_a_study_that_too_few_are_left_for_is_refused(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        await they_withdraw(world, tuple(f"SECRET-{n:03}" for n in range(seen(world) - 10)))
        answer = await world.ask(world.plan(round=2))
        assert isinstance(answer, Refusal)


async def test_nor_in_one_that_is_prepared_later(tmp_path):
    world = make_world(tmp_path)
    await they_withdraw(world)
    await world.start()
    try:
        await world.prepare()
        dataset = world.home.config.datasets["ward"]
        whole = read_cohort(world.study, dataset).summary.patients
        assert seen(world) == whole - len(WHO)
    finally:
        await world.stop()


@pytest.mark.parametrize("side", ["train", "test"])
async def test_nor_on_either_side(tmp_path, side):
    world = make_world(tmp_path, small_study())
    dataset = world.home.config.datasets["ward"]
    whole = read_cohort(world.study, dataset)
    of_it = {float(age) for age in getattr(whole, side).features[:, 0]}
    who = [n for n in range(whole.summary.patients) if any(abs((30 + n - 50) / 10 - age) < 1e-6 for age in of_it)][:2]
    await they_withdraw(world, tuple(f"SECRET-{n:03}" for n in who))
    left = read_cohort(world.study, dataset, None, withdrawn_at(world.home, world.store))
    assert getattr(left, side).patient_count == getattr(whole, side).patient_count - 2
    world.store.close()
