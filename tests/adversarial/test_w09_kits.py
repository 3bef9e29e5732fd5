"""W-09: a kit altered on its way: no other authority slips in, and no zip unfolds into memory.

Tried: row w09 of `mutations.py`.
"""

import dataclasses
import io
import tracemalloc
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from consortium.contract.certificates import create_authority
from consortium.contract.kit import KitUnreadable, parse_kit
from tests.fakes.kits import kit_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)
AUTHORITY = create_authority("alpine-heart", now=NOW, valid_for=YEAR)
KIT = kit_of(AUTHORITY, expires=NOW + timedelta(days=30))


def _repacked(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(KIT.to_bytes())) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            target.writestr(name, members.get(name, source.read(name)), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def test_another_authority_under_the_same_name() -> None:
    """The attacker's coordinator would be believed by everything that follows."""
    impostor = create_authority("alpine-heart", now=NOW, valid_for=YEAR).certificate_pem
    assert parse_kit(_repacked()) == KIT
    with pytest.raises(KitUnreadable, match="ca_sha256"):
        parse_kit(_repacked(**{"ca.pem": impostor}))


def test_the_certificate_of_another_kit() -> None:
    """Whoever enrols with it would be taken for somebody else, or be refused after the token was shown."""
    other = kit_of(AUTHORITY, token="another-token_43", expires=KIT.expires).invitation
    assert parse_kit(_repacked()) == KIT
    with pytest.raises(KitUnreadable, match="another kit"):
        parse_kit(_repacked(**{"invitation.pem": other.certificate_pem, "invitation-key.pem": other.key_pem}))
    with pytest.raises(KitUnreadable, match="not the certificate's"):
        parse_kit(_repacked(**{"invitation-key.pem": other.key_pem}))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_unfolds_a_thousandfold(method: int) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", method) as archive:
        archive.writestr("kit.json", b" " * 40_000_000)
        for name, pem in (
            ("ca.pem", KIT.ca_pem),
            ("invitation.pem", KIT.invitation.certificate_pem),
            ("invitation-key.pem", KIT.invitation.key_pem),
        ):
            archive.writestr(name, pem)
    data = bomb.getvalue()
    assert len(data) < 64 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(KitUnreadable):
            parse_kit(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_two_records_of_which_a_reader_might_take_either() -> None:
    other = dataclasses.replace(KIT, address="evil.example.org:8443")
    with zipfile.ZipFile(io.BytesIO(other.to_bytes())) as evil:
        record = evil.read("kit.json")
    buffer = io.BytesIO(KIT.to_bytes())
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("kit.json", record)
    with pytest.raises(KitUnreadable, match="once each"):
        parse_kit(buffer.getvalue())
