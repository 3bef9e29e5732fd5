"""protobuf <-> the messages of an attempt in groups, field by field (protocol section 10).

Checked here: every length, every name, every count. Not checked here, because only the machine that receives it can:
signatures, order, repetition, and whether the message may come now.
"""

from collections.abc import Iterable, Sequence

from consortium.wire import consortium_pb2 as pb
from consortium.wire import fields
from consortium.wire.secagg_codec import confirmation_in, confirmation_out
from privacy.secagg.context import GROUPED_SITES_MAX, SITES_MIN
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    CommitmentList,
    ConfirmedGroup,
    GroupedUnmaskRequest,
    RevealList,
    SiteId,
)

GROUPS_MAX = GROUPED_SITES_MAX // SITES_MIN


def commitment_out(message: BeaconCommitment) -> pb.BeaconCommitment:
    """10.1."""
    return pb.BeaconCommitment(
        context=message.context, site=message.site, commitment=message.commitment, signature=message.signature
    )


def commitment_in(message: pb.BeaconCommitment) -> BeaconCommitment:
    """10.1; raises WireViolation, as every function here that reads."""
    return BeaconCommitment(
        context=fields.hash_of("beacon_commitment.context", message.context),
        site=fields.site("beacon_commitment.site", message.site),
        commitment=fields.hash_of("beacon_commitment.commitment", message.commitment),
        signature=fields.signature("beacon_commitment.signature", message.signature),
    )


def commitments_out(message: CommitmentList) -> pb.CommitmentList:
    """10.1."""
    return pb.CommitmentList(context=message.context, commitments=_values_out(message.commitments))


def commitments_in(message: pb.CommitmentList) -> CommitmentList:
    """10.1."""
    return CommitmentList(
        context=fields.hash_of("commitment_list.context", message.context),
        commitments=_values_in("commitment_list.commitments", message.commitments),
    )


def reveal_out(message: BeaconReveal) -> pb.BeaconReveal:
    """10.2."""
    return pb.BeaconReveal(
        context=message.context,
        site=message.site,
        commitments_hash=message.commitments_hash,
        nonce=message.nonce,
        signature=message.signature,
    )


def reveal_in(message: pb.BeaconReveal) -> BeaconReveal:
    """10.2."""
    return BeaconReveal(
        context=fields.hash_of("beacon_reveal.context", message.context),
        site=fields.site("beacon_reveal.site", message.site),
        commitments_hash=fields.hash_of("beacon_reveal.commitments_hash", message.commitments_hash),
        nonce=fields.hash_of("beacon_reveal.nonce", message.nonce),
        signature=fields.signature("beacon_reveal.signature", message.signature),
    )


def reveals_out(message: RevealList) -> pb.RevealList:
    """10.2."""
    return pb.RevealList(context=message.context, nonces=_values_out(message.nonces))


def reveals_in(message: pb.RevealList) -> RevealList:
    """10.2."""
    return RevealList(
        context=fields.hash_of("reveal_list.context", message.context),
        nonces=_values_in("reveal_list.nonces", message.nonces),
    )


def unmask_request_out(message: GroupedUnmaskRequest) -> pb.GroupedUnmaskRequest:
    """10.4."""
    return pb.GroupedUnmaskRequest(
        context=message.context,
        groups=[
            pb.ConfirmedGroup(
                survivors=group.survivors,
                transcript=group.transcript,
                confirmations=[confirmation_out(confirmation) for confirmation in group.confirmations],
            )
            for group in message.groups
        ],
    )


def unmask_request_in(message: pb.GroupedUnmaskRequest) -> GroupedUnmaskRequest:
    """10.4."""
    where = "grouped_unmask_request"
    groups = fields.listed(f"{where}.groups", message.groups, 1, GROUPS_MAX)
    # Together they are sites of one attempt, each with one confirmation: 341 full groups never are.
    for name, count in (
        ("survivors", sum(len(group.survivors) for group in groups)),
        ("confirmations", sum(len(group.confirmations) for group in groups)),
    ):
        fields.whole(f"{where}.groups.{name} (together)", count, 1, GROUPED_SITES_MAX)
    return GroupedUnmaskRequest(
        context=fields.hash_of(f"{where}.context", message.context),
        groups=tuple(
            ConfirmedGroup(
                survivors=tuple(
                    fields.site(f"{where}.groups.survivors", site)
                    for site in fields.listed(f"{where}.groups.survivors", group.survivors, 1)
                ),
                transcript=fields.hash_of(f"{where}.groups.transcript", group.transcript),
                confirmations=tuple(
                    confirmation_in(confirmation)
                    for confirmation in fields.listed(f"{where}.groups.confirmations", group.confirmations, 1)
                ),
            )
            for group in groups
        ),
    )


def _values_out(values: Iterable[tuple[SiteId, bytes]]) -> list[pb.SiteValue]:
    return [pb.SiteValue(site=site, value=value) for site, value in values]


def _values_in(field: str, values: Sequence[pb.SiteValue]) -> tuple[tuple[SiteId, bytes], ...]:
    return tuple(
        (fields.site(f"{field}.site", one.site), fields.hash_of(f"{field}.value", one.value))
        for one in fields.listed(field, values, 1, GROUPED_SITES_MAX)
    )
