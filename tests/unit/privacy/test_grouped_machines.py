"""Section 10: an attempt of twelve sites in three groups of four, seen from both sides."""

from dataclasses import replace
from pathlib import Path

import pytest

from privacy.errors import BelowThreshold, ContextRefused, LocalProtocolError, OutOfOrder, PeerViolation
from privacy.secagg import coordinator, grouped_coordinator, grouped_site, site
from privacy.secagg.beacon import commitment_of
from privacy.secagg.cohort import CohortRule
from privacy.secagg.groups import all_survivors, whole_transcript
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconPhase,
    CommitmentList,
    GroupedUnmaskRequest,
    KeyBundle,
    Phase,
    RevealList,
    SurvivorProposal,
)
from privacy.secagg.transitions import Moves
from tests.fakes.grouped_round import PHASES, GroupedRound, grouped
from tests.fakes.memory_round import deterministic_entropy

PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"
TWELVE = grouped(12, group_size=4, threshold=7, minimum=8)
"""Each group of four has threshold 3 and minimum 3: it can lose one site. Eleven sites make two groups."""
NAMES = TWELVE.context.sites


def finished(**options):
    round_ = GroupedRound(TWELVE, **options)
    round_.run()
    return round_


def test_a_round_in_groups():
    round_ = finished()
    assert round_.survivors == NAMES
    assert (round_.aggregate() == round_.plain_aggregate()).all()
    assert [len(group) for group in round_.groups()] == [4, 4, 4]
    assert round_.blamed() == []
    assert round_.dropouts() == {}
    (unmasked,) = round_.of(coordinator.Unmasked)
    (request,) = round_.of(grouped_coordinator.SendGroupedUnmaskRequest)
    assert request.to == NAMES
    assert [len(group.confirmations) for group in request.request.groups] == [3, 3, 3]
    assert unmasked.transcript == whole_transcript(TWELVE.context.digest(), request.request.groups)
    for name in NAMES:
        state = round_.site_states[name]
        assert isinstance(state, site.Done)
        # What a site writes down and chains is the whole attempt, not its group.
        assert (state.context, state.transcript) == (TWELVE.context.digest(), unmasked.transcript)
        assert state.survivors == NAMES == all_survivors(request.request.groups)
        released, sent = round_.site_effects[name][-2:]
        assert isinstance(released, site.PersistReleased)
        assert (released.context, released.transcript, released.survivors) == (
            state.context,
            state.transcript,
            state.survivors,
        )
        assert released.model_hash == TWELVE.context.model_hash
        assert sent == site.Send(message=released.shares)


def test_every_site_draws_the_groups_that_the_coordinator_draws():
    round_ = GroupedRound(TWELVE)
    round_.run(until=KeyBundle)
    parts = round_.coordinator_state.parts
    for name in NAMES:
        state = round_.site_states[name]
        assert state.groups == tuple(part.group for part in parts)
        assert name in state.own.sites


def test_another_attempt_has_other_groups():
    later = replace(TWELVE, context=replace(TWELVE.context, attempt=2))
    first, second = GroupedRound(TWELVE), GroupedRound(later)
    for round_ in (first, second):
        round_.run(until=KeyBundle)
    assert first.groups() != second.groups()


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_one_site_lost_in_each_phase(phase, silent):
    """A commitment that does not come leaves eleven sites in two groups; a nonce likewise."""
    name = NAMES[5]
    round_ = finished(losses={name: phase}, silent=frozenset([name] if silent else []))
    assert (round_.aggregate() == round_.plain_aggregate()).all()
    assert (name in round_.survivors) == (phase in (Phase.CONFIRM, Phase.UNMASK))
    assert len(round_.survivors) >= 11
    assert round_.dropouts() == {name: phase}
    assert len(round_.groups()) == (2 if phase in tuple(BeaconPhase) else 3)
    assert round_.blamed() == []


