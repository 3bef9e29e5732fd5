"""Threats 1, 2, 4, 9, 14 and 21 over the real wire: four real agents, and a coordinator that lies to them.

What counts is what left the hospitals: no shares of both kinds for one site, none for two sums, none twice in different
bytes, none for another model's sum. The same threats against the bare machines: tests/adversarial/test_t01 and so on.
"""

from dataclasses import replace

import pytest

from audit import entries
from consortium.contract.messages import BundleList, Refusal
from consortium.contract.names import Digest
from consortium.contract.plan import context_of
from privacy.errors import BelowThreshold
from privacy.secagg import coordinator
from privacy.secagg.messages import (
    Confirmation,
    KeyBundle,
    SealedShares,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from tests.fakes.lying_coordinator import ALDER, BIRCH, CEDAR, DOGWOOD, consortium_of_agents
from tests.fakes.site_world import SITES

OTHERS = (BIRCH, CEDAR, DOGWOOD)


def refusals(world, name):
    return [message.rule for site, message in world.service.from_sites if site == name and isinstance(message, Refusal)]


def without(proposal, *names):
    """The same proposal, with fewer survivors, each of them proved by its real header."""
    kept = [header for header in proposal.headers if header.site not in names]
    return replace(proposal, survivors=tuple(header.site for header in kept), headers=tuple(kept))


def never_both_kinds_and_never_two_messages(world, context):
    """What must hold whatever was said: one release, of one kind for each site, by every hospital."""
    for name in SITES:
        assert len(set(world.left(name, UnmaskShares, context=context))) <= 1
    for name in SITES:
        of_b, of_r = world.owners(name, context=context)
        assert not of_b & of_r
    revealed = [world.owners(name, context=context) for name in SITES]
    assert not set().union(*(b for b, _ in revealed)) & set().union(*(r for _, r in revealed))


# --- 1: one site alive and dropped -----------------------------------------------------------------------------------


async def test_t01_a_site_that_is_alive_and_dropped_gets_no_share_revealed(tmp_path):
    """DOGWOOD's upload did not come. ALDER hears that it survived all the same, BIRCH that CEDAR survived twice."""
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(drops=(DOGWOOD,), stop_before=SurvivorProposal)
        proposal = run.withheld[ALDER]
        assert proposal.survivors == (ALDER, BIRCH, CEDAR)
        claimed = replace(proposal.headers[2], site=DOGWOOD)
        alive = replace(proposal, survivors=(*proposal.survivors, DOGWOOD), headers=(*proposal.headers, claimed))
        twice = replace(
            proposal, survivors=(*proposal.survivors, CEDAR), headers=(*proposal.headers, proposal.headers[2])
        )
        await world.tell(ALDER, alive)
        await world.tell(BIRCH, twice)
        await world.tell(CEDAR, proposal)
        await world.settled()
        assert refusals(world, ALDER) == refusals(world, BIRCH) == ["secure aggregation"]
        (vote,) = world.left(CEDAR, Confirmation, context=run.context)
        # Whatever is asked of them now, they have nothing to answer with; CEDAR's own vote is no quorum.
        for name in (ALDER, BIRCH, CEDAR):
            await world.tell(name, proposal)
            await world.tell(name, UnmaskRequest(context=run.context, confirmations=(vote,)))
        await world.settled()
        assert world.shares() == []
        assert [type(message).__name__ for site, message in world.service.from_sites if site == CEDAR][-2:] == [
            "Refusal",
            "StudyPrepared",
        ]


async def test_t01_of_an_honest_round_each_site_gets_one_kind_revealed(tmp_path):
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(drops=(DOGWOOD,))
        assert run.closed
        await world.settled()
        for name in (ALDER, BIRCH, CEDAR):
            assert world.owners(name, context=run.context) == ({ALDER, BIRCH, CEDAR}, {DOGWOOD})
        assert world.shares(DOGWOOD) == []
        never_both_kinds_and_never_two_messages(world, run.context)


# --- 2: another survivor set for every site --------------------------------------------------------------------------


async def test_t02_no_two_sites_release_over_different_survivor_sets(tmp_path):
    """Two sites sign one set, two the other; every mixture of their signatures is tried on every one of them."""
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(stop_before=SurvivorProposal)
        whole = run.withheld[ALDER]
        smaller = without(whole, ALDER)
        for name, proposal in ((ALDER, whole), (BIRCH, whole), (CEDAR, smaller), (DOGWOOD, smaller)):
            await world.tell(name, proposal)
        signed = await world.answers(Confirmation, *SITES, context=run.context)
        assert len({vote.transcript for vote in signed.values()}) == 2
        for name in SITES:
            for votes in (SITES, OTHERS, (ALDER, BIRCH, CEDAR), (ALDER, BIRCH), (CEDAR, DOGWOOD)):
                chosen = tuple(
                    replace(signed[one], transcript=signed[name].transcript) if one in (CEDAR, DOGWOOD) else signed[one]
                    for one in votes
                )
                for confirmations in (tuple(signed[one] for one in votes), chosen):
                    await world.tell(name, UnmaskRequest(context=run.context, confirmations=confirmations))
        await world.settled()
        assert world.shares() == []
        for name in SITES:
            assert refusals(world, name) == ["secure aggregation"]
            assert len(world.left(name, Confirmation, context=run.context)) == 1


async def test_t02_a_site_left_out_behind_its_back_keeps_its_self_mask(tmp_path):
    """ALDER uploaded and signed the whole set; three others signed the set without it, and open their sum.

    They may: to them it dropped out. But then shares of its root are out, so no share of its self mask may be.
    """
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(stop_before=SurvivorProposal)
        whole = run.withheld[ALDER]
        await world.tell(ALDER, whole)
        for name in OTHERS:
            await world.tell(name, without(whole, ALDER))
        signed = await world.answers(Confirmation, *SITES, context=run.context)
        request = UnmaskRequest(context=run.context, confirmations=tuple(signed[name] for name in OTHERS))
        for name in SITES:
            await world.tell(name, request)
        await world.settled()
        for name in SITES:  # and once more with the vote that ALDER did give
            await world.tell(name, replace(request, confirmations=tuple(signed[name] for name in SITES)))
        await world.settled()
        assert world.shares(ALDER) == []
        for name in OTHERS:
            assert world.owners(name, context=run.context) == ({BIRCH, CEDAR, DOGWOOD}, {ALDER})
        never_both_kinds_and_never_two_messages(world, run.context)


# --- 4: a second request ---------------------------------------------------------------------------------------------


async def test_t04_a_second_request_gets_the_same_bytes_or_nothing(tmp_path):
    """Also from an agent that was killed and started again on the same home."""
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(drops=(DOGWOOD,), stop_before=UnmaskRequest)
        request = run.withheld[ALDER]
        proposal = SurvivorProposal(context=run.context, survivors=run.state.survivors, headers=run.state.headers)
        await world.tell(ALDER, request)
        first = (await world.answers(UnmaskShares, ALDER, context=run.context))[ALDER]
        others = [
            replace(request, confirmations=tuple(replace(c, transcript=b"t" * 32) for c in request.confirmations)),
            replace(request, context=b"c" * 32),
        ]

        async def ask_again():
            await world.tell(ALDER, request)
            for other in others:
                await world.tell(ALDER, other)
            # Nor does a survivor set that was never signed lead anywhere: the coordinator would like shares of b of
            # DOGWOOD, or of r of CEDAR.
            await world.tell(ALDER, without(proposal, CEDAR))
            await world.tell(ALDER, proposal)
            await world.settled(ALDER)
            assert set(world.left(ALDER, UnmaskShares, context=run.context)) == {first}
            assert len(world.left(ALDER, Confirmation, context=run.context)) == 1

        await ask_again()
        await world.restart_agent(ALDER)
        await ask_again()
        await world.settled(ALDER)
        assert len(world.agents[ALDER].store.releases(world.study.digest())) == 1
        for name in (BIRCH, CEDAR):
            await world.tell(name, request)
        await world.answers(UnmaskShares, BIRCH, CEDAR, context=run.context)
        await world.finish(run)
        await world.close(run)
        # Once the round is closed at the hospital, nothing is sent again, not even the same.
        sent = len(world.shares(ALDER))
        await world.tell(ALDER, request)
        await world.settled(ALDER)
        assert len(world.shares(ALDER)) == sent
        never_both_kinds_and_never_two_messages(world, run.context)


async def test_t04_an_agent_killed_before_its_release_has_nothing_to_release(tmp_path):
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(stop_before=UnmaskRequest)
        await world.restart_agent(ALDER)
        await world.settled(ALDER)
        proposal = SurvivorProposal(context=run.context, survivors=run.state.survivors, headers=run.state.headers)
        for message in (proposal, run.withheld[ALDER], run.withheld[ALDER]):
            await world.tell(ALDER, message)
        await world.settled(ALDER)
        assert world.shares() == []
        assert world.agents[ALDER].store.releases(world.study.digest()) == ()
        # Nor does it join the attempt again, in which it has masked one vector already.
        await world.tell(ALDER, world.invitation(run.plan))
        await world.settled(ALDER)
        bundles = world.left(ALDER, KeyBundle, context=run.context)
        uploads = world.left(ALDER, UploadHeader, context=run.context)
        assert len(uploads) == 1
        assert len(set(bundles)) == len(bundles)  # fresh keys if any, under which the old boxes do not open


# --- 9: another model for every site ---------------------------------------------------------------------------------


async def test_t09_a_model_of_the_coordinators_making_is_trained_by_nobody(tmp_path):
    """ALDER is shown another model than the rest, under a plan that the coordinator really signed."""
    async with consortium_of_agents(tmp_path) as world:
        honest = world.plan()
        run = await world.run(honest, plans={ALDER: replace(honest, model_digest=Digest("ab" * 32))})
        assert refusals(world, ALDER) == ["plan: model"]
        assert run.kinds(ALDER) == ["Refusal"]
        assert run.closed
        assert run.state.survivors == OTHERS
        spent = [entry for site, entry in world.service.log if site == ALDER and isinstance(entry, entries.DpSpent)]
        assert spent == []


async def test_t09_sites_in_two_contexts_deal_no_shares_to_each_other(tmp_path):
    """Two plans that are both acceptable by themselves: ALDER is in another attempt than the rest.

    The coordinator rewrites the context of every bundle for every listener; nobody deals a single share.
    """
    async with consortium_of_agents(tmp_path) as world:
        plans = {ALDER: world.plan(), **dict.fromkeys(OTHERS, world.plan())}
        contexts = {name: context_of(plan).digest() for name, plan in plans.items()}
        for name, plan in plans.items():
            await world.tell(name, world.invitation(plan))
        bundles = {name: (await world.answers(KeyBundle, name, context=contexts[name]))[name] for name in SITES}
        for name, context in contexts.items():
            rewritten = tuple(replace(bundles[one], context=context) for one in SITES)
            await world.tell(name, BundleList(context=context, bundles=rewritten))
        await world.settled()
        assert [
            m for _, m in world.service.from_sites if isinstance(m, SealedShares | UploadHeader | UnmaskShares)
        ] == []
        for name in SITES:
            assert refusals(world, name) == ["secure aggregation"]


# --- 14: the same model again without the victim ---------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
async def test_t14_a_round_run_again_without_the_victim_releases_nothing(tmp_path, restarted):
    """The sum over all is out, exact metrics in it; the coordinator keeps the result back and asks for one without
    DOGWOOD, once by not inviting it and once by losing its upload."""
    async with consortium_of_agents(tmp_path) as world:
        first = await world.run()
        assert first.closed
        await world.settled()
        released = len(world.shares())
        if restarted:
            for name in SITES:
                await world.restart_agent(name)
            await world.settled()
        not_invited = await world.run(world.plan(sites=(ALDER, BIRCH, CEDAR)))
        upload_lost = await world.run(world.plan(), drops=(DOGWOOD,))
        for again in (not_invited, upload_lost):
            assert isinstance(again.state, coordinator.Aborted)
            assert isinstance(again.state.reason, BelowThreshold)
            assert "UnmaskShares" not in {kind for name in SITES for kind in again.kinds(name)}
            assert "Confirmation" not in {kind for name in SITES for kind in again.kinds(name)}
        assert len(world.shares()) == released


async def test_t14_with_differential_privacy_alone_another_attempt_is_trained_and_paid_for_again(tmp_path):
    """Without the metric lanes the attempt may be run again over fewer: the update is another one, and charged."""
    async with consortium_of_agents(tmp_path) as world:
        first = await world.run(world.plan(measured=False))
        again = await world.run(world.plan(measured=False, sites=(ALDER, BIRCH, CEDAR)))
        assert first.closed
        assert again.closed
        await world.settled()
        for name in (ALDER, BIRCH, CEDAR):
            spent = [e for site, e in world.service.log if site == name and isinstance(e, entries.DpSpent)]
            assert [entry.attempt for entry in spent] == [first.plan.attempt, again.plan.attempt]
            assert spent[0].epsilon < spent[1].epsilon
        never_both_kinds_and_never_two_messages(world, first.context)
        never_both_kinds_and_never_two_messages(world, again.context)


# --- 21: the coordinator crashes between 4.3 and 4.4 -----------------------------------------------------------------


async def test_t21_after_a_crash_the_round_is_finished_and_not_run_again(tmp_path):
    """It crashes when every survivor has signed and two have sent their shares; the next one has the journal."""
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(stop_before=UnmaskRequest)
        request = run.withheld[ALDER]
        for name in (ALDER, BIRCH):
            await world.tell(name, request)
        before = await world.answers(UnmaskShares, ALDER, BIRCH, context=run.context)
        await world.restart_coordinator()
        for name in SITES:
            await world.tell(name, request)
        after = await world.answers(UnmaskShares, *SITES, context=run.context)
        await world.settled()
        assert {name: after[name] for name in before} == before
        assert world.left(ALDER, UnmaskShares, context=run.context) == [before[ALDER]] * 2
        never_both_kinds_and_never_two_messages(world, run.context)
        await world.finish(run)
        assert run.closed
        await world.close(run)
        assert all(len(world.left(name, UploadHeader, context=run.context)) == 1 for name in SITES)
        following = await world.run()
        assert following.closed


async def test_t21_after_a_crash_no_other_sum_can_be_asked_for(tmp_path):
    """The coordinator comes back with another survivor set for the uploads it has, or with another attempt."""
    async with consortium_of_agents(tmp_path) as world:
        run = await world.run(stop_before=UnmaskRequest)
        signed = {name: world.left(name, Confirmation, context=run.context)[0] for name in SITES}
        await world.restart_coordinator()
        whole = SurvivorProposal(context=run.context, survivors=run.state.survivors, headers=run.state.headers)
        for name in OTHERS:
            await world.tell(name, without(whole, ALDER))
            forged = tuple(replace(signed[one], transcript=b"t" * 32) for one in SITES)
            await world.tell(name, UnmaskRequest(context=run.context, confirmations=forged))
        await world.settled()
        assert world.shares() == []
        assert all(len(world.left(name, Confirmation, context=run.context)) == 1 for name in SITES)
        # One that went wrong is not asked for again either: the sites left the attempt, and only a new one goes on.
        for name in OTHERS:
            await world.tell(name, run.withheld[name])
        await world.settled()
        assert world.shares() == []
        again = await world.run()
        assert again.closed
        assert run.context != again.context
        never_both_kinds_and_never_two_messages(world, again.context)
