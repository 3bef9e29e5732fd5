"""The kit: written for its owner, read with suspicion."""

import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consortium.contract.certificates import (
    create_authority,
    issue_site,
    new_ecdsa_key,
    new_signing_key,
    new_tls_key,
    private_pem,
    site_request,
)
from consortium.contract.kit import (
    KIT_BYTES_MAX,
    KitExpired,
    KitUnreadable,
    parse_kit,
    read_kit,
    split_address,
    write_kit_bytes,
)
from tests.fakes.kits import kit_of
from tests.fakes.wire_world import pki

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AUTHORITY = create_authority("alpine-heart", now=NOW, valid_for=365 * DAY)
KIT = kit_of(
    AUTHORITY,
    address="[2001:db8::1]:8443",
    log_vkey="alpine-heart+1a2b3c4d+AQIDBAUGBwgJ/+==",
    expires=NOW + 7 * DAY,
)
MEMBERS = {
    "ca.pem": KIT.ca_pem,
    "invitation.pem": KIT.invitation.certificate_pem,
    "invitation-key.pem": KIT.invitation.key_pem,
}


def _zip(record: bytes | dict[str, Any], **changed: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kit.json", record if isinstance(record, bytes) else json.dumps(record))
        for name, data in {**MEMBERS, **changed}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _record(**changes: Any) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(KIT.to_bytes())) as archive:
        record: dict[str, Any] = json.loads(archive.read("kit.json"))
    for key, value in changes.items():
        if value is None:
            del record[key]
        else:
            record[key] = value
    return record


def test_a_kit_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "kit.zip"
    write_kit_bytes(path, KIT.to_bytes())
    assert read_kit(path) == KIT
    assert path.stat().st_mode & 0o777 == 0o600
    assert KIT.to_bytes() == path.read_bytes()  # the same kit, the same bytes
    assert KIT.token not in repr(KIT)
    assert "PRIVATE" not in repr(KIT)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["ca.pem", "invitation-key.pem", "invitation.pem", "kit.json"]


def test_a_kit_of_an_earlier_release_is_called_one() -> None:
    """It was made for a port of its own, and whoever holds it has no certificate to be heard with."""
    former = io.BytesIO()
    with zipfile.ZipFile(former, "w") as archive:
        archive.writestr("kit.json", json.dumps(_record(schema="consortium/kit/v1", enrolment_address="hub:8444")))
        archive.writestr("ca.pem", KIT.ca_pem)
    with pytest.raises(KitUnreadable, match=r"earlier release made \(consortium/kit/v1\)") as caught:
        parse_kit(former.getvalue())
    assert "site invite" in caught.value.advice()


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"invitation.pem": b""}, "none"),
        ({"invitation.pem": KIT.ca_pem}, "authority"),
        ({"invitation.pem": pki().site("north-clinic").certificate_pem}, "did not issue"),
        ({"invitation-key.pem": b""}, "no such key"),
        ({"invitation-key.pem": private_pem(new_signing_key())}, "no such key"),
        ({"invitation-key.pem": private_pem(new_tls_key())}, "not the certificate's"),
    ],
)
def test_an_invitation_that_is_none(changed: dict[str, bytes], found: str) -> None:
    with pytest.raises(KitUnreadable, match=found) as caught:
        parse_kit(_zip(_record(), **changed))
    assert caught.value.what == "invitation"
    assert "PRIVATE" not in str(caught.value)


def test_an_invitation_under_a_sites_name_is_none() -> None:
    key, signing, ecdsa = new_tls_key(), new_signing_key(), new_ecdsa_key()
    request = site_request(tls_key=key, signing_key=signing, ecdsa_key=ecdsa, site=KIT.site, consortium="alpine-heart")
    pem = issue_site(AUTHORITY, KIT.site, request, now=NOW, valid_for=7 * DAY)
    with pytest.raises(KitUnreadable, match="role invited"):
        parse_kit(_zip(_record(), **{"invitation.pem": pem, "invitation-key.pem": private_pem(key)}))


