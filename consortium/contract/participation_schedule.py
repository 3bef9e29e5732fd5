"""Whose turn it is: which hospitals of a study take part in a training round when not all of them do (pure).

The schedule follows from the study document and the number of the round, and from nothing else. Stewards can read it
before they approve, every hospital computes it again, and nobody who runs the study can choose whom it likes.

Hospitals are dealt out like cards. A *pass* is a permutation of the roster: its hospitals sorted by SHA-256 of
`CONTEXT`, the study's digest, the number of the pass in 8 bytes and the hospital's name. One pass is dealt after the
other, K hospitals to a round; a hospital that is in the round already, from the end of the pass before, goes to the end
of the new pass. Passes and rounds end together after n / gcd(n, K) rounds, a *cycle*; the next one begins afresh.

What follows, with n hospitals and K of them in a round:

* every round has exactly K different hospitals;
* after the first r rounds every hospital was in floor(r K / n) or ceil(r K / n) of them, for every r;
* in every cycle each hospital is in exactly K / gcd(n, K) rounds;
* between one of its rounds and its next a hospital is left out of fewer than 2n / K rounds.

It is a schedule and no sampling: everybody knows beforehand who is in which round. So nothing of it makes a patient any
more private, and no accountant may be told that it does.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

from consortium.contract.names import Digest, SiteId

CONTEXT = b"consortium/participation/v1\n"
_CYCLES_KEPT = 64


def in_turn(digest: Digest, roster: Sequence[SiteId], per_round: int, round_number: int) -> tuple[SiteId, ...]:
    """The hospitals whose turn a training round is, sorted.

    Args:
        digest: Of the study document.
        roster: The study's hospitals, each once; their order means nothing.
        per_round: K, from 1 to the number of hospitals.
        round_number: From 1.
    """
    length = len(roster) // math.gcd(len(roster), per_round)
    cycle, place = divmod(round_number - 1, length)
    return _cycle(digest, tuple(sorted(roster)), per_round, cycle)[place]


def rounds_at_most(rounds: int, sites: int, per_round: int) -> int:
    """The most of the first `rounds` rounds that any hospital is in: ceil(rounds K / n)."""
    return -(-rounds * per_round // sites)


@lru_cache(maxsize=_CYCLES_KEPT)
def _cycle(digest: Digest, roster: tuple[SiteId, ...], per_round: int, cycle: int) -> tuple[tuple[SiteId, ...], ...]:
    """All rounds of a cycle, counted from 0; at most n of them, in at most K passes."""
    shared = math.gcd(len(roster), per_round)
    dealt: list[SiteId] = []
    for number in range(cycle * (per_round // shared), (cycle + 1) * (per_round // shared)):
        begun = frozenset(dealt[len(dealt) - len(dealt) % per_round :])  # in the round that this pass goes on with
        shuffled = sorted(roster, key=lambda site: _place(digest, number, site))
        dealt += sorted(shuffled, key=begun.__contains__)  # stable: those already in the round go to the end
    return tuple(tuple(sorted(dealt[at : at + per_round])) for at in range(0, len(dealt), per_round))


def _place(digest: Digest, number: int, site: SiteId) -> bytes:
    return hashlib.sha256(CONTEXT + bytes.fromhex(digest) + number.to_bytes(8, "big") + site.encode()).digest()
