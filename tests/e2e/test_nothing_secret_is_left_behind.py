"""After a whole study, with hospitals and coordinator dying in it, no file holds a key, a seed, a share or an update.

The processes are real. Each is watched from the inside (`witness.py`): every secret it makes and every update before it
is masked is noted in a folder of its own. Then every file that the study made or left behind is searched for all of
them in every likely spelling (`tests/fakes/leak_search.py`): homes, databases with their logs, audit log and evidence,
kits, what was printed, temporary files; and every message that left a hospital.

What may be found, and why:

- a hospital's hedge key and its private keys in their own files, mode 0600: that is where they live;
- until its round is closed, shares that were sent for unmasking, in the coordinator's database (a crash must not cost
  them) and in the hospital's own (only these bytes may be sent again); and they are in the message that carried them.
  They reveal a survivor's self mask or a dropout's root, by design (protocol 4.4).
"""

import json
import sqlite3
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from consortium.wire import codec
from consortium.wire.errors import WireViolation
from privacy.secagg.messages import SHARE_BYTES, UnmaskShares
from tests.e2e.faulty_world import Break, FaultyWorld, Nursery, faulty_consortium, until
from tests.e2e.witness import Notes, notes_in
from tests.e2e.world import SITES
from tests.fakes.leak_search import PIECE_BYTES, Found, Search

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REVEALED = "a share that was sent for unmasking"
LAST = "va-long-beach"


def test_a_whole_study_leaves_no_secret_behind(tmp_path: Path, nursery: Nursery) -> None:
    home, private = tmp_path / "consortium", tmp_path / "witness"
    temporary = home / "temporary"
    temporary.mkdir(parents=True)
    planned = {
        "cleveland": [Break(round=2, moment="before-upload", how="kill")],  # a dropout: its root is recovered
        "hungary": [Break(round=3, moment="before-confirmation", how="kill")],  # two at once: nothing is revealed
        "switzerland": [Break(round=3, moment="before-confirmation", how="kill")],
        LAST: [
            Break(round=4, moment="before-upload", how="hold"),  # until all are back, for the round after it
            Break(round=5, moment="released", how="freeze"),
        ],
        "coordinator": [Break(round=6, moment="UnmaskShares:1 written", how="kill")],
    }
    with faulty_consortium(home, nursery, planned, witness=private, temporary=temporary) as world:
        world.submit(rounds=6, every_rounds=6, spare_rounds=2, network="mlp", args="{hidden: [16], activation: tanh}")
        for site in ("cleveland", "hungary", "switzerland"):
            until(lambda: world.reached(site, planned[site][0]), f"{site} to die")  # noqa: B023
            world.child(site).wait()
            if site != "hungary":
                world.start_agent(site)
            if site == "switzerland":
                world.start_agent("hungary")

        world.present(*SITES)
        world.go(4)

        # In the middle: everybody else's shares are with the coordinator, which waits for the last.
        until(lambda: world.child(LAST).state == "T", "the last hospital to freeze")
        until(lambda: len(shares_in_journal(world)) == len(SITES) - 1, "everybody else's shares")
        known = notes_in(private)
        found = found_by(world, known, home)
        assert {f.what for f in found if not is_key_file(f.where)} == {REVEALED}
        unexpected = {f for f in found if not (is_own_key(f) or is_share_of_an_open_round(f))}
        assert unexpected == set()
        for site in SITES:  # the search finds what is there
            assert any(f.where.startswith(f"{site}/agent.db") for f in found), site
            assert any(f.where == f"{site}/keys/hedge.key" for f in found), site
        world.thaw(LAST)

        until(lambda: world.reached("coordinator", planned["coordinator"][0]), "the coordinator to die")
        world.child("coordinator").wait()
        found = found_by(world, notes_in(private), home)
        assert {f for f in found if not (is_own_key(f) or is_share_of_an_open_round(f))} == set()
        world.start_coordinator()
        world.wait_for(lambda s: s["state"] == "completed", "the study to end", 300)
        assert world.verified_evidence().rstrip().endswith("VERIFIED")

        # At the end, with every process still running. The last shares go when a hospital hears that it is over.
        known = notes_in(private)
        for site in SITES:
            until(lambda: not shares_in_store(world, site), f"{site} to forget")  # noqa: B023
        everything_is_covered(world, known)
        assert {f for f in found_by(world, known, home) if not is_own_key(f)} == set()
        search = everything(known, home)
        for name in world.processes:
            for what in ("cmdline", "environ"):
                try:
                    data = (Path("/proc") / str(world.child(name).pid) / what).read_bytes()
                except PermissionError:
                    continue  # nobody but root may read it
                assert search.in_bytes(data, f"{what} of {name}") == set()
        for name, messages in known.sent.items():
            for message in messages:
                assert {f for f in search.in_bytes(message, name) if not is_share_sent(f, message)} == set()

        # And it would have been found.
        planted = home / LAST / "debug.log"
        secret = next(value for value, place in known.secrets.items() if "draw_seeds" in place)
        planted.write_text(f"seed = {secret.hex()}")
        assert {f.where for f in found_by(world, known, home) if not is_own_key(f)} == {f"{LAST}/debug.log"}

    for path in [
        *home.glob("*/keys/*"),
        *home.glob("*/log/witness.pem"),
        *home.glob("*/agent.db"),
        *home.glob("*/ledger.db"),
    ]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def everything(known: Notes, home: Path) -> Search:
    """All that was noted, and the private keys that were made before anybody watched."""
    search = Search()
    for share in known.revealed:
        search.add_secret(REVEALED, share)
    for value, place in known.secrets.items():
        # A box holds two shares, and one of them may be revealed.
        parts = (value[:SHARE_BYTES], value[SHARE_BYTES:]) if len(value) == 2 * SHARE_BYTES else (value,)
        for part in parts:
            if len(part) >= PIECE_BYTES:
                search.add_secret(place, part)
    for path, key in private_keys(home):
        search.add_secret(f"the key of {path}", key)
    for digest, vector in [*known.encoded.items(), *known.updates.items()]:
        search.add_vector(f"what {digest[:8]} hides", vector)
    return search


