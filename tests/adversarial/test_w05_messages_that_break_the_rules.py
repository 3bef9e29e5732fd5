"""W-05: a session that does not begin with Hello, garbage, unknown messages, and messages in somebody else's name.

Tried: rows w05 of `mutations.py`.
"""

from typing import Any

import pytest

from consortium.contract.messages import VectorKind
from consortium.wire import codec, limits
from consortium.wire import consortium_pb2 as pb
from consortium.wire.client import _answered, _next_of
from consortium.wire.errors import CallRefused, ConnectionLost, RefusalCode, WireViolation
from privacy.secagg.messages import (
    Confirmation,
    KeyBundle,
    RevealedShare,
    SealedForPeer,
    SealedShares,
    SiteId,
    UnmaskShares,
)
from tests.fakes.wire_world import HELLO, SITE, World, coordinator, vector_header

OTHER = SiteId("south-clinic")
HELLO_BYTES = codec.encode_site_message(HELLO)
CONFIRMATION = Confirmation(context=b"c" * 32, site=SITE, transcript=b"t" * 32, signature=b"s" * 64)


async def _say(world: World, *messages: bytes) -> None:
    """Open a session with gRPC alone, say this and no more, and read until it is over."""
    async with world.connect() as client:
        call = client._line.stream_stream("/consortium.wire.v1.Coordinator/Session")()
        for message in messages:
            await call.write(message)
        if messages:  # a session that lets them pass ends here, too
            await call.done_writing()
        while await _next_of(call) is not None:
            pass


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([codec.encode_site_message(CONFIRMATION)], "Hello first"),
        ([b""], "nothing this release knows"),
        ([b"\xff\xff\xff"], "protobuf"),
        ([b"\x00" * (limits.HELLO_BYTES_MAX + 1)], "at most 1024 bytes"),
        ([pb.SiteMessage(hello=pb.Hello(agent_version="0.1.0")).SerializeToString()], "1 to 65535"),
    ],
)
async def test_a_session_must_begin_with_hello(messages: list[bytes], found: str) -> None:
    async with coordinator() as world:
        with pytest.raises(CallRefused, match=found) as caught:
            await _say(world, *messages)
    assert caught.value.code is RefusalCode.INVALID
    assert world.service.sessions == []


async def test_a_session_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELLO_WAIT_S", 0.1)
    async with coordinator() as world:
        with pytest.raises(CallRefused, match="nothing within"):
            await _say(world)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (HELLO_BYTES, "Hello again"),
        (b"", "nothing this release knows"),
        (b"\xfa\x06\x01x", "nothing this release knows"),  # field 111, which no release has
        (b"\x0a\xff", "protobuf"),
    ],
)
async def test_later_messages_are_checked_as_well(message: bytes, found: str) -> None:
    async with coordinator() as world:
        with pytest.raises(CallRefused, match=found):
            await _say(world, HELLO_BYTES, message)
    assert isinstance(world.service.session_error, WireViolation)
    assert world.service.heard == []


@pytest.mark.parametrize(
    "message",
    [
        Confirmation(context=b"c" * 32, site=OTHER, transcript=b"t" * 32, signature=b"s" * 64),
        KeyBundle(
            context=b"c" * 32,
            site=OTHER,
            pair_key=b"p" * 1216,
            box_key=b"b" * 1216,
            self_mask_commitment=b"m" * 32,
            signature=b"s" * 64,
        ),
        SealedShares(
            context=b"c" * 32,
            site=OTHER,
            boxes=(SealedForPeer(recipient=SITE, shares=b"x" * 1202, pair_seed=b""),),
            signature=b"s" * 64,
        ),
        UnmaskShares(
            context=b"c" * 32,
            site=OTHER,
            self_mask_shares=(RevealedShare(owner=SITE, share=b"h" * 33),),
            root_shares=(),
            signature=b"s" * 64,
        ),
    ],
)
async def test_nobody_speaks_in_another_sites_name(message: Any) -> None:
    async with coordinator() as world:
        with pytest.raises(CallRefused, match="in the name of south-clinic"):
            await _say(world, HELLO_BYTES, codec.encode_site_message(message))
    assert world.service.heard == []


async def test_nobody_uploads_in_another_sites_name() -> None:
    async with coordinator() as world, world.connect() as client:
        with pytest.raises(CallRefused, match="in the name of south-clinic"):
            await client.upload_vector(vector_header(b"x", VectorKind.MASKED_UPDATE, site=OTHER), [b"x"])
    assert world.service.headers == []


@pytest.mark.parametrize("kind", [VectorKind.GLOBAL_MODEL, VectorKind.AGGREGATE])
async def test_a_site_uploads_no_model_and_no_aggregate(kind: VectorKind) -> None:
    async with coordinator() as world, world.connect() as client:
        with pytest.raises(CallRefused, match=r"header\.kind"):
            await client.upload_vector(vector_header(b"x", kind), [b"x"])


async def test_an_upload_without_a_header_and_one_with_two() -> None:
    header = codec.encode_vector_header(vector_header(b"x" * 10))
    async with coordinator() as world, world.connect() as client:
        for parts, found in (
            ([], "a header"),
            ([codec.encode_chunk(b"x")], "no header"),
            ([header, header], "no chunk"),
            ([b"\xff"], "protobuf"),
        ):
            call = client._line.stream_unary("/consortium.wire.v1.Coordinator/UploadVector")()
            for part in parts:
                await call.write(part)
            await call.done_writing()
            with pytest.raises((CallRefused, ConnectionLost), match=found):
                await _answered(call)
    assert world.service.vectors == {}


@pytest.mark.parametrize(("raw", "found"), [(b"", "nothing this release knows"), (b"\xff", "protobuf")])
async def test_a_coordinator_that_sends_garbage_is_blamed(
    raw: bytes, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "encode_coordinator_message", lambda _: raw)
    async with coordinator() as world, world.connect() as client, client.session(HELLO) as session:
        with pytest.raises(WireViolation, match=found):
            await anext(session)
