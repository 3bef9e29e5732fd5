"""Threat 15: boxes given to another recipient, cut short, attributed to another sender, or left out.

Held by: `site._check_deliveries` (privacy/secagg/site.py), where one signature covers T1 and all boxes of a sender,
and `check_sealed` (privacy/secagg/checks.py) at the coordinator.
Tried: rows 15 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator, keys, site
from privacy.secagg.messages import COORDINATOR, Phase, SealedShares
from privacy.secagg.suites import SuiteName
from privacy.secagg.transcript import box_hash
from privacy.secret import Secret
from tests.fakes.liar import blamed, resealed, signed_boxes
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUPS = {suite: consortium(4, suite=suite) for suite in SuiteName}
A, B, C, D = (site_name(i) for i in range(4))


@pytest.fixture(params=GROUPS.values(), ids=GROUPS.keys())
def group(request):
    return request.param


def delivered(group, name=D):
    round_ = MemoryRound(group)
    round_.run(until=Phase.MASK)
    return round_, round_.site_states[name], round_.request_for(name)


def with_delivery(event, place, **changes):
    deliveries = list(event.deliveries)
    deliveries[place] = replace(deliveries[place], **changes)
    return replace(event, deliveries=tuple(deliveries))


def test_a_box_meant_for_another_recipient(group):
    round_, state, event = delivered(group)
    for_c = round_.request_for(C).deliveries[0]
    assert for_c.sender == event.deliveries[0].sender == A
    lie = with_delivery(event, 0, shares=for_c.shares, pair_seed=for_c.pair_seed)
    assert blamed(state, lie).site == COORDINATOR
    whole = replace(event, deliveries=(for_c, *event.deliveries[1:]))
    assert blamed(state, whole).rule == "a sender's list of boxes is shown whole"


def test_a_box_of_another_sender(group):
    _, state, event = delivered(group)
    first, second, third = event.deliveries
    swapped = replace(event, deliveries=(replace(second, sender=A), replace(first, sender=B), third))
    assert blamed(state, swapped).site == COORDINATOR


@pytest.mark.parametrize("field", ["shares", "pair_seed"])
@pytest.mark.parametrize("cut", [slice(0, -1), slice(0, 0), slice(1, None)])
def test_a_box_cut_short(group, field, cut):
    _, state, event = delivered(group)
    assert blamed(state, with_delivery(event, 1, **{field: getattr(event.deliveries[1], field)[cut]}))


def test_the_hashes_of_the_other_boxes_are_signed_too(group):
    _, state, event = delivered(group)
    others = event.deliveries[0].other_box_hashes
    for lie in (others[:1], others[::-1], ((others[0][0], bytes(32)), others[1]), (*others, (D, bytes(32)))):
        assert blamed(state, with_delivery(event, 0, other_box_hashes=lie)).site == COORDINATOR


def test_a_box_left_out_or_doubled(group):
    _, state, event = delivered(group)
    for deliveries in (event.deliveries[1:], (*event.deliveries, event.deliveries[0])):
        assert "every other member" in blamed(state, replace(event, deliveries=deliveries)).rule


def test_members_without_this_site_or_with_strangers(group):
    _, state, event = delivered(group)
    for members in (event.members[:3], (*event.members, site_name(9)), event.members[::-1], (A, *event.members)):
        assert "U2" in blamed(state, replace(event, members=members)).rule


def test_a_colluding_sender_that_seals_rubbish_is_named(group):
    """The signature holds, so it is the sender's fault, and the site that cannot open its box can say so."""
    round_, state, event = delivered(group)
    sealed = round_.site_effects[A][0].message
    suite = group.context.algorithms
    for rubbish in ({"shares": bytes(suite.shares_box_bytes)}, {"pair_seed": bytes(suite.pair_box_bytes)}):
        boxes = tuple(replace(box, **rubbish) if box.recipient == D else box for box in sealed.boxes)
        lie = signed_boxes(group.member(A), state.key_transcript, replace(sealed, boxes=boxes))
        assert blamed(state, relisted(event, lie)).site == A
    too_large = resealed(group.member(A), round_.site_states[A], sealed, {D: b"\xff" * 66})
    assert "two shares" in blamed(state, relisted(event, too_large)).rule


def test_a_colluding_sender_that_seals_more_than_it_should_is_named(group):
    round_, state, event = delivered(group)
    bundle = next(bundle for bundle in state.bundles if bundle.site == D)
    suite = group.context.algorithms
    long = keys.seal(
        Secret(bytes(33)),
        bundle.pair_key,
        suite=suite,
        label="pair",
        key_transcript=state.key_transcript,
        sender=A,
        recipient=D,
    )
    sealed = round_.site_effects[A][0].message
    boxes = tuple(replace(box, pair_seed=long) if box.recipient == D else box for box in sealed.boxes)
    lie = signed_boxes(group.member(A), state.key_transcript, replace(sealed, boxes=boxes))
    violation = blamed(state, relisted(event, lie))
    assert (violation.site, violation.rule) == (
        A,
        f"boxes of {suite.shares_box_bytes} and {suite.pair_box_bytes} bytes",
    )


def relisted(event, sealed):
    """The delivery to D as an honest coordinator makes it from A's list of boxes."""
    box = next(box for box in sealed.boxes if box.recipient == D)
    return with_delivery(
        event,
        0,
        shares=box.shares,
        pair_seed=box.pair_seed,
        other_box_hashes=tuple((b.recipient, box_hash(b)) for b in sealed.boxes if b.recipient != D),
        signature=sealed.signature,
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda boxes: boxes[1:],
        lambda boxes: (*boxes, boxes[0]),
        lambda boxes: boxes[::-1],
        lambda boxes: (replace(boxes[0], shares=boxes[0].shares[1:]), *boxes[1:]),
        lambda boxes: (replace(boxes[0], pair_seed=b""), *boxes[1:]),
        lambda boxes: (replace(boxes[0], recipient=A), *boxes[1:]),
    ],
)
def test_the_coordinator_refuses_a_list_of_the_wrong_shape(group, change):
    round_ = MemoryRound(group)

    def lie(name, message):
        if name != A or not isinstance(message, SealedShares):
            return message
        t1 = round_.site_states[A].key_transcript
        return signed_boxes(group.member(A), t1, replace(message, boxes=change(message.boxes)))

    round_.tamper_to_coordinator = lie
    round_.run()
    assert round_.blamed() == [A]
    assert round_.survivors == (B, C, D)
    assert isinstance(round_.site_states[B], site.Done)
    assert isinstance(round_.coordinator_state, coordinator.Done)
