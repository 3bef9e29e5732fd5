"""Writes merkle.json and entry.json, beside this file: `python tests/vectors/audit/make_vectors.py`.

Roots, paths and proofs come from the recursive definitions of RFC 6962 section 2.1, written out below as they stand
there; `audit.merkle` computes them another way. The entry was signed with a key that is only used here.
"""

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries

HERE = Path(__file__).parent
# The eight inputs that implementations of RFC 6962 have long tested with.
LEAVES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if not d:
        return hashlib.sha256(b"").digest()
    if len(d) == 1:
        return hashlib.sha256(b"\x00" + d[0]).digest()
    k = split(len(d))
    return hashlib.sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], *, whole: bool) -> list[bytes]:
    if m == len(d):
        return [] if whole else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], whole=whole), mth(d[k:])]
    return [*subproof(m - k, d[k:], whole=False), mth(d[:k])]


def merkle_vectors() -> dict[str, object]:
    sizes = range(1, len(LEAVES) + 1)
    return {
        "leaves": [leaf.hex() for leaf in LEAVES],
        "roots": {str(n): mth(LEAVES[:n]).hex() for n in (0, *sizes)},
        "inclusion": [
            {"index": m, "size": n, "proof": [h.hex() for h in path(m, LEAVES[:n])]} for n in sizes for m in range(n)
        ],
        "consistency": [
            {"old": m, "new": n, "proof": [h.hex() for h in subproof(m, LEAVES[:n], whole=True)]}
            for n in sizes
            for m in range(1, n + 1)
        ],
    }


def entry_vectors() -> dict[str, object]:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"vector key").digest())
    entry = entries.ModelVerified(
        **entries.stamp(1_795_000_000_123, bytes(range(10))),
        actor="site:cleveland",
        site_seq=1,
        site_prev=entries.NO_ENTRY,
        study="heart-disease",
        round=1,
        attempt=1,
        next_model_digest=hashlib.sha256(b"model").hexdigest(),
    )
    stored = entries.sign_site_entry(entry, key)
    return {
        "public_key": key.public_key().public_bytes_raw().hex(),
        "stored": stored.decode(),
        "leaf_hash": hashlib.sha256(b"\x00" + stored).hexdigest(),
        "next_site_prev": hashlib.sha256(stored).hexdigest(),
        "bad_signature": stored.decode().replace('"round":1', '"round":2'),
        "bad_spelling": stored.decode().replace('"attempt":1', '"attempt": 1'),
        "bad_unknown_key": stored.decode().replace('"attempt":1', '"attempt":1,"extra":1'),
        "bad_type": stored.decode().replace("model.verified", "model.imagined"),
    }


if __name__ == "__main__":
    for name, vectors in (("merkle", merkle_vectors()), ("entry", entry_vectors())):
        (HERE / f"{name}.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")
