"""How the log travels to a copy: golden bytes of what stands in place of dropped entries, and what is refused."""

import pytest

from consortium.contract.messages import DroppedLeaves, LogGrowth
from consortium.wire import consortium_pb2 as pb
from consortium.wire import limits
from consortium.wire.errors import WireViolation
from consortium.wire.log_codec import decode_part, encode_entries, encode_growth

HASHES = DroppedLeaves(hashes=(b"\1" * 32, b"\2" * 32))
GROWTH = LogGrowth(note=b"note", proof=(b"\3" * 32,), cosigned=(b"other",), dropped=b"\x40" + bytes(31))
GOLDEN = {
    HASHES: "1a440a20" + "01" * 32 + "0a20" + "02" * 32,
    GROWTH: "0a510a046e6f74651220" + "03" * 32 + "1a056f746865722220" + "40" + "00" * 31,
    (b"entry",): "12070a05656e747279",
}


@pytest.mark.parametrize("part", GOLDEN, ids=["hashes", "growth", "entries"])
def test_golden_bytes(part):
    data = encode_growth(part) if isinstance(part, LogGrowth) else encode_entries(part)
    assert data.hex() == GOLDEN[part]
    assert decode_part(data) == part


@pytest.mark.parametrize(
    "part",
    [
        pb.LogPart(hashes=pb.LogHashes()),
        pb.LogPart(hashes=pb.LogHashes(hashes=[bytes(31)])),
        pb.LogPart(hashes=pb.LogHashes(hashes=[bytes(32), b""])),
        pb.LogPart(hashes=pb.LogHashes(hashes=[bytes(32)] * (limits.EVENTS_PER_CALL_MAX + 1))),
        pb.LogPart(growth=pb.LogGrowth(note=b"note", dropped=bytes(limits.DROPPED_BYTES_MAX + 1))),
        pb.LogPart(),
    ],
)
def test_what_no_coordinator_sends(part):
    with pytest.raises(WireViolation):
        decode_part(part.SerializeToString())
