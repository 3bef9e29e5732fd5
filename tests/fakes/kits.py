"""Kits as a coordinator makes them, under any authority.

kit = kit_of(authority, site="north-clinic", expires=soon)
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from consortium.contract.certificates import Authority, issue_invitation
from consortium.contract.kit import Kit
from consortium.contract.names import SiteId

LIFETIME = timedelta(days=7)


def kit_of(authority: Authority, **changes: Any) -> Kit:
    """A kit with its certificate, but for `changes`. It ends with a whole second, as certificates do."""
    token = str(changes.get("token", "one-time-token_42"))
    expires = changes.pop("expires", datetime.now(UTC) + LIFETIME).replace(microsecond=0)
    fields: dict[str, Any] = {
        "consortium": authority.consortium,
        "address": "hub.example.org:8443",
        "ca_pem": authority.certificate_pem,
        "site": SiteId("north-clinic"),
        "token": token,
        "log_vkey": "alpine-heart+1a2b3c4d+AQIDBAUGBwgJ",
        "coordinator_signing_key": "ab" * 32,
        "expires": expires,
    }
    if "invitation" not in changes:
        fields["invitation"] = issue_invitation(authority, token, now=expires - LIFETIME, valid_for=LIFETIME)
    return Kit(**{**fields, **changes})
