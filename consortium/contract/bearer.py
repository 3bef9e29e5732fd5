"""A token in place of a certificate: how it travels, and why one is refused. What it says is `consortium/tokens.py`'s.

Tokens are OpenID Connect's: JWTs signed by the identity provider that coordinator.yaml names (RFC 7519, RFC 8725).
"""

from dataclasses import dataclass, field
from enum import StrEnum

METADATA = "authorization"
"""The key in a call's metadata; the value is `Bearer`, a blank, and the token."""
TOKEN_BYTES_MAX = 7 * 1024
"""gRPC allows 8 KiB for all metadata together."""


class TokenFault(StrEnum):
    """Why a token was refused: words of ours, for the caller and for the log."""

    MISSING = "there is none"
    MALFORMED = "it is no signed token, or lacks what a token must say"
    ALGORITHM = "it is not signed with RS256, ES256 or EdDSA"
    KEY = "its key is not one of the issuer's"
    SIGNATURE = "its signature does not hold"
    ISSUER = "it is of another issuer"
    AUDIENCE = "it is for somebody else"
    EXPIRED = "it has expired"
    TOO_EARLY = "it is not valid yet"
    TOO_LONG = "it is valid for more than a day"
    ROLE = "it names no role here, or several"
    NOT_TAKEN = "this coordinator takes none"


class TokenRefused(Exception):
    """A token that proves nothing here. Whose fault: its holder's, a clock's, or the identity provider's."""

    code = "refused"

    def __init__(self, fault: TokenFault) -> None:
        super().__init__(f"the token was refused: {fault}")
        self.fault = fault

    def advice(self) -> str:
        """What to do next."""
        return "Get a fresh token from your identity provider, for this consortium's audience; or ask for an account."


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A caller who shows a token; nothing of it is checked yet."""

    token: str = field(repr=False)


def bearer_of(values: list[str]) -> Bearer:
    """The caller behind the values of `authorization`; raises TokenRefused unless there is just one token."""
    if len(values) != 1:
        raise TokenRefused(TokenFault.MISSING)
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_BYTES_MAX:
        raise TokenRefused(TokenFault.MALFORMED)
    return Bearer(token=token)
