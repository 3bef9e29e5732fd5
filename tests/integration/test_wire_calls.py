"""Every call once, over real TLS on the loopback interface, and what the two sides see of it."""

import hashlib

import pytest

from consortium.contract.certificates import (
    Issued,
    Role,
    invitation_name,
    new_ecdsa_key,
    new_signing_key,
    new_tls_key,
    private_pem,
    site_request,
)
from consortium.contract.messages import (
    EnrolmentRequest,
    PrepareStudy,
    Refusal,
    RoundAborted,
    StudyPrepared,
    VectorKind,
    Welcome,
)
from consortium.contract.names import Digest
from consortium.wire.client import enrol
from consortium.wire.errors import SessionEnded
from privacy.p256 import point_bytes
from privacy.secagg.messages import Confirmation
from tests.fakes.wire_world import (
    HELLO,
    NAME,
    SITE,
    STUDY_DIGEST,
    TOKEN,
    RecordingService,
    coordinator,
    pki,
    vector_header,
)

PREPARED = StudyPrepared(study_digest=STUDY_DIGEST, model_digest=Digest("ab" * 32), parameter_count=14)


async def test_a_session_carries_messages_both_ways() -> None:
    service = RecordingService(outgoing=[PrepareStudy(study_digest=STUDY_DIGEST)])
    service.echo = lambda message: RoundAborted(context=b"x" * 32, reason=type(message).__name__)
    async with coordinator(service) as world, world.connect() as client:
        async with client.session(HELLO) as session:
            assert isinstance(await anext(session), Welcome)
            assert await anext(session) == PrepareStudy(study_digest=STUDY_DIGEST)
            await session.send(PREPARED)
            assert await anext(session) == RoundAborted(context=b"x" * 32, reason="StudyPrepared")
        await service.ended.wait()
    assert service.sessions == [(SITE, HELLO)]
    assert service.heard == [PREPARED]
    assert service.session_error is None
    peer = service.peers[0]
    assert (peer.role, peer.name, peer.consortium) == (Role.SITE, SITE, NAME)


async def test_stopping_the_coordinator_ends_sessions_in_order() -> None:
    async with coordinator() as world, world.connect() as client, client.session(HELLO) as session:
        assert isinstance(await anext(session), Welcome)
        await world.server.stop(1)
        with pytest.raises(SessionEnded):
            await anext(session)
        assert world.service.session_error is None


@pytest.mark.parametrize("size", [1, 1 << 18, (1 << 18) + 1, 5_000_000])
async def test_a_vector_arrives_whole_in_small_chunks(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"\x07" * (size % 256)
    async with coordinator() as world, world.connect() as client:
        await client.upload_vector(vector_header(data, VectorKind.MASKED_UPDATE), [data])
        digest = Digest(hashlib.sha256(data).hexdigest())
        assert world.service.vectors == {digest: data}
        assert world.service.largest_chunk == min(size, 1 << 18)
        received = bytearray()
        header = await client.download_vector(VectorKind.GLOBAL_MODEL, digest, size, received.extend)
    assert (header.size_bytes, bytes(received)) == (size, data)


async def test_events_and_studies() -> None:
    async with coordinator() as world, world.connect() as client:
        receipt = await client.submit_events((b"one", b"two"))
        studies = await client.list_studies()
    assert receipt.last_sequence == 2
    assert world.service.events == [b"one", b"two"]
    assert [study.document for study in studies] == [b'{"id":"heart-disease"}', b'{"id":"heart-disease","v":2}']


async def test_an_operator_gives_commands_and_watches() -> None:
    async with coordinator() as world, world.connect_operator() as client:
        answer = await client.execute("study.list", b'{"all":true}')
        seen = [status async for status in client.watch()]
    assert answer == b'{"command":"study.list","got":{"all":true}}'
    assert seen == [b'{"round":0}', b'{"round":1}', b'{"round":2}']


async def test_watching_ends_when_the_coordinator_stops() -> None:
    async with coordinator() as world, world.connect_operator("patient-lead") as client:
        watching = client.watch()
        assert [await anext(watching) for _ in range(3)][2] == b'{"round":2}'
        await world.server.stop(1)
        assert await anext(watching, None) is None


async def test_enrolment_gives_a_certificate_that_connects() -> None:
    tls_key, signing_key = new_tls_key(), new_signing_key()
    ecdsa_key = new_ecdsa_key()
    request = site_request(tls_key=tls_key, signing_key=signing_key, ecdsa_key=ecdsa_key, site=SITE, consortium=NAME)
    ca_pem = pki().authority.certificate_pem
    async with coordinator() as world:
        asked = EnrolmentRequest(site=SITE, token=TOKEN, request_der=request)
        grant = await enrol(world.address, ca_pem, pki().invitation(), asked, on_sent=world.sent.append)
        own = Issued(certificate_pem=grant.certificate_pem, key_pem=private_pem(tls_key))
        async with world.connect(credentials=own) as client:
            await client.list_studies()
    assert world.service.enrolled == [asked]
    invited, site = world.service.peers
    assert (invited.role, invited.name, invited.signing_key) == (Role.INVITED, invitation_name(TOKEN), None)
    assert site.signing_key == signing_key.public_key().public_bytes_raw()
    assert site.ecdsa_key == point_bytes(ecdsa_key.public_key())
    assert [record.kind for record in world.sent] == ["enrolment-request", "list-studies"]


async def test_all_that_leaves_is_recorded_before_it_leaves() -> None:
    data = b"masked" * 100_000
    confirmation = Confirmation(context=b"c" * 32, site=SITE, transcript=b"t" * 32, signature=b"s" * 64)
    async with coordinator() as world, world.connect() as client:
        async with client.session(HELLO) as session:
            await anext(session)
            await session.send(PREPARED)
            await session.send(confirmation, study_digest=STUDY_DIGEST)
        await client.upload_vector(vector_header(data, VectorKind.MASKED_UPDATE), [data])
        await client.submit_events((b"one",), study_digest=STUDY_DIGEST)
    assert [(r.kind, r.study_digest) for r in world.sent] == [
        ("hello", None),
        ("study-prepared", STUDY_DIGEST),
        ("confirmation", STUDY_DIGEST),
        ("masked-update", STUDY_DIGEST),
        ("events", STUDY_DIGEST),
    ]
    assert (world.sent[3].size_bytes, world.sent[3].sha256) == (600_000, hashlib.sha256(data).hexdigest())


async def test_words_for_people_are_made_to_fit() -> None:
    loud = Refusal(study_digest=STUDY_DIGEST, round=1, attempt=1, rule="max-epsilon", explanation="\x1b[2Jx" * 5000)
    async with coordinator() as world, world.connect() as client, client.session(HELLO) as session:
        await anext(session)
        await session.send(loud)
        await session.finish()
    (heard,) = world.service.heard
    assert isinstance(heard, Refusal)
    assert len(heard.explanation) == 2048
    assert "\x1b" not in heard.explanation
