"""An attempt in groups through every pure layer of both sides and the wire's bytes: twelve hospitals in three groups.

The coordinator's `training_round.py`, its journal's encoding, the codec, and each hospital's `participation.py`.
"""

import hashlib
from dataclasses import replace

import pytest

from consortium import journal, secagg_attempt
from consortium.contract.messages import BundleList, RoundAborted, ShareDelivery
from consortium.contract.plan import RoundPlan, context_of
from consortium.training_round import (
    AddToSum,
    DeadlinePassed,
    MessageArrived,
    NoteDropout,
    NoteViolation,
    Phase,
    Running,
    SiteLeft,
    StartDeadline,
    Summed,
    Tell,
    UploadStored,
    begin,
    enough_shares,
    may_have_opened,
    step,
)
from consortium.wire import codec
from privacy.errors import OutOfOrder
from privacy.secagg import site as secagg
from privacy.secagg.grouped_site import PRIVATE_UPDATES, Grouped
from privacy.secagg.messages import (
    BeaconCommitment,
    CommitmentList,
    GroupedUnmaskRequest,
    RevealList,
    SurvivorProposal,
    UnmaskRequest,
    UploadHeader,
)
from site_agent import participation
from tests.fakes.attempt_play import plan_of
from tests.fakes.memory_round import consortium, deterministic_entropy

MEMBERS = consortium(12).members
NAMES = tuple(member.site for member in MEMBERS)
PLAN = plan_of(MEMBERS, threshold=7, minimum=8, group_size=4)


class Hospitals:
    """Twelve participations and what they have under way to the coordinator, as events of its machine."""

    def __init__(self, plan: RoundPlan = PLAN) -> None:
        self.plan = plan
        self.state, self.effects = begin(plan, None)
        self.effects = list(self.effects)
        self.kept = []
        self.pending = []
        self.silent = set()
        self.here = {}
        for member in MEMBERS:
            machine, first = participation.begin(
                context_of(plan),
                member.site,
                member.signer,
                deterministic_entropy(f"groups, {member.site}"),
                member.long_term_secret,
                cohort=PRIVATE_UPDATES,
            )
            self.here[member.site] = participation.Participation(plan=plan, machine=machine, update_ready=True)
            self.pending.append(MessageArrived(site=member.site, message=first))

    def run(self, until: Phase | None = None) -> None:
        while isinstance(self.state, Running) and self.state.phase is not until:
            if self.pending:
                self.feed(self.pending.pop(0))
            else:
                self.feed(DeadlinePassed(phase=self.state.phase))

    def feed(self, event) -> None:
        event = journal.decode(journal.encode(self.plan, event))
        before = self.state
        self.state, effects = step(before, event)
        if self.state is not before:
            self.kept.append(event)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Tell):
                data = codec.encode_coordinator_message(effect.message)
                self.hear(effect.site, codec.decode_coordinator_message(data))

    def hear(self, name, message) -> None:
        if name in self.silent:
            return
        self.here[name], effects = participation.step(self.here[name], message)
        for effect in effects:
            match effect:
                case secagg.Send(message=UploadHeader() as header):
                    self.pending.append(UploadStored(site=name, header=header))
                case secagg.Send(message=answer):
                    answer = codec.decode_site_message(codec.encode_site_message(answer))
                    self.pending.append(MessageArrived(site=name, message=answer))
                case participation.MaskAndUpload():
                    digest = hashlib.sha256(name.encode()).digest()
                    self.hear(name, participation.UpdateMasked(masked_update_hash=digest))
                case _:
                    pass

    def of(self, kind):
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def told(self, kind):
        return [effect.site for effect in self.of(Tell) if isinstance(effect.message, kind)]


def test_a_round_in_groups():
    play = Hospitals()
    play.run()
    assert isinstance(play.state, Summed)
    assert play.state.survivors == NAMES
    assert play.state.context == context_of(PLAN).digest()
    for kind in (CommitmentList, RevealList, BundleList, ShareDelivery, SurvivorProposal, GroupedUnmaskRequest):
        assert sorted(play.told(kind)) == sorted(NAMES)
    assert play.told(UnmaskRequest) == []
    assert sorted(effect.site for effect in play.of(AddToSum)) == list(NAMES)
    assert [effect.phase for effect in play.of(StartDeadline)] == list(Phase)
    for name in NAMES:
        assert play.here[name].released
        done = play.here[name].machine
        assert (done.context, done.transcript) == (play.state.context, play.state.transcript)


def test_every_message_to_a_site_is_addressed_by_the_attempt_it_was_invited_to():
    """The agent hands messages on by their context; it does not know which group it is in."""
    play = Hospitals()
    play.run()
    assert {effect.message.context for effect in play.of(Tell)} == {context_of(PLAN).digest()}


