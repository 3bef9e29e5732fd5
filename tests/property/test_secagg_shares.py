"""t - 1 shares say nothing, any t say everything, and wrong ones are corrected up to half the redundancy."""

from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secagg.shares import PRIME, evaluate, recover, split
from privacy.secret import Secret
from tests.fakes.shares import combined

SMALL = 11


def test_fewer_shares_than_the_threshold_are_consistent_with_every_secret_equally_often():
    """Exhaustive over GF(11), t = 3 of 4: whatever two shares show, each secret explains it with one polynomial."""
    for holders in combinations(range(1, 5), 2):
        seen: dict[tuple[int, ...], list[int]] = {}
        for secret, *rest in product(range(SMALL), repeat=3):
            view = tuple(evaluate([secret, *rest], x, SMALL) for x in holders)
            seen.setdefault(view, []).append(secret)
        assert len(seen) == SMALL**2
        assert all(sorted(secrets) == list(range(SMALL)) for secrets in seen.values())


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.data())
def test_any_t_shares_give_the_secret_and_errors_are_corrected(secret, seed, data):
    count = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, count))
    shares = split(Secret(secret), threshold=threshold, count=count, seed=Secret(seed))
    points = [(x, share.expose()) for x, share in enumerate(shares, start=1)]
    chosen = data.draw(st.permutations(points))
    assert combined(chosen[:threshold], threshold=threshold).expose() == secret

    bad = data.draw(st.sets(st.integers(1, count), max_size=(count - threshold) // 2))
    offset = data.draw(st.integers(1, PRIME - 1))
    spoilt = [
        (x, ((int.from_bytes(y, "big") + offset) % PRIME).to_bytes(33, "big")) if x in bad else (x, y)
        for x, y in chosen
    ]
    recovered = recover(spoilt, threshold=threshold, accepts=lambda s: s.expose() == secret)
    assert recovered.secret.expose() == secret
    assert recovered.wrong == tuple(sorted(bad))
