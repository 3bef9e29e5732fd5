"""S-01: a signed round plan that lowers something, asks for more, or brings others in.

Held by: `plan_check.check_plan`. The hospital says which rule, trains nothing, spends nothing, and sends no key.
Tried: rows s01 of `mutations.py`.
"""

import dataclasses
from datetime import UTC, datetime, timedelta

from consortium.contract.layout import LaneName, round_layout
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import RoundKind
from privacy.secagg.messages import KeyBundle
from privacy.secagg.suites import SuiteName
from site_agent import study_work
from tests.fakes.site_world import ME, SITES, hospital, keys, new_authority, new_member, small_study, write_site_file

OTHER = Digest("a" * 64)
PARAMETERS = small_study().parameters
TRAIN_AND_MORE = round_layout(small_study(), parameters=PARAMETERS, kind=RoundKind.TRAIN, measured=True)


def finer(layout):
    update = layout.lanes[0]
    return dataclasses.replace(layout, lanes=(dataclasses.replace(update, clip=update.clip / 2), *layout.lanes[1:]))


def with_another(layout):
    extra = dataclasses.replace(layout.lanes[1], name="extra")
    return dataclasses.replace(layout, lanes=(*layout.lanes, extra))


def of_another_key(plan):
    first = dataclasses.replace(plan.participants[0], signing_key="b" * 64)
    return {"participants": (first, *plan.participants[1:])}


def with_a_stranger(plan):
    stranger = dataclasses.replace(plan.participants[0], site=SiteId("aaa-hospital"))
    return {"participants": (stranger, *plan.participants)}


LIES = {
    "consortium": {"consortium": "another"},
    "study name": {"study": "another-study"},
    "suite": {"suite": SuiteName.P256},
    "threshold": {"threshold": 4},
    "minimum": {"minimum": 4},
    "round deadline": {"round_deadline_s": 1e6 / 2},
    "upload deadline": {"upload_deadline_s": 1.0},
    "kind": {"kind": RoundKind.EVALUATE, "layout": round_layout(
        small_study(), parameters=PARAMETERS, kind=RoundKind.EVALUATE, measured=True)},
    "layout": {"layout": finer(TRAIN_AND_MORE)},
    "model": {"model_digest": OTHER},
    "previous transcript": {"previous_transcript": OTHER},
}  # fmt: skip


async def refused(world, plan, rule, **changes):
    answer = await world.ask(plan, **changes)
    assert not isinstance(answer, KeyBundle), f"{rule}: it joined"
    assert answer.rule == f"plan: {rule}"
    assert (answer.study_digest, answer.round, answer.attempt) == (world.digest, plan.round, plan.attempt)
    assert world.ledger.report() == ()
    assert world.store.peers() == ()


async def test_every_lie_alone(tmp_path):
    async with hospital(tmp_path) as world:
        for rule, changes in LIES.items():
            await refused(world, world.plan(**changes), rule)
        await refused(world, world.plan(layout=with_another(TRAIN_AND_MORE)), "layout")
        lanes = tuple(lane for lane in TRAIN_AND_MORE.lanes if lane.name != LaneName.CORRECT)
        await refused(world, world.plan(layout=dataclasses.replace(TRAIN_AND_MORE, lanes=lanes)), "layout")
        assert isinstance(await world.ask(world.plan()), KeyBundle)  # and the truth is accepted


async def test_rounds_that_are_over_or_never_come(tmp_path):
    async with hospital(tmp_path) as world:
        for _ in range(2):
            await world.attempt()
        closed = await world.ask(world.plan(round=1, attempt=9))
        assert closed.rule == "plan: attempt"
        await world.stop()
        await world.start()  # a restart forgets what was joined, not what was closed
        await world.prepare()
        closed = await world.ask(world.plan(round=1, attempt=9))
        assert closed.rule == "plan: round"
        beyond = await world.ask(world.plan(round=4))
        assert beyond.rule == "plan: round"
        training = round_layout(world.study, parameters=PARAMETERS, kind=RoundKind.TRAIN, measured=True)
        more = await world.ask(world.plan(round=3, kind=RoundKind.TRAIN, layout=training))
        assert more.rule == "plan: kind"
        blind = round_layout(world.study, parameters=PARAMETERS, kind=RoundKind.TRAIN, measured=False)
        without_metrics = await world.ask(world.plan(round=3, layout=blind))
        assert without_metrics.rule == "plan: layout"


async def test_who_takes_part(tmp_path):
    async with hospital(tmp_path) as world:
        others = tuple(name for name in SITES if name != ME)
        await refused(world, world.plan(sites=others), "participants")
        plan = world.plan()
        await refused(world, dataclasses.replace(plan, **with_a_stranger(plan)), "participants")
        await refused(world, dataclasses.replace(plan, **of_another_key(plan)), "keys of alder")
        await refused(world, plan, "certificates", certificates=world.invitation(plan).certificates[:3])
        twice = (world.invitation(plan).certificates[0],) * 4
        await refused(world, plan, "keys of birch", certificates=twice)


async def test_certificates_that_are_not_good_now(tmp_path):
    async with hospital(tmp_path) as world:
        now = datetime.now(UTC)
        long_ago = now - timedelta(days=30)
        bad = {
            "foreign": new_member(new_authority(), "alder"),
            "expired": new_member(keys().authority, "alder", at=long_ago, valid_for=timedelta(days=20)),
            "not yet valid": new_member(keys().authority, "alder", at=now + timedelta(days=1)),
        }
        for member in bad.values():
            honest = world.plan()
            plan = dataclasses.replace(honest, participants=(member.participant, *honest.participants[1:]))
            shown = (member.certificate_der, *world.invitation(honest).certificates[1:])
            await refused(world, plan, "certificate of alder", certificates=shown)
        unreadable = (b"nothing", *world.invitation(honest).certificates[1:])
        await refused(world, honest, "certificate of alder", certificates=unreadable)


async def test_a_signature_that_is_not_the_coordinators(tmp_path):
    async with hospital(tmp_path) as world:
        plan = world.plan()
        for signature in (bytes(64), b"", keys().members[ME].signing_key.sign(plan.to_bytes())):
            await refused(world, plan, "signature", signature=signature)
        # Signed, but as something else than a plan.
        await refused(world, plan, "signature", signature=keys().coordinator.sign(plan.to_bytes()))


async def test_the_hospitals_own_floors(tmp_path):
    async with hospital(tmp_path) as world:
        write_site_file(tmp_path, world.study, minimum_threshold=4)
        await refused(world, world.plan(), "threshold")
        # Four are invited, but three would be enough for a sum.
        write_site_file(tmp_path, world.study, minimum_sites=4)
        await refused(world, world.plan(), "minimum")


async def test_after_the_study_has_expired(tmp_path, monkeypatch):
    async with hospital(tmp_path) as world:

        class Later(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime(2036, 1, 1, tzinfo=tz)

        monkeypatch.setattr(study_work, "datetime", Later)
        await refused(world, world.plan(), "expiry")