def test_an_invitation_that_ends_before_its_kit() -> None:
    with pytest.raises(KitUnreadable, match="ended 2026-03-08"):
        parse_kit(_zip(_record(expires="2026-03-09T12:00:00+00:00")))


def test_a_kit_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "kit.zip"
    path.write_bytes(b"another kit")
    with pytest.raises(FileExistsError):
        write_kit_bytes(path, KIT.to_bytes())
    assert path.read_bytes() == b"another kit"
    assert [one.name for one in tmp_path.iterdir()] == ["kit.zip"]


def test_bytes_that_are_no_kit_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(KitUnreadable):
        write_kit_bytes(tmp_path / "kit.zip", b"not a kit")
    assert list(tmp_path.iterdir()) == []


def test_a_kit_that_was_not_used_in_time() -> None:
    KIT.require_fresh(NOW + 7 * DAY)
    with pytest.raises(KitExpired, match="2026-03-08") as caught:
        KIT.require_fresh(NOW + 8 * DAY)
    assert "clock" in caught.value.advice()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"schema": "consortium/kit/v3"}, "schema"),
        ({"schema": None}, "schema"),
        ({"extra": 1}, "extra"),
        ({"site": "North Clinic"}, "site"),
        ({"site": 7}, "site"),
        ({"token": "short"}, "token"),
        ({"token": "a token with blanks!"}, "token"),
        ({"address": "hub.example.org"}, "address"),
        ({"address": "https://hub.example.org:443"}, "address"),
        ({"address": "hub:99999"}, "address"),
        ({"enrolment_address": "hub:8444"}, "enrolment_address"),
        ({"log_vkey": "two words here"}, "log_vkey"),
        ({"coordinator_signing_key": "xyz"}, "coordinator_signing_key"),
        ({"expires": "soon"}, "expires"),
        ({"expires": "2026-03-08T12:00:00"}, "expires"),
        ({"consortium": "other-heart"}, "consortium"),
        ({"ca_sha256": "00" * 32}, "ca_sha256"),
    ],
)
def test_a_record_that_is_wrong(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(KitUnreadable) as caught:
        parse_kit(_zip(_record(**changes)))
    assert caught.value.what == what
    assert "site invite" in caught.value.advice()
    assert KIT.token not in str(caught.value)


@pytest.mark.parametrize("record", [b"", b"[]", b"null", b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 10_000])
def test_a_record_that_is_no_object(record: bytes) -> None:
    with pytest.raises(KitUnreadable):
        parse_kit(_zip(record))


@pytest.mark.parametrize("ca_pem", [b"", b"x", KIT.ca_pem * 2])
def test_an_authority_that_is_none(ca_pem: bytes) -> None:
    with pytest.raises(KitUnreadable, match=r"ca\.pem"):
        parse_kit(_zip(_record(), **{"ca.pem": ca_pem}))


@pytest.mark.parametrize("data", [b"", b"PK", KIT.to_bytes()[:-30], b"x" * (KIT_BYTES_MAX + 1)])
def test_a_file_that_is_no_kit(data: bytes) -> None:
    with pytest.raises(KitUnreadable, match="file"):
        parse_kit(data)


def test_a_kit_with_another_file_in_it() -> None:
    with pytest.raises(KitUnreadable, match="once each"):
        parse_kit(_zip(_record(), **{"setup.sh": b"rm"}))


def test_a_damaged_kit_is_never_a_traceback() -> None:
    whole = KIT.to_bytes()
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        try:
            kit = parse_kit(bytes(damaged))
        except KitUnreadable:
            continue
        assert replace(kit) == KIT  # the byte was one that says nothing, such as a date in the directory


@pytest.mark.parametrize(
    ("address", "parts"),
    [("hub:1", ("hub", 1)), ("10.0.0.1:443", ("10.0.0.1", 443)), ("[::1]:8443", ("::1", 8443))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", ":1", "hub", "hub:", "hub:x", "hub:65536", "::1:1", "hub:1:2", "h ub:1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(address)
