"""Curves are written as TensorBoard reads them: frames, checksums and fields, checked with a reader of their own."""

import struct
from pathlib import Path

import pytest

from consortium.contract.event_file import EventFolder, crc32c, record, scalars


def fields(message: bytes) -> list[tuple[int, int | float | bytes]]:
    """The fields of a protocol-buffers message, one level deep: (number, value)."""
    found: list[tuple[int, int | float | bytes]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        match tag & 7:
            case 0:
                found.append((tag >> 3, varint()))
            case 1:
                found.append((tag >> 3, struct.unpack_from("<d", message, at)[0]))
                at += 8
            case 2:
                length = varint()
                found.append((tag >> 3, message[at : at + length]))
                at += length
            case 5:
                found.append((tag >> 3, struct.unpack_from("<f", message, at)[0]))
                at += 4
    return found


def unmasked(masked: int) -> int:
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def records(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        checks = struct.unpack_from("<I", data, at + 8)[0], struct.unpack_from("<I", data, at + 12 + length)[0]
        body = data[at + 12 : at + 12 + length]
        assert [unmasked(check) for check in checks] == [crc32c(data[at : at + 8]), crc32c(body)]
        found.append(body)
        at += 16 + length
    return found


@pytest.mark.parametrize(
    ("data", "checksum"),
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"123456789", 0xE3069283)],
)
def test_the_checksum_is_that_of_rfc_3720(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


def test_an_event_holds_its_step_and_its_numbers() -> None:
    (at, step, summary) = fields(scalars(300, {"auc": 0.5, "dice/1": -2.25}, 12.5))
    assert (at, step, summary[0]) == ((1, 12.5), (2, 300), 5)
    assert isinstance(summary[1], bytes)
    values = [fields(value) for number, value in fields(summary[1]) if number == 1 and isinstance(value, bytes)]
    assert values == [[(1, b"auc"), (2, 0.5)], [(1, b"dice/1"), (2, -2.25)]]
    assert records(record(b"abc")) == [b"abc"]


def test_a_folder_has_a_file_with_a_head_and_an_event_for_each_round(tmp_path: Path) -> None:
    folder = EventFolder(tmp_path / "tensorboard" / "lungs", clock=lambda: 7.0)
    folder.add(1, {"auc": 0.5, "loss": float("nan")})
    folder.add(2, {"dice.1.p50": 0.75})
    (path,) = (tmp_path / "tensorboard" / "lungs").iterdir()
    assert path.name.startswith("events.out.tfevents.7.")
    head, *events = [fields(body) for body in records(path.read_bytes())]
    assert head == [(1, 7.0), (3, b"brain.Event:2")]
    assert [event[1] for event in events] == [(2, 1), (2, 2)]
    names = [
        [fields(value)[0][1] for _, value in fields(event[2][1])]  # type: ignore[arg-type] # messages within
        for event in events
    ]
    assert names == [[b"auc"], [b"dice/1/p50"]]
