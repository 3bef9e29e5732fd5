"""Stewards' keys as the command line makes, registers and removes them; how many sign, and what that approves."""

import base64
import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from audit import entries
from audit.stewards import keys_after, public_hex
from consortium.wire.errors import CoordinatorUnreachable
from site_agent.cli import app, report_error
from site_agent.deciding import decide_study
from site_agent.preparation import Declined, approved_study
from site_agent.stewards import (
    KDF_ROUNDS,
    StewardKeyRefused,
    StewardRefused,
    default_key_file,
    enrol_steward,
    make_key_file,
    read_key_file,
    remove_steward,
)
from site_agent.store import Store
from tests.fakes.site_wire import STUDY, dialled
from tests.fakes.site_world import make_world, write_site_file

PASSPHRASE = "correct horse battery staple"


class Desk:
    """A hospital's machine on which its stewards type, and a folder that is theirs."""

    def __init__(self, tmp_path):
        self.world = make_world(tmp_path / "home", approved=False)
        self.home = tmp_path / "home"
        self.own = tmp_path / "own"
        self.own.mkdir(mode=0o700)
        self.passphrase = self.own / "passphrase.txt"
        self.passphrase.touch(mode=0o600)
        self.passphrase.write_text(f"{PASSPHRASE}\n")

    def types(self, *words):
        return CliRunner().invoke(app, [*map(str, words), "--home", str(self.home)])

    def adds(self, name, *words):
        key = self.own / f"{name}.key"
        return self.types("stewards", "add", name, "--key", key, "--passphrase-file", self.passphrase, *words)

    def signing(self, name, prefix=""):
        key, passphrase = f"--{prefix}key", f"--{prefix}passphrase-file"
        return (key, self.own / f"{name}.key", passphrase, self.passphrase)

    def by(self, name):
        return ("--by", name, *self.signing(name, "by-"))

    def key(self, name):
        return read_key_file(self.own / f"{name}.key", PASSPHRASE)

    def listed(self):
        return {row["name"]: row for row in json.loads(self.types("stewards", "list", "--json").stdout)}

    def signed(self):
        return [entries.parse_entry(data) for data in self.world.store.signed_entries()]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_a_key_is_made_outside_the_home_and_registered(desk):
    done = desk.adds("ada")
    assert done.exit_code == 0, done.output
    pem = (desk.own / "ada.key").read_text()
    inside = base64.b64decode("".join(pem.splitlines()[1:-1]))  # PROTOCOL.key of OpenSSH: cipher, kdf, its options
    assert b"aes256-ctr" in inside
    assert b"bcrypt" + bytes([0, 0, 0, 24, 0, 0, 0, 16]) in inside
    assert inside.partition(b"bcrypt")[2][24:28] == KDF_ROUNDS.to_bytes(4)
    assert (desk.own / "ada.key").stat().st_mode & 0o777 == 0o600
    row = desk.listed()["ada"]
    assert row["may_approve"]
    assert row["key"] in done.stdout
    (entry,) = desk.signed()
    assert isinstance(entry, entries.StewardEnrolled)
    assert (entry.key, entry.signed_by, entry.steward) == (row["key"], row["key"], row["pseudonym"])
    assert "ada" not in repr(entry)
    # Of the private key there is nothing in the home.
    secret = desk.key("ada").private_bytes_raw()
    for path in desk.home.rglob("*"):
        assert not path.is_file() or (
            secret not in path.read_bytes() and secret.hex().encode() not in path.read_bytes()
        )


def test_the_next_steward_is_signed_for_by_one_of_before(desk):
    desk.adds("ada")
    for words, why in (
        ((), "one of them signs for a new one"),
        (("--by", "eve", *desk.signing("ada", "by-"), "--begin-anew"), "contradict"),
    ):
        done = desk.adds("bea", *words)
        assert why in done.output + str(done.exception), done.output
        assert not (desk.own / "bea.key").exists()
    assert desk.adds("bea", *desk.by("ada")).exit_code == 0
    assert desk.types("stewards", "remove", "ada", *desk.by("bea")).exit_code == 0
    rows = desk.listed()
    assert [rows[name]["may_approve"] for name in ("ada", "bea")] == [False, True]
    again = desk.adds("cleo", *desk.by("ada"))
    assert isinstance(again.exception, StewardRefused)
    assert desk.adds("dora", "--begin-anew").exit_code == 0
    assert {name: row["registered"] for name, row in desk.listed().items()} == {
        "ada": False, "bea": False, "dora": True,
    }  # fmt: skip
    keys = keys_after((entry for entry in desk.signed()), desk.world.home.log_origin)
    assert (set(keys.standing), keys.begun_anew) == ({desk.listed()["dora"]["key"]}, True)


