"""What must be refused: changes to the messages of the frozen golden rounds, with the error each must end in.

`bad_messages.json` holds, for every golden round with a dropout, a list of cases. A case says who hears the message
(`to`), what it is (`message`, of the site `sender` where one sends it), where it is changed (`path`: names of fields
and places in lists), what stands there instead (`value`, plain JSON), and how the listener answers: the class of its
error, whom it blames, and the section of the protocol that says so. `bad_contexts` and `bad_values` are the attempts
and the updates that are refused before there is any message.

The error of every case is written here by hand; `test_bad_vectors.py` holds the machines to it.
"""

import json
from dataclasses import replace
from typing import Any

from privacy.secagg import coordinator, site
from privacy.secagg.messages import (
    COORDINATOR,
    Confirmation,
    KeyBundle,
    Phase,
    SealedShares,
    SiteId,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.suites import SuiteName
from tests.fakes import liar
from tests.fakes.memory_round import REPLY_OF, REQUEST_OF, Consortium, Link, MemoryRound, consortium, site_name
from tests.vectors.plain import from_plain, to_plain

ROUNDS = ("golden_round_with_dropout.json", "golden_round_p256_with_dropout.json")
A, B, C, D = (site_name(i) for i in range(4))  # B drops out before its upload
LISTENER = C
MESSAGES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        site.BundlesListed,
        site.SharesDelivered,
        SurvivorProposal,
        UnmaskRequest,
        KeyBundle,
        SealedShares,
        UploadHeader,
        Confirmation,
        UnmaskShares,
    )
}
ZEROS = "00" * 32


class GoldenRound(MemoryRound):
    """The golden round once more, with its frozen boxes, so that its messages and states are the frozen ones."""

    def __init__(self, golden: dict[str, Any]) -> None:
        boxes = {plain["site"]: from_plain(SealedShares, plain) for plain in golden["sealed"]}
        super().__init__(
            consortium(len(golden["members"]), suite=SuiteName(golden["context"]["suite"])),
            links={SiteId(golden["dropout"]): Link(lose_request=Phase.MASK)},
            seed="golden",
            tamper_to_coordinator=lambda name, m: boxes[name] if isinstance(m, SealedShares) else m,
        )


def heard_by_site(golden: dict[str, Any], kind: type) -> tuple[site.State, Any]:
    """The listener as it waits for a message of one kind, and the message."""
    round_ = GoldenRound(golden)
    round_.run(until=REQUEST_OF[kind])
    return round_.site_states[LISTENER], round_.request_for(LISTENER)


def heard_by_coordinator(golden: dict[str, Any], kind: type, sender: str) -> tuple[coordinator.State, Any]:
    """The coordinator as it waits for a message of one kind from one site alone, and the message."""
    round_ = GoldenRound(golden)
    unchanged, kept = round_.tamper_to_coordinator, []
    if kind is KeyBundle:
        return round_.coordinator_state, dict(round_.queue)[SiteId(sender)]

    def keep(name: SiteId, message: Any) -> Any:
        changed = unchanged(name, message)
        if name == sender and REPLY_OF[type(message)] is REPLY_OF[kind]:
            kept.append(changed)
            return None
        return changed

    round_.tamper_to_coordinator = keep
    while round_.queue:
        round_.deliver(*round_.queue.popleft())
    return round_.coordinator_state, kept[0]


def changed(message: Any, path: list[Any], value: Any) -> Any:
    """The message with what stands at `path` exchanged for `value`; all of it for an empty path."""
    plain = to_plain(message)
    if not path:
        return from_plain(type(message), value)
    *way, last = path
    holder = plain
    for step in way:
        holder = holder[step]
    holder[last] = value
    return from_plain(type(message), plain)


# --- the cases -----------------------------------------------------------------------------------------------------


def _flipped(text: str) -> str:
    return f"{int(text[:2], 16) ^ 1:02x}" + text[2:]


