"""Section 10, from the beacon on: who is in which group, what each group runs under, and how a group's end is proved.

Every site and the coordinator compute the groups from the same nonces, so nobody is told where it belongs. Each group
is then an attempt like any other, complete graph and all, under a context of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NoReturn

from privacy.errors import BelowThreshold, PeerViolation
from privacy.keystream import Keystream
from privacy.lazy_numpy import np
from privacy.secagg.checks import check_confirmation, check_context, sorted_once
from privacy.secagg.context import SITES_MIN, Context, GroupPlace
from privacy.secagg.messages import COORDINATOR, ConfirmedGroup, GroupedUnmaskRequest, Phase, SiteId
from privacy.secagg.transcript import frame
from privacy.secret import Secret

_WORDS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group: its context, with its sites as roster, and the digest of that."""

    context: Context
    digest: bytes
    sites: frozenset[SiteId]


# --- 10.3: drawing the groups --------------------------------------------------------------------------------------


def partition(sites: Sequence[SiteId], beacon: bytes, group_size: int) -> tuple[tuple[SiteId, ...], ...]:
    """Shuffle the sites by the beacon and cut them into as many groups as can have `group_size` sites each.

    Args:
        sites: those whose nonces are in the beacon, sorted.
        beacon: 32 bytes.
        group_size: the fewest sites of a group; at most the number of sites.

    Returns:
        The groups by number, each sorted. Sizes differ by one at the most, and are below twice `group_size`.
    """
    shuffled = list(sites)
    words = _words(beacon)
    for last in range(len(shuffled) - 1, 0, -1):
        other = _below(last + 1, words)
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    starts = _starts(len(shuffled), group_size)
    return tuple(tuple(sorted(shuffled[start:end])) for start, end in pairwise(starts))


def group_sizes(sites: int, group_size: int) -> tuple[int, ...]:
    """How many sites each group has when so many sites are divided."""
    starts = _starts(sites, group_size)
    return tuple(end - start for start, end in pairwise(starts))


def _starts(sites: int, group_size: int) -> list[int]:
    """Where each group begins in the shuffled list, and where the last one ends."""
    count = sites // group_size
    return [number * sites // count for number in range(count + 1)]


def _words(beacon: bytes) -> Iterator[int]:
    """32-bit words, as many as are wanted, from the beacon alone."""
    stream = Keystream(Secret(hashlib.sha256(frame("beacon shuffle", beacon)).digest()))
    while True:
        yield from stream.words(_WORDS_AT_A_TIME, np.dtype("<u4")).tolist()


def _below(bound: int, words: Iterator[int]) -> int:
    """A number below `bound`, every one equally likely: words that would favour the small ones are passed over."""
    fair = 2**32 - 2**32 % bound
    return next(word for word in words if word < fair) % bound


# --- 10.3: what each group runs under ------------------------------------------------------------------------------


def scaled(of_all: int, size: int, sites: int) -> int:
    """A group's part of a number that holds for all sites, rounded up, so that the groups' parts add up to it."""
    return -(-of_all * size // sites)


def draw_groups(context: Context, digest: bytes, beacon: bytes, sites: Sequence[SiteId]) -> tuple[Group, ...]:
    """The groups that follow from the beacon, by number.

    Threshold and minimum are divided among the groups in proportion to their size, so that all of them together need
    what the whole attempt needs, and 2t > n holds in each because it holds in the whole.

    Args:
        context: of the whole attempt, checked.
        digest: its digest.
        beacon: 32 bytes.
        sites: those whose nonces are in the beacon, sorted; at least `context.required`.

    Raises:
        ContextRefused: a group that no honest study asks for; `Context.check_whole` leaves none.
    """
    drawn = partition(sites, beacon, context.group_size)
    groups = []
    for number, group in enumerate(drawn, start=1):
        inside = frozenset(group)
        own = replace(
            context,
            roster=tuple(entry for entry in context.roster if entry.site in inside),
            threshold=scaled(context.threshold, len(group), len(sites)),
            minimum=max(SITES_MIN, scaled(context.minimum, len(group), len(sites))),
            group=GroupPlace(whole=digest, beacon=beacon, number=number, count=len(drawn)),
        )
        own.check()
        groups.append(Group(context=own, digest=own.digest(), sites=inside))
    return tuple(groups)


# --- 10.4: nobody is unmasked before everybody can be --------------------------------------------------------------


def whole_transcript(context: bytes, confirmed: Sequence[ConfirmedGroup]) -> bytes:
    """H(context, every group's survivors and T3): the whole attempt as all groups' survivors have signed it.

    Which confirmations prove it is not in the hash: the coordinator may pick any t of them.
    """
    parts = (frame("group", *(site.encode() for site in group.survivors), group.transcript) for group in confirmed)
    return hashlib.sha256(frame("groups", context, *parts)).digest()


def all_survivors(confirmed: Sequence[ConfirmedGroup]) -> tuple[SiteId, ...]:
    """The survivors of all groups, sorted."""
    return tuple(sorted(site for group in confirmed for site in group.survivors))


def check_confirmed_groups(groups: Sequence[Group], digest: bytes, request: GroupedUnmaskRequest) -> None:
    """10.4, at a site: every group of the attempt has a survivor set that t of its sites confirmed.

    What is in another group's T3 a site does not see; t of its sites, so at least one honest one, checked it.

    Args:
        groups: as this site drew them.
        digest: of the whole attempt's context.
        request: what the coordinator sent.

    Raises:
        PeerViolation: blaming the coordinator.
        BelowThreshold: a group has too few survivors.
    """
    phase = Phase.UNMASK
    check_context(request.context, digest, source=COORDINATOR, phase=phase)
    if len(request.groups) != len(groups):
        # 10.4: a group that is left out could be started again elsewhere, and its sites summed twice.
        _refuse(f"all {len(groups)} groups are ready", f"{len(request.groups)} groups")
    for number, (group, confirmed) in enumerate(zip(groups, request.groups, strict=True), start=1):
        context, survivors = group.context, confirmed.survivors
        if not sorted_once(survivors) or not set(survivors) <= set(context.sites):
            _refuse("a group's survivors are among its sites", f"others in group {number}")
        if len(survivors) < context.required:
            raise BelowThreshold(len(survivors), context.required)
        signers = [confirmation.site for confirmation in confirmed.confirmations]
        if not sorted_once(signers) or not set(signers) <= set(survivors):
            _refuse("confirmations are sorted, one per survivor", f"a doubled or foreign one in group {number}")
        if len(signers) < context.threshold:
            _refuse(f"{context.threshold} confirmations of group {number}", f"{len(signers)}")
        for confirmation in confirmed.confirmations:
            check_confirmation(context, group.digest, confirmation, transcript=confirmed.transcript, source=COORDINATOR)


def repeats(request: GroupedUnmaskRequest, *, context: bytes, transcript: bytes) -> bool:
    """Whether a request is for the very sum whose shares were released before (`site.repeats`, for groups)."""
    confirmed = all(c.transcript == group.transcript for group in request.groups for c in group.confirmations)
    return request.context == context and confirmed and whole_transcript(context, request.groups) == transcript


def _refuse(rule: str, evidence: str) -> NoReturn:
    raise PeerViolation(COORDINATOR, Phase.UNMASK, rule, evidence)
