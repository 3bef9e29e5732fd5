"""Figures over rounds as TensorBoard reads them: event files, written without TensorBoard.

A file is a row of records (TFRecord: length, checksum, bytes, checksum), each an `Event` in protocol buffers with a
`Summary` of named numbers. The few fields that curves need are encoded here by hand, so that neither side has to
install TensorBoard; whoever looks at the curves does: `pip install tensorboard`, then `tensorboard --logdir FOLDER`.

Sources: event.proto, summary.proto and lib/io/record_writer.cc of TensorFlow.
"""

import math
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_VERSION = b"brain.Event:2"
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected
_MASK_DELTA = 0xA282EAD8


class EventFolder:
    """A folder of event files; one for each process that writes. Mutable: it knows whether its file has a head."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._path = folder / f"events.out.tfevents.{int(clock())}.{os.getpid()}"

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of one round under their names; `dice.1` becomes `dice/1`, which groups them.

        Figures that are no finite numbers are left out. Raises OSError.
        """
        values = {name.replace(".", "/"): value for name, value in figures.items() if math.isfinite(value)}
        at = self._clock()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            if file.tell() == 0:
                file.write(record(_double(1, at) + _bytes(3, _VERSION)))
            file.write(record(scalars(step, values, at)))


def scalars(step: int, values: Mapping[str, float], at: float) -> bytes:
    """An `Event` with a number for each name; `at` in seconds of Unix time, `step` at least 0."""
    return _double(1, at) + _number(2, step) + _bytes(5, b"".join(_values(values)))


def record(data: bytes) -> bytes:
    """The bytes in the frame of a TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


def _values(values: Mapping[str, float]) -> Iterator[bytes]:
    for name, value in values.items():
        yield _bytes(1, _bytes(1, name.encode()) + _tag(2, 5) + struct.pack("<f", value))


def _tag(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _double(field: int, value: float) -> bytes:
    return _tag(field, 1) + struct.pack("<d", value)


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _masked_crc(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (_POLYNOMIAL if index & 1 else 0)
    return index


_TABLE = tuple(_entry(index) for index in range(256))
