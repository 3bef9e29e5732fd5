"""The agent's folder, whole or damaged."""

import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from consortium.contract.certificates import private_pem
from consortium.contract.private_files import PrivateFileRefused
from privacy.secagg.suites import SUITES, SuiteName
from site_agent.home import ConfigurationMissing, HomeInvalid, open_home
from tests.fakes.site_world import ME, make_home, new_authority, small_study, write_site_file

STUDY = small_study()


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path, STUDY)


def test_a_whole_home(home):
    assert home.site == ME
    assert home.signing_key.public_key().public_bytes_raw().hex() == home.identity.signing_key
    assert len(home.long_term_secret.expose()) == 32
    assert home.config.studies == {"small-study": "ward"}
    assert b"PRIVATE" in home.tls_key_pem
    assert "PRIVATE" not in repr(home)


def test_each_suite_has_its_signer(home):
    keys = {SuiteName.HYBRID_PQ: home.identity.signing_key, SuiteName.P256: home.identity.ecdsa_key}
    for suite in SuiteName:
        signature = home.signer(suite).sign(b"payload")
        assert SUITES[suite].signature_holds(bytes.fromhex(keys[suite]), b"payload", signature)
    assert "PRIVATE" not in repr(home.ecdsa_key)


def test_the_hospitals_own_address_and_proxy_come_before_the_kits(home, tmp_path):
    assert home.address == home.identity.address
    assert home.proxy is None
    with (tmp_path / "site.yaml").open("a") as file:
        file.write("coordinator: {address: 'hub.example.org:8443'}\nproxy: http://proxy.example.org:3128\n")
    assert home.address == "hub.example.org:8443"
    assert home.proxy == "http://proxy.example.org:3128"


def test_without_a_site_file_the_kits_address_is_dialled(home, tmp_path):
    (tmp_path / "site.yaml").unlink()
    assert home.address == home.identity.address
    with pytest.raises(ConfigurationMissing) as caught:
        _ = home.config
    assert "site-file.md" in caught.value.advice()


def test_a_home_named_from_where_one_stands(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    opened = open_home(Path(tmp_path.name))
    assert opened.folder == tmp_path  # training happens in a process that stands elsewhere


def test_the_configuration_is_read_afresh(home, tmp_path):
    write_site_file(tmp_path, STUDY, minimum_patients=31)
    assert home.config.policy.minimum_patients == 31


@pytest.mark.parametrize("name", ["identity.json", "certificates/ca.pem", "certificates/site.pem"])
def test_something_is_missing(home, tmp_path, name):
    (tmp_path / name).unlink()
    with pytest.raises(HomeInvalid) as caught:
        open_home(tmp_path)
    assert name in str(caught.value)
    assert "enrol" in caught.value.advice()


def test_no_home_at_all(tmp_path):
    with pytest.raises(HomeInvalid):
        open_home(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        {"address": "nowhere"},
        {"coordinator_signing_key": "zz"},
        {"coordinator_signing_key": "ab"},
        {"site": 7},
        {"extra": 1},
        {"ca_sha256": "0" * 64},
    ],
)
def test_a_damaged_identity(home, tmp_path, change):
    path = tmp_path / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HomeInvalid):
        open_home(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[" * 50_000, "7", "x" * 70_000])
def test_an_identity_that_is_none(home, tmp_path, text):
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(HomeInvalid):
        open_home(tmp_path)


def test_another_authority_was_put_in(home, tmp_path):
    (tmp_path / "certificates/ca.pem").write_bytes(new_authority().certificate_pem)
    with pytest.raises(HomeInvalid):
        open_home(tmp_path)
    (tmp_path / "certificates/ca.pem").write_bytes(b"nothing")
    with pytest.raises(HomeInvalid):
        open_home(tmp_path)


def p384_pem():
    return private_pem(ec.generate_private_key(ec.SECP384R1()))


def test_keys_that_are_missing_damaged_or_open_to_others(home, tmp_path):
    (tmp_path / "keys/signing.pem").chmod(0o644)
    with pytest.raises(PrivateFileRefused):
        _ = home.signing_key
    (tmp_path / "keys/signing.pem").chmod(0o600)
    (tmp_path / "keys/signing.pem").write_bytes(b"nothing")
    with pytest.raises(HomeInvalid):
        _ = home.signing_key
    shutil.copyfile(tmp_path / "keys/tls.pem", tmp_path / "keys/signing.pem")
    with pytest.raises(HomeInvalid, match="Ed25519"):
        _ = home.signing_key
    for text in (b"nothing", p384_pem()):
        (tmp_path / "keys/ecdsa.pem").write_bytes(text)
        with pytest.raises(HomeInvalid, match=r"ecdsa\.pem"):
            _ = home.ecdsa_key
    (tmp_path / "keys/ecdsa.pem").chmod(0o640)
    with pytest.raises(PrivateFileRefused):
        home.signer(SuiteName.P256)
    (tmp_path / "keys/tls.pem").unlink()
    with pytest.raises(HomeInvalid):
        _ = home.tls_key_pem
    (tmp_path / "keys/hedge.key").write_bytes(b"")
    with pytest.raises(HomeInvalid):
        _ = home.long_term_secret
    shutil.rmtree(tmp_path / "keys")
    (tmp_path / "keys").write_text("")
    with pytest.raises(HomeInvalid):
        _ = home.signing_key


def test_a_rule_changed_in_site_yaml_holds_at_the_next_look(home, tmp_path):
    """The file that was read is kept, but only for as long as it is the same file; the sizes here are equal."""
    assert home.config.policy.minimum_patients == 20
    write_site_file(tmp_path, STUDY, minimum_patients=30)
    assert home.config.policy.minimum_patients == 30
    stat = (tmp_path / "site.yaml").stat()
    write_site_file(tmp_path, STUDY, minimum_patients=40)
    os.utime(tmp_path / "site.yaml", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as an editor or a restore may leave it
    assert home.config.policy.minimum_patients == 40


def test_site_yaml_missing_or_for_another_site(home, tmp_path):
    write_site_file(tmp_path, STUDY, site="cedar")
    with pytest.raises(HomeInvalid):
        _ = home.config
    (tmp_path / "site.yaml").unlink()
    with pytest.raises(HomeInvalid):
        _ = home.config
