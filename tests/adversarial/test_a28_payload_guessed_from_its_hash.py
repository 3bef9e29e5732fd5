"""A-28: somebody who reads the log guesses what was kept beside it, and checks the guess by its hash.

Held by: a salt of 32 random bytes in every commitment, a fresh one each time (`audit.vault.seal`); no plain SHA-256 in
the same entry (`Declaration`); a pseudonym under a key of that person alone, which goes with her row.

Tried, as a28 of `mutations.py`: a salt that is always the same; a commitment without its salt; an entry that has the
document's SHA-256 too; a pseudonym that is an HMAC under nothing secret.
"""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

import pytest

from audit import entries
from audit.errors import EntryRefused
from audit.vault import commit
from tests.fakes.vault_world import STAMP, VaultWorld

GUESSES = [f"Mr Guess number {number} withdrew.".encode() for number in range(100)]
TRUE = GUESSES[42]


def guessed(seen: bytes, guesses: list[bytes]) -> list[bytes]:
    """Every guess of which some hash that an outsider can compute is in what he sees."""
    zeros = bytes(32)
    known = (b"", b"\x01", zeros, b"\x01" + zeros)
    return [one for one in guesses if any(hashlib.sha256(p + one).hexdigest().encode() in seen for p in known)]


@pytest.fixture
def world(tmp_path: Path) -> VaultWorld:
    return VaultWorld(tmp_path)


def test_a_right_guess_looks_like_a_wrong_one(world: VaultWorld) -> None:
    kept = world.declared(TRUE)
    again = world.declared(TRUE)
    assert kept.commitment != again.commitment  # nor can it be seen that one thing was said twice
    seen = b"".join(data for data in world.log if data is not None)
    assert guessed(seen, GUESSES) == []
    *_, opening = world.vault.open(kept.id)
    assert commit(TRUE, opening.expose_salt()) == kept.commitment  # who has the salt can show it
    world.erase(kept.id)
    assert guessed(world.bytes_on_disk() + b"".join(map(bytes, filter(None, world.log))), GUESSES) == []


def test_no_plain_hash_stands_beside_the_salted_one(world: VaultWorld) -> None:
    plain, salted = hashlib.sha256(TRUE).hexdigest(), commit(TRUE, os.urandom(32))
    fields: dict[str, Any] = {"kind": "DUA", "parties": ("cleveland",), "valid_from": "2026-01-01"}
    made = entries.AgreementRecorded(
        **STAMP, **fields, document_commitment=salted
    )  # a document is needed, and is there
    assert made.document_sha256 is None
    with pytest.raises(EntryRefused, match="one of the two"):
        entries.AgreementRecorded(**STAMP, **fields, document_sha256=plain, document_commitment=salted)


def test_a_pseudonym_cannot_be_guessed_from_the_name(world: VaultWorld, tmp_path: Path) -> None:
    ada = world.vault.pseudonym("Ada Example")
    keys = [b"", bytes(32), b"consortium/pseudonym/v2\n"]
    messages = [b"Ada Example", b"consortium/pseudonym/v2\nAda Example"]
    guesses = {hmac.new(key, message, "sha256").hexdigest()[:32] for key in keys for message in messages}
    guesses |= {hashlib.sha256(message).hexdigest()[:32] for message in messages}
    assert ada.removeprefix("u:") not in guesses
    assert VaultWorld(tmp_path / "other").vault.pseudonym("Ada Example") != ada  # nor by another keeper of the name