@pytest.mark.parametrize("phase", list(Phase))
def test_a_group_below_its_threshold_ends_the_attempt_and_nothing_is_revealed(phase):
    probe = GroupedRound(TWELVE)
    probe.run(until=KeyBundle)
    first_two = probe.groups()[1][:2]
    round_ = finished(losses=dict.fromkeys(first_two, phase))
    assert round_.coordinator_state == coordinator.Aborted(reason=BelowThreshold(2, 3))
    assert round_.of(coordinator.Unmasked) == []
    assert len(round_.of(coordinator.Abandon)) == 1
    if phase is not Phase.UNMASK:
        assert round_.released() == set()
        assert round_.of(grouped_coordinator.SendGroupedUnmaskRequest) == []


def test_nobody_is_asked_for_shares_before_every_group_has_confirmed():
    """The groups go at their own pace; here the confirmations of one are held up until all else stands still."""
    round_ = GroupedRound(TWELVE)
    round_.run(until=KeyBundle)
    slow = round_.groups()[0]
    held = []

    def hold(name, message):
        if name in slow and isinstance(message, SurvivorProposal):
            held.append((name, message))
            return None
        return message

    round_.tamper_to_site = hold
    while round_.queue:
        round_.deliver(*round_.queue.popleft())
    assert grouped_coordinator.phase_of(round_.coordinator_state) is Phase.CONFIRM
    machines = [part.machine for part in round_.coordinator_state.parts]
    assert [isinstance(machine, coordinator.Unmasking) for machine in machines] == [False, True, True]
    assert round_.of(grouped_coordinator.SendGroupedUnmaskRequest) == []
    assert grouped_coordinator.opened_over(round_.coordinator_state) == ()
    round_.queue.extend(held)
    round_.run(until=GroupedUnmaskRequest)
    assert grouped_coordinator.phase_of(round_.coordinator_state) is Phase.UNMASK
    assert grouped_coordinator.opened_over(round_.coordinator_state) == NAMES
    round_.run()
    assert (round_.aggregate() == round_.plain_aggregate()).all()


def test_a_deadline_cuts_off_the_groups_that_are_behind_and_no_others():
    round_ = GroupedRound(TWELVE)
    round_.run(until=KeyBundle)
    ahead = round_.groups()[0]
    waiting = [(name, message) for name, message in round_.queue if name not in ahead]
    round_.queue = type(round_.queue)((name, message) for name, message in round_.queue if name in ahead)
    while round_.queue:
        round_.deliver(*round_.queue.popleft())
    first = round_.coordinator_state.parts[0].machine
    assert grouped_coordinator.phase_of(round_.coordinator_state) is Phase.ADVERTISE
    late, *in_time = waiting
    for name, message in in_time:
        round_.deliver(name, message)
    round_.tell_coordinator(coordinator.DeadlinePassed())
    assert round_.dropouts() == {late[0]: Phase.ADVERTISE}
    assert round_.coordinator_state.parts[0].machine == first
    round_.run()
    assert (round_.aggregate() == round_.plain_aggregate()).all()
    assert set(round_.survivors) == set(NAMES) - {late[0]}


def test_replaying_the_events_gives_the_same_end():
    round_ = finished(losses={NAMES[2]: Phase.MASK, NAMES[7]: BeaconPhase.REVEAL}, reorder=True)
    state, effects = grouped_coordinator.begin(TWELVE.context)
    for event in round_.events:
        state, more = grouped_coordinator.step(state, event)
        effects += more
    assert state == round_.coordinator_state
    assert list(effects) == round_.effects


def test_a_site_that_was_away_is_asked_again_for_all_groups():
    round_ = GroupedRound(TWELVE)
    round_.run(until=GroupedUnmaskRequest)
    away = NAMES[0]
    round_.tell_coordinator(coordinator.SiteLost(site=away, may_return=True))
    before = len(round_.of(grouped_coordinator.SendGroupedUnmaskRequest))
    assert not grouped_coordinator.enough_shares(round_.coordinator_state)
    round_.tell_coordinator(coordinator.SiteReturned(site=away))
    first, again = round_.of(grouped_coordinator.SendGroupedUnmaskRequest)[before - 1 :]
    assert again == grouped_coordinator.SendGroupedUnmaskRequest(to=(away,), request=first.request)
    round_.run()
    assert (round_.aggregate() == round_.plain_aggregate()).all()