def test_what_sites_sign_is_heard_as_the_attempts():
    play = Hospitals()
    play.run(until=Phase.INVITING)
    assert play.state.hears(context_of(PLAN).digest())
    assert all(play.state.hears(event.message.context) for event in play.pending)
    assert not play.state.hears(bytes(32))
    play.run(until=Phase.COLLECTING)
    header = next(event.header for event in play.pending if isinstance(event, UploadStored))
    secagg_attempt.admit_upload(play.state.machine, header)
    assert play.here[NAMES[0]].inner is not play.here[NAMES[0]].machine


@pytest.mark.parametrize("phase", list(Phase))
def test_a_hospital_that_leaves(phase):
    play = Hospitals()
    play.run(until=phase)
    play.silent.add(NAMES[4])
    play.pending = [event for event in play.pending if event.site != NAMES[4]]
    play.feed(SiteLeft(site=NAMES[4]))
    play.run()
    assert isinstance(play.state, Summed)
    (note,) = play.of(NoteDropout)
    assert (note.site, note.phase) == (NAMES[4], phase)
    in_the_sum = phase in (Phase.CONFIRMING, Phase.UNMASKING)
    assert (NAMES[4] in play.state.survivors) == in_the_sum
    assert note.reason.endswith("its update is in the sum") == in_the_sum


def test_what_may_be_known_is_known_only_when_all_groups_are_asked():
    play = Hospitals()
    play.run(until=Phase.CONFIRMING)
    assert not may_have_opened(play.state)
    play.run(until=Phase.UNMASKING)
    assert may_have_opened(play.state)
    assert not enough_shares(play.state)
    last = {part.group.context.sites[-1] for part in play.state.machine.parts}
    *_, needed = others = [event for event in play.pending if event.site not in last]
    for event in others[:-1]:
        play.feed(event)
    assert not enough_shares(play.state)
    play.feed(needed)
    assert enough_shares(play.state)


def test_too_many_hospitals_of_one_group_end_the_attempt_for_all():
    play = Hospitals()
    play.run(until=Phase.COLLECTING)
    gone = play.state.machine.parts[1].group.context.sites[:2]
    for name in gone:
        play.silent.add(name)
    play.pending = [event for event in play.pending if event.site not in gone]
    play.run()
    assert play.told(RoundAborted) == list(NAMES)
    assert not may_have_opened(play.state)
    assert all(participation_.over for name, participation_ in play.here.items() if name not in gone)


def test_a_replay_of_what_was_kept_gives_the_same_end():
    play = Hospitals()
    play.run(until=Phase.REVEALING)
    play.pending.append(play.pending[0])  # a repetition changes nothing and is not kept
    play.run()
    state, _ = begin(PLAN, None)
    for event in play.kept:
        state, _ = step(state, event)
    assert state == play.state
    assert len(play.kept) == 12 * 7


def test_a_beacon_in_an_attempt_without_groups_costs_its_sender_its_place():
    plan = plan_of(MEMBERS, threshold=7, minimum=8)
    state, _ = begin(plan, None)
    message = BeaconCommitment(context=state.context, site=NAMES[0], commitment=bytes(32), signature=bytes(64))
    state, effects = step(state, MessageArrived(site=NAMES[0], message=message))
    violation, dropout = effects
    assert isinstance(violation, NoteViolation)
    assert (violation.violation.site, violation.evidence) == (NAMES[0], message)
    assert isinstance(dropout, NoteDropout)
    assert step(state, MessageArrived(site=NAMES[0], message=message)) == (state, ())


def test_a_site_in_one_graph_is_out_of_order_with_messages_of_groups_and_the_other_way_round():
    play = Hospitals()
    play.run(until=Phase.CONFIRMING)
    here = play.here[NAMES[0]]
    assert isinstance(here.machine, Grouped)
    assert here.outlives_the_session  # it has signed a survivor set
    with pytest.raises(OutOfOrder):
        participation.step(here, UnmaskRequest(context=context_of(PLAN).digest(), confirmations=()))
    member = MEMBERS[0]
    plan = plan_of(MEMBERS, threshold=7, minimum=8)
    machine, _ = participation.begin(
        context_of(plan), member.site, member.signer, deterministic_entropy("x"), member.long_term_secret,
        cohort=PRIVATE_UPDATES,
    )  # fmt: skip
    plain = participation.Participation(plan=plan, machine=machine)
    for message in (
        CommitmentList(context=context_of(plan).digest(), commitments=()),
        RevealList(context=context_of(plan).digest(), nonces=()),
        GroupedUnmaskRequest(context=context_of(plan).digest(), groups=()),
    ):
        with pytest.raises(OutOfOrder):
            participation.step(plain, message)


def test_a_plan_with_groups_is_another_plan_and_survives_its_bytes():
    assert RoundPlan.from_bytes(PLAN.to_bytes()) == PLAN
    assert context_of(PLAN).digest() != context_of(replace(PLAN, group_size=0)).digest()
