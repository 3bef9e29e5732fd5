"""What secure aggregation says about itself: no state, message or traceback prints a seed, a share or a private key."""

import traceback
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from privacy import keystream
from privacy.errors import PrivacyError
from privacy.keystream import Keystream
from privacy.secagg import keys, shares, suites
from privacy.secagg.messages import Phase
from privacy.secagg.suites import SuiteName
from privacy.secret import Secret
from tests.fakes import memory_round
from tests.fakes.loose_talk import live_objects, noted_secrets, only_newcomers, said_of, search_for, told_by
from tests.fakes.memory_round import Link, MemoryRound, consortium


@pytest.mark.parametrize(
    ("suite", "links"),
    [(SuiteName.HYBRID_PQ, {"site-b": Link(lose_reply=Phase.MASK)}), (SuiteName.P256, {})],
    ids=["hybrid-pq with a dropout", "p256"],
)
def test_nothing_alive_in_a_round_prints_a_secret(suite: SuiteName, links: dict[Any, Link]) -> None:
    texts: set[str] = set()
    with only_newcomers(), noted_secrets() as noted:
        round_ = MemoryRound(consortium(4, suite=suite), links=links)
        for phase in (Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK, None):
            round_.run(until=phase)
            texts |= said_of([*live_objects(), *round_.queue, *round_.effects, *round_.site_effects.values()])
        assert round_.aggregate().tolist() == round_.plain_aggregate().tolist()
    texts |= said_of(live_objects())  # what was alive before, too
    said = "\n".join(texts)
    for kind in ("SiteSeeds", "HeldShares", "MaskSeeds", "KeyPair", "Unmasked", "UnmaskShares", "RevealedShare"):
        assert f"{kind}(" in said, kind  # it was looked at
    assert len(noted) > 100
    assert search_for(noted).in_bytes(said.encode(), "what was said") == set()


def _failing_after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    left = [calls]

    def fail(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("no memory left")
        return real(*arguments, **options)

    return fail


PLACES: dict[str, tuple[Any, str]] = {
    "derive": (keys, "HKDF"),
    "key pair": (MLKEM768PrivateKey, "from_seed_bytes"),
    "keystream": (Keystream, "fill"),
    "shares": (shares, "_uniform_elements"),
    "cipher": (keystream, "Cipher"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("calls", [0, 5, 20])
def test_no_traceback_with_locals_tells_a_secret(place: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if memory ran out in the middle of the arithmetic: tools that report crashes often print local variables."""
    owner, name = PLACES[place]
    with noted_secrets() as noted:
        draw = memory_round.deterministic_entropy

        def noted_entropy(seed: str) -> Callable[[int], bytes]:
            source = draw(seed)
            return lambda size: Secret(source(size)).expose()

        monkeypatch.setattr(memory_round, "deterministic_entropy", noted_entropy)
        if owner is MLKEM768PrivateKey:  # of a compiled library: it cannot be changed in place
            kind = type("Failing", (), {name: staticmethod(_failing_after(calls, getattr(owner, name)))})
            monkeypatch.setattr(suites, "MLKEM768PrivateKey", kind)
        else:
            monkeypatch.setattr(owner, name, _failing_after(calls, getattr(owner, name)))

        def run_rounds() -> None:
            for seed in range(10):
                MemoryRound(consortium(3), seed=str(seed)).run()

        with pytest.raises(MemoryError) as caught:
            run_rounds()
    told = told_by(caught.value)
    assert "Secret(32 bytes)" in told  # locals are in it
    assert noted
    assert search_for(noted).in_bytes(told.encode(), place) == set()


def test_nor_does_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box that holds something else than two shares: one of them may be right."""
    with noted_secrets() as noted:
        right = Secret(b"\x00" + bytes(range(1, 33)))

        def open_half(*_: Any, **__: Any) -> Secret[bytes]:
            return Secret(right.expose() + b"\xff" * 33)

        round_ = MemoryRound(consortium(3))
        round_.run(until=Phase.MASK)
        monkeypatch.setattr("privacy.secagg.site.open_box", open_half)
        (name, message), *_ = round_.queue
        round_.deliver(name, message)
        reason = getattr(round_.site_states[name], "reason", None)
    assert isinstance(reason, PrivacyError)
    for value in [value for value in noted if value.endswith(b"\xff" * 33)]:
        del noted[value]  # what is wrong with the box may be said
    noted[right.expose()] = "the half that may be right"
    told = told_by(reason)
    assert "_open_shares" in told
    assert search_for(noted).in_bytes(told.encode(), "a refusal") == set()


def test_the_search_for_it_works() -> None:
    """Else the tests above would say nothing."""
    with noted_secrets() as noted:
        secret = Secret(b"a seed of thirty-two bytes, 1234")

    def careless(value: bytes) -> None:
        raise ValueError("no")

    search = search_for(noted)
    assert search.in_bytes(repr([secret.expose()]).encode(), "")
    assert search.in_bytes(str(list(secret.expose())).encode(), "")
    assert not search.in_bytes(repr(secret).encode(), "")
    with pytest.raises(ValueError, match="no") as caught:
        careless(secret.expose())
    # Frames of tests are not looked at, so the frame is shown as one of ours would be.
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert search.in_bytes("".join(shown.format()).encode(), "")
