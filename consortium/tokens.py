"""OpenID Connect: who is behind a bearer token, and with which role (threat G-11).

A token counts if a key of the issuer's signed it, with the one algorithm that goes with that kind of key, and it is of
this issuer, for this audience, in its time, and names exactly one role. The algorithm is never the token's to choose:
`none` and the HMAC family, with which a public key could pass for a secret, are no algorithms here.

PyJWT reads and verifies; this file says what is asked of it. Keys are a file, or are fetched over HTTPS: at the first
token, when an hour has passed, and for a key that is not known, but never more often than once in a minute, so that
nobody can have the identity provider called by sending tokens.
"""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import structlog

from consortium.contract.bearer import Bearer, TokenFault, TokenRefused
from consortium.coordinator_file import Oidc
from consortium.errors import ConsortiumError, HomeInvalid
from consortium.home import CoordinatorHome
from consortium.roles import Caller, PersonRole

log = structlog.get_logger(__name__)

ALGORITHMS: Mapping[str, str] = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
"""The one algorithm of each kind of key."""
LEEWAY_S = 30
LIFE_S_MAX = 24 * 3600
JWKS_BYTES_MAX, JWKS_KEYS_MAX = 256 * 1024, 100
KEEP_S, AGAIN_S, FETCH_S = 3600.0, 60.0, 10.0
_SUBJECT_MAX = 200
_HTTP_OK = 200


class KeysUnavailable(ConsortiumError):
    """The identity provider's keys cannot be read now. Whose fault: the provider's, the network's or a file's."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Try again in a minute; if it stays so, tell the consortium lead: an account needs no provider."


class Tokens:
    """Verifies tokens against one issuer. May be used from any thread; calls wait for each other."""

    def __init__(
        self,
        home: CoordinatorHome,
        oidc: Oidc,
        *,
        fetch: Callable[[str], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fetch` gets the bytes at a URL; `clock` counts seconds.

        Raises:
            HomeInvalid: PyJWT is not installed.
        """
        if find_spec("jwt") is None:
            raise HomeInvalid("coordinator.yaml takes tokens, which needs pip install 'hospital-consortium[oidc]'")
        self._home = home
        self._oidc = oidc
        self._fetch = fetch or fetched
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._looked_s: float | None = None
        self._lock = Lock()

    def caller(self, bearer: Bearer) -> Caller:
        """Who shows this token; raises TokenRefused, KeysUnavailable."""
        claims = self._claims(bearer.token)
        roles = self._roles(claims.get(self._oidc.role_claim))
        if len(roles) != 1:
            raise TokenRefused(TokenFault.ROLE)
        subject = str(claims["sub"])
        if not 0 < len(subject) <= _SUBJECT_MAX:
            raise TokenRefused(TokenFault.MALFORMED)
        name = f"{self._oidc.issuer}#{subject}"
        return Caller(role=roles[0], account=name, subject=self._home.pseudonym(name))

    def _roles(self, found: object) -> list[PersonRole]:
        named = (
            {found}
            if isinstance(found, str)
            else {one for one in found if isinstance(one, str)}
            if isinstance(found, list)
            else set()
        )
        return [role for role in PersonRole if named & set(getattr(self._oidc, f"{role}s"))]

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt  # noqa: PLC0415 - an extra of the package, for coordinators that take tokens

        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise TokenRefused(TokenFault.MALFORMED) from error
        if header.get("alg") not in ALGORITHMS.values():
            raise TokenRefused(TokenFault.ALGORITHM)
        key = self._key(str(header.get("kid", "")))
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHMS[key.key_type]],  # the key's, whatever the header says
                audience=self._oidc.audience,
                issuer=self._oidc.issuer,
                leeway=LEEWAY_S,
                options={"require": ["aud", "exp", "iat", "iss", "sub"], "strict_aud": False},
            )
        except jwt.InvalidTokenError as error:
            raise TokenRefused(_fault(error)) from error
        if claims["exp"] - claims["iat"] > LIFE_S_MAX:
            raise TokenRefused(TokenFault.TOO_LONG)
        return claims

    def _key(self, kid: str) -> Any:
        """The issuer's key of this name; raises TokenRefused, KeysUnavailable."""
        with self._lock:
            now = self._clock()
            age = None if self._looked_s is None else now - self._looked_s
            if age is None or age > KEEP_S or (kid not in self._keys and age > AGAIN_S):
                self._looked_s = now  # also if it fails: nobody is asked more often
                self._keys = keys_in(self._read())
            if kid not in self._keys:
                raise TokenRefused(TokenFault.KEY)
            return self._keys[kid]

    def _read(self) -> bytes:
        try:
            if self._oidc.jwks_url is not None:
                return self._fetch(self._oidc.jwks_url)
            path = self._home.folder / Path(str(self._oidc.jwks_file))
            with path.open("rb") as file:
                return file.read(JWKS_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.warning("tokens.keys_unavailable", error=type(error).__name__)
            raise KeysUnavailable("the identity provider's keys cannot be read") from error


def keys_in(data: bytes) -> dict[str, Any]:
    """The keys of a JWK set that sign tokens here, by name; raises KeysUnavailable for what is no such set.

    Keys of other kinds and uses are left out: an `oct` key is a secret, and none of ours.
    """
    import jwt  # noqa: PLC0415 - as above

    try:
        listed = json.loads(data[:JWKS_BYTES_MAX])["keys"]  # a longer one is cut, and so no JSON
        found: dict[str, Any] = {}
        for one in listed[:JWKS_KEYS_MAX]:
            algorithm = ALGORITHMS.get(one.get("kty"))
            usable = one.get("use", "sig") == "sig" and one.get("alg", algorithm) == algorithm
            if algorithm is not None and usable and isinstance(one.get("kid"), str) and "d" not in one:
                found[one["kid"]] = jwt.PyJWK(one, algorithm)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        raise KeysUnavailable("what the identity provider gives is no set of keys") from error
    return found


def _fault(error: Exception) -> TokenFault:
    import jwt  # noqa: PLC0415 - as above

    kinds = (
        (jwt.ExpiredSignatureError, TokenFault.EXPIRED),
        (jwt.ImmatureSignatureError, TokenFault.TOO_EARLY),
        (jwt.InvalidIssuedAtError, TokenFault.TOO_EARLY),
        (jwt.InvalidAudienceError, TokenFault.AUDIENCE),
        (jwt.InvalidIssuerError, TokenFault.ISSUER),
        (jwt.InvalidAlgorithmError, TokenFault.ALGORITHM),
        (jwt.InvalidSignatureError, TokenFault.SIGNATURE),
    )
    return next((fault for kind, fault in kinds if isinstance(error, kind)), TokenFault.MALFORMED)


def fetched(url: str) -> bytes:
    """What a URL gives, over HTTPS under the system's authorities: bounded, and no redirect is followed."""
    parts = urlsplit(url)
    assert parts.hostname is not None  # coordinator.yaml's rules
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port or 443, timeout=FETCH_S, context=ssl.create_default_context()
    )
    try:
        connection.request("GET", parts.path or "/", headers={"accept": "application/json"})
        answer = connection.getresponse()
        if answer.status != _HTTP_OK:
            raise ValueError(f"status {answer.status}")
        return answer.read(JWKS_BYTES_MAX + 1)
    finally:
        connection.close()
