"""New signing keys at the hospital: what is asked for, what dies on the way, and what the command line says."""

import asyncio
import json
import stat
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from audit import entries
from audit.site_keys import change_of
from consortium.contract import certificates
from privacy.secagg.suites import SuiteName
from site_agent import renewal
from site_agent.app import rotate_signing_keys
from site_agent.cli import app
from site_agent.only_agent import only_agent
from site_agent.own_key_rows import OwnKeysChanged
from site_agent.renewal import keep_certified, names_former_keys, renew
from site_agent.signed_events import SignedEvents
from site_agent.signing_key_change import SigningKeysKept, carry_out, is_prepared, prepare, sign_change
from site_agent.signing_keys import SigningKeysDamaged, read_next_keys
from site_agent.stewards import StewardRefused, enrol_steward, remove_steward
from site_agent.store import Store
from tests.adversarial.dying import lives
from tests.fakes.changing_site import Pair, change_fields
from tests.fakes.site_world import ME, keys, make_home, small_study
from tests.fakes.stewards import KEY, NAME
from tests.unit.site_agent.test_renewal import Coordinator, now

NO = {"study": "small-study", "study_digest": "0" * 64, "steward": "u:" + "0" * 16, "reason": "no"}
BEA = Ed25519PrivateKey.from_private_bytes(b"another steward's key, for tests")


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path / "home", small_study())


@pytest.fixture
def store(home):
    store = Store(home.folder / "agent.db")
    enrol_steward(home, store, NAME, KEY)
    return store


def names(home):
    return sorted(path.name for path in (home.folder / "keys").iterdir())


def kinds(store):
    return [entries.parse_entry(data).TYPE for data in store.signed_entries()]


# --- the change ----------------------------------------------------------------------------------------------


def test_entries_stand_under_the_new_key_from_the_change_on(home, store):
    old = home.signing_keys
    new = prepare(home, store, NAME, KEY)
    assert home.signing_keys == old  # nothing is changed yet
    assert stat.S_IMODE((home.folder / "keys/next-signing-keys.json").stat().st_mode) == 0o600
    assert sign_change(home, store)
    assert home.signing_keys == store.own_keys() == new
    assert home.signer(SuiteName.P256).public.hex() == new.ecdsa
    assert "signing-keys.json" in names(home)
    assert not {"signing.pem", "ecdsa.pem", "next-signing-keys.json"} & set(names(home))
    SignedEvents(home, store).add(entries.StudyRejected, **NO)
    enrolled, change, later = store.signed_entries()
    for data, key in ((enrolled, old), (change, old), (later, new)):
        entries.verify_site_entry(data, bytes.fromhex(key.signing))
    assert not sign_change(home, store)  # once
    again = prepare(home, store, NAME, KEY)
    assert sign_change(home, store)
    assert home.signing_keys == again != new
    assert store.former_own_keys(home.identity.signing_key) == (old.signing, new.signing)


def test_the_private_keys_are_never_shown(home, store):
    prepare(home, store, NAME, KEY)
    pair = read_next_keys(home.folder)
    assert "PRIVATE" not in repr(pair)
    assert "Ed25519PrivateKey" not in repr(pair)


def test_it_takes_a_steward_whom_the_log_knows(home, tmp_path):
    store = Store(home.folder / "agent.db")
    with pytest.raises(SigningKeysKept, match="no steward with a key of their own") as caught:
        prepare(home, store, NAME, KEY)
    assert "stewards add" in caught.value.advice()
    assert "invited again" in caught.value.advice()
    enrol_steward(home, store, NAME, KEY)
    with pytest.raises(StewardRefused, match="not registered"):
        prepare(home, store, NAME, BEA)
    with pytest.raises(StewardRefused, match="another steward's"):
        prepare(home, store, "Dr Bea", KEY)
    enrol_steward(home, store, "Dr Bea", BEA, anew=True)
    with pytest.raises(SigningKeysKept, match="begun anew"):
        prepare(home, store, "Dr Bea", BEA)
    assert not is_prepared(home)
    assert "site.keys_rotated" not in kinds(store)


def test_one_at_a_time(home, store):
    prepare(home, store, NAME, KEY)
    with pytest.raises(SigningKeysKept, match="under way already"):
        prepare(home, store, NAME, KEY)


def test_what_a_steward_signed_who_is_none_any_more_is_discarded(home, store):
    old = home.signing_keys
    enrol_steward(home, store, "Dr Bea", BEA, by=KEY)
    prepare(home, store, NAME, KEY)
    remove_steward(home, store, NAME, BEA)
    with pytest.raises(SigningKeysKept, match="no steward here any more"):
        sign_change(home, store)
    assert not is_prepared(home)
    assert home.signing_keys == old
    assert "site.keys_rotated" not in kinds(store)
    prepare(home, store, "Dr Bea", BEA)
    assert sign_change(home, store)


def test_an_entry_that_another_process_was_about_to_sign_is_signed_with_the_new_key(home, store, monkeypatch):
    """The command line and the agent sign at once: which key it is, is decided in the transaction of the entry."""
    prepare(home, store, NAME, KEY)
    other = Store(home.folder / "agent.db")
    real, refused = Store.add_events, []

    def overtaken(self, builds, **options):
        if self is other and not refused:
            sign_change(home, store)
            with pytest.raises(OwnKeysChanged):
                real(self, builds, **options)
            refused.append(True)
            raise OwnKeysChanged
        return real(self, builds, **options)

    monkeypatch.setattr(Store, "add_events", overtaken)
    data = SignedEvents(home, other).add(entries.StudyRejected, **NO)
    assert refused == [True]
    entries.verify_site_entry(data, bytes.fromhex(home.signing_keys.signing))
    assert kinds(store) == ["steward.enrolled", "site.keys_rotated", "study.rejected"]