def test_the_same_shares_are_sent_again_for_the_same_sum_only():
    round_ = finished()
    name = NAMES[3]
    (asked,) = round_.of(grouped_coordinator.SendGroupedUnmaskRequest)
    state = round_.site_states[name]
    after, effects = grouped_site.step(state, asked.request)
    assert after is state
    assert effects == (site.Send(message=state.shares),)
    fewer = replace(asked.request.groups[0], survivors=asked.request.groups[0].survivors[:3])
    for other in (
        replace(asked.request, context=bytes(32)),
        replace(asked.request, groups=(fewer, *asked.request.groups[1:])),
        replace(asked.request, groups=asked.request.groups[:2]),
    ):
        with pytest.raises(OutOfOrder):
            grouped_site.step(state, other)


def test_enough_shares_are_those_of_every_group():
    round_ = GroupedRound(TWELVE)
    round_.run(until=GroupedUnmaskRequest)
    group_of = {name: index for index, group in enumerate(round_.groups()) for name in group}
    answered = [0, 0, 0]
    while not grouped_coordinator.enough_shares(round_.coordinator_state):
        name, request = round_.queue.popleft()
        round_.tell_site(name, request)
        sender, shares = round_.queue.pop()
        round_.tell_coordinator(shares)
        answered[group_of[sender]] += 1
    assert min(answered) == 3


def test_messages_that_come_at_the_wrong_time_are_nobodys_fault_or_their_senders():
    round_ = GroupedRound(TWELVE)
    name, commitment = round_.queue[0]
    round_.run(until=RevealList)
    state = round_.site_states[name]
    assert isinstance(state, grouped_site.Revealing)
    round_.tell_coordinator(commitment)
    round_.tell_coordinator(state.reveal)
    round_.tell_coordinator(replace(commitment, context=bytes(32)))
    ignored = [effect.reason for effect in round_.of(coordinator.Ignored)]
    assert ignored == ["after its phase was closed"] * 3
    empty = {"pair_key": b"", "box_key": b"", "self_mask_commitment": b"", "signature": b""}
    round_.tell_coordinator(KeyBundle(context=commitment.context, site="site-q", **empty))
    assert [effect.reason for effect in round_.of(coordinator.Ignored)][3:] == ["in no group: its nonce did not come"]
    round_.run()
    assert round_.blamed() == []
    assert (round_.aggregate() == round_.plain_aggregate()).all()


def test_two_commitments_of_one_site():
    round_ = GroupedRound(TWELVE)
    name, commitment = round_.queue.popleft()
    round_.tell_coordinator(commitment)
    round_.tell_coordinator(commitment)
    assert round_.of(coordinator.Ignored)[0].reason == "a repetition"
    round_.tell_coordinator(replace(commitment, commitment=bytes(32)))
    assert round_.blamed() == [name]
    assert round_.dropouts() == {name: BeaconPhase.COMMIT}
    round_.tell_coordinator(commitment)
    assert round_.of(coordinator.Ignored)[1].reason == "after the site was lost"
    round_.run()
    assert name not in round_.survivors
    assert (round_.aggregate() == round_.plain_aggregate()).all()


@pytest.mark.parametrize("changes", [{"signature": bytes(64)}, {"commitment": b"short"}, {"site": "site-q"}])
def test_a_commitment_that_an_honest_site_does_not_send(changes):
    round_ = GroupedRound(TWELVE)
    name, commitment = round_.queue.popleft()
    round_.tell_coordinator(replace(commitment, **changes))
    assert round_.blamed() == [changes.get("site", name)]


def test_a_message_of_a_later_phase_in_the_beacon_is_blamed():
    round_ = GroupedRound(TWELVE)
    name, commitment = round_.queue.popleft()
    early = KeyBundle(
        context=commitment.context, site=name, pair_key=b"", box_key=b"", self_mask_commitment=b"", signature=b""
    )
    round_.tell_coordinator(replace(early, context=bytes(32)))
    assert round_.blamed() == []
    round_.tell_coordinator(early)
    assert round_.blamed() == [name]


