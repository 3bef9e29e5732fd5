"""Published known answers (RFCs, NIST, the HPKE drafts), given to our own functions wherever one of them can take them.

The files come from the package `cryptography_vectors`. Our sealed boxes bind their own `info`, so no published box
opens with them; instead a box is made from a published key pair and encapsulation by `hpke_by_the_book.py`, which is
compared with the published key schedules first.
"""

import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy import p256
from privacy.keystream import Keystream
from privacy.secagg import keys
from privacy.secagg.messages import SiteId
from privacy.secagg.suites import SUITES, MalformedKey, Suite, SuiteName
from privacy.secret import Secret
from tests.vectors import hpke_by_the_book as book

ALICE, BOB = SiteId("alice"), SiteId("bob")
BOX = {"label": "share", "key_transcript": b"t" * 32, "sender": ALICE, "recipient": BOB}
INFO = keys._box_info("share", b"t" * 32, ALICE, BOB)
LATTICE_CASES = 100  # of 1000 in the file


SUITE = SUITES[SuiteName.HYBRID_PQ]


def key_pair(seed: Secret[bytes], suite: Suite = SUITE) -> keys.KeyPair:
    """The key pair that follows from a published seed."""
    secret, public = suite.key_pair(seed)
    return keys.KeyPair(suite=suite, secret=secret, public=public)


@cache
def published(path: str) -> str:
    """A file of the package, as text."""
    return resources.files("cryptography_vectors").joinpath(path).read_text()


def records(path: str) -> list[dict[str, str]]:
    """The records of a file of "name = value" lines, separated by blank lines or by a repeated name."""
    found: list[dict[str, str]] = [{}]
    for line in published(path).splitlines():
        name, equals, value = line.partition("=")
        if not equals or line.startswith("#"):
            continue
        if name.strip() in found[-1]:
            found.append({})
        found[-1][name.strip()] = value.strip()
    return found


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


# --- AES-256-CTR, RFC 3686 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", records("ciphers/AES/CTR/aes-256-ctr.txt"), ids=lambda vector: vector["COUNT"])
def test_the_keystream_is_aes_256_in_counter_mode(vector):
    """Our counter starts from zero; the published one is reached by its distance from there."""
    plaintext, ciphertext = unhex(vector["PLAINTEXT"]), unhex(vector["CIPHERTEXT"])
    stream = Keystream(Secret(unhex(vector["KEY"])), offset_bytes=16 * int(vector["IV"], 16))
    out = np.empty(len(plaintext), dtype=np.uint8)
    stream.fill(out)
    assert bytes(np.frombuffer(plaintext, dtype=np.uint8) ^ out) == ciphertext


# --- HKDF-SHA256, RFC 5869 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", records("KDF/rfc-5869-HKDF-SHA256.txt"), ids=lambda vector: vector["COUNT"])
def test_derivation_is_hkdf(vector, monkeypatch):
    """With the published info in the place of our framed label and names."""
    info = unhex(vector["info"])
    monkeypatch.setattr(keys, "frame", lambda *_: info)
    derived = keys.derive(
        Secret(unhex(vector["IKM"])), salt=unhex(vector["salt"]), label="", parts=(), length=int(vector["L"])
    )
    assert derived.expose() == unhex(vector["OKM"])


# --- Ed25519, RFC 8032 and its reference file ------------------------------------------------------------------------


def test_signatures_are_ed25519():
    lines = published("asymmetric/Ed25519/sign.input").splitlines()
    assert len(lines) == 1024
    for line in lines:
        _, public, message, signed, _ = line.split(":")
        payload, signature = unhex(message), unhex(signed)[:64]
        assert SUITE.signature_holds(unhex(public), payload, signature)
        assert not SUITE.signature_holds(unhex(public), payload + b"\0", signature)
        assert not SUITE.signature_holds(unhex(public), payload, bytes([signature[0] ^ 1]) + signature[1:])


# --- X25519, RFC 7748 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", records("asymmetric/X25519/rfc7748.txt"), ids=lambda vector: vector["COUNT"])
def test_the_curve_half_is_x25519(vector):
    scalar, point, out = (unhex(vector[name]) for name in ("INPUT_SCALAR", "INPUT_U", "OUTPUT_U"))
    curve = X25519PrivateKey.from_private_bytes(scalar)
    assert curve.exchange(X25519PublicKey.from_public_bytes(point)) == out
    hybrid = key_pair(Secret(bytes(64) + scalar)).public
    base = (9).to_bytes(32, "little")
    assert SUITE.key_parts(hybrid)[1] == curve.exchange(X25519PublicKey.from_public_bytes(base))
    given = SUITE.key_parts(hybrid)[0] + point
    if point[31] & 0x80:  # RFC 7748 ignores the highest bit of a point; a second spelling of a key is refused here
        with pytest.raises(MalformedKey):
            SUITE.parse_public_key(given)
    else:
        SUITE.parse_public_key(given)


# --- ML-KEM-768, FIPS 203 ------------------------------------------------------------------------------------------


