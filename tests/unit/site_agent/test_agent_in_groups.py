"""A real hospital in an attempt in groups: what it sends, what it writes down, and what it sends again after a restart.

The plan says groups of three, which the four hospitals of the small study make one of; only the check that the
study file says so too is left out, because a file may not. The other hospitals are the pure machines, with zeros.
"""

from dataclasses import replace

import numpy as np
import pytest

from consortium import secagg_attempt
from consortium.contract.layout import round_layout
from consortium.contract.messages import BundleList, Refusal, RoundResult, ShareDelivery
from consortium.contract.names import Digest
from consortium.contract.plan import RoundKind, context_of
from consortium.contract.server_optimizer import next_global_model
from privacy.encoding import decode, encode
from privacy.secagg import coordinator, grouped_coordinator
from privacy.secagg import site as secagg
from privacy.secagg.grouped_site import PRIVATE_UPDATES
from privacy.secagg.masks import RunningSum, apply_masks, vector_hash
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    Confirmation,
    KeyBundle,
    SealedShares,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secret import Secret
from site_agent import participation, plan_check
from tests.fakes.memory_round import deterministic_entropy
from tests.fakes.site_world import ME, hospital, keys


@pytest.fixture(autouse=True)
def groups_of_three(monkeypatch):
    compare = plan_check._same
    unless_size = lambda rule, found, allowed: rule == "group size" or compare(rule, found, allowed)  # noqa: E731
    monkeypatch.setattr(plan_check, "_same", unless_size)


def grouped_plan(world):
    layout = round_layout(world.study, parameters=world.model.parameters, kind=RoundKind.TRAIN, measured=False)
    return replace(world.plan(), group_size=3, layout=layout)


class Run:
    """The coordinator's machine, the pure hospitals, and the real one."""

    def __init__(self, world, plan):
        self.world, self.plan, self.context = world, plan, context_of(plan)
        self.machine = secagg_attempt.begin(self.context)
        self.sum = RunningSum(plan.layout)
        self.masked, self.here, self.said, self.request = {}, {}, [], None
        self.first = []
        for name in (p.site for p in plan.participants if p.site != ME):
            machine, first = participation.begin(
                self.context,
                name,
                keys().members[name].signer(plan.suite),
                deterministic_entropy(name),
                Secret(b"l" * 32),
                cohort=PRIVATE_UPDATES,
            )
            self.here[name] = participation.Participation(plan=plan, machine=machine, update_ready=True)
            self.first.append(first)

    async def to_the_end(self):
        await self.world.tell(self.world.invitation(self.plan))
        for first in self.first:
            await self.step(first)
        while not isinstance(self.machine, coordinator.Done | coordinator.Aborted):
            message = await self.world.hear()
            self.said.append(message)
            await self.step(coordinator.SiteLost(site=ME) if isinstance(message, Refusal) else message)
        return self.machine

    async def step(self, event):
        self.machine, effects = secagg_attempt.step(self.machine, event)
        digest = self.context.digest()
        for effect in effects:
            match effect:
                case grouped_coordinator.SendCommitments(to=to, listed=message):
                    await self.tell(to, message)
                case grouped_coordinator.SendReveals(to=to, listed=message):
                    await self.tell(to, message)
                case coordinator.SendBundles(to=to, bundles=bundles):
                    await self.tell(to, BundleList(context=digest, bundles=bundles))
                case coordinator.SendShares(to=name, members=members, deliveries=deliveries):
                    await self.tell((name,), ShareDelivery(context=digest, members=members, deliveries=deliveries))
                case coordinator.AddUpload(site=name):
                    raw = self.world.line.uploads[-1][1] if name == ME else None
                    self.sum.add(np.frombuffer(raw, self.plan.layout.dtype) if raw else self.masked[name])
                case coordinator.SendProposal(to=to, proposal=message):
                    await self.tell(to, message)
                case grouped_coordinator.SendGroupedUnmaskRequest(to=to, request=message):
                    self.request = message
                    await self.tell(to, message)
                case coordinator.Unmasked(removal=removal):
                    self.sum.remove(removal)

    async def tell(self, to, message):
        if ME in to:
            await self.world.tell(message)
        for name in to:
            if name != ME:
                await self.puppet(name, message)

    async def puppet(self, name, event):
        self.here[name], effects = participation.step(self.here[name], event)
        for effect in effects:
            match effect:
                case secagg.Send(message=message):
                    await self.step(message)
                case participation.MaskAndUpload(masks=masks, dither=dither):
                    lanes = {lane.name: np.zeros(lane.length) for lane in self.plan.layout.lanes}
                    vector = encode(lanes | {"weight": np.ones(1)}, self.plan.layout, dither)
                    apply_masks(vector, masks)
                    self.masked[name] = vector
                    await self.puppet(name, participation.UpdateMasked(masked_update_hash=vector_hash(vector)))

    def result(self):
        """4.5: what the coordinator says of the sum, which the hospital can fetch."""
        sums = decode(self.sum.result, self.plan.layout, survivors=4)
        after = next_global_model(self.world.study, self.plan, self.world.model, sums, survivors=4)
        sha256 = vector_hash(self.sum.result)
        self.world.line.vectors[Digest(sha256.hex())] = self.sum.result.tobytes()
        return RoundResult(
            context=self.context.digest(),
            transcript=self.machine.transcript,
            aggregate_hash=sha256,
            next_model_digest=after.digest(),
        )


async def test_a_round_in_groups_from_the_invitation_to_the_next_model(tmp_path):
    async with hospital(tmp_path) as world:
        run = Run(world, grouped_plan(world))
        done = await run.to_the_end()
        assert isinstance(done, coordinator.Done)
        assert [type(message) for message in run.said] == [
            BeaconCommitment, BeaconReveal, KeyBundle, SealedShares, UploadHeader, Confirmation, UnmaskShares,
        ]  # fmt: skip
        (release,) = world.store.releases(world.digest)
        assert (release.context, release.transcript) == (run.context.digest(), done.transcript)
        assert release.survivors == done.survivors == run.context.sites
        result = run.result()
        await world.tell(result)
        verified = await world.hear()
        assert (verified.context, verified.next_model_digest) == (result.context, result.next_model_digest)
        assert world.store.chain(world.digest).transcript == done.transcript.hex()


async def test_shares_are_sent_again_for_the_same_sum_and_for_no_other_also_after_a_restart(tmp_path):
    async with hospital(tmp_path) as world:
        run = Run(world, grouped_plan(world))
        await run.to_the_end()
        sent = run.said[-1]
        await world.tell(run.request)
        assert await world.hear() == sent
        await world.stop()
        await world.start()
        await world.prepare()
        (group,) = run.request.groups
        for other in (
            replace(run.request, groups=(replace(group, survivors=group.survivors[:3]),)),
            replace(run.request, groups=(replace(group, transcript=bytes(32)),)),
            UnmaskRequest(context=run.request.context, confirmations=group.confirmations),
        ):
            await world.tell(other)
        await world.idle()
        assert world.line.inbox.empty()
        await world.tell(run.request)
        assert await world.hear() == sent


async def test_a_measured_attempt_in_groups_is_refused(tmp_path):
    """Also where the study's own rule has been got past: exact sums over groups are never helped to."""
    async with hospital(tmp_path) as world:
        answer = await world.ask(replace(world.plan(), group_size=3))
        assert isinstance(answer, Refusal)
        assert answer.rule == "secure aggregation"
