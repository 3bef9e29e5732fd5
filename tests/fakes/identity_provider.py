"""An OpenID Connect provider in memory: keys, the set of them that it publishes, and tokens, good and bad."""

import base64
import hashlib
import hmac
import json
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUER, AUDIENCE = "https://login.example.org/cardio", "consortium-cardio"
ALGORITHMS = {"rsa-1": "RS256", "ec-1": "ES256", "ed-1": "EdDSA"}


@cache
def keys() -> dict[str, Any]:
    """By name, one of each kind."""
    return {
        "rsa-1": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ec-1": ec.generate_private_key(ec.SECP256R1()),
        "ed-1": Ed25519PrivateKey.generate(),
    }


def jwks(*names: str) -> bytes:
    """What the provider publishes: these keys, beside one that is a secret and one for encryption."""
    listed = []
    for name in names or ALGORITHMS:
        algorithm = jwt.get_algorithm_by_name(ALGORITHMS[name])
        listed.append(algorithm.to_jwk(keys()[name].public_key(), as_dict=True) | {"kid": name, "use": "sig"})
    listed.append({"kty": "oct", "kid": "secret-1", "k": "c2VjcmV0"})
    listed.append(listed[0] | {"kid": "encrypts-1", "use": "enc"})
    return json.dumps({"keys": listed}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Of Ada, an auditor, for an hour."""
    now = int(time.time())
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada-0815", "iat": now, "nbf": now, "exp": now + 3600}
    said |= {"roles": ["staff", "cardio-audit"], **changed}
    return {name: value for name, value in said.items() if value is not None}


def token(kid: str = "ec-1", *, signed_with: str | None = None, algorithm: str | None = None, **changed: Any) -> str:
    """A token with these claims, under this name of a key."""
    name = signed_with or kid
    return jwt.encode(claims(**changed), keys()[name], algorithm=algorithm or ALGORITHMS[name], headers={"kid": kid})


def _part(value: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def unsigned(kid: str = "ec-1") -> str:
    """`alg: none`, which libraries have taken."""
    return (_part({"alg": "none", "typ": "JWT", "kid": kid}) + b"." + _part(claims()) + b".").decode()


def with_the_public_key_as_a_secret(kid: str = "rsa-1") -> str:
    """HS256 under the bytes of a public key that everybody has."""
    public = keys()[kid].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = _part({"alg": "HS256", "typ": "JWT", "kid": kid}) + b"." + _part(claims())
    mac = base64.urlsafe_b64encode(hmac.digest(pem, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + mac).decode()


def taken_at(home: Path, people_address: str = "127.0.0.1:8449") -> None:
    """Have a home take this provider's tokens, with the keys in a file."""
    (home / "jwks.json").write_bytes(jwks())
    path = home / "coordinator.yaml"
    oidc = f"""\
oidc:
  issuer: {ISSUER}
  audience: {AUDIENCE}
  jwks_file: jwks.json
  role_claim: roles
  leads: [cardio-lead]
  scientists: [cardio-science]
  auditors: [cardio-audit]
  operators: []
"""
    text = re.sub(r"(?m)^people_address: null$", f'people_address: "{people_address}"', path.read_text())
    path.write_text(re.sub(r"(?m)^oidc: null\n", oidc, text))