def test_too_few_commitments_and_no_more_than_two_nonces_may_be_missing():
    few = finished(losses=dict.fromkeys(NAMES[:5], BeaconPhase.COMMIT))
    assert few.coordinator_state == coordinator.Aborted(reason=BelowThreshold(7, 8))
    three = finished(losses=dict.fromkeys(NAMES[:3], BeaconPhase.REVEAL))
    assert three.coordinator_state == coordinator.Aborted(reason=BelowThreshold(9, 10))
    two = finished(losses=dict.fromkeys(NAMES[:2], BeaconPhase.REVEAL))
    assert two.survivors == NAMES[2:]
    assert (two.aggregate() == two.plain_aggregate()).all()


def test_a_site_lost_after_its_nonce_is_in_a_group_and_does_not_change_the_groups():
    round_ = GroupedRound(TWELVE)
    round_.run(until=CommitmentList)
    while len(round_.queue) > 12:
        round_.deliver(*round_.queue.popleft())
    while any(isinstance(message, CommitmentList) for _, message in round_.queue):
        round_.deliver(*round_.queue.popleft())
    name, reveal = round_.queue.popleft()
    round_.tell_coordinator(reveal)
    round_.broken.add(name)
    round_.tell_coordinator(coordinator.SiteLost(site=name))
    round_.run()
    assert round_.dropouts() == {name: BeaconPhase.REVEAL}
    assert len([e for e in round_.of(coordinator.Dropout) if e.site == name]) == 1
    assert sorted(s for group in round_.groups() for s in group) == list(NAMES)
    assert set(round_.survivors) == set(NAMES) - {name}
    assert (round_.aggregate() == round_.plain_aggregate()).all()


def test_what_shells_ask_of_the_coordinator():
    round_ = GroupedRound(TWELVE)
    whole = TWELVE.context.digest()
    assert grouped_coordinator.phase_of(round_.coordinator_state) is BeaconPhase.COMMIT
    assert grouped_coordinator.hears(round_.coordinator_state, whole)
    assert not grouped_coordinator.hears(round_.coordinator_state, bytes(32))
    round_.run(until=RevealList)
    parts = round_.coordinator_state.parts
    assert all(grouped_coordinator.hears(round_.coordinator_state, part.group.digest) for part in parts)
    assert grouped_coordinator.in_sum(round_.coordinator_state) == ()
    round_.run(until=SurvivorProposal)
    assert grouped_coordinator.in_sum(round_.coordinator_state) == NAMES
    header = round_.site_states[NAMES[0]].inner.header
    with pytest.raises(OutOfOrder):
        grouped_coordinator.admit_upload(round_.coordinator_state, header)
    with pytest.raises(OutOfOrder):
        grouped_coordinator.admit_upload(round_.coordinator_state, replace(header, site="site-q"))
    round_.run()
    assert grouped_coordinator.phase_of(round_.coordinator_state) is None
    assert not grouped_coordinator.hears(round_.coordinator_state, whole)
    assert grouped_coordinator.in_sum(round_.coordinator_state) == ()


def test_an_upload_is_admitted_by_the_group_of_its_sender():
    round_ = GroupedRound(TWELVE)
    seen = []
    round_.tamper_to_coordinator = lambda name, message: seen.append((name, message)) or message
    round_.run(until=site.SharesDelivered)
    name, delivery = round_.queue.popleft()
    round_.tell_site(name, delivery)
    header = seen[-1][1]
    grouped_coordinator.admit_upload(round_.coordinator_state, header)
    with pytest.raises(PeerViolation):
        grouped_coordinator.admit_upload(round_.coordinator_state, replace(header, signature=bytes(64)))