def test_a_bad_key_file_is_one_clear_error(desk):
    home = desk.world.home
    for path, passphrase, why in (
        (desk.home / "keys/steward.key", PASSPHRASE, "in the agent's home"),
        (desk.own / "short.key", "hunter2", "7 characters; allowed: 12 to 1024"),
        (desk.passphrase, PASSPHRASE, "exists"),
    ):
        with pytest.raises(StewardKeyRefused, match=why) as caught:
            make_key_file(home, path, passphrase)
        assert caught.value.advice()
        assert report_error(caught.value) == 2
    make_key_file(home, desk.own / "ada.key", PASSPHRASE)
    for path, passphrase, why in (
        (desk.own / "ada.key", "wrong horse battery staple", "does not open with this passphrase"),
        (desk.passphrase, PASSPHRASE, "does not open with this passphrase, or is no encrypted key"),
        (desk.own / "nobody.key", PASSPHRASE, "cannot be read"),
    ):
        with pytest.raises(StewardKeyRefused, match=why):
            read_key_file(path, passphrase)
    assert default_key_file("birch", "Dr. Ada Ström").name == "birch-dr-ada-str-m.key"
    done = desk.types("stewards", "add", "ada", "--key", desk.own / "other.key")
    assert (done.exit_code, "no terminal" in done.output) == (2, True)


async def test_as_many_sign_as_the_hospital_asks_for(tmp_path):
    async with dialled(tmp_path / "home") as (world, home):
        store, keys = Store(home.folder / "agent.db"), {}
        for name in ("ada", "bea", "eve"):
            keys[name] = Ed25519PrivateKey.generate()
            enrol_steward(home, store, name, keys[name], by=keys["ada"] if name != "ada" else None)
        allowed = [public_hex(keys[name]) for name in ("ada", "bea")]
        write_site_file(home.folder, STUDY, may_approve=allowed, approvals_needed=2)

        async def approve(name, words):
            return await decide_study(home.folder, STUDY.id, "approved", steward=name, statement=words, key=keys[name])

        assert (await approve("ada", "Yes.")).missing == 1
        assert store.decision(STUDY.digest()) is None
        with pytest.raises(StewardRefused, match="may_approve"):
            await approve("eve", "Yes, too.")
        with pytest.raises(StewardRefused, match="another steward's"):
            await decide_study(home.folder, STUDY.id, "approved", steward="bea", statement="x", key=keys["ada"])
        with pytest.raises(StewardRefused, match="signed with a steward's own key"):
            await decide_study(home.folder, STUDY.id, "approved", steward="bea", statement="Yes.")
        assert (await approve("bea", "I agree.")).missing == 0
        assert approved_study(home, store, STUDY.digest()) == STUDY
        made = entries.parse_entry(world.service.events[-1])
        assert [(one.key, one.words) for one in made.signed] == list(zip(allowed, ("Yes.", "I agree."), strict=True))
        assert made.statement == "Yes."
        # What was taken back is used up, by whomever: both sign again.
        standing = store.decision(STUDY.digest())
        assert len(standing.signatures) == 2
        store.add_events([], decision=dataclasses.replace(standing, decision="withdrawn"))
        assert (await approve("ada", "Yes, again.")).missing == 1
        assert (await approve("bea", "I agree again.")).missing == 0
        # Who leaves takes the approval along; it is signed again, or the study stays where it is.
        remove_steward(home, store, "bea", keys["ada"])
        with pytest.raises(Declined) as caught:
            approved_study(home, store, STUDY.digest())
        assert caught.value.refusal.rule == "withdrawn"


async def test_saying_no_takes_no_key(tmp_path):
    async with dialled(tmp_path) as (world, _):
        await decide_study(tmp_path, STUDY.id, "rejected", steward="Dr Ada", statement="No.")
        assert entries.parse_entry(world.service.events[-1]).signed is None
    with pytest.raises(CoordinatorUnreachable):
        await decide_study(tmp_path, "another", "rejected", steward="Dr Ada", statement="No.")
