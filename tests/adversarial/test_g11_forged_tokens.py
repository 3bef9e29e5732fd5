"""G-11: a bearer token that the identity provider did not give to this person, for this consortium, for now.

Held by `consortium/tokens.py`. Tried (g11 of `mutations.py`): keys for encryption taken for signing; audience, issuer
and what must be there not asked for; tokens that live for weeks; several roles; keys looked for without a limit.
Which algorithm goes with a key is held twice, by the list here and by PyJWT's keys: taking away one changes nothing.
"""

import json
import time
from datetime import UTC, datetime

import jwt
import pytest

from consortium import tokens as tokens_module
from consortium.contract.bearer import Bearer, TokenFault, TokenRefused, bearer_of
from consortium.contract.errors import FileInvalid
from consortium.coordinator_file import load_coordinator_file
from consortium.home import open_home
from consortium.roles import PersonRole
from consortium.tokens import JWKS_BYTES_MAX, KeysUnavailable, Tokens, keys_in
from tests.fakes import identity_provider as provider
from tests.fakes.coordinator_home import new_home

HOUR = 3600


@pytest.fixture
def home(tmp_path):
    folder = new_home(tmp_path)
    provider.taken_at(folder)
    return open_home(folder)


@pytest.fixture
def gate(home):
    return Tokens(home, home.config.oidc)


def fault_of(gate, token):
    with pytest.raises(TokenRefused) as refused:
        gate.caller(Bearer(token=token))
    assert "account" in refused.value.advice()
    return refused.value.fault


@pytest.mark.parametrize("kid", list(provider.ALGORITHMS))
def test_a_good_token_of_each_kind_of_key(gate, home, kid):
    caller = gate.caller(Bearer(token=provider.token(kid)))
    assert (caller.role, caller.account) == (PersonRole.AUDITOR, f"{provider.ISSUER}#ada-0815")
    assert caller.subject == home.pseudonym(caller.account)
    assert caller.signing_key is None  # it submits nothing
    assert "ada" not in caller.subject
    assert gate.caller(Bearer(token=provider.token(kid, roles="cardio-lead"))).role is PersonRole.LEAD


def test_the_algorithm_is_not_the_tokens_to_choose(gate):
    assert fault_of(gate, provider.unsigned()) is TokenFault.ALGORITHM
    assert fault_of(gate, provider.with_the_public_key_as_a_secret()) is TokenFault.ALGORITHM
    assert fault_of(gate, provider.token("rsa-1", algorithm="PS256")) is TokenFault.ALGORITHM
    # Allowed for another key, and signed by it, under the name of this one.
    assert fault_of(gate, provider.token("rsa-1", signed_with="ed-1")) is TokenFault.ALGORITHM


def test_a_token_of_another_key(gate):
    assert fault_of(gate, provider.token("ec-1", signed_with="ec-1")[:-4] + "AAAA") is TokenFault.SIGNATURE
    forged = jwt.encode(provider.claims(), jwt.PyJWK.from_dict(OTHER_KEY).key, "ES256", {"kid": "ec-1"})
    assert fault_of(gate, forged) is TokenFault.SIGNATURE
    for kid in ("ec-9", "secret-1", "encrypts-1"):
        assert fault_of(gate, jwt.encode(provider.claims(), provider.keys()["ec-1"], "ES256", {"kid": kid})) is (
            TokenFault.KEY
        )
    assert fault_of(gate, jwt.encode(provider.claims(), provider.keys()["ec-1"], "ES256")) is TokenFault.KEY


OTHER_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
    "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
    "d": "0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo",
}
"""Somebody's, of RFC 7517's examples."""


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"exp": int(time.time()) - 60}, TokenFault.EXPIRED),
        ({"nbf": int(time.time()) + HOUR}, TokenFault.TOO_EARLY),
        ({"iat": int(time.time()) + HOUR}, TokenFault.TOO_EARLY),
        ({"exp": int(time.time()) + 30 * 24 * HOUR}, TokenFault.TOO_LONG),
        ({"aud": "another-application"}, TokenFault.AUDIENCE),
        ({"iss": "https://login.example.com/cardio"}, TokenFault.ISSUER),
        ({"exp": None}, TokenFault.MALFORMED),
        ({"iat": None}, TokenFault.MALFORMED),
        ({"aud": None}, TokenFault.MALFORMED),
        ({"iss": None}, TokenFault.MALFORMED),
        ({"sub": None}, TokenFault.MALFORMED),
        ({"sub": "x" * 201}, TokenFault.MALFORMED),
        ({"roles": None}, TokenFault.ROLE),
        ({"roles": ["staff"]}, TokenFault.ROLE),
        ({"roles": {"cardio-lead": True}}, TokenFault.ROLE),
        ({"roles": ["cardio-lead", "cardio-audit"]}, TokenFault.ROLE),
    ],
)
def test_a_token_that_is_not_for_this_person_here_and_now(gate, changed, fault):
    assert fault_of(gate, provider.token(**changed)) is fault