def test_a_damaged_file_is_named(home, store):
    prepare(home, store, NAME, KEY)
    sign_change(home, store)
    path = home.folder / "keys/signing-keys.json"
    path.write_bytes(b"{}")
    with pytest.raises(SigningKeysDamaged, match=r"signing-keys\.json is damaged") as caught:
        _ = home.signing_key
    assert "backup" in caught.value.advice()


# --- killed --------------------------------------------------------------------------------------------------


def test_killed_before_every_write_old_or_new_keys_work(tmp_path):
    every = lives("dying_keys", tmp_path)
    for number, life in enumerate(every):
        assert life["holds"], number
        assert life["signs"], number
        assert life["at_the_end"] == {
            "holds": True,
            "changes": 1,
            "files": ["signing-keys.json"],
            "signs": True,
        }, number
    assert {life["changed"] for life in every} == {False, True}


# --- the certificate -----------------------------------------------------------------------------------------


class Line:
    """What is handed over."""

    def __init__(self, store):
        self.store, self.handed_over = store, []

    async def submit_events(self):
        self.handed_over += [entries.parse_entry(data).TYPE for _, data in self.store.pending_events()]


async def test_it_is_certified_once_the_entry_is_handed_over(home, store):
    coordinator, line = Coordinator(), Line(store)
    assert not await carry_out(home, store, line, coordinator)
    assert coordinator.asked == line.handed_over == []
    new = prepare(home, store, NAME, KEY)
    assert await carry_out(home, store, line, coordinator)
    assert line.handed_over == ["steward.enrolled", "site.keys_rotated"]
    shown = certificates.verify_certificate(
        certificates.certificate_der(home.connection.certificate_pem), home.ca_certificate, now()
    )
    assert (shown.signing_key.hex(), shown.ecdsa_key.hex()) == (new.signing, new.ecdsa)
    assert not names_former_keys(home, home.connection)


async def test_a_process_that_died_before_is_followed_by_one_that_asks(home, store, monkeypatch):
    monkeypatch.setattr(renewal, "LOOKS_S", 0.0)
    await renew(home, Coordinator(), now())
    shown, coordinator = home.connection, Coordinator()
    prepare(home, store, NAME, KEY)
    await asyncio.wait_for(keep_certified(home, coordinator, shown), 20)  # returns: keys wait
    assert coordinator.asked == []
    sign_change(home, store)
    assert names_former_keys(home, shown)
    await asyncio.wait_for(keep_certified(home, coordinator, shown), 20)
    assert len(coordinator.asked) == 1
    assert not names_former_keys(home, home.connection)


async def test_a_certificate_for_the_keys_of_before_is_refused(home, store):
    old = Pair(signing=home.signing_key, ecdsa=home.ecdsa_private_key)
    prepare(home, store, NAME, KEY)
    sign_change(home, store)
    request = certificates.site_request(
        tls_key=certificates.new_tls_key(),
        signing_key=old.signing,
        ecdsa_key=old.ecdsa,
        site=home.site,
        consortium=home.identity.consortium,
    )
    pem = certificates.issue_site(keys().authority, ME, request, now=now(), valid_for=timedelta(days=90))
    with pytest.raises(certificates.CertificateRefused):
        await renew(home, Coordinator(answer=pem), now())


# --- the command line ----------------------------------------------------------------------------------------


def typed(home, tmp_path, *words):
    passphrase = tmp_path / "passphrase.txt"
    passphrase.touch(mode=0o600)
    passphrase.write_text("correct horse battery staple\n")
    return CliRunner().invoke(app, [*words, "--passphrase-file", str(passphrase), "--home", str(home.folder)])


def test_the_command_line(home, tmp_path):
    key = tmp_path / "ada.pem"
    assert typed(home, tmp_path, "stewards", "add", "ada", "--key", str(key)).exit_code == 0
    asked = ("rotate-signing-keys", "--steward", "ada", "--key", str(key))
    with only_agent(home.folder):
        done = typed(home, tmp_path, *asked)
    assert done.exit_code == 0, done.output
    assert "within a minute or two, between two rounds" in done.output
    assert read_next_keys(home.folder).public.signing in done.output
    done = typed(home, tmp_path, *asked)
    assert "under way already" in str(done.exception)


async def test_without_a_coordinator_the_agent_does_it_later(home, store):
    made = await rotate_signing_keys(home.folder, NAME, KEY)
    assert (made.done, made.running) == (False, False)
    assert is_prepared(home)


def test_peers_list_says_since_when(home, store):
    old, new = Pair(), Pair()
    store.pin_peer("cedar", "0" * 64, old.public.signing, old.public.ecdsa)
    fields = change_fields(old, new, site="cedar")
    entry = entries.SiteKeysRotated(
        **entries.stamp(1_795_000_000_000, bytes(10)), actor="site:cedar", site_seq=1, site_prev="0" * 64, **fields
    )
    assert store.follow_peer(change_of(entry))
    shown = CliRunner().invoke(app, ["peers", "list", "--json", "--home", str(home.folder)])
    (row,) = json.loads(shown.stdout)
    assert row["keys_changed"] == [fields["at"]]
    assert row["signing_key"] == new.public.signing
    assert "2026-11-23" in CliRunner().invoke(app, ["peers", "list", "--home", str(home.folder)]).stdout
