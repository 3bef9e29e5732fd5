"""HPKE's key schedule and the hybrid combiner, written from their texts: what `keys.open_box` is compared with.

RFC 9180, sections 4 and 5.1 (base mode); X-Wing as draft-connolly-cfrg-xwing-kem has it. Nothing here calls
`privacy`. It is itself compared with published vectors in `test_published_vectors.py` before anything relies on it.
"""

import hashlib
import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MLKEM768_X25519, P256, X25519 = 0x647A, 0x0010, 0x0020
HKDF_SHA256 = 0x0001
AES_256_GCM = 0x0002
KEY_BYTES = {0x0001: 16, 0x0002: 32, 0x0003: 32}
NONCE_BYTES = 12
XWING_LABEL = b"\\.//^\\"


def suite_id(kem: int, kdf: int, aead: int) -> bytes:
    """What binds every derivation to the suite (RFC 9180, 5.1)."""
    return b"HPKE" + kem.to_bytes(2, "big") + kdf.to_bytes(2, "big") + aead.to_bytes(2, "big")


def key_schedule(shared_secret: bytes, info: bytes, *, kem: int, aead: int) -> tuple[bytes, bytes]:
    """Key and base nonce of base mode with HKDF-SHA256 (RFC 9180, 5.1)."""
    suite = suite_id(kem, HKDF_SHA256, aead)
    extract, expand = _labeled(suite)
    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared_secret, b"secret", b"")
    return (
        expand(secret, b"key", context, KEY_BYTES[aead]),
        expand(secret, b"base_nonce", context, NONCE_BYTES),
    )


def dhkem_secret(dh: bytes, enc: bytes, public: bytes, *, kem: int) -> bytes:
    """The shared secret of a Diffie-Hellman KEM with HKDF-SHA256 (RFC 9180, 4.1)."""
    extract, expand = _labeled(b"KEM" + kem.to_bytes(2, "big"))
    return expand(extract(b"", b"eae_prk", dh), b"shared_secret", enc + public, 32)


def xwing_secret(lattice: bytes, curve: bytes, ephemeral: bytes, public: bytes) -> bytes:
    """The hybrid's shared secret, of both halves' secrets, the ephemeral X25519 key and the recipient's."""
    return hashlib.sha3_256(lattice + curve + ephemeral + public + XWING_LABEL).digest()


def sealed(enc: bytes, shared_secret: bytes, info: bytes, plaintext: bytes, *, kem: int) -> bytes:
    """The box a sender makes who has this shared secret: encapsulated key, then the first message with AES-256-GCM."""
    key, nonce = key_schedule(shared_secret, info, kem=kem, aead=AES_256_GCM)
    return enc + AESGCM(key).encrypt(nonce, plaintext, b"")


def _labeled(
    suite: bytes,
) -> tuple[Callable[[bytes, bytes, bytes], bytes], Callable[[bytes, bytes, bytes, int], bytes]]:
    """LabeledExtract(salt, label, ikm) and LabeledExpand(prk, label, info, length), with SHA-256."""

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
        whole = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        out, block = b"", b""
        for number in range(1, -(-length // 32) + 1):
            block = hmac.digest(prk, block + whole + bytes([number]), "sha256")
            out += block
        return out[:length]

    return extract, expand