def test_half_a_minute_is_forgiven(gate):
    assert gate.caller(Bearer(token=provider.token(exp=int(datetime.now(UTC).timestamp()) - 5)))


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "é.é.é", "." * 7000])
def test_bytes_that_are_no_token(gate, token):
    assert fault_of(gate, token) is TokenFault.MALFORMED


@pytest.mark.parametrize("values", [[], ["Bearer a", "Bearer b"], ["Basic abc"], ["Bearer "], ["Bearer " + "a" * 9000]])
def test_a_call_shows_one_token(values):
    with pytest.raises(TokenRefused):
        bearer_of(values)


def test_the_provider_is_not_asked_by_whoever_sends_tokens(home):
    """An unknown key is looked for at once, but not again within a minute; known ones for an hour."""
    asked, now, published = [], [1000.0], [provider.jwks("ec-1")]

    def fetch(url):
        asked.append(url)
        return published[0]

    url = "https://login.example.org/keys"
    oidc = home.config.oidc.model_copy(update={"jwks_file": None, "jwks_url": url})
    gate = Tokens(home, oidc, fetch=fetch, clock=lambda: now[0])
    good, new = provider.token("ec-1"), provider.token("ed-1")
    gate.caller(Bearer(token=good))
    for _ in range(20):
        assert fault_of(gate, new) is TokenFault.KEY
    assert asked == [url]
    published[0] = provider.jwks("ec-1", "ed-1")
    now[0] += 61
    gate.caller(Bearer(token=new))
    gate.caller(Bearer(token=good))
    assert len(asked) == 2
    now[0] += 3601
    published[0] = provider.jwks("ed-1")
    assert fault_of(gate, good) is TokenFault.KEY  # a key that was withdrawn
    assert len(asked) == 3


def test_keys_that_cannot_be_read_are_nobodys_denial(home, monkeypatch):
    (home.folder / "jwks.json").unlink()
    with pytest.raises(KeysUnavailable) as later:
        Tokens(home, home.config.oidc).caller(Bearer(token=provider.token()))
    assert later.value.code == "try_later"
    for data in (b"", b"{}", b"[]", b'{"keys": 7}', b'{"keys": [7]}', b" " * (JWKS_BYTES_MAX + 1)):
        with pytest.raises(KeysUnavailable):
            keys_in(data)
    private = json.dumps({"keys": [OTHER_KEY | {"kid": "leaked"}]}).encode()
    assert keys_in(private) == {}  # a private key that was published is nobody's any more

    class Line:
        def __init__(self, *_, **__):
            pass

        def request(self, *_, **__):
            raise ConnectionRefusedError

        def close(self):
            pass

    monkeypatch.setattr(tokens_module.http.client, "HTTPSConnection", Line)
    with pytest.raises(ConnectionRefusedError):
        tokens_module.fetched("https://login.example.org/keys")


@pytest.mark.parametrize(
    ("found", "put"),
    [
        ("  jwks_file: jwks.json\n", ""),
        ("  jwks_file: jwks.json\n", "  jwks_file: jwks.json\n  jwks_url: https://login.example.org/keys\n"),
        ("  jwks_file: jwks.json\n", "  jwks_url: http://login.example.org/keys\n"),
        ("  leads: [cardio-lead]\n", "  leads: [cardio-audit]\n"),
        (provider.ISSUER, "http://login.example.org"),
        ("127.0.0.1:8449", "hub.example.org:8449"),
        ('people_address: "127.0.0.1:8449"', "people_address: null"),
    ],
)
def test_a_provider_is_configured_whole_or_not_at_all(home, found, put):
    path = home.folder / "coordinator.yaml"
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, put))
    with pytest.raises(FileInvalid):
        load_coordinator_file(path)
