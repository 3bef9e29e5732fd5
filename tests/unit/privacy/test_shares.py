"""Shamir's sharing: any t give the secret back, fewer do not, and wrong shares are found and named."""

from itertools import combinations

import pytest

from privacy.errors import LocalProtocolError
from privacy.secagg import shares
from privacy.secagg.shares import PRIME, SharesDisagree, correct_errors, evaluate, recover, split
from privacy.secret import Secret
from tests.fakes.shares import combined

SECRET = Secret(bytes(range(100, 132)))
SEED = Secret(b"c" * 32)


def dealt(threshold, count, secret=SECRET):
    parts = split(secret, threshold=threshold, count=count, seed=SEED)
    return [(x, part.expose()) for x, part in enumerate(parts, start=1)]


def wrong(share):
    x, value = share
    return x, ((int.from_bytes(value, "big") + 7**x) % PRIME).to_bytes(33, "big")


def test_the_modulus_is_a_prime_above_every_32_byte_secret():
    assert 2**256 < PRIME < 2**264
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):  # Miller and Rabin
        x = pow(base, odd, PRIME)
        assert x in (1, PRIME - 1) or any(pow(x, 2**k, PRIME) == PRIME - 1 for k in range(twos))


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (2, 3), (3, 4), (4, 5), (5, 7)])
def test_every_t_shares_give_the_secret_back(threshold, count):
    for subset in combinations(dealt(threshold, count), threshold):
        assert combined(subset, threshold=threshold) == SECRET


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_secret(secret):
    assert combined(dealt(3, 4, Secret(secret))[1:], threshold=3).expose() == secret


def test_shares_have_33_bytes_and_do_not_print():
    parts = split(SECRET, threshold=3, count=4, seed=SEED)
    assert {len(part.expose()) for part in parts} == {33}
    assert "Secret(33 bytes)" in repr(parts)


def test_another_seed_deals_other_shares():
    other = split(SECRET, threshold=3, count=4, seed=Secret(b"e" * 32))
    assert all(a.expose() != b for a, (_, b) in zip(other, dealt(3, 4), strict=True))


def test_what_cannot_be_combined():
    points = dealt(3, 4)
    with pytest.raises(SharesDisagree, match="one number"):
        combined([points[0], points[1], points[0]], threshold=3)
    with pytest.raises(SharesDisagree, match="one number"):
        combined([*points, points[0]], threshold=3)
    with pytest.raises(SharesDisagree, match="2 shares where 3"):
        combined(points[:2], threshold=3)
    for malformed in (b"", points[0][1][1:], points[0][1] + b"\0", PRIME.to_bytes(33, "big"), b"\xff" * 33):
        with pytest.raises(SharesDisagree):
            combined([(1, malformed), *points[1:]], threshold=3)


def test_a_result_that_is_not_32_bytes_is_an_error():
    element = 2**256 + 5
    with pytest.raises(SharesDisagree, match="no 2 of 2 shares"):
        combined([(x, evaluate([element], x).to_bytes(33, "big")) for x in (1, 2)], threshold=2)


@pytest.mark.parametrize(("secret", "threshold", "count"), [(b"k" * 31, 2, 3), (b"k" * 32, 0, 3), (b"k" * 32, 4, 3)])
def test_what_cannot_be_split(secret, threshold, count):
    with pytest.raises(LocalProtocolError):
        split(Secret(secret), threshold=threshold, count=count, seed=SEED)


def test_interpolation_refuses_a_number_twice():
    with pytest.raises(SharesDisagree):
        shares.interpolate([(1, 5), (1, 5)])


# --- recovery ------------------------------------------------------------------------------------------------------


def accepts(candidate):
    return candidate == SECRET


@pytest.mark.parametrize("bad", [(), (1,), (6,), (1, 2), (3, 5)])
def test_the_secret_is_recovered_and_wrong_shares_are_named(bad):
    points = [wrong(p) if p[0] in bad else p for p in dealt(3, 6)]
    recovered = recover(points, threshold=3, accepts=accepts)
    assert recovered.secret == SECRET
    assert recovered.wrong == bad


