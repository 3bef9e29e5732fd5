"""Whose turn it is, for any roster and any number in a round: what `participation_schedule.py` promises."""

import hashlib
import math
from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from audit.verify import sites_in_turn
from consortium.contract.names import Digest, SiteId
from consortium.contract.participation_schedule import in_turn, rounds_at_most

rosters = st.sets(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=3, max_size=12), min_size=2, max_size=24
).map(lambda names: tuple(SiteId(name) for name in sorted(names)))
digests = st.binary(min_size=1, max_size=4).map(lambda seed: Digest(hashlib.sha256(seed).hexdigest()))


@st.composite
def studies(draw: st.DrawFn) -> tuple[Digest, tuple[SiteId, ...], int]:
    roster = draw(rosters)
    return draw(digests), roster, draw(st.integers(1, len(roster)))


@settings(max_examples=80)
@given(studies())
def test_everybody_trains_as_often_as_everybody_else(study: tuple[Digest, tuple[SiteId, ...], int]) -> None:
    digest, roster, per_round = study
    sites, cycle = len(roster), len(roster) // math.gcd(len(roster), per_round)
    trained, last_in, counts_of_cycle = Counter[SiteId](), dict.fromkeys(roster, 0), Counter[SiteId]()
    for number in range(1, 2 * cycle + 3):
        chosen = in_turn(digest, roster, per_round, number)
        assert len(set(chosen)) == len(chosen) == per_round
        assert set(chosen) <= set(roster)
        assert list(chosen) == sorted(chosen)
        trained.update(chosen)
        counts = [trained[site] for site in roster]
        assert min(counts) >= number * per_round // sites
        assert max(counts) <= rounds_at_most(number, sites, per_round) == math.ceil(number * per_round / sites)
        for site in chosen:
            if last_in[site]:
                assert number - last_in[site] - 1 < 2 * sites / per_round
            last_in[site] = number
        if number % cycle == 0:
            assert {trained[site] - counts_of_cycle[site] for site in roster} == {per_round * cycle // sites}
            counts_of_cycle = Counter(trained)


@settings(max_examples=60)
@given(studies(), st.integers(1, 100_000), st.randoms(use_true_random=False))
def test_nothing_but_digest_roster_and_round_matters_and_a_stranger_computes_the_same(
    study: tuple[Digest, tuple[SiteId, ...], int], number: int, random: Random
) -> None:
    digest, roster, per_round = study
    shuffled = list(roster)
    random.shuffle(shuffled)
    chosen = in_turn(digest, shuffled, per_round, number)
    assert chosen == in_turn(digest, roster, per_round, number)
    assert chosen == sites_in_turn(bytes.fromhex(digest), roster, per_round, number)