def lattice_cases() -> list[dict[str, str]]:
    return records("asymmetric/MLKEM/kat_MLKEM_768.rsp")[:LATTICE_CASES]


def test_the_lattice_half_is_ml_kem_768():
    scalar = bytes(range(32))
    for case in lattice_cases():
        pair = key_pair(Secret(unhex(case["d"]) + unhex(case["z"]) + scalar))
        assert SUITE.key_parts(pair.public)[0] == unhex(case["pk"])
        SUITE.parse_public_key(pair.public)


@pytest.mark.parametrize("rejected", [False, True], ids=["good", "rejected"])
def test_a_box_sealed_with_a_published_encapsulation_opens(rejected):
    """ML-KEM's secret is the published one: also for a wrong encapsulation, where FIPS 203 derives it from z."""
    scalar, ephemeral = bytes(range(32)), X25519PrivateKey.from_private_bytes(b"e" * 32)
    ciphertext, secret = ("ct_n", "ss_n") if rejected else ("ct", "ss")
    for case in lattice_cases()[:20]:
        pair = key_pair(Secret(unhex(case["d"]) + unhex(case["z"]) + scalar))
        public = SUITE.key_parts(pair.public)[1]
        point = ephemeral.public_key().public_bytes_raw()
        curve = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
        shared = book.xwing_secret(unhex(case[secret]), curve, point, public)
        box = book.sealed(unhex(case[ciphertext]) + point, shared, INFO, b"two shares", kem=book.MLKEM768_X25519)
        assert keys.open_box(box, pair, **BOX).expose() == b"two shares"
        other = book.sealed(unhex(case[ciphertext]) + point, bytes(32), INFO, b"two shares", kem=book.MLKEM768_X25519)
        with pytest.raises(keys.CannotOpen):
            keys.open_box(other, pair, **BOX)


# --- HPKE, RFC 9180 and the post-quantum draft -----------------------------------------------------------------------


def base_vectors(path: str) -> list[dict[str, Any]]:
    """Base mode with HKDF-SHA256 as the KDF and an AEAD that encrypts."""
    return [
        vector
        for vector in json.loads(published(path))
        if (vector["mode"], vector["kdf_id"]) == (0, book.HKDF_SHA256) and vector["aead_id"] in book.KEY_BYTES
    ]


RFC9180 = base_vectors("HPKE/test-vectors.json")
HYBRID = [v for v in base_vectors("HPKE/hpke-pq-test-vectors.json") if v["kem_id"] == book.MLKEM768_X25519]


@pytest.mark.parametrize("vector", [*RFC9180, *HYBRID], ids=lambda v: f"{v['kem_id']:04x}-{v['aead_id']:04x}")
def test_the_book_has_the_published_key_schedule(vector):
    """What the tests below rely on; AES-GCM's own answers are among the published ciphertexts."""
    key, nonce = book.key_schedule(
        unhex(vector["shared_secret"]), unhex(vector["info"]), kem=vector["kem_id"], aead=vector["aead_id"]
    )
    assert (key.hex(), nonce.hex()) == (vector["key"], vector["base_nonce"])
    first = vector["encryptions"][0]
    assert first["nonce"] == vector["base_nonce"]
    if vector["aead_id"] != 0x0003:
        assert AESGCM(key).encrypt(nonce, unhex(first["pt"]), unhex(first["aad"])) == unhex(first["ct"])


def test_there_are_published_vectors_of_every_part_of_the_suite():
    assert {(v["kem_id"], v["aead_id"]) for v in RFC9180} >= {(book.P256, book.AES_256_GCM), (book.X25519, 0x0003)}
    assert len(HYBRID) == 1


@pytest.mark.parametrize("vector", HYBRID, ids=["647a"])
def test_a_box_for_a_published_hybrid_key_opens(vector):
    """The draft's private key is a seed that SHAKE256 stretches to the 96 bytes that our key pairs begin from."""
    pair = key_pair(Secret(hashlib.shake_256(unhex(vector["skRm"])).digest(96)))
    assert pair.public.hex() == vector["pkRm"]
    box = book.sealed(
        unhex(vector["enc"]), unhex(vector["shared_secret"]), INFO, b"a pairwise seed", kem=vector["kem_id"]
    )
    assert keys.open_box(box, pair, **BOX).expose() == b"a pairwise seed"
    elsewhere = book.sealed(
        unhex(vector["enc"]), unhex(vector["shared_secret"]), INFO + b"!", b"a pairwise seed", kem=vector["kem_id"]
    )
    with pytest.raises(keys.CannotOpen):
        keys.open_box(elsewhere, pair, **BOX)