@pytest.mark.parametrize("bad", [(1, 2), (4, 5)])
def test_nobody_is_named_when_the_liars_are_enough_to_frame_others(bad):
    """Two liars of five: shifting theirs by x(x - 3) keeps f(0) and f(3), so 4 and 5 would look wrong, not 1 and 2."""
    points = dealt(3, 5)
    framed = [(x, ((int.from_bytes(y, "big") + x * (x - 3)) % PRIME).to_bytes(33, "big")) for x, y in points]
    mixed = [framed[x - 1] if x in bad else points[x - 1] for x in range(1, 6)]
    recovered = recover(mixed, threshold=3, accepts=accepts)
    assert recovered.secret == SECRET
    assert recovered.wrong == ()


def test_the_polynomial_that_most_shares_fit_decides_who_is_wrong():
    """The first t shares include two liars who keep f(0): decoding sees that five others disagree with them."""
    points = dealt(3, 7)
    framed = [(x, ((int.from_bytes(y, "big") + x * (x - 3)) % PRIME).to_bytes(33, "big")) for x, y in points]
    mixed = [framed[x - 1] if x in (1, 2) else points[x - 1] for x in range(1, 8)]
    recovered = recover(mixed, threshold=3, accepts=accepts)
    assert recovered.secret == SECRET
    assert recovered.wrong == (1, 2)


def test_many_wrong_shares_among_many_are_corrected_by_decoding():
    points = [wrong(p) if p[0] % 6 == 1 else p for p in dealt(34, 50)]  # 9 wrong; decoding corrects (50 - 34) / 2 = 8
    with pytest.raises(SharesDisagree):
        recover(points, threshold=34, accepts=accepts)
    points[0] = dealt(34, 50)[0]
    recovered = recover(points, threshold=34, accepts=accepts)
    assert recovered.wrong == (7, 13, 19, 25, 31, 37, 43, 49)


@pytest.mark.parametrize("bad", [(1,), (1, 2, 3)])
def test_too_many_wrong_shares_are_an_error_not_a_wrong_secret(bad):
    threshold = 5 if len(bad) == 1 else 3
    points = [wrong(p) if p[0] in bad else p for p in dealt(threshold, 5)]
    with pytest.raises(SharesDisagree):
        recover(points, threshold=threshold, accepts=accepts)


def test_recovery_refuses_doubled_and_too_few_shares():
    points = dealt(3, 5)
    with pytest.raises(SharesDisagree, match="one number"):
        recover([*points, points[0]], threshold=3, accepts=accepts)
    with pytest.raises(SharesDisagree, match="2 shares where 3"):
        recover(points[:2], threshold=3, accepts=accepts)


def test_a_candidate_that_is_not_32_bytes_is_passed_over():
    points = dealt(2, 3)
    high = [(1, (2**256).to_bytes(33, "big")), (2, (2**256).to_bytes(33, "big")), points[2]]
    with pytest.raises(SharesDisagree):
        recover(high, threshold=2, accepts=accepts)


@pytest.mark.parametrize("prime", [101, PRIME])
def test_decoding_corrects_half_the_redundancy_and_no_more(prime):
    polynomial = [5, 7, 11]
    points = [(x, evaluate(polynomial, x, prime)) for x in range(1, 8)]
    for bad in combinations(range(7), 2):
        spoilt = [(x, (y + 1 + x) % prime) if i in bad else (x, y) for i, (x, y) in enumerate(points)]
        assert correct_errors(spoilt, 3, prime) == polynomial
    spoilt = [(x, (y + x * x * x) % prime) if x <= 3 else (x, y) for x, y in points]
    assert correct_errors(spoilt, 3, prime) != polynomial


def test_decoding_the_zero_polynomial():
    assert correct_errors([(x, 0) for x in range(1, 5)], 2) == []