def _to_site(  # noqa: PLR0917 - the columns of a table
    kind: type, name: str, section: str, path: list[Any], value: Any, blames: str = COORDINATOR
) -> Any:
    return {
        "name": name,
        "section": section,
        "to": LISTENER,
        "message": kind.__name__,
        "path": path,
        "value": to_plain(value),
        "error": "PeerViolation" if blames else "BelowThreshold",
        "blames": blames,
    }


def _to_coordinator(  # noqa: PLR0917 - the columns of a table
    kind: type, name: str, section: str, path: list[Any], value: Any, error: str = "PeerViolation"
) -> Any:
    return {
        "name": name,
        "section": section,
        "to": COORDINATOR,
        "sender": C,
        "message": kind.__name__,
        "path": path,
        "value": to_plain(value),
        "error": error,
        "blames": C if error == "PeerViolation" else "",
    }


def _bad_bundles(golden: dict[str, Any], group: Consortium) -> list[Any]:
    kind = site.BundlesListed
    _, listed = heard_by_site(golden, kind)
    first, second, own, last = listed.bundles
    colluding = liar.signed_bundle(group.member(D), replace(last, box_key=first.box_key))
    no_point = liar.signed_bundle(group.member(D), replace(last, pair_key=bytes(len(last.pair_key))))
    short = liar.signed_bundle(group.member(D), replace(last, self_mask_commitment=bytes(31)))
    bundles = ["bundles"]
    return [
        _to_site(kind, "the list of another attempt", "3", ["context"], ZEROS),
        _to_site(kind, "a bundle of another attempt", "3", [*bundles, 0, "context"], ZEROS),
        _to_site(kind, "a forged signature", "4.0 (1)", [*bundles, 0, "signature"], _flipped(first.signature.hex())),
        _to_site(kind, "a substituted key", "4.0 (1)", [*bundles, 0, "box_key"], last.box_key),
        _to_site(kind, "a bundle under another name", "4.0 (1)", [*bundles, 0, "site"], "site-0"),
        _to_site(kind, "one key under two names", "4.0 (2)", [*bundles, 3], colluding, D),
        _to_site(kind, "a key that is no point", "4.0 (2)", [*bundles, 3], no_point, D),
        _to_site(kind, "a short commitment", "4.0", [*bundles, 3], short, D),
        _to_site(kind, "a site twice", "4.0", [*bundles, 1], first),
        _to_site(kind, "one's own bundle left out", "4.0 (3)", bundles, [first, second, last]),
        _to_site(kind, "too few bundles", "4.0 (4)", bundles, [first, own], ""),
    ]


def _bad_boxes(golden: dict[str, Any], group: Consortium) -> list[Any]:
    kind = site.SharesDelivered
    state, delivered = heard_by_site(golden, kind)
    assert isinstance(state, site.Sharing)
    sealed = from_plain(SealedShares, golden["sealed"][0])
    empty = tuple(
        replace(box, shares=bytes(len(box.shares))) if box.recipient == LISTENER else box for box in sealed.boxes
    )
    rubbish = liar.signed_boxes(group.member(A), state.key_transcript, replace(sealed, boxes=empty))
    first = delivered.deliveries[0]
    (own,) = [box for box in rubbish.boxes if box.recipient == LISTENER]
    signed_rubbish = replace(first, shares=own.shares, signature=rubbish.signature)
    place: list[Any] = ["deliveries", 0]
    return [
        _to_site(kind, "boxes of another attempt", "3", ["context"], ZEROS),
        _to_site(kind, "a changed box", "4.1", [*place, "shares"], _flipped(first.shares.hex())),
        _to_site(kind, "a changed pairwise seed", "4.1", [*place, "pair_seed"], _flipped(first.pair_seed.hex())),
        _to_site(kind, "a forged signature", "4.1", [*place, "signature"], _flipped(first.signature.hex())),
        _to_site(kind, "another sender", "4.1", [*place, "sender"], B),
        _to_site(kind, "another box of the sender changed", "4.1", [*place, "other_box_hashes", 0, 1], ZEROS),
        _to_site(kind, "a well-signed box that does not open", "4.1", place, signed_rubbish, A),
        _to_site(kind, "a box left out", "4.1", ["deliveries"], delivered.deliveries[1:]),
        _to_site(kind, "members without oneself", "4.1", ["members"], [A, B, D]),
        _to_site(kind, "a stranger among the members", "4.1", ["members"], [A, B, C, "site-e"]),
    ]