def test_what_we_seal_is_what_the_book_opens():
    """The other direction: a box of ours, opened by the texts alone."""
    lattice, scalar = b"d" * 32 + b"z" * 32, b"s" * 32
    pair = key_pair(Secret(lattice + scalar))
    box = keys.seal(Secret(b"two shares"), pair.public, suite=SUITE, **BOX)
    ciphertext, point, body = box[:1088], box[1088:1120], box[1120:]
    public = SUITE.key_parts(pair.public)[1]
    curve = X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(point))
    secret = MLKEM768PrivateKey.from_seed_bytes(lattice).decapsulate(ciphertext)
    shared = book.xwing_secret(secret, curve, point, public)
    key, nonce = book.key_schedule(shared, INFO, kem=book.MLKEM768_X25519, aead=book.AES_256_GCM)
    assert AESGCM(key).decrypt(nonce, body, b"") == b"two shares"
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(nonce, body, b"aad")


# --- the second suite: P-256 -----------------------------------------------------------------------------------------

P256 = SUITES[SuiteName.P256]
PUBLISHED_P256 = next(v for v in RFC9180 if (v["kem_id"], v["aead_id"]) == (book.P256, book.AES_256_GCM))


def test_a_box_for_the_published_p256_key_opens():
    """RFC 9180, A.3, with AES-256-GCM: our very suite. Our keys begin from a seed of which the secret is a residue."""
    vector = PUBLISHED_P256
    pair = key_pair(Secret((int(vector["skRm"], 16) - 1).to_bytes(48, "big")), P256)
    assert pair.public.hex() == vector["pkRm"]
    enc, shared = unhex(vector["enc"]), unhex(vector["shared_secret"])
    box = book.sealed(enc, shared, INFO, b"two shares", kem=book.P256)
    assert keys.open_box(box, pair, **BOX).expose() == b"two shares"
    with pytest.raises(keys.CannotOpen):
        keys.open_box(book.sealed(enc, shared, INFO + b"!", b"two shares", kem=book.P256), pair, **BOX)


def test_what_we_seal_with_p256_is_what_the_book_opens():
    vector = PUBLISHED_P256
    box = keys.seal(Secret(b"two shares"), unhex(vector["pkRm"]), suite=P256, **BOX)
    enc, body = box[:65], box[65:]
    private = ec.derive_private_key(int(vector["skRm"], 16), ec.SECP256R1())
    dh = private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc))
    shared = book.dhkem_secret(dh, enc, unhex(vector["pkRm"]), kem=book.P256)
    key, nonce = book.key_schedule(shared, INFO, kem=book.P256, aead=book.AES_256_GCM)
    assert AESGCM(key).decrypt(nonce, body, b"") == b"two shares"


def test_the_book_has_the_published_shared_secret():
    vector = PUBLISHED_P256
    private = ec.derive_private_key(int(vector["skRm"], 16), ec.SECP256R1())
    enc = unhex(vector["enc"])
    dh = private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc))
    assert book.dhkem_secret(dh, enc, unhex(vector["pkRm"]), kem=book.P256).hex() == vector["shared_secret"]


def ecdsa_cases(path: str) -> list[dict[str, str]]:
    """The records of the section for P-256 and SHA-256."""
    section = published(path).partition("[P-256,SHA-256]")[2].partition("[P-256,SHA-384]")[0]
    return [
        dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        for block in section.split("\n\n")
        if "Msg" in block
    ]


@pytest.mark.parametrize("name", ["SigVer", "SigGen"])
def test_signatures_of_the_second_suite_are_ecdsa(name):
    """FIPS 186-3. Of the two spellings of a signature that FIPS accepts, ours is the one with the lower s."""
    cases = ecdsa_cases(f"asymmetric/ECDSA/FIPS_186-3/{name}.rsp")
    assert len(cases) == 15
    good = 0
    for case in cases:
        point = b"\x04" + unhex(case["Qx"]) + unhex(case["Qy"])
        r, s = int(case["R"], 16), int(case["S"], 16)
        low = r.to_bytes(32, "big") + min(s, p256.ORDER - s).to_bytes(32, "big")
        high = r.to_bytes(32, "big") + max(s, p256.ORDER - s).to_bytes(32, "big")
        is_good = case.get("Result", "P").startswith("P")
        assert P256.signature_holds(point, unhex(case["Msg"]), low) is is_good
        assert not P256.signature_holds(point, unhex(case["Msg"]), high)
        good += is_good
    assert good >= 3


def test_nonces_follow_from_key_and_data():
    """RFC 6979, A.2.5, with SHA-256; the second s is in the upper half there, so ours is its complement."""
    key = int("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721", 16)
    text = published("asymmetric/ECDSA/RFC6979/evppkey_ecdsa_rfc6979.txt").partition("RFC 6979 P-256")[2]
    signer = p256.EcdsaSigner(ec.derive_private_key(key, ec.SECP256R1()))
    seen = []
    for block in text.split("\n\n"):
        lines = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        if lines.get("DigestSign") != "SHA256" or lines["Key"] != "P-256_PRIV":
            continue
        r, s = decode_dss_signature(unhex(lines["Output"]))
        ours = signer.sign(lines["Input"].strip('"').encode())
        assert ours == r.to_bytes(32, "big") + min(s, p256.ORDER - s).to_bytes(32, "big")
        seen.append(lines["Input"])
    assert seen == ['"sample"', '"test"']
