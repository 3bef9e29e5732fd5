"""Write down, outside of everything that will be searched, what a process knows and nobody may find anywhere.

Installed in a child of the nursery before it begins (`watch`). Every `Secret` of bytes is noted as it is made, and so
are the coefficients of the sharing polynomials, the update of every attempt before and after its encoding, and every
message that leaves, with the shares in it that are meant to. The code it watches is the real code.

    secrets.txt     one line each: where it was made, then the value in hexadecimal
    revealed.txt    the shares that were sent for unmasking, in hexadecimal
    sent.bin        every message that left, as it was before TLS: its length in 8 bytes, then its bytes
    <sha>.encoded, <sha>.update    by the digest of the masked update: what it hides, as an array
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consortium.contract.layout import LaneName
from consortium.wire import client, codec
from privacy.encoding import Layout, RingVector, encode
from privacy.secagg import shares
from privacy.secagg.masks import MaskSeeds, encode_and_mask
from privacy.secagg.messages import UnmaskShares
from privacy.secret import Secret
from site_agent import study_work

LENGTH_BYTES = 8


def watch(folder: str) -> None:
    """Begin; the folder may have what an earlier process of the same name wrote."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    _watch_secrets(_appender(home / "secrets.txt"))
    _watch_masking(home)
    _watch_sending(_appender(home / "sent.bin"), _appender(home / "revealed.txt"))


def _appender(path: Path) -> Callable[[bytes], object]:
    """Nothing is lost if the process is killed after it returns, and lines of threads do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return lambda data: os.write(descriptor, data)


def _watch_secrets(note: Callable[[bytes], object]) -> None:
    make, draw = Secret.__init__, shares._uniform_elements

    def make_and_note(self: Secret[Any], value: Any) -> None:
        make(self, value)
        if isinstance(value, bytes):
            here = sys._getframe(1)
            above = here.f_back.f_code.co_qualname if here.f_back else ""
            note(f"{above}/{here.f_code.co_qualname} {value.hex()}\n".encode())

    def draw_and_note(seed: Secret[bytes], count: int) -> list[int]:
        drawn = draw(seed, count)
        for element in drawn:
            note(f"coefficient {element.to_bytes(shares.SHARE_BYTES, 'big').hex()}\n".encode())
        return drawn

    Secret.__init__ = make_and_note  # type: ignore[method-assign]
    shares._uniform_elements = draw_and_note


def _watch_masking(home: Path) -> None:
    def mask_and_note(
        values: Mapping[str, NDArray[Any]], layout: Layout, dither: Secret[bytes], seeds: MaskSeeds
    ) -> tuple[RingVector, bytes]:
        masked, sha256 = encode_and_mask(values, layout, dither, seeds)
        with (home / f"{sha256.hex()}.encoded").open("wb") as file:
            np.save(file, encode(values, layout, dither))
        if LaneName.UPDATE in values:
            with (home / f"{sha256.hex()}.update").open("wb") as file:
                np.save(file, values[LaneName.UPDATE])
        return masked, sha256

    vars(study_work)["encode_and_mask"] = mask_and_note


def _watch_sending(note: Callable[[bytes], object], note_revealed: Callable[[bytes], object]) -> None:
    write, encode_message = client._written, codec.encode_site_message

    async def write_and_note(call: Any, data: bytes) -> None:
        note(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        await write(call, data)

    def encode_and_note(message: Any) -> bytes:
        if isinstance(message, UnmaskShares):
            for share in (*message.self_mask_shares, *message.root_shares):
                note_revealed(f"{share.share.hex()}\n".encode())
        return encode_message(message)

    client._written = write_and_note
    codec.encode_site_message = encode_and_note


# --- reading it ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What the processes of one world knew. It prints as nothing, lest a failing test be the leak."""

    secrets: dict[bytes, str]  # value -> where it was made
    revealed: frozenset[bytes]
    sent: dict[str, tuple[bytes, ...]]  # by process
    encoded: dict[str, NDArray[Any]]  # by the digest of the masked update
    updates: dict[str, NDArray[Any]]

    def __repr__(self) -> str:
        return "Notes()"


def notes_in(folder: Path) -> Notes:
    """Everything noted so far below the folder that has one folder for each process."""
    secrets: dict[bytes, str] = {}
    for path in folder.glob("*/secrets.txt"):
        for line in path.read_text().splitlines():
            place, _, value = line.rpartition(" ")
            secrets.setdefault(bytes.fromhex(value), f"{path.parent.name}: {place}")
    revealed = [bytes.fromhex(line) for path in folder.glob("*/revealed.txt") for line in path.read_text().split()]
    return Notes(
        secrets=secrets,
        revealed=frozenset(revealed),
        sent={path.parent.name: tuple(_messages(path.read_bytes())) for path in folder.glob("*/sent.bin")},
        encoded={path.stem: np.load(path) for path in folder.glob("*/*.encoded")},
        updates={path.stem: np.load(path) for path in folder.glob("*/*.update")},
    )


def _messages(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = start + LENGTH_BYTES + int.from_bytes(data[start : start + LENGTH_BYTES], "big")
        yield data[start + LENGTH_BYTES : end]
        start = end