def test_a_site_leaves_when_it_is_told_that_the_attempt_is_over():
    reason = BelowThreshold(1, 2)
    ended = site.AttemptEnded(reason=reason)
    round_ = GroupedRound(TWELVE)
    for until in (None, RevealList, GroupedUnmaskRequest):
        if until is not None:
            round_.run(until=until)
        state, effects = grouped_site.step(round_.site_states[NAMES[0]], ended)
        assert state == site.Aborted(reason=reason)
        assert effects == (site.Abandon(reason=reason),)
        assert grouped_site.step(state, ended) == (state, ())


def begin(**changes):
    member = TWELVE.members[0]
    arguments = {
        "context": TWELVE.context,
        "me": member.site,
        "signer": member.signer,
        "entropy": deterministic_entropy("a site"),
        "long_term_secret": member.long_term_secret,
        "cohort": grouped_site.PRIVATE_UPDATES,
    } | changes
    return grouped_site.begin(**arguments)


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (ContextRefused, {"cohort": None}),
        (ContextRefused, {"cohort": CohortRule(least_difference=2, update_is_private=True)}),
        (ContextRefused, {"context": replace(TWELVE.context, group_size=0)}),
        (LocalProtocolError, {"me": "site-q"}),
        (LocalProtocolError, {"signer": TWELVE.members[1].signer}),
        (LocalProtocolError, {"entropy": lambda size: bytes(size - 1)}),
    ],
)
def test_an_attempt_that_a_site_does_not_begin(error, changes):
    with pytest.raises(error):
        begin(**changes)


def test_clones_of_one_machine_have_nonces_of_their_own():
    """Threat 23: the same entropy at two sites; the long-term secrets separate them."""
    one, two = TWELVE.members[:2]
    nonces = {
        begin(me=member.site, signer=member.signer, long_term_secret=member.long_term_secret)[0].nonce.expose()
        for member in (one, two)
    }
    assert len(nonces) == 2


def test_a_commitment_is_one_site_s_in_one_attempt():
    digest, nonce = TWELVE.context.digest(), bytes(32)
    values = {
        commitment_of(digest, NAMES[0], nonce),
        commitment_of(digest, NAMES[1], nonce),
        commitment_of(bytes(32), NAMES[0], nonce),
        commitment_of(digest, NAMES[0], bytes(31) + b"1"),
    }
    assert len(values) == 4
    assert isinstance(begin()[1], BeaconCommitment)


@pytest.mark.parametrize(
    ("machine", "moves"), [("site in groups", grouped_site.MOVES), ("coordinator in groups", grouped_coordinator.MOVES)]
)
def test_the_page_shows_the_table_of_the_code(machine, moves):
    begin_mark, end_mark = f"<!-- moves of the {machine} -->\n", f"<!-- end of the moves of the {machine} -->"
    drawn = PAGE.read_text().partition(begin_mark)[2].partition(end_mark)[0]
    assert drawn == moves.drawn(), "print it with `python -m privacy.secagg.transitions` and put it into the page"


@pytest.mark.parametrize("phase", [None, *PHASES])
def test_whole_attempts_keep_to_the_tables(phase, monkeypatch):
    made = []
    make = Moves.make

    def watched(self, state, event):
        after, effects = make(self, state, event)
        outputs = {type(e.message) if isinstance(e, site.Send) else type(e) for e in effects}
        assert outputs <= set(self.find(state, event).outputs), (state, event, effects)
        made.append((self, type(state), type(event)))
        return after, effects

    monkeypatch.setattr(Moves, "make", watched)
    for lost in (1, 5):
        round_ = GroupedRound(TWELVE, losses=dict.fromkeys(NAMES[:lost], phase), silent=frozenset(NAMES[:2]))
        round_.run()
    assert {table for table, _, _ in made} >= {grouped_site.MOVES, grouped_coordinator.MOVES}
    if phase is None:
        reached = {(state, event) for table, state, event in made if table is grouped_site.MOVES}
        told = {(s, e) for move in grouped_site.MOVES for s in move.states for e in move.events}
        assert reached == {(s, e) for s, e in told if e is not site.AttemptEnded and s is not site.Done}