def _bad_proposals(golden: dict[str, Any], group: Consortium) -> list[Any]:
    kind = SurvivorProposal
    _, proposal = heard_by_site(golden, kind)
    first, own, _ = proposal.headers
    elsewhere = liar.signed_header(group.member(A), replace(first, keying_hash=bytes(32)))
    mine = liar.signed_header(group.member(C), replace(own, masked_update_hash=bytes(32)))
    header: list[Any] = ["headers", 0]
    return [
        _to_site(kind, "a proposal of another attempt", "3", ["context"], ZEROS),
        _to_site(
            kind, "a header's forged signature", "4.3 (2)", [*header, "signature"], _flipped(first.signature.hex())
        ),
        _to_site(kind, "a changed vector", "4.3 (2)", [*header, "masked_update_hash"], ZEROS),
        _to_site(kind, "a vector masked under other keys", "4.3 (2)", header, elsewhere),
        _to_site(kind, "one's own vector changed, well signed", "4.3 (3)", ["headers", 1], mine),
        _to_site(kind, "a dropout as survivor", "4.3 (2)", ["survivors"], [A, B, D]),
        _to_site(kind, "a survivor without a header", "4.3 (2)", ["headers"], [first, own]),
        _to_site(kind, "a survivor twice", "4.3 (1)", ["survivors"], [A, A, C]),
        _to_site(kind, "a stranger as survivor", "4.3 (1)", ["survivors"], [A, C, "site-e"]),
    ]


def _bad_requests(golden: dict[str, Any], group: Consortium) -> list[Any]:
    kind = UnmaskRequest
    _, request = heard_by_site(golden, kind)
    first, own, _ = request.confirmations
    outsider = liar.signed_confirmation(group.member(B), first.context, first.transcript)
    other = liar.signed_confirmation(group.member(A), first.context, bytes(32))
    vote: list[Any] = ["confirmations", 0]
    return [
        _to_site(kind, "a request of another attempt", "3", ["context"], ZEROS),
        _to_site(kind, "a forged confirmation", "4.4 (3)", [*vote, "signature"], _flipped(first.signature.hex())),
        _to_site(kind, "a confirmation of another T3, well signed", "4.4 (3)", vote, other),
        _to_site(kind, "a confirmation under another name", "4.4 (3)", ["confirmations", 2, "site"], A),
        _to_site(kind, "one vote twice", "4.4 (1)", ["confirmations"], [first, own, own]),
        _to_site(kind, "a dropout's vote", "4.4 (1)", ["confirmations"], [first, outsider, own]),
        _to_site(kind, "too few votes", "4.4 (2)", ["confirmations"], [first, own]),
    ]


def _bad_answers(golden: dict[str, Any], group: Consortium) -> list[Any]:
    """What the coordinator refuses, and whom it blames: whoever sent it under its own certificate."""
    _, bundle = heard_by_coordinator(golden, KeyBundle, C)
    _, sealed = heard_by_coordinator(golden, SealedShares, C)
    _, header = heard_by_coordinator(golden, UploadHeader, C)
    _, vote = heard_by_coordinator(golden, Confirmation, C)
    state, shares = heard_by_coordinator(golden, UnmaskShares, C)
    assert isinstance(state, coordinator.Unmasking)
    swapped = liar.signed_unmask_shares(
        group.member(C),
        state.transcript,
        replace(shares, self_mask_shares=shares.root_shares, root_shares=shares.self_mask_shares),
    )
    too_large = replace(shares.self_mask_shares[0], share=b"\xff" * 33)
    no_element = liar.signed_unmask_shares(
        group.member(C), state.transcript, replace(shares, self_mask_shares=(too_large, *shares.self_mask_shares[1:]))
    )
    one: list[Any] = ["self_mask_shares", 0, "share"]
    return [
        _to_coordinator(KeyBundle, "of another attempt", "3", ["context"], ZEROS, "Ignored"),
        _to_coordinator(KeyBundle, "a forged signature", "4.0 (1)", ["signature"], _flipped(bundle.signature.hex())),
        _to_coordinator(
            SealedShares, "a changed box", "4.1", ["boxes", 0, "shares"], _flipped(sealed.boxes[0].shares.hex())
        ),
        _to_coordinator(SealedShares, "a box left out", "4.1", ["boxes"], sealed.boxes[1:]),
        _to_coordinator(UploadHeader, "another vector", "4.2", ["masked_update_hash"], ZEROS),
        _to_coordinator(UploadHeader, "other keys", "4.2", ["keying_hash"], _flipped(header.keying_hash.hex())),
        _to_coordinator(Confirmation, "another T3", "4.3", ["transcript"], _flipped(vote.transcript.hex())),
        _to_coordinator(Confirmation, "a forged signature", "4.3", ["signature"], _flipped(vote.signature.hex())),
        _to_coordinator(UnmaskShares, "a changed share", "4.4", one, _flipped(shares.self_mask_shares[0].share.hex())),
        _to_coordinator(UnmaskShares, "both kinds exchanged, well signed", "4.4", [], swapped),
        _to_coordinator(UnmaskShares, "no element of the field, well signed", "4.4", [], no_element),
    ]


