"""A-26: somebody is turned away and nobody can see that later: each way of saying no reaches the audit log.

Held by: the calls of `turned_away` in `wire/server.py` (in `_member`), and of `access.denied` in
`commands.execute` and `Sites.authenticate`. Tried: rows a26 of `mutations.py`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consortium.commands import execute
from consortium.contract.certificates import certificate_der, invitation_name, verify_certificate
from consortium.contract.kit import parse_kit
from consortium.contract.messages import VectorKind
from consortium.contract.names import Digest
from consortium.errors import AccessDenied, ConsortiumError, EnrolmentRefused
from consortium.vectors import VectorMissing
from consortium.wire import consortium_pb2 as pb
from consortium.wire.client import CoordinatorClient, _answered
from consortium.wire.errors import CallRefused, WireViolation
from tests.fakes.coordinator_home import coordinator_in, new_hospital
from tests.fakes.small_study import small_study
from tests.fakes.wire_world import SITE, TOKEN, coordinator, pki, vector_header

Call = Callable[[CoordinatorClient], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    ("call", "method"),
    [
        (lambda client: client.execute("study.abort", b"{}"), "Execute"),
        (lambda client: anext(client.watch()), "Watch"),
    ],
)
async def test_a_certificate_for_another_role(call: Call, method: str) -> None:
    async with coordinator() as world, world.connect() as client:
        with pytest.raises(CallRefused):
            await call(client)
    assert world.service.turned == [(None, method, "CertificateRefused")]


async def test_a_message_beyond_its_bounds() -> None:
    async with coordinator() as world, world.connect() as client:
        world.service.upload_bytes_max = 0
        with pytest.raises(CallRefused):
            await client.upload_vector(vector_header(b"x"), [b"x"])
    assert world.service.turned == [(SITE, "UploadVector", "WireViolation")]


async def test_what_the_service_itself_refuses() -> None:
    async with coordinator() as world, world.connect() as client:
        world.service.failing["list_studies"] = AccessDenied("not for you")
        with pytest.raises(CallRefused):
            await client.list_studies()
    assert world.service.turned == [(SITE, "ListStudies", "AccessDenied")]


async def test_who_was_not_admitted_is_told_once() -> None:
    """The service that says no writes it down: the wire does not tell it again."""
    async with coordinator() as world, world.connect() as client:
        world.service.denied[SITE] = AccessDenied("revoked")
        with pytest.raises(CallRefused):
            await client.list_studies()
    assert world.service.turned == []


async def test_an_enrolment_that_is_none() -> None:
    async with coordinator() as world, world.connect(credentials=pki().invitation()) as client:
        method = client._line.unary_unary(f"/{pb.DESCRIPTOR.services_by_name['Enrolment'].full_name}/Enrol")
        with pytest.raises(CallRefused):
            await _answered(method(b""))
    assert world.service.turned == [(invitation_name(TOKEN), "Enrol", "WireViolation")]


def test_every_denial_of_the_coordinator_is_in_its_log(tmp_path: Path) -> None:
    """One of each: token, foreign certificate, revoked site, wrong state, somebody else's model, wrong command."""
    with coordinator_in(tmp_path) as world:
        amber, stranger = world.enrol("amber-clinic"), new_hospital("birch-hospital")
        world.submit(small_study())
        with pytest.raises(EnrolmentRefused):
            world.certify(world.request(stranger, "f" * 64))
        holder = verify_certificate(
            certificate_der(parse_kit(world.sites.invite("cedar-clinic")[0]).invitation.certificate_pem),
            world.coordinator.home.ca_certificate,
            datetime.now(UTC),
        )
        asyncio.run(world.coordinator.turned_away(holder, "Enrol", WireViolation("x", found="y", allowed="z")))
        asyncio.run(world.coordinator.turned_away(holder, "Enrol", EnrolmentRefused("written down already")))
        with pytest.raises(ConsortiumError):
            asyncio.run(execute(world.coordinator, "study.resume", b'{"study":"small-study"}'))
        with pytest.raises(ConsortiumError):
            asyncio.run(execute(world.coordinator, "erase", b"{}"))
        with pytest.raises(ConsortiumError) as missing:
            asyncio.run(world.coordinator.open_vector(amber.identity, VectorKind.GLOBAL_MODEL, Digest("5d" * 32)))
        assert isinstance(missing.value, VectorMissing)
        asyncio.run(world.coordinator.turned_away(amber.identity, "DownloadVector", missing.value))
        world.sites.revoke("amber-clinic")
        with pytest.raises(AccessDenied):
            world.sites.authenticate(amber.identity)
        denied = [(body["subject"], body["action"]) for body in world.bodies("authz.denied")]
        assert denied == [
            ("operator", "study.resume"),
            ("operator", "unknown command"),
            ("site:amber-clinic", "DownloadVector"),
            ("site:amber-clinic", "connect"),
        ]
        assert [body["reason"] for body in world.bodies("auth.failed")] == [
            "enrolment: the token is not one this consortium gave to this site",
            "Enrol: a message beyond its bounds, or out of place",
        ]