def found_by(world: FaultyWorld, known: Notes, folder: Path) -> set[Found]:
    return everything(known, world.folder).in_folder(folder)


def shares_in_journal(world: FaultyWorld) -> list[bytes]:
    """The messages with shares that the coordinator keeps of a round that is not closed."""
    database = sqlite3.connect(f"file:{world.home / 'consortium.db'}?mode=ro", uri=True)
    try:
        rows = [bytes(event) for (event,) in database.execute("SELECT event FROM journal")]
    finally:
        database.close()
    events = [json.loads(row) for row in rows if row.startswith(b"{")]  # the digest of the masked sum is none
    messages = [bytes.fromhex(event["message"]) for event in events if event["type"] == "message"]
    return [message for message in messages if isinstance(codec.decode_site_message(message), UnmaskShares)]


def shares_in_store(world: FaultyWorld, site: str) -> set[Found]:
    """What a hospital's own database still has of the shares it sent."""
    known = notes_in(world.folder.parent / "witness")
    return everything(known, world.folder).in_files((world.folder / site).glob("agent.db*"), world.folder)


def private_keys(home: Path) -> Iterable[tuple[str, bytes]]:
    """Every private key in a file below `home`, as bytes."""
    for path in home.rglob("*.pem"):
        if b"PRIVATE KEY" not in path.read_bytes() or b"ENCRYPTED" in path.read_bytes():
            continue  # an encrypted one is a steward's, who alone has the passphrase
        key = load_pem_private_key(path.read_bytes(), None)
        where = str(path.relative_to(home))
        if isinstance(key, Ed25519PrivateKey):
            yield where, key.private_bytes_raw()
        else:
            assert isinstance(key, EllipticCurvePrivateKey)
            yield where, key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")


def is_key_file(where: str) -> bool:
    """Where private keys live: a folder of them, and the witness key beside the copy of the log."""
    return "keys/" in where or where.endswith("/log/witness.pem")


def is_own_key(found: Found) -> bool:
    """A private key where it lives, and nothing else."""
    return found.what == f"the key of {found.where}" or (
        found.where.endswith("/keys/hedge.key") and found.what.endswith("/AgentHome.long_term_secret")
    )


def is_share_of_an_open_round(found: Found) -> bool:
    name = Path(found.where).name
    return found.what == REVEALED and name.startswith(("agent.db", "consortium.db"))


def is_share_sent(found: Found, message: bytes) -> bool:
    """A share in the message that reveals it."""
    if found.what != REVEALED:
        return False
    try:
        return isinstance(codec.decode_site_message(message), UnmaskShares)
    except WireViolation:
        return False


def everything_is_covered(world: FaultyWorld, known: Notes) -> None:
    """The witness saw the whole of it: otherwise an empty search would mean nothing."""
    places = " ".join(known.secrets.values())
    for place in ("draw_seeds", "split", "seal", "open_box", "derive", "coefficient", "CryptographicGenerator"):
        assert place in places, place
    submitted = [e["body"]["masked_update_sha256"] for e in world.entries() if e["type"] == "update.submitted"]
    assert set(submitted) <= set(known.encoded)
    assert len(set(submitted)) == len(submitted)
    assert len(known.updates) < len(known.encoded)  # an evaluation hides metrics and no update
    assert all(len(messages) > 20 for name, messages in known.sent.items() if name != "coordinator")