def bad_contexts() -> list[Any]:
    """Attempts that both sides refuse before there is any key: a change of the context of four sites."""
    context = consortium(4).context
    entry = to_plain(context.roster[3])
    twice = to_plain(context.roster[0])

    def case(name: str, section: str, field: str, path: list[Any], value: Any) -> Any:
        return {
            "name": name,
            "section": section,
            "error": "ContextRefused",
            "field": field,
            "path": path,
            "value": value,
        }

    return [
        case("two sites", "2", "participants", ["roster"], to_plain(context.roster[:2])),
        case("a threshold of half", "2", "threshold", ["threshold"], 2),
        case("a threshold above all", "2", "threshold", ["threshold"], 5),
        case("a minimum of two", "2", "minimum", ["minimum"], 2),
        case("a site twice", "3", "roster", ["roster", 3], twice),
        case("one signing key twice", "3", "roster", ["roster", 3], entry | {"signing_key": twice["signing_key"]}),
        case("one certificate twice", "3", "roster", ["roster", 3], entry | {"spki_sha256": twice["spki_sha256"]}),
        case("round 0", "3", "round", ["round"], 0),
        case("a short model digest", "3", "model_hash", ["model_hash"], "00" * 31),
    ]


def bad_values() -> list[Any]:
    """Updates that are refused before anything is sent; numbers that JSON does not have are strings."""
    return [
        {"name": name, "section": "5", "error": "EncodingRefused", "lane": lane, "values": values}
        for name, lane, values in (
            ("not a number", "update", {"update": [0.0, "nan", 0.0, 0.0, 0.0], "weight": [1.0]}),
            ("an infinity", "update", {"update": [0.0, "inf", 0.0, 0.0, 0.0], "weight": [1.0]}),
            ("a value short", "update", {"update": [0.0] * 4, "weight": [1.0]}),
            ("a value more", "update", {"update": [0.0] * 6, "weight": [1.0]}),
            ("half a count", "weight", {"update": [0.0] * 5, "weight": [0.5]}),
            ("a count beyond its clip", "weight", {"update": [0.0] * 5, "weight": [101.0]}),
            ("no weight", "weight", {"update": [0.0] * 5}),
            ("an unknown lane", "extra", {"update": [0.0] * 5, "weight": [1.0], "extra": [1.0]}),
        )
    ]


def bad_cases(made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of bad_messages.json, given the golden rounds."""
    messages = {}
    for name in ROUNDS:
        golden = json.loads(json.dumps(made[name]))
        group = consortium(len(golden["members"]), suite=SuiteName(golden["context"]["suite"]))
        makers = (_bad_bundles, _bad_boxes, _bad_proposals, _bad_requests, _bad_answers)
        messages[name] = [case for make in makers for case in make(golden, group)]
    return {"bad_messages": messages, "bad_contexts": bad_contexts(), "bad_values": bad_values()}
