"""A stranger's check of a study's evidence: `python3 verify.py evidence.zip --policy policy.txt`.

Stands alone on purpose: the standard library of Python 3.9 or later is all it needs (with the `cryptography` package
it checks signatures faster), and it shares no code with what wrote the evidence. Every numbered step prints PASS or
FAIL; a FAIL says where, what was expected and what was found.

Exit status: 0 everything holds, 1 something does not, 2 wrong usage.

The policy names the log's public key. Get it from somebody you trust, not from the evidence: a forger can sign a forged
log with a key of his own. Without --policy the key inside the evidence is used, and that is said in the result.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import bisect
import hashlib
import json
import math
import os
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    FAST_SIGNATURES = True
except ImportError:  # a bare Python: the arithmetic below does the same, more slowly
    FAST_SIGNATURES = False

VERSION = 1

# --- what a bundle may weigh, so that a hostile file cannot exhaust the machine that checks it -----------------------

FILES_MAX = 200_000
MODEL_BYTES_MAX = 8 << 30
TEXT_BYTES_MAX = 64 << 20
LINES_BYTES_MAX = 2 << 30
TILE_BYTES_MAX = 256 * 32
BUNDLE_BYTES_MAX = 256 * (65_535 + 2)
TOTAL_BYTES_MAX = 32 << 30
EXPANSION_MAX = 400  # deflate makes 1032:1 of nothing but zeros; JSON and text stay far below this
EXPANSION_FREE = 16 << 20
ROSTER_MAX = 1024
DROPPED, DROPPED_BYTES_MAX = "log/dropped", 1 << 20
"""Which leaves a retention policy left a hash of: one bit for each, 32 bytes for 256 of them."""

REQUIRED = (
    "README.txt",
    "VERIFY.md",
    "events.ndjson",
    "log/checkpoint",
    "log/policy.txt",
    "manifest.consistency",
    "manifest.entry",
    "manifest.note",
    "manifest.sha256",
    "manifest.tlog-proof",
    "report.html",
    "report.json",
    "report.schema.json",
    "study.json",
    "verify.py",
)
OUTSIDE_MANIFEST = ("manifest.consistency", "manifest.entry", "manifest.note", "manifest.sha256", "manifest.tlog-proof")
"""The manifest cannot list itself, nor what was made from its hash; each of these is checked by a step of its own."""

SITE_CONTEXT = b"consortium/site-entry/v1\n"
SITE_KEYS_CONTEXT = "consortium/site-keys/v1"
STEWARD_CONTEXTS = ("consortium/steward-decision/v1", "consortium/steward-key/v1")
OWNER_CONTEXT = b"consortium/study-submission/v1\n"
SITE_TYPES = {
    "site.keys_rotated",
    "steward.enrolled",
    "steward.removed",
    "study.approved",
    "study.rejected",
    "cohort.snapshot",
    "patients.withdrawn",
    "dp.configured",
    "dp.spent",
    "figures.spent",
    "dp.audited",
    "dp.certificate",
    "dp.exhausted",
    "secagg.accused",
    "update.submitted",
    "model.verified",
    "witness.enrolled",
    "site.heartbeat",
    "log.omission",
}
DECLARED_TYPES = {
    "agreement.recorded",
    "irb.recorded",
    "legal_basis.declared",
    "dpia.recorded",
    "minimum_necessary.determined",
    "deid.determined",
    "log.reviewed",
    "incident.opened",
    "incident.notified",
    "incident.closed",
    "disclosure.recorded",
    "consent.withdrawn",
    "erasure.executed",
    "transfer.recorded",
    "retention.applied",
    "backup.restored",
    "role.changed",
    "attack.tested",
}
"""What people declare: the coordinator of itself, or a site, and then the site signs it."""
EITHER_TYPES = DECLARED_TYPES | {"config.changed", "software.deployed", "witness.refused"}
NO_ENTRY = "0" * 64
SIGNATURE_ENDING = re.compile(rb',"sig":\{"ed25519":"([A-Za-z0-9+/]{86}==)","key":"([0-9a-f]{16})"\}\}\Z')

Record = dict[str, Any]


class Failure(Exception):
    """A step that does not hold: where, what was expected, what was found."""

    def __init__(self, where: str, expected: object, found: object) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, str(expected), str(found)


class NotChecked(Exception):
    """A step that needs the result of one that failed."""


# --- Ed25519 (RFC 8032), verification only ---------------------------------------------------------------------------

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
Point = tuple[int, int, int, int]  # extended coordinates: x = X/Z, y = Y/Z, xy = T/Z


def _add(a: Point, b: Point) -> Point:
    u, v = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    w, z = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = v - u, z - w, z + w, v + u
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(a: Point) -> Point:
    x, y, z = a[0] * a[0] % _P, a[1] * a[1] % _P, 2 * a[2] * a[2] % _P
    h = x + y
    e, g = h - (a[0] + a[1]) * (a[0] + a[1]) % _P, x - y
    f = z + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _decode_point(data: bytes) -> Point | None:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encode_point(a: Point) -> bytes:
    inverse = pow(a[2], _P - 2, _P)
    x, y = a[0] * inverse % _P, a[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_BASE = _decode_point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


def ed25519_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether [S]B - [k]A encodes to R: the check of RFC 8032 section 5.1.7 without cofactor, as OpenSSL does it."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key = _decode_point(public_key)
    s = int.from_bytes(signature[32:], "little")
    if key is None or s >= _L or _BASE is None:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % _L
    minus = (_P - key[0], key[1], key[2], _P - key[3])
    table = (None, _BASE, minus, _add(_BASE, minus))
    result: Point = (0, 1, 1, 0)
    for bit in range(max(s.bit_length(), k.bit_length()) - 1, -1, -1):
        result = _double(result)
        addend = table[(s >> bit & 1) | (k >> bit & 1) << 1]
        if addend is not None:
            result = _add(result, addend)
    return _encode_point(result) == signature[:32]


def signature_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519, by `cryptography` where it is installed."""
    if not FAST_SIGNATURES:
        return ed25519_holds(public_key, signature, message)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- ECDSA over P-256 with SHA-256 (FIPS 186-5), verification only ---------------------------------------------------

_Q = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def _sum_on_p256(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    """Affine points, None for the one at infinity; slow, and called a few hundred times for each signature."""
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0] and (a[1] + b[1]) % _Q == 0:
        return None
    if a == b:
        slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, _Q) % _Q
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, _Q) % _Q
    x = (slope * slope - a[0] - b[0]) % _Q
    return x, (slope * (a[0] - x) - a[1]) % _Q


def ecdsa_holds(point: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature`, r and s of 32 bytes each, is of `message` by the key at an uncompressed point of P-256."""
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    if len(point) != 65 or point[0] != 4 or len(signature) != 64 or x >= _Q or y >= _Q:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if (y * y - x * x * x + 3 * x - _B) % _Q or not 0 < r < _N or not 0 < s < _N:
        return False
    inverse = pow(s, -1, _N)
    u = int.from_bytes(hashlib.sha256(message).digest(), "big") * inverse % _N
    v = r * inverse % _N
    table = (None, _G, (x, y), _sum_on_p256(_G, (x, y)))
    result: tuple[int, int] | None = None
    for bit in range(max(u.bit_length(), v.bit_length()) - 1, -1, -1):
        result = _sum_on_p256(result, result)
        result = _sum_on_p256(result, table[(u >> bit & 1) | (v >> bit & 1) << 1])
    return result is not None and result[0] % _N == r


# --- Merkle tree (RFC 6962) ------------------------------------------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    """Hash of an entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of two hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """Root over leaf hashes; a lone node is promoted."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    level, sha256 = list(hashes), hashlib.sha256
    while len(level) > 1:
        pairs = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2])]  # noqa: B905  # Python 3.9
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def check_inclusion(where: str, leaf: bytes, proof: Sequence[bytes], *, index: int, size: int, root: bytes) -> None:
    """RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        raise Failure(where, f"an index below {size}", index)
    fn, sn, result = index, size - 1, leaf
    for part in proof:
        if sn == 0:
            raise Failure(where, "a shorter proof", f"{len(proof)} hashes")
        if fn & 1 or fn == sn:
            result = node_hash(part, result)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            result = node_hash(result, part)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Failure(where, "a longer proof", f"{len(proof)} hashes")
    if result != root:
        raise Failure(f"{where}, leaf {index}", f"root {root.hex()}", result.hex())


def check_consistency(
    where: str, proof: Sequence[bytes], *, old: int, new: int, old_root: bytes, new_root: bytes
) -> None:
    """RFC 9162 section 2.1.4.2."""
    if old < 1 or new < old:
        raise Failure(where, "a tree that has grown", f"{old} entries, then {new}")
    if old == new:
        if proof or old_root != new_root:
            raise Failure(where, f"root {old_root.hex()} and no proof", new_root.hex())
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise Failure(where, "a proof", "an empty one")
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for part in path[1:]:
        if sn == 0:
            raise Failure(where, "a shorter proof", f"{len(proof)} hashes")
        if fn & 1 or fn == sn:
            first, second = node_hash(part, first), node_hash(part, second)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, part)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Failure(where, "a longer proof", f"{len(proof)} hashes")
    if (first, second) != (old_root, new_root):
        raise Failure(where, f"roots {old_root.hex()} and {new_root.hex()}", f"{first.hex()} and {second.hex()}")


# --- signed notes, checkpoints, policies -----------------------------------------------------------------------------


def base64_bytes(where: str, text: str) -> bytes:
    """Strict base64, one spelling per value."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise Failure(where, "base64", repr(text[:60])) from None
    if base64.b64encode(data).decode() != text:
        raise Failure(where, "canonical base64", repr(text[:60]))
    return data


def decimal(where: str, text: str) -> int:
    """A decimal number without leading zeros, below 2^63."""
    if re.fullmatch(r"0|[1-9][0-9]{0,18}", text, flags=re.ASCII) is None or int(text) >= 2**63:
        raise Failure(where, "a decimal number", repr(text[:40]))
    return int(text)


NOTE_KEY, WITNESS_KEY = 1, 4


class Key:
    """An Ed25519 verifier key with a name (a `vkey`), of a log or of a witness."""

    def __init__(self, where: str, vkey: str, kind: int = NOTE_KEY) -> None:
        parts = vkey.split("+", 2)
        if len(parts) != 3:
            raise Failure(where, "<name>+<key id>+<key>", repr(vkey[:100]))
        self.vkey, self.name = vkey, parts[0]
        data = base64_bytes(where, parts[2])
        if len(data) != 33 or data[0] != kind:
            raise Failure(where, f"an Ed25519 key of type {kind:02x}", f"{len(data)} bytes of type {data[:1].hex()}")
        self.public = data[1:]
        self.key_id = hashlib.sha256(self.name.encode() + b"\n" + data).digest()[:4]
        if not self.name or self.key_id.hex() != parts[1]:
            raise Failure(where, f"key id {self.key_id.hex()}", parts[1][:40])


def note_lines(where: str, data: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """A note's text, and the name and bytes of each signature line."""
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Failure(where, "UTF-8 text", "other bytes") from None
    head, blank, tail = content.rpartition("\n\n")
    lines = tail[:-1].split("\n")
    if not blank or not tail.endswith("\n") or len(lines) > 100 or any(c < " " and c != "\n" for c in content):
        raise Failure(where, "a signed note: text, a blank line, signature lines", "another form")
    signatures: list[tuple[str, bytes]] = []
    for line in lines:
        name, space, encoded = line[2:].partition(" ")
        if not line.startswith("\u2014 ") or not name or not space:
            raise Failure(where, "a signature line", repr(line[:60]))
        signatures.append((name, base64_bytes(f"{where}, signature line", encoded)))
    return head + "\n", signatures


def open_note(where: str, data: bytes, *keys: Key) -> str:
    """The text of a note that one of `keys` signed, or several; lines of other keys are skipped."""
    text = note_lines(where, data)[0]
    if not signers(where, data, keys):
        wanted = " or ".join(key.vkey for key in keys)
        found = ", ".join(name for name, _ in note_lines(where, data)[1])
        raise Failure(where, f"a signature by {wanted}", f"only lines of other keys ({found[:200]})")
    return text


def signers(where: str, data: bytes, keys: Sequence[Key]) -> list[Key]:
    """Which of `keys` signed a note; a line of one of them that does not verify spoils it."""
    text, lines = note_lines(where, data)
    found: list[Key] = []
    for key in keys:
        mine = [payload[4:] for name, payload in lines if (name, payload[:4]) == (key.name, key.key_id)]
        if not all(signature_holds(key.public, signature, text.encode()) for signature in mine):
            raise Failure(where, f"a valid signature by {key.vkey}", "one that does not verify")
        found += [key] if mine else []
    return found


def cosigners(where: str, data: bytes, witnesses: Mapping[str, Key]) -> dict[str, int]:
    """Which of the policy's witnesses cosigned a checkpoint (C2SP tlog-cosignature), and when, in Unix seconds."""
    text, lines = note_lines(where, data)
    found: dict[str, int] = {}
    for name, payload in lines:
        for witness, key in witnesses.items():
            if (name, payload[:4]) == (key.name, key.key_id):
                time_s = int.from_bytes(payload[4:12], "big")
                message = f"cosignature/v1\ntime {time_s}\n{text}".encode()
                if not 0 < time_s < 2**63 or not signature_holds(key.public, payload[12:], message):
                    raise Failure(where, f"a valid cosignature by {key.vkey}", "one that does not verify")
                found[witness] = time_s
    return found


def parse_checkpoint(where: str, text: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint's text."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise Failure(where, "origin, size and root, one line each", repr(text[:80]))
    root = base64_bytes(f"{where}, root", lines[2])
    if len(root) != 32:
        raise Failure(where, "a root of 32 bytes", len(root))
    return lines[0], decimal(f"{where}, size", lines[1]), root


def parse_receipt(where: str, data: bytes) -> tuple[int, list[bytes], bytes]:
    """Index, proof and checkpoint note of a .tlog-proof."""
    head, _, note = data.partition(b"\n\n")
    lines = head.decode("utf-8", "replace").split("\n")
    if lines[0] != "c2sp.org/tlog-proof@v1" or len(lines) < 2 or not lines[1].startswith("index "):
        raise Failure(where, "a c2sp.org/tlog-proof@v1 file", repr(head[:60]))
    proof = [base64_bytes(where, line) for line in lines[2:]]
    if len(proof) > 64 or any(len(part) != 32 for part in proof):
        raise Failure(where, "at most 64 hashes of 32 bytes", f"{len(proof)} hashes")
    return decimal(where, lines[1][6:]), proof, note


class Policy:
    """A policy file (C2SP tlog-policy): the keys of logs, witnesses, groups of them, and who must have cosigned."""

    def __init__(self, where: str, data: bytes) -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self._grouped: set[str] = set()
        quorum: str | None = None
        for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), start=1):
            words = line.partition("#")[0].split()
            place = f"{where}, line {number}"
            if not words:
                continue
            if words[0] == "log" and len(words) in (2, 3):
                self.logs.append(Key(place, words[1]))
            elif words[0] == "witness" and len(words) in (3, 4):
                self._define(place, words[1])
                self.witnesses[words[1]] = Key(place, words[2], WITNESS_KEY)
            elif words[0] == "group" and len(words) > 3:
                self._group(place, words[1], words[2], words[3:])
            elif words[0] == "quorum" and len(words) == 2 and quorum is None:
                quorum = words[1]
                if quorum != "none":
                    self._known(place, quorum)
            else:
                raise Failure(place, "log, witness, group or one quorum line", repr(line[:60]))
        if not self.logs:
            raise Failure(where, "a `log <vkey>` line", "none")
        if quorum is None:
            raise Failure(where, "a `quorum` line", "none")
        keys = [key.public for key in (*self.logs, *self.witnesses.values())]
        if len(set(keys)) != len(keys):  # or one holder would count as two
            raise Failure(where, "every key once", "one key under two names")
        self.quorum = quorum

    def is_met(self, name: str, cosigned: Mapping[str, int]) -> bool:
        """Whether a witness or a group has cosigned."""
        if name in self.witnesses:
            return name in cosigned
        needed, members = self.groups[name]
        return sum(self.is_met(member, cosigned) for member in members) >= needed

    def _group(self, place: str, name: str, needed: str, members: list[str]) -> None:
        for member in members:
            self._known(place, member)
            if member in self._grouped:
                raise Failure(place, "every witness and group in one group at most", repr(member[:60]))
            self._grouped.add(member)
        digits = re.fullmatch(r"[1-9][0-9]{0,3}", needed, flags=re.ASCII)
        number = {"all": len(members), "any": 1}.get(needed, int(needed) if digits else 0)
        if not 1 <= number <= len(members):
            raise Failure(place, f"all, any or a number from 1 to {len(members)}", repr(needed[:20]))
        self._define(place, name)
        self.groups[name] = (number, members)

    def _define(self, place: str, name: str) -> None:
        if name == "none" or name in self.witnesses or name in self.groups or len(self.groups) >= 64:
            raise Failure(place, "a name that is not used yet, for at most 64 groups", repr(name[:60]))

    def _known(self, place: str, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            raise Failure(place, "a witness or group defined above", repr(name[:60]))


# --- the bundle as hostile input -------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", flags=re.ASCII)


def size_limit(name: str) -> int:
    """How large a file of this name may be, in bytes."""
    if name == "model.safetensors":
        return MODEL_BYTES_MAX
    if name.startswith(("log/tile/entries/", "log/tile/kept/", "egress/tile/entries/")):
        return BUNDLE_BYTES_MAX
    if name == DROPPED:
        return DROPPED_BYTES_MAX
    if name.startswith(("log/tile/", "egress/tile/")):
        return TILE_BYTES_MAX
    if name.endswith(".ndjson"):
        return LINES_BYTES_MAX
    return TEXT_BYTES_MAX


class Bundle:
    """The files of a zip archive or of a folder. Nothing is ever extracted; sizes are checked before reading."""

    def __init__(self, path: str) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._folder = Path(path)
        self.sizes: dict[str, int] = {}
        if self._folder.is_dir():
            self._list_folder()
        else:
            self._list_zip(path)
        for name, size in self.sizes.items():
            if len(name) > 240 or _NAME.fullmatch(name) is None:
                raise Failure("names in the archive", "plain relative paths", repr(name[:120]))
            if size > size_limit(name):
                raise Failure(name, f"at most {size_limit(name)} bytes", size)
        if len(self.sizes) > FILES_MAX or sum(self.sizes.values()) > TOTAL_BYTES_MAX:
            raise Failure("archive", f"at most {FILES_MAX} files of {TOTAL_BYTES_MAX} bytes in all", "more")

    def _list_zip(self, path: str) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
            members = self._zip.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error) as error:
            raise Failure(Path(path).name, "a zip archive", f"{type(error).__name__}: {error}") from None
        if len(members) > FILES_MAX:
            raise Failure("archive", f"at most {FILES_MAX} files", len(members))
        for member in members:
            name = member.filename
            if name in self.sizes:
                raise Failure("archive", "each name once", f"{name!r} twice")
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Failure(name[:120], "a stored or deflated file, not encrypted", f"method {member.compress_type}")
            if stat.S_ISLNK(member.external_attr >> 16) or name.endswith("/"):
                raise Failure(name[:120], "a plain file", "a link or a folder")
            if member.file_size > EXPANSION_FREE + EXPANSION_MAX * member.compress_size:
                raise Failure(name[:120], f"at most {EXPANSION_MAX} times its packed size", member.file_size)
            self.sizes[name] = member.file_size

    def _list_folder(self) -> None:
        for folder, _, names in os.walk(self._folder):
            for name in names:
                full = Path(folder) / name
                relative = full.relative_to(self._folder).as_posix()
                if not stat.S_ISREG(full.lstat().st_mode):
                    raise Failure(relative[:120], "a plain file", "a link or a device")
                self.sizes[relative] = full.stat().st_size

    def _open(self, name: str) -> IO[bytes]:
        return self._zip.open(name) if self._zip else self._folder.joinpath(*name.split("/")).open("rb")

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's bytes, piece by piece, never more than its declared size."""
        if name not in self.sizes:
            raise Failure(name, "a file", "none")
        left = self.sizes[name]
        try:
            with self._open(name) as stream:
                while left and (piece := stream.read(min(left, 1 << 20))):
                    left -= len(piece)
                    yield piece
                whole = not left and not stream.read(1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
            raise Failure(name, "an undamaged file", f"{type(error).__name__}: {error}") from None
        if not whole:
            raise Failure(name, f"{self.sizes[name]} bytes", "another length")

    def read(self, name: str) -> bytes:
        """A whole file; only for files whose limit is small."""
        return b"".join(self.chunks(name))

    def read_json(self, name: str) -> Record:
        """A whole JSON object."""
        try:
            record = json.loads(self.read(name).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Failure(name, "a JSON object", type(error).__name__) from None
        if not isinstance(record, dict):
            raise Failure(name, "a JSON object", type(record).__name__)
        return record


# --- privacy: two independent bounds on epsilon ----------------------------------------------------------------------

ROUNDED_UP = 1e-3  # what an accountant may be above the truth
NO_PRIVACY = "none"  # the mechanism of a study that promises patients nothing
EPSILON_INFINITE = 1e9  # what the log says for a promise that is none
EXACT_STEPS_MAX = 100  # in a study of more steps a dp.spent may say an upper bound of what its steps cost
ORDERS = [*range(2, 129), 160, 192, 256, 384, 512, 768, 1024, 1536, 2048]


def _log_add(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


@lru_cache(maxsize=4096)
def renyi(order: int, sigma: float, q: float) -> float:
    """RDP of one Poisson-sampled Gaussian step at an integer order (Mironov, Talwar, Zhang 2019, section 3.3)."""
    if q == 1.0:
        return order / (2 * sigma * sigma)
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-q)
        + (k * math.log(q) if k else 0.0)
        + (k * k - k) / (2 * sigma * sigma)
        for k in range(order + 1)
    ]
    return max(0.0, _log_add(terms) / (order - 1))


def epsilon_upper(steps: dict[tuple[float, float], int], delta: float) -> float:
    """No mechanism with these steps, {(noise multiplier, sampling rate): count}, can cost more than this at `delta`.

    Renyi differential privacy at integer orders, converted by Canonne, Kamath and Steinke (2020), proposition 12.
    """
    best = math.inf
    for order in ORDERS:
        total = sum(count * renyi(order, sigma, q) for (sigma, q), count in steps.items())
        epsilon = total + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        best = min(best, max(0.0, epsilon))
    return best


def _tail(z: float) -> float:
    """P(standard normal > z)."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def epsilon_lower(steps: dict[tuple[float, float], int], delta: float) -> float:
    """These steps cost at least this much at `delta`: an attacker who adds up their outputs already gets so far.

    With one patient more or less the sum of T outputs is N(K, T sigma^2), K binomial(T, q), instead of N(0, T sigma^2).
    For every threshold c, delta >= P(sum > c) - e^epsilon Q(sum > c), and the same the other way round; so an epsilon
    below the largest that some c enforces is false. Steps of other kinds can only add to it.
    """
    best = 0.0
    for (sigma, q), count in steps.items():
        spread = sigma * math.sqrt(count)
        mean, deviation = count * q, math.sqrt(count * q * (1 - q))
        low, high = max(0, int(mean - 12 * deviation - 12)), min(count, int(mean + 12 * deviation + 12))
        weights = [(k, _binomial(count, k, q)) for k in range(low, high + 1)]
        for step in range(-80, 121):
            c = mean + (spread + deviation) * step / 16
            with_patient = sum(weight * _tail((c - k) / spread) for k, weight in weights)
            without = _tail(c / spread)
            for p_side, q_side in ((with_patient, without), (1 - without, 1 - with_patient)):
                if p_side > delta and q_side > 1e-300:
                    best = max(best, math.log((p_side - delta) / q_side))
    return best


def _binomial(n: int, k: int, q: float) -> float:
    if q == 1.0:
        return 1.0 if k == n else 0.0
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(q) + (n - k) * math.log1p(-q)
    return math.exp(log)


# --- the figures of the report, computed again -----------------------------------------------------------------------


BLANK_SITE: Record = {
    "enrolled_leaf": None,
    "approved_leaf": None,
    "patients": None,
    "patients_leaf": None,
    "rounds_invited": 0,
    "rounds_survived": 0,
    "updates": 0,
    "bytes_sent": 0,
    "steps": 0,
    "steps_planned": None,
    "epsilon": None,
    "delta": None,
    "epsilon_leaf": None,
    "figures_epsilon": None,
    "figures_delta": None,
    "figures_leaf": None,
    "certificate": None,
}


CERTIFIED_SITE = (
    "trust",
    "epsilon",
    "delta",
    "epsilon_figures",
    "delta_figures",
    "epsilon_unmasked",
    "epsilon_dataset",
    "patients",
    "audit",
)
CERTIFIED_MODEL = (
    "model_digest",
    "trust",
    "sites",
    "missing",
    "epsilon",
    "delta",
    "epsilon_two_sites",
    "delta_two_sites",
    "epsilon_unmasked",
    "log_size",
)


CLAUSE_STATUSES = ("not applicable", "not evidenced by software", "partly", "evidenced")
"""Of a row of the clause matrix, from the one that claims least."""


class Figures:
    """What report.json says under `figures`, counted again from the entries alone, one entry after the other."""

    def __init__(self, study: str) -> None:
        self.study = study
        self.created: Record | None = None
        self.model: str | None = None
        self.released: list[Record] = []
        self.certificate: Record | None = None
        self.refusals = {
            "auth.failed": 0,
            "authz.denied": 0,
            "round.refused": 0,
            "secagg.failed": 0,
            "secagg.accused": 0,
        }
        self.sites: dict[str, Record] = {}
        self.concerned: set[str] = set()
        self.rounds: dict[tuple[int, int], Record] = {}
        self.chosen: Record | None = None
        self.kinds: dict[str, Record] = {}

    def site(self, name: str) -> Record:
        """The line of one site."""
        return self.sites.setdefault(name, {"site": name, **BLANK_SITE})

    def count(self, leaf: int, record: Record) -> None:
        """Take one entry of the study or of the consortium into account."""
        kind, body = record["type"], record["body"]
        seen = self.kinds.setdefault(kind, {"count": 0, "first": leaf})
        seen.update({"count": seen["count"] + 1, "last": leaf})
        if kind in self.refusals:
            self.refusals[kind] += 1
        if kind == "site.enrolled":
            self.site(body["site"])["enrolled_leaf"] = leaf
        if record.get("study") != self.study:
            return
        if record["actor"].startswith("site:"):
            self.concerned.add(record["actor"][5:])
            self._count_site(leaf, record, self.site(record["actor"][5:]))
        elif "round" in record:
            self._count_round(leaf, record)
        elif kind == "study.created":
            self.created = {"id": self.study, "digest": body["study_digest"], "title": body["title"], "leaf": leaf}
            self.created.update({"epsilon": body["epsilon"], "delta": body["delta"], "rounds": body["rounds"]})
            self.created.update({name: body[name] for name in ("owner", "owner_key", "signed_at") if name in body})
            self.concerned.update(body["sites"])
        elif kind == "study.started":
            self.model = body["model_digest"]
        elif kind == "model.certificate":
            self.certificate = {"leaf": leaf, **{name: body[name] for name in CERTIFIED_MODEL}}
        elif kind == "model.released":
            self.released.append({"model_digest": body["model_digest"], "leaf": leaf})

    def _count_site(self, leaf: int, record: Record, line: Record) -> None:
        kind, body = record["type"], record["body"]
        if kind == "study.approved":
            line["approved_leaf"] = leaf
        elif kind == "cohort.snapshot":
            line.update({"patients": body["patients"], "patients_leaf": leaf})
        elif kind == "dp.configured":
            line["steps_planned"] = body["steps_planned"]
        elif kind == "update.submitted":
            line["updates"] += 1
            line["bytes_sent"] += body["size_bytes"]
        elif kind == "dp.certificate":
            said = {name: body[name] for name in CERTIFIED_SITE}
            line["certificate"] = {"leaf": leaf, **said, "steps": body["event"]["steps"]}
        elif kind == "dp.spent":
            spent = {"epsilon": body["epsilon"], "steps_total": body["steps_total"], "leaf": leaf}
            line.update({"steps": body["steps_total"], "epsilon": body["epsilon"], "delta": body["delta"]})
            line["epsilon_leaf"] = leaf
            one = self.rounds.get((record["round"], record["attempt"]))
            if one is not None:
                one["spent"].append({"site": record["actor"][5:], **spent})
        elif kind == "figures.spent":
            line.update({"figures_epsilon": body["epsilon"], "figures_delta": body["delta"], "figures_leaf": leaf})

    def _count_round(self, leaf: int, record: Record) -> None:
        kind, body = record["type"], record["body"]
        key = (record["round"], record["attempt"])
        one = self.rounds.get(key)
        if kind == "round.started":
            one = {"round": key[0], "attempt": key[1], "kind": body["kind"], "state": "open"}
            one.update({"participants": body["participants"], "survivors": [], "dropouts": []})
            one.update({"threshold": body["threshold"], "model_digest": body["model_digest"]})
            one.update({"next_model_digest": None, "metrics": None, "metrics_leaf": None, "spent": []})
            self.rounds[key] = {**one, "started_leaf": leaf, "ended_leaf": None}
            self.concerned.update(body["participants"])
            for name in body["participants"]:
                self.site(name)["rounds_invited"] += 1
        elif one is None:
            return
        elif kind == "secagg.dropout":
            one["dropouts"].append({"site": body["site"], "phase": body["phase"], "leaf": leaf})
        elif kind == "round.closed":
            one.update({"state": "closed", "survivors": body["survivors"], "ended_leaf": leaf})
            one["next_model_digest"] = self.model = body["next_model_digest"]
            for name in body["survivors"]:
                self.site(name)["rounds_survived"] += 1
        elif kind == "round.aborted":
            one.update({"state": "aborted", "ended_leaf": leaf})
        elif kind == "model.evaluated":
            one.update({"metrics": body["metrics"], "metrics_leaf": leaf})
        elif kind == "model.chosen":
            self.chosen = {"leaf": leaf, "round": key[0], **body}

    def result(self, origin: str, size: int, root: bytes) -> Record:
        """All figures, with the tree head they were read under."""
        return {
            "log": {"origin": origin, "size": size, "root": root.hex()},
            "study": self.created,
            "model_digest": self.model,
            "released": self.released,
            "model_certificate": self.certificate,
            "refusals": self.refusals,
            "sites": [self.site(name) for name in sorted(self.concerned)],
            "rounds": list(self.rounds.values()),
            "chosen": self.chosen,
            "entries": self.kinds,
        }


def first_difference(path: str, expected: object, found: object) -> tuple[str, object, object] | None:
    """Where two JSON values first differ, types included."""
    if type(expected) is not type(found):
        return path, expected, found
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if key not in expected or key not in found:
                return f"{path}.{key}", expected.get(key, "nothing"), found.get(key, "nothing")
            difference = first_difference(f"{path}.{key}", expected[key], found[key])
            if difference:
                return difference
        return None
    if isinstance(expected, list) and isinstance(found, list):
        for number in range(min(len(expected), len(found))):
            difference = first_difference(f"{path}[{number}]", expected[number], found[number])
            if difference:
                return difference
        return None if len(expected) == len(found) else (path, f"{len(expected)} items", f"{len(found)} items")
    return None if expected == found else (path, expected, found)


# --- the steps -------------------------------------------------------------------------------------------------------


class Case:
    """What the steps have established so far; a step that needs what another failed to establish is not checked."""

    def __init__(self, bundle: Bundle, policy: bytes | None, known_checkpoint: bytes | None = None) -> None:
        self.bundle = bundle
        self.outside_policy = policy
        self.known_checkpoint = known_checkpoint
        self.notes: list[str] = []
        self.manifest: bytes | None = None
        self.policy: Policy | None = None
        self.log_keys: list[Key] = []  # of this log, that are believed; the newest last
        self.stones: list[tuple[str, int, bytes]] = []  # name, size, root of checkpoints by which keys were followed
        self.tree: tuple[str, int, bytes] | None = None  # origin, size, root: of a checkpoint that is signed
        self.leaves: list[bytes] | None = None
        self.lost: list[int] = []  # the leaves that are known by their hash only
        self.records: list[tuple[int, Record]] | None = None  # of this study and of the consortium
        self.signed: list[tuple[int, bytes, Record]] = []  # signed by sites, of all studies
        self.opened: Record | None = None
        self.payloads: dict[str, tuple[int, Record]] = {}  # what entries of the whole log commit to
        self.erased: list[tuple[int, Record]] = []  # entries that say payloads of theirs are destroyed
        self.study = ""
        self.site: str | None = None  # the hospital that exported this; None: the coordinator did
        self.document: Record | None = None

    def of(self, *kinds: str) -> list[tuple[int, Record]]:
        """Entries of this study of some types."""
        if self.records is None:
            raise NotChecked("the entries could not be read")
        return [(leaf, e) for leaf, e in self.records if e["type"] in kinds and e.get("study") == self.study]

    def everything(self) -> list[tuple[int, Record]]:
        """Entries of this study and of the consortium."""
        if self.records is None:
            raise NotChecked("the entries could not be read")
        return self.records

    def signed_tree(self) -> tuple[str, int, bytes]:
        """Origin, size and root that the log's key signed."""
        if self.tree is None:
            raise NotChecked("there is no validly signed checkpoint")
        return self.tree

    def created(self) -> tuple[int, Record]:
        """The study's first entry."""
        found = self.of("study.created")
        if len(found) != 1:
            raise Failure("log", f"one study.created entry of {self.study}", len(found))
        return found[0]


def step_files(case: Case) -> str:
    """Every file is the one the manifest lists, and there is no other."""
    for name in REQUIRED:
        if name not in case.bundle.sizes:
            raise Failure(name, "a file", "none")
    case.manifest = case.bundle.read("manifest.sha256")
    listed: dict[str, str] = {}
    for number, line in enumerate(case.manifest.decode("utf-8", "replace").split("\n")[:-1], start=1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
        if match is None or match[2] in listed or match[2] in OUTSIDE_MANIFEST:
            raise Failure(f"manifest.sha256, line {number}", "<sha256>  <path>, each path once", repr(line[:100]))
        listed[match[2]] = match[1]
    for name in sorted(listed):
        hasher = hashlib.sha256()
        for piece in case.bundle.chunks(name):
            hasher.update(piece)
        if hasher.hexdigest() != listed[name]:
            raise Failure(name, f"SHA-256 {listed[name]}", hasher.hexdigest())
    extra = set(case.bundle.sizes) - set(listed) - set(OUTSIDE_MANIFEST)
    if extra:
        raise Failure("archive", "only files that the manifest lists", ", ".join(sorted(extra))[:300])
    return f"{len(listed)} files"


def step_policy(case: Case) -> str:
    """The keys of the log and its witnesses are known from the policy."""
    inside = case.bundle.read("log/policy.txt")
    chosen = inside if case.outside_policy is None else case.outside_policy
    source = "from the evidence itself" if case.outside_policy is None else "given by you"
    origin = case.bundle.read("log/checkpoint").split(b"\n", 1)[0].decode("utf-8", "replace")
    policy = Policy("policy", chosen)
    keys = [key for key in policy.logs if key.name == origin]
    if not keys:
        raise Failure("policy", f"a key for the log {origin[:80]!r}", "0 keys")
    case.policy, case.log_keys = policy, keys
    if case.outside_policy is None:
        case.notes.append(
            "The log's key was taken from the evidence and NOT obtained independently: this run shows that the evidence"
            " agrees with itself, not who made it. Ask the consortium or a hospital for policy.txt, or compare its"
            " SHA-256."
        )
    elif _statements(inside) != _statements(chosen):
        case.notes.append("The policy inside the evidence differs from yours; yours was used.")
    return f"{source}, SHA-256 {hashlib.sha256(chosen).hexdigest()}"


def step_checkpoint(case: Case) -> str:
    """The checkpoint is signed by the log's key, and cosigned by as many witnesses as the policy asks for."""
    if not case.log_keys or case.policy is None:
        raise NotChecked("the policy gives no key")
    note = case.bundle.read("log/checkpoint")
    followed = "" if signers("log/checkpoint", note, case.log_keys) else _follow_key_changes(case, case.policy)
    text = open_note("log/checkpoint", note, *case.log_keys)
    tree = parse_checkpoint("log/checkpoint", text)
    if tree[0] != case.log_keys[0].name:
        raise Failure("log/checkpoint", f"origin {case.log_keys[0].name}", tree[0])
    cosigned = cosigners("log/checkpoint", case.bundle.read("log/checkpoint"), case.policy.witnesses)
    quorum = case.policy.quorum
    if quorum != "none" and not case.policy.is_met(quorum, cosigned):
        raise Failure("log/checkpoint, cosignatures", _wanted(case.policy), ", ".join(sorted(cosigned)) or "none")
    case.tree = tree
    seen = f"; cosigned by {', '.join(sorted(cosigned))}" if cosigned else ""
    return f"{tree[0]}, {tree[1]} entries, root {tree[2].hex()}{seen}{followed}"


def _follow_key_changes(case: Case, policy: Policy) -> str:
    """From the policy's key to those that followed it: each by an entry that the key before it and the quorum signed.

    The checkpoints that say so came with the evidence. That their entries are the log's is looked at with the root.
    """
    said = ""
    whole = parse_checkpoint("log/checkpoint", note_lines("log/checkpoint", case.bundle.read("log/checkpoint"))[0])[1]
    found = (re.fullmatch(r"log/key-changes/(0|[1-9][0-9]{0,14})", name) for name in case.bundle.sizes)
    for leaf in sorted(int(match[1]) for match in found if match is not None):
        where, old = f"log/key-changes/{leaf}", case.log_keys[-1]
        note = case.bundle.read(where)
        if not signers(where, note, [old]):
            continue  # of a change before the policy was made
        if policy.quorum == "none":
            raise Failure("policy", "the log's present key, or a quorum that vouches for its change", old.vkey)
        cosigned = cosigners(where, note, policy.witnesses)
        if not policy.is_met(policy.quorum, cosigned):
            raise Failure(f"{where}, cosignatures", _wanted(policy), ", ".join(sorted(cosigned)) or "none")
        origin, size, root = parse_checkpoint(where, note_lines(where, note)[0])
        if origin != old.name or not leaf < size:
            raise Failure(where, f"a checkpoint of {old.name} over leaf {leaf}", f"{size} entries of {origin}")
        record = next((_entry(at, data) for at, data in entries_of(case.bundle, whole) if at == leaf), {})
        body = record.get("body", {})
        said_by = (record.get("type"), record.get("actor"), body.get("old_vkey"))
        if said_by != ("key.rotated", "coordinator", old.vkey):
            raise Failure(f"{where}, leaf {leaf}", ("key.rotated", "coordinator", old.vkey), said_by)
        new = Key(f"leaf {leaf}, new_vkey", str(body.get("new_vkey")))
        if new.name != old.name:
            raise Failure(f"leaf {leaf}, new_vkey", f"a key of the name {old.name}", new.vkey)
        case.log_keys.append(new)
        case.stones.append((where, size, root))
        said += f"; the policy's key was followed to {new.vkey} by leaf {leaf}, under a checkpoint of {size} entries"
        said += f" that {old.vkey} signed and {', '.join(sorted(cosigned))} cosigned"
    return said


def _wanted(policy: Policy) -> str:
    if policy.quorum in policy.witnesses:
        return f"a cosignature of {policy.quorum}"
    needed, members = policy.groups[policy.quorum]
    return f"cosignatures of {needed} of {', '.join(members)}"


def _number_path(number: int) -> str:
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.insert(0, f"x{number % 1000:03d}")
    return "/".join(groups)


def _tile_name(level: str, number: int, width: int, folder: str = "log") -> str:
    return f"{folder}/tile/{level}/{_number_path(number)}" + ("" if width == 256 else f".p/{width}")


def entries_of(bundle: Bundle, size: int, folder: str = "log") -> Iterator[tuple[int, bytes]]:
    """Index and bytes of every entry, from the entry bundles; in a log, without those that a policy let go."""
    gone = dropped_leaves(bundle) if folder == "log" else b""
    for number in range((size + 255) // 256):
        width = min(256, size - number * 256)
        name = _tile_name("entries", number, width, folder)
        if name not in bundle.sizes and any(gone[32 * number : 32 * number + 32]):
            yield from (found for found in _kept_of(bundle, number, gone) if found[0] < size)
            continue
        data = bundle.read(name)
        at = 0
        for offset in range(width):
            length = int.from_bytes(data[at : at + 2], "big")
            entry = data[at + 2 : at + 2 + length]
            if len(data) < at + 2 or len(entry) != length:
                raise Failure(f"{name}, leaf {number * 256 + offset}", f"an entry of {length} bytes", len(entry))
            yield number * 256 + offset, entry
            at += 2 + length
        if at != len(data):
            raise Failure(name, f"{width} entries", f"{len(data) - at} bytes after them")


def dropped_leaves(bundle: Bundle) -> bytes:
    """log/dropped, the highest bit of a byte first; empty without one. step_entries looks who names it."""
    bits = bundle.read(DROPPED) if DROPPED in bundle.sizes else b""
    if len(bits) % 32 or (DROPPED in bundle.sizes and not any(bits[-32:])) or (bits and bits[0] & 0x80):
        raise Failure(DROPPED, "32 bytes for each bundle up to the last that lost an entry, and leaf 0 kept", "another")
    return bits


def is_dropped(gone: bytes, leaf: int) -> bool:
    """Whether a leaf is in such a list."""
    return leaf < 8 * len(gone) and bool(gone[leaf // 8] & 0x80 >> leaf % 8)


def _kept_of(bundle: Bundle, number: int, gone: bytes) -> Iterator[tuple[int, bytes]]:
    """What is left of a bundle that lost entries; one of no bytes stands where one was lost."""
    name = _tile_name("kept", number, 256)
    data = bundle.read(name) if name in bundle.sizes else bytes(512)
    at = 0
    for leaf in range(256 * number, 256 * number + 256):
        length = int.from_bytes(data[at : at + 2], "big")
        entry = data[at + 2 : at + 2 + length]
        if len(data) < at + 2 or len(entry) != length:
            raise Failure(f"{name}, leaf {leaf}", f"an entry of {length} bytes", len(entry))
        at += 2 + length
        if length:
            yield leaf, entry
        elif not is_dropped(gone, leaf):
            raise Failure(f"{name}, leaf {leaf}", "an entry: log/dropped does not name this leaf", "none")
    if at != len(data):
        raise Failure(name, "256 entries", f"{len(data) - at} bytes after them")


def leaves_of(bundle: Bundle, size: int) -> tuple[list[bytes], list[int]]:
    """Every leaf hash of the log, of what was dropped from the tiles of level 0; and which leaves those are."""
    leaves: list[bytes] = []
    lost: list[int] = []

    def fill(until: int) -> None:
        while len(leaves) < until:
            leaf = len(leaves)
            name = _tile_name("0", leaf // 256, 256)
            found = bundle.read(name)[32 * (leaf % 256) :][:32]
            if len(found) != 32:
                raise Failure(f"{name}, leaf {leaf}", "a hash of 32 bytes", f"{len(found)} bytes")
            lost.append(leaf)
            leaves.append(found)

    for leaf, entry in entries_of(bundle, size):
        fill(leaf)
        leaves.append(leaf_hash(entry))
    fill(size)
    return leaves, lost


def step_root(case: Case) -> str:
    """The root computed from every entry is the one that was signed."""
    _, size, root = case.signed_tree()
    if size > sum(case.bundle.sizes.values()):
        raise Failure("log/checkpoint", "no more entries than the archive has bytes", size)
    leaves, case.lost = leaves_of(case.bundle, size)
    case.leaves = leaves
    for where, stone_size, stone_root in case.stones:
        if stone_size > size or tree_root(leaves[:stone_size]) != stone_root:
            raise Failure(where, f"root {stone_root.hex()}", f"another of these {size} entries")
    if tree_root(leaves) != root:
        where, said = _culprit(case, leaves)
        raise Failure(where, f"root {root.hex()}", f"{tree_root(leaves).hex()}{said}")
    lost = f", {len(case.lost)} of them by their hash only" if case.lost else ""
    return f"{size} entries{lost}{_grown_from_known(case, leaves)}"


def _grown_from_known(case: Case, leaves: Sequence[bytes]) -> str:
    """The log is a continuation of the one whose checkpoint the reader kept: no fork, and not an older state."""
    if case.known_checkpoint is None:
        return ""
    where = "the checkpoint you gave"
    keys = case.log_keys
    if not signers(where, case.known_checkpoint, keys):  # of before the log changed its key, which its entries tell
        keys = [*keys, *(key for key, _ in _key_changes(case)[0])]
    origin, size, root = parse_checkpoint(where, open_note(where, case.known_checkpoint, *keys))
    if origin != keys[0].name:
        raise Failure(where, f"origin {keys[0].name}", origin)
    if size > len(leaves):
        raise Failure("log/checkpoint", f"at least the {size} entries of the checkpoint you gave", len(leaves))
    if tree_root(leaves[:size]) != root:
        place = f"log/tile/entries, leaves 0 to {size - 1}"
        raise Failure(place, f"root {root.hex()}, as in the checkpoint you gave", tree_root(leaves[:size]).hex())
    return f", which continue the {size} of the checkpoint you gave"


def _culprit(case: Case, leaves: Sequence[bytes]) -> tuple[str, str]:
    """Where the entries first differ from the tiles that came with them: a leaf, or the 256^level leaves of a hash."""
    level, hashes = 0, leaves
    while hashes:
        for start in range(0, len(hashes), 256):
            part = hashes[start : start + 256]
            name = _tile_name(str(level), start // 256, len(part))
            tile = case.bundle.read(name) if name in case.bundle.sizes else b""
            for offset, own in enumerate(part if tile else ()):
                said = tile[32 * offset : 32 * offset + 32].hex()
                if said != own.hex():
                    first, count = (start + offset) << 8 * level, 1 << 8 * level
                    number = first // 256
                    bundle = _tile_name("entries", number, min(256, len(leaves) - 256 * number))
                    if bundle not in case.bundle.sizes:  # it lost entries, whose hashes are in the tile
                        bundle = _tile_name("0", number, 256)
                    if level == 0:
                        return f"{bundle}, leaf {first}", f"; leaf {first} hashes to {own.hex()}, its tile says {said}"
                    which = f"leaves {first} to {first + count - 1}"
                    return f"{bundle}, {which}", f"; {which} hash to {own.hex()}, {name} says {said}"
        hashes = [tree_root(hashes[start : start + 256]) for start in range(0, len(hashes) - 255, 256)]
        level += 1
    return "log/tile/entries", ""


def step_tiles(case: Case) -> str:
    """Every tile of hashes is there and holds the hashes of those entries; there is no other."""
    if case.leaves is None:
        raise NotChecked("the entries could not be read")
    return check_tiles(case.bundle, case.leaves, "log")


def check_tiles(bundle: Bundle, leaves: Sequence[bytes], folder: str) -> str:
    """The tiles in a folder are those of these leaves, and no others."""
    level, hashes = 0, leaves
    wanted: set[str] = set()
    while hashes:
        for start in range(0, len(hashes), 256):
            part = hashes[start : start + 256]
            name = _tile_name(str(level), start // 256, len(part), folder)
            wanted.add(name)
            if level == 0:
                entries, kept = (_tile_name(kind, start // 256, len(part), folder) for kind in ("entries", "kept"))
                wanted.add(kept if entries not in bundle.sizes and folder == "log" else entries)
            data = bundle.read(name)
            if data == b"".join(part):
                continue
            for offset, expected in enumerate(part):
                found = data[32 * offset : 32 * offset + 32]
                if found != expected:
                    place = f"{name}, leaf {start + offset}" if level == 0 else f"{name}, hash {offset}"
                    raise Failure(place, expected.hex(), found.hex())
            raise Failure(name, f"{32 * len(part)} bytes", len(data))
        hashes = [tree_root(hashes[start : start + 256]) for start in range(0, len(hashes) - 255, 256)]
        level += 1
    extra = {name for name in bundle.sizes if name.startswith(f"{folder}/tile/")} - wanted
    if extra:
        raise Failure(f"{folder}/tile", "only the tiles of this checkpoint", ", ".join(sorted(extra))[:300])
    return f"{len(wanted)} files"


def step_proofs(case: Case) -> str:
    """Every receipt in proofs/ shows its entry under the signed root."""
    _, size, root = case.signed_tree()
    if case.leaves is None:
        raise NotChecked("the entries could not be read")
    checkpoint = case.bundle.read("log/checkpoint")
    names = sorted(name for name in case.bundle.sizes if name.startswith("proofs/"))
    for name in names:
        index, proof, note = parse_receipt(name, case.bundle.read(name))
        if name != f"proofs/{index}.tlog-proof" or index >= len(case.leaves):
            raise Failure(name, f"a receipt of a leaf below {len(case.leaves)}, named for it", f"index {index}")
        if note != checkpoint:
            raise Failure(name, "the same checkpoint as log/checkpoint", repr(note[:80]))
        check_inclusion(name, case.leaves[index], proof, index=index, size=size, root=root)
    return f"{len(names)} receipts"


def step_entries(case: Case) -> str:
    """The entries are well formed and the first one says whose log this is."""
    origin, size, _ = case.signed_tree()
    if case.leaves is None:
        raise NotChecked("the entries could not be read")
    note = case.bundle.read("manifest.note").decode("utf-8", "replace").split("\n")
    match = re.fullmatch(r"study ([a-z][a-z0-9-]{2,63})", note[1] if len(note) > 1 else "")
    if match is None:
        raise Failure("manifest.note, line 2", "study <name>", repr(note[1:2]))
    case.study = match[1]
    records: list[tuple[int, Record]] = []
    lines: list[bytes] = []
    for leaf, data in entries_of(case.bundle, size):
        record = _entry(leaf, data)
        if record["type"] in SITE_TYPES or "sig" in record or record["actor"].startswith("site:"):
            case.signed.append((leaf, data, record))
        if record["type"] in DECLARED_TYPES:
            _check_declared(leaf, record)
            for field in COMMITMENTS:
                if record["body"].get(field) is not None:
                    case.payloads.setdefault(record["body"][field], (leaf, record))
            if record["body"].get("commitments") is not None:
                case.erased.append((leaf, record))
        if record.get("study", case.study) == case.study:
            records.append((leaf, record))
            lines.append(b'{"leaf":%d,"entry":%b}\n' % (leaf, data))
        if leaf == 0:
            if record["type"] != "log.opened":
                raise Failure("leaf 0", "log.opened with the policy's key", f"{record['type']}")
            case.opened = record
            _note_continued(case, record)
    if case.opened is None:
        raise Failure("log", "log.opened as its first entry", f"a log of {size} entries")
    _check_log_keys(case)
    case.records = records
    _check_dropped(case)
    _require_lines("events.ndjson", case.bundle.read("events.ndjson"), lines)
    return f"{len(records)} of {size} entries concern the study {case.study} or the whole consortium {origin}"


def _note_continued(case: Case, opened: Record) -> None:
    """Entry 0 of a log that was begun because another's key was lost or stolen holds that one's last checkpoint."""
    note = opened["body"].get("continues")
    if note is None:
        return
    where = "leaf 0, continues"
    text, lines = note_lines(where, str(note).encode())
    origin, size, root = parse_checkpoint(where, text)
    names = ", ".join(sorted({name for name, _ in lines if name != origin})) or "nobody"
    case.notes.append(
        f"This log continues {origin}, whose last checkpoint had {size} entries and the root {root.hex()}; it bears"
        f" lines of {names}, which are not checked here. Ask for that log's evidence with a policy of its own."
    )


def _key_changes(case: Case) -> tuple[list[tuple[Key, Key]], set[str]]:
    """By the log's own entries: each old key with the new one, in order, and the vkeys of those that were retired."""
    changes: list[tuple[Key, Key]] = []
    retired: set[str] = set()
    for leaf, data in entries_of(case.bundle, case.signed_tree()[1]):
        if b'"type":"key.' not in data:
            continue
        record = _entry(leaf, data)
        body, where = record["body"], f"leaf {leaf} ({record['type']})"
        if record["type"] == "key.rotated":
            old, new = Key(where, str(body.get("old_vkey"))), Key(where, str(body.get("new_vkey")))
            if new.name != old.name or (changes and changes[-1][1].vkey != old.vkey):
                raise Failure(where, "the newest key of the log, and another of its name", f"{old.vkey}, {new.vkey}")
            changes.append((old, new))
        elif record["type"] == "key.retired":
            if str(body.get("vkey")) not in [old.vkey for old, _ in changes]:
                raise Failure(where, "a key that was replaced", body.get("vkey"))
            retired.add(str(body["vkey"]))
        if record["actor"] != "coordinator":
            raise Failure(where, "an entry of the coordinator", record["actor"])
    return changes, retired


def _check_log_keys(case: Case) -> None:
    """Entry 0 names a key from which the log's entries lead to one that signed; that one is not retired."""
    changes, retired = _key_changes(case)
    first = str((case.opened or {"body": {}})["body"].get("log_vkey"))
    if changes and changes[0][0].vkey != first:
        raise Failure("key.rotated", f"the key of leaf 0 replaced first, {first}", changes[0][0].vkey)
    chain = [first, *(new.vkey for _, new in changes)]
    signed = [key.vkey for key in signers("log/checkpoint", case.bundle.read("log/checkpoint"), case.log_keys)]
    if not set(signed) & set(chain):
        raise Failure("leaf 0", "log.opened with the policy's key", first)
    if not set(signed) - retired:
        raise Failure("log/checkpoint", f"a signature by {chain[-1]}", f"one by {signed[0]}, which the log has retired")
    if changes:
        told = "; ".join(f"{old.vkey} gave way to {new.vkey}" for old, new in changes)
        case.notes.append(f"The log has changed its key: {told}.")
    if case.policy is not None and case.policy.quorum != "none":  # what the quorum has seen, it vouches for
        for old, new in changes:
            believed = [key.vkey for key in case.log_keys]
            if old.vkey in believed and new.vkey not in believed:
                case.log_keys.append(new)


def _check_dropped(case: Case) -> None:
    """A-30: what is known by its hash only was dropped under an entry of the log that names the list it is in."""
    gone = dropped_leaves(case.bundle)
    if not gone:
        return
    digest = hashlib.sha256(gone).hexdigest()
    for leaf, record in case.everything():
        body = record["body"]
        named = record["type"] == "retention.applied" and record["actor"] == "coordinator"
        if named and body.get("dropped_sha256") == digest and leaf >= 8 * len(gone):
            for kept, other in case.everything():
                if kept < 8 * len(gone) and not other["ts"][:10] < body["older_than"]:
                    where = f"leaf {leaf} (retention.applied, older_than)"
                    raise Failure(where, f"a day after leaf {kept}, {other['ts'][:10]}", body["older_than"])
            runs: list[list[int]] = []
            for lost in case.lost:
                if runs and runs[-1][1] == lost - 1:
                    runs[-1][1] = lost
                else:
                    runs.append([lost, lost])
            which = ", ".join(f"{first}-{last}" for first, last in runs[:8]) + (", ..." if len(runs) > 8 else "")
            policy = body["document_sha256"]
            said = f"on {record['ts'][:10]} as older than {body['older_than']}, policy SHA-256 {policy}"
            case.notes.append(
                f"{len(case.lost)} entries are known by their hash only: leaves {which or 'none'}, dropped {said}"
                f" (retention.applied, leaf {leaf})."
            )
            return
    raise Failure(DROPPED, f"a retention.applied entry that names SHA-256 {digest}", "none")


UNFIT_WORDS = re.compile(r"[/\\@]|[0-9]{6}|[^\s]{32}")
COMMITMENTS = ("document_commitment", "note_commitment")
DIGEST_OR_PSEUDONYM = re.compile(r"[0-9a-f]{64}|u:[0-9a-f]{16,64}")


def _check_declared(leaf: int, record: Record) -> None:
    """A declared fact names who recorded it, and the document that says so, by pseudonym and hash and no other way."""
    where, body = f"leaf {leaf} ({record['type']})", record["body"]
    hashes = [(field, r"[0-9a-f]{64}") for field in ("document_sha256", *COMMITMENTS)]
    for field, form in (("on_behalf", r"u:[0-9a-f]{16,64}"), *hashes):
        value = body.get(field)
        if value is not None and (not isinstance(value, str) or re.fullmatch(form, value) is None):
            raise Failure(f"{where}, {field}", f"null or {form}", repr(value)[:80])
    for field, value in body.items():
        exempt = not isinstance(value, str) or DIGEST_OR_PSEUDONYM.fullmatch(value)
        if not exempt and UNFIT_WORDS.search(value):
            raise Failure(f"{where}, {field}", "words without a path, an address, a long number or a key", "others")
    if record["type"] == "log.reviewed":
        first, last = body.get("first_leaf"), body.get("last_leaf")
        if type(first) is not int or type(last) is not int or not 0 <= first <= last < leaf:
            raise Failure(f"{where}, last_leaf", f"leaves below {leaf}, which it stands at", (first, last))


def _require_lines(name: str, found: bytes, expected: Sequence[bytes]) -> None:
    """A file holds these lines and no others."""
    at = 0
    for number, line in enumerate(expected, start=1):
        if found[at : at + len(line)] != line:
            raise Failure(f"{name}, line {number}", repr(line[:200]), repr(found[at : at + len(line)][:200]))
        at += len(line)
    if at != len(found):
        raise Failure(name, f"{len(expected)} lines", f"{len(found) - at} bytes after them")


def _distinct(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key twice")
    return record


_ENTRY = json.JSONDecoder(object_pairs_hook=_distinct)
_ENTRY_TEXTS = ("id", "ts", "type", "actor", "outcome")


def _entry(leaf: int, data: bytes) -> Record:
    try:
        record = _ENTRY.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Failure(f"leaf {leaf}", "a JSON object", f"{type(error).__name__}: {error}"[:200]) from None
    right = isinstance(record, dict) and record.get("v") == VERSION and isinstance(record.get("body"), dict)
    if not right or [key for key in _ENTRY_TEXTS if not isinstance(record.get(key), str)]:
        raise Failure(f"leaf {leaf}", "an entry of version 1 with id, ts, type, actor, outcome and body", data[:100])
    assert isinstance(record, dict)
    return record


class Held(NamedTuple):
    """A key that signs a hospital's entries from the one behind `leaf` on."""

    leaf: int
    enrolled: int  # leaf of the enrolment that it goes back to
    key: str
    first: str  # the key that its chain of entries began under


def keys_held(case: Case) -> dict[str, list[Held]]:
    """Every key that a hospital has signed with, in order: of its enrolments, and those that it changed to."""
    held: dict[str, list[Held]] = {}
    began: dict[tuple[str, str], str] = {}
    for leaf, record in case.everything():
        body = record["body"]
        if record["type"] == "site.enrolled":
            # A new key counts from 1 again; the same key enrolled anew goes on, or old entries could be replayed.
            site, key = body["site"], body["signing_key"]
            held.setdefault(site, []).append(Held(leaf, leaf, key, began.setdefault((site, key), key)))
        elif record["type"] == "site.keys_rotated" and record["actor"][5:] in held:
            site, key = record["actor"][5:], body["signing_key"]
            before = held[site][-1]
            held[site].append(Held(leaf, before.enrolled, key, before.first))
            began[site, key] = before.first
    return held


def held_at(held: dict[str, list[Held]], site: str, leaf: int) -> Held | None:
    """The key under which a hospital's entry at this leaf has to stand; None before it was enrolled."""
    return next((one for one in reversed(held.get(site, [])) if one.leaf < leaf), None)


class KeyChanges:
    """Hospitals that change their signing keys, followed through the log: who has to have signed for it.

    The signatures of the entries themselves, by the old key, were checked before.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self._now: dict[str, str] = {}  # site -> its key
        self._stewards: dict[tuple[str, str], dict[str, str]] = {}  # site and key -> key of a steward -> pseudonym
        self._gone: dict[tuple[str, str], set[str]] = {}
        self._closed: set[tuple[str, str]] = set()  # no key follows these: begun anew, or changed, or revoked
        self._ecdsa: dict[tuple[str, str], str] = {}  # as the last change named it
        self._ever: set[str] = set()
        self.notes: list[str] = []

    def take(self, leaf: int, record: Record) -> None:
        """The next entry."""
        kind, body = record["type"], record["body"]
        if kind == "site.enrolled":
            self._now[body["site"]] = body["signing_key"]
            self._ever.add(body["signing_key"])
        elif kind == "site.revoked" and body["site"] in self._now:
            self._closed.add((body["site"], self._now[body["site"]]))
        elif kind in ("steward.enrolled", "steward.removed"):
            self._take_steward(record)
        elif kind == "site.keys_rotated":
            self._change(leaf, record)

    def _take_steward(self, record: Record) -> None:
        """What does not hold counts for nothing here; the step about approvals finds it."""
        site, body = record["actor"][5:], record["body"]
        chain = (site, self._now.get(site, ""))
        standing, gone = self._stewards.setdefault(chain, {}), self._gone.setdefault(chain, set())
        key, by = body["key"], body["signed_by"]
        change = record["type"].rpartition(".")[2]
        said = {"log": self._log, "site": site, "change": change, "steward": body["steward"], "key": key}
        text = statement(STEWARD_CONTEXTS[1], {**said, "at": body["at"]})
        if text is None or not signature_holds(bytes.fromhex(by), base64.b64decode(body["sig"]), text):
            return
        if change == "removed":
            if by in standing and key in standing:
                del standing[key]
                gone.add(key)
        elif key in standing or key in gone or (by != key and by not in standing):
            return
        else:
            if by == key and (standing or gone):  # whoever has the agent's home can do this
                self._closed.add(chain)
                gone.update(standing)
                standing.clear()
            standing[key] = body["steward"]

    def _change(self, leaf: int, record: Record) -> None:
        site, body = record["actor"][5:], record["body"]
        where, chain = f"leaf {leaf} (site.keys_rotated of {site})", (site, self._now.get(site, ""))
        old, new = (body["old_signing_key"], body["old_ecdsa_key"]), (body["signing_key"], body["ecdsa_key"])
        if old[0] != chain[1] or old[1] != self._ecdsa.get(chain, old[1]):
            raise Failure(where, f"a change of the key that it has, {chain[1][:16]}", old[0][:16])
        if chain in self._closed:
            raise Failure(where, "a hospital that stands, whose stewards were not begun anew", "one that may not")
        if self._stewards.get(chain, {}).get(body["steward_key"]) != body["steward"]:
            raise Failure(where, "the key of a steward of this hospital", body["steward_key"][:16])
        if {*new} & {*self._ever, old[1]}:
            raise Failure(where, "keys that were never anybody's", new[0][:16])
        said = {"log": self._log, "site": site, "old-signing-key": old[0], "old-ecdsa-key": old[1]}
        said |= {"signing-key": new[0], "ecdsa-key": new[1], "steward": body["steward"], "at": body["at"]}
        text = statement(SITE_KEYS_CONTEXT, said)
        if text is None:
            raise Failure(where, "values of one line each", "a line break")
        signed = {
            "the steward": signature_holds(bytes.fromhex(body["steward_key"]), _sig(body, "steward_sig"), text),
            "the new signing key": signature_holds(bytes.fromhex(new[0]), _sig(body, "signing_sig"), text),
            "the new ECDSA key": ecdsa_holds(bytes.fromhex(new[1]), _sig(body, "ecdsa_sig"), text),
        }
        for whose, holds in signed.items():
            if not holds:
                raise Failure(where, f"a valid signature by {whose}", "one that does not verify")
        follows = (site, new[0])
        self._stewards[follows], self._gone[follows] = self._stewards.pop(chain), self._gone.pop(chain)
        self._closed.add(chain)
        self._ecdsa[follows], self._now[site] = new[1], new[0]
        self._ever |= {*new, old[1]}
        self.notes.append(
            f"{site} changed its signing keys at leaf {leaf}, on {body['at'][:10]}: signed by its key of before, by"
            f" one of its stewards ({body['steward_key'][:16]}) and by the new keys."
        )


def _sig(body: Record, name: str) -> bytes:
    return base64.b64decode(body[name])


def statement(context: str, said: dict[str, str]) -> bytes | None:
    """The bytes that a person's key signs; None where a value is more than one line, and could pass for two."""
    if not all(value.isprintable() for value in said.values()):
        return None
    return "".join(f"{line}\n" for line in (context, *(f"{k}: {v}" for k, v in said.items()))).encode()


def step_signatures(case: Case) -> str:
    """What a site is said to have said, it signed with the key that it had: of its enrolment, or one changed to."""
    held = keys_held(case)
    revoked: dict[str, list[int]] = {}
    away: dict[str, list[tuple[int, bool]]] = {}  # when each was suspended (True) and reinstated
    for leaf, record in case.everything():
        if record["type"] == "site.revoked":
            revoked.setdefault(record["body"]["site"], []).append(leaf)
        elif record["type"] in ("site.suspended", "site.reinstated"):
            away.setdefault(record["body"]["site"], []).append((leaf, record["type"] == "site.suspended"))
    for leaf, data, record in case.signed:
        where = f"leaf {leaf} ({record['type']} of {record['actor']})"
        ending = SIGNATURE_ENDING.search(data)
        speaks = record["type"] in SITE_TYPES or record["type"] in EITHER_TYPES
        if not speaks or not record["actor"].startswith("site:") or ending is None:
            raise Failure(where, "an entry of a site, with the site's signature last", "none")
        known = held_at(held, record["actor"][5:], leaf)
        if known is None:
            raise Failure(where, "a site.enrolled entry before it", "none")
        since, key = known.enrolled, bytes.fromhex(known.key)
        if any(since < at < leaf for at in revoked.get(record["actor"][5:], [])):
            raise Failure(where, "a site that is not revoked", "site.revoked before it")
        if [is_away for at, is_away in away.get(record["actor"][5:], []) if since < at < leaf][-1:] == [True]:
            raise Failure(where, "a site that is not suspended", "site.suspended before it")
        if ending[2].decode() != hashlib.sha256(key).hexdigest()[:16]:
            raise Failure(where, f"key {hashlib.sha256(key).hexdigest()[:16]}", ending[2].decode())
        if not signature_holds(key, base64.b64decode(ending[1]), SITE_CONTEXT + data[: ending.start()] + b"}"):
            raise Failure(where, f"a valid signature under {key.hex()}", "one that does not verify")
    changes = KeyChanges(case.signed_tree()[0])
    for leaf, record in case.everything():
        changes.take(leaf, record)
    case.notes += changes.notes
    return f"{len(case.signed)} entries of {len({e['actor'] for _, _, e in case.signed})} sites"


def step_chains(case: Case) -> str:
    """No site's entry is missing between two others: counters without gaps, each naming the hash of the one before."""
    held = keys_held(case)
    chains: dict[tuple[str, str], tuple[int, str]] = {}  # site and its first key -> last counter, hash of last entry
    seen: dict[tuple[str, str], int] = {}  # and its leaf: as many of a site's may be missing as were dropped after it
    for leaf, data, record in case.signed:
        name = record["actor"][5:]
        known = held_at(held, name, leaf)
        chain = (name, known.first if known is not None else "")
        counter, previous = chains.get(chain, (0, NO_ENTRY))
        where = f"leaf {leaf} ({record['type']} of {record['actor']})"
        lost = bisect.bisect(case.lost, leaf) - bisect.bisect(case.lost, seen.get(chain, -1))
        number = record.get("site_seq")
        if type(number) is not int or not counter < number <= counter + 1 + lost:
            raise Failure(where, f"the site's entry {counter + 1}", f"its entry {number}")
        if record.get("site_prev") != previous and number == counter + 1:
            raise Failure(where, f"previous entry {previous}", record.get("site_prev"))
        chains[chain], seen[chain] = (number, hashlib.sha256(data).hexdigest()), leaf
    _note_objections(case)
    return ", ".join(f"{name} {count}" for (name, _), (count, _) in sorted(chains.items())) or "no site wrote anything"


OBJECTIONS_MAX = 20


def _note_objections(case: Case) -> None:
    """Who said that the log is not what it should be, held against what the log is now; of many the first ones.

    An objection fails no step: it is somebody's word, and what it is about may have been put right since.
    """
    found = [(leaf, e) for leaf, e in case.everything() if e["type"] in ("log.omission", "witness.refused")]
    if len(found) > OBJECTIONS_MAX:
        case.notes.append(f"{len(found) - OBJECTIONS_MAX} more objections to the log are in events.ndjson.")
    for leaf, record in found[:OBJECTIONS_MAX]:
        body, who = record["body"], record["actor"].removeprefix("site:")
        size, leaves = body["checkpoint_size"], case.leaves or []
        same = not 0 <= size <= len(leaves) or tree_root(leaves[:size]).hex() == body["checkpoint_root"]
        if record["type"] == "witness.refused":
            said = f"the witness {body['witness']} did not cosign a checkpoint of {size} entries: {body['rule']}"
        else:
            said = f"the hospital {who} said that its entry {body['missing_seq']} was left out of the first {size}"
            said += _standing(case, leaf, record)
        if not same:
            said += f". Of the first {size} entries this log has another root than it was shown"
        case.notes.append(f"Objection, leaf {leaf}: {said[:500]}.")


def _standing(case: Case, leaf: int, record: Record) -> str:
    """Where the entry that a site missed stands now."""
    number, digest = record["body"]["missing_seq"], record["body"]["missing_sha256"]
    own = [(at, data) for at, data, e in case.signed if at < leaf and e["actor"] == record["actor"]]
    places = [at for at, data in own if hashlib.sha256(data).hexdigest() == digest]
    if places:
        return f"; entry {number} stands at leaf {places[-1]} now"
    return f"; no entry with its SHA-256 {digest} is in this log"


def step_manifest(case: Case) -> str:
    """The manifest is signed by the consortium's export key, or by a hospital's own key; the log names either."""
    if case.opened is None or case.manifest is None:
        raise NotChecked("the log's first entry or the manifest could not be read")
    if case.bundle.read("manifest.note").startswith(SITE_MANIFEST.encode()):
        return _site_manifest(case, case.manifest)
    key = Key("leaf 0, export_vkey", str(case.opened["body"].get("export_vkey")))
    text = open_note("manifest.note", case.bundle.read("manifest.note"), key)
    origin, size, _ = case.signed_tree()
    digest = hashlib.sha256(case.manifest).hexdigest()
    expected = f"consortium/evidence-manifest/v1\nstudy {case.study}\nlog {origin} {size}\nmanifest-sha256 {digest}\n"
    if text != expected:
        raise Failure("manifest.note", repr(expected), repr(text[:300]))
    return key.vkey


SITE_MANIFEST = "consortium/site-evidence-manifest/v1\n"


def _site_manifest(case: Case, manifest: bytes) -> str:
    """A hospital exported its own view: the signature is by the key that the log last says is its own."""
    lines = case.bundle.read("manifest.note").decode("utf-8", "replace").split("\n")
    match = re.fullmatch(r"site ([a-z][a-z0-9-]{2,63})", lines[2] if len(lines) > 2 else "")
    if match is None:
        raise Failure("manifest.note, line 3", "site <name>", repr(lines[2:3]))
    site = match[1]
    held = keys_held(case).get(site)
    if not held:
        raise Failure("manifest.note, line 3", "a hospital that the log has enrolled", site)
    leaf, since, public = held[-1].leaf, held[-1].enrolled, bytes.fromhex(held[-1].key)
    origin, size, _ = case.signed_tree()
    name = f"{origin}/site/{site}"
    data = b"\x01" + public
    identifier = hashlib.sha256(name.encode() + b"\n" + data).hexdigest()[:8]
    key = Key(f"leaf {leaf}, signing_key", f"{name}+{identifier}+{base64.b64encode(data).decode()}")
    text = open_note("manifest.note", case.bundle.read("manifest.note"), key)
    own = egress_tree(case.bundle)[1]
    digest = hashlib.sha256(manifest).hexdigest()
    expected = f"{SITE_MANIFEST}study {case.study}\nsite {site}\nlog {origin} {size}\negress {own[0]} {own[1]}\n"
    if text != f"{expected}manifest-sha256 {digest}\n":
        raise Failure("manifest.note", repr(f"{expected}manifest-sha256 {digest}\n"), repr(text[:400]))
    if any(e["type"] == "site.revoked" and e["body"]["site"] == site and at > since for at, e in case.everything()):
        case.notes.append(f"The hospital {site}, which exported this, is revoked in the log.")
    case.site = site
    return f"exported by site {site}, with the key that entry {leaf} of the log names"


def egress_tree(bundle: Bundle) -> tuple[Key, tuple[str, int, bytes]]:
    """The key and the signed tree head of a hospital's own log; the manifest, which the hospital signed, has both."""
    key = Key("egress/vkey", bundle.read("egress/vkey").decode("utf-8", "replace").removesuffix("\n"))
    tree = parse_checkpoint("egress/checkpoint", open_note("egress/checkpoint", bundle.read("egress/checkpoint"), key))
    if tree[0] != key.name:
        raise Failure("egress/checkpoint", f"origin {key.name}", tree[0])
    return key, tree


def step_export(case: Case) -> str:
    """The export itself is in the log, or in the own log of the hospital that exported; it has only grown since."""
    origin, size, root = case.signed_tree()
    keys = case.log_keys
    if not keys or case.manifest is None:
        raise NotChecked("the policy or the manifest could not be read")
    whose, exported = "", {"log_size": size}
    if case.site is not None:
        own, (origin, size, root) = egress_tree(case.bundle)
        keys = [own]
        whose, exported = f" of {origin}", {"log_size": exported["log_size"], "egress_size": size}
    elif case.bundle.read("manifest.note").startswith(SITE_MANIFEST.encode()):
        raise NotChecked("it is not known which hospital exported this")
    data = case.bundle.read("manifest.entry")
    index, proof, note = parse_receipt("manifest.tlog-proof", case.bundle.read("manifest.tlog-proof"))
    later = parse_checkpoint("manifest.tlog-proof", open_note("manifest.tlog-proof", note, *keys))
    if later[0] != origin:
        raise Failure("manifest.tlog-proof", f"origin {origin}", later[0])
    check_inclusion("manifest.tlog-proof", leaf_hash(data), proof, index=index, size=later[1], root=later[2])
    lines = case.bundle.read("manifest.consistency").decode("utf-8", "replace").split("\n")
    growth = [base64_bytes("manifest.consistency", line) for line in lines[:-1]]
    if lines[-1] or len(growth) > 64 or any(len(part) != 32 for part in growth):
        raise Failure("manifest.consistency", "at most 64 hashes, one a line", f"{len(lines)} lines")
    check_consistency("manifest.consistency", growth, old=size, new=later[1], old_root=root, new_root=later[2])
    record = _entry(index, data)
    digest, body = hashlib.sha256(case.manifest).hexdigest(), record["body"]
    study = record.get("study") if case.site is None else body.get("study")
    sizes = {name: body.get(name) for name in exported}
    said = (record["type"], study, body.get("manifest_sha256"), sizes)
    if said != ("export.created", case.study, digest, exported) or index < size:
        raise Failure("manifest.entry", ("export.created", case.study, digest, exported), said)
    return f"leaf {index} of {later[1]}{whose}"


def step_study(case: Case) -> str:
    """study.json is the study that was created and approved."""
    leaf, created = case.created()
    data = case.bundle.read("study.json")
    digest = hashlib.sha256(data).hexdigest()
    for field in ("study_digest", "document_sha256"):
        if created["body"][field] != digest:
            raise Failure(f"study.json (leaf {leaf}, {field})", created["body"][field], digest)
    document = case.bundle.read_json("study.json")
    nothing = _inside(document, "privacy", "mechanism") == NO_PRIVACY  # then there is neither number in it
    said = {
        "id": (document.get("id"), case.study),
        "privacy.mechanism": (_inside(document, "privacy", "mechanism"), created["body"]["mechanism"]),
        "privacy.epsilon": (
            EPSILON_INFINITE if nothing else _inside(document, "privacy", "epsilon"),
            created["body"]["epsilon"],
        ),
        "privacy.delta": (1.0 if nothing else _inside(document, "privacy", "delta"), created["body"]["delta"]),
        "training.rounds": (_inside(document, "training", "rounds"), created["body"]["rounds"]),
        "aggregation.threshold": (_inside(document, "aggregation", "threshold"), created["body"]["threshold"]),
    }
    for path, (found, expected) in said.items():
        if found != expected:
            raise Failure(f"study.json {path} (leaf {leaf})", expected, found)
    case.document = document
    return f"{digest}; {_owner(case, leaf, created)}"


def _owner(case: Case, leaf: int, created: Record) -> str:
    """Whoever submitted the study signed its digest for this consortium's coordinator, with the key of the account."""
    body, where = created["body"], f"leaf {leaf} (study.created)"
    if "owner_key" not in body:
        case.notes.append(f"Nobody signed the submission of the study (leaf {leaf}).")
        return "signed by nobody"
    opened = [record["body"] for _, record in case.everything() if record["type"] == "log.opened"]
    if not opened:
        case.notes.append(f"Where the study was submitted to (leaf {leaf}) cannot be checked: log.opened is dropped.")
        return "its owner's signature was not checked"
    said = {name: opened[0][name] for name in ("consortium", "coordinator_signing_key")}
    said |= {"owner_key": body["owner_key"], "signed_at": body["signed_at"], "study_digest": body["study_digest"]}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key = bytes.fromhex(body["owner_key"])
    if not signature_holds(key, base64.b64decode(body["owner_signature"]), OWNER_CONTEXT + text):
        raise Failure(where, f"a valid signature of the owner's key {key.hex()[:16]}", "one that does not verify")
    accounts = [
        record["body"]["signing_key"]
        for at, record in case.everything()
        if record["type"] == "account.enrolled" and record["body"]["person"] == body["owner"] and at < leaf
    ]
    if accounts and accounts[-1] != body["owner_key"]:
        raise Failure(where, f"the key of the owner's account, {accounts[-1][:16]}", body["owner_key"][:16])
    return f"signed by its owner, whose key has the fingerprint {hashlib.sha256(key).hexdigest()}"


def _inside(document: Record, *path: str) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


class Stewards:
    """Whose keys may sign a hospital's decisions, followed through the log; and which signatures are used up."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._standing: dict[str, set[str]] = {}  # site -> keys
        self._gone: dict[str, set[str]] = {}
        self._void: set[str] = set()  # signatures of approvals that were taken back
        self._fresh: dict[str, set[str]] = {}  # site -> signatures of approvals that were not
        self.notes: list[str] = []

    def take_key(self, leaf: int, record: Record) -> None:
        """A key comes or goes: on the word of a steward of before, or as the first, for everybody to see."""
        site, body = record["actor"][5:], record["body"]
        where = f"leaf {leaf} ({record['type']} of {site})"
        standing, gone = self._standing.setdefault(site, set()), self._gone.setdefault(site, set())
        key, by = body["key"], body["signed_by"]
        change = record["type"].rpartition(".")[2]
        said = {"log": self._log, "site": site, "change": change, "steward": body["steward"], "key": key}
        self._check(where, by, body["sig"], STEWARD_CONTEXTS[1], said | {"at": body["at"]})
        if change == "removed":
            if by not in standing or key not in standing:
                raise Failure(where, "the key of a steward, signed by a steward", key[:16])
            standing.discard(key)
            gone.add(key)
            return
        if key in standing or key in gone:
            raise Failure(where, "a key that was never a steward's of this hospital", key[:16])
        if by == key:
            if standing or gone:
                self.notes.append(
                    f"{site} began its stewards' keys anew at leaf {leaf}; no steward it had before signed for that."
                )
            gone |= standing
            standing.clear()
        elif by not in standing:
            raise Failure(where, "a signature of a steward of before", by[:16])
        standing.add(key)

    def take_decision(self, leaf: int, record: Record) -> bool:
        """A decision about the study; whether stewards signed it. What was taken back is used up."""
        site, body = record["actor"][5:], record["body"]
        where = f"leaf {leaf} ({record['type']} of {site})"
        signed = body.get("signed") or []
        fresh = self._fresh.setdefault(site, set())
        standing = self._standing.get(site, set())
        has_keys = bool(standing or self._gone.get(site))
        approves = record["type"] == "study.approved"
        if approves and has_keys and not signed:
            raise Failure(where, "the signature of one of the hospital's stewards", "none")
        for one in signed:
            said = {"log": self._log, "site": site, "study": record["study"], "digest": body["study_digest"]}
            said |= {name: one[name] for name in ("decision", "steward", "at", "words")}
            self._check(where, one["key"], one["sig"], STEWARD_CONTEXTS[0], said)
            if has_keys and one["key"] not in standing:
                raise Failure(where, "the key of a steward of this hospital", one["key"][:16])
            if approves != (one["decision"] == "approved"):
                raise Failure(where, "a signature under this decision", f"one under {one['decision']!r}")
            if one["sig"] in self._void:
                raise Failure(where, "a new signature", "that of an approval that was taken back")
            if approves:
                fresh.add(one["sig"])
        words = body["statement"] if approves else body["reason"]
        if signed and (signed[0]["words"] != words or (approves and signed[0]["steward"] != body["steward"])):
            raise Failure(where, "the words that were signed", words[:100])
        if not approves:
            self._void |= fresh
            fresh.clear()
        return bool(signed)

    def _check(self, where: str, key: str, signature: str, context: str, said: dict[str, str]) -> None:
        text = statement(context, said)
        if text is None:
            raise Failure(where, "values of one line each", "a line break")
        if not signature_holds(bytes.fromhex(key), base64.b64decode(signature), text):
            raise Failure(where, f"a valid signature of the steward's key {key[:16]}", "one that does not verify")


def step_approvals(case: Case) -> str:
    """Every participant's steward had approved exactly this study, with a key of their own, before the first round."""
    _, created = case.created()
    approved: dict[str, int] = {}
    stewards = Stewards(case.signed_tree()[0])
    count, signed = 0, 0
    for leaf, record in case.everything():
        if record["type"] in ("steward.enrolled", "steward.removed"):
            stewards.take_key(leaf, record)
        if record.get("study") != case.study:
            continue
        if record["type"] == "study.rejected":
            stewards.take_decision(leaf, record)
            approved.pop(record["actor"][5:], None)
        elif record["type"] == "study.approved":
            if record["body"]["study_digest"] != created["body"]["study_digest"]:
                raise Failure(
                    f"leaf {leaf}", f"study {created['body']['study_digest']}", record["body"]["study_digest"]
                )
            signed += stewards.take_decision(leaf, record)
            approved.setdefault(record["actor"][5:], leaf)
        elif record["type"] == "round.started":
            count += 1
            for name in record["body"]["participants"]:
                if name not in approved:
                    where = f"leaf {leaf} (round {record['round']})"
                    raise Failure(where, f"an approval by {name} before it", "none, or one withdrawn")
    case.notes += stewards.notes
    listed = ", ".join(f"{name} at leaf {leaf}" for name, leaf in sorted(approved.items()))
    return f"{listed or 'no approvals'}; {signed} signed by stewards with keys of their own; {count} invitations"


def step_models(case: Case) -> str:
    """Each round began with the model the one before it ended with, and the sites computed the same."""
    current: str | None = None
    begun: dict[tuple[int, int], Record] = {}
    ended: dict[tuple[int, int], tuple[int, str]] = {}
    last_round, closed = 0, 0
    for leaf, record in case.everything():
        if record.get("study") != case.study:
            continue
        kind, body = record["type"], record["body"]
        key = (record.get("round", 0), record.get("attempt", 0))
        where = f"leaf {leaf} ({kind}" + (f", round {key[0]}, attempt {key[1]})" if key[0] else ")")
        if kind == "study.started":
            if current is not None:
                raise Failure(where, "one study.started", "another")
            current = body["model_digest"]
        elif kind == "round.started":
            if key in begun or key[0] <= last_round:
                raise Failure(where, "a round after those that are closed, each attempt once", "a repetition")
            if body["model_digest"] != current:
                raise Failure(where, f"model {current}", body["model_digest"])
            begun[key] = body
        elif kind == "round.closed":
            if key not in begun or key[0] <= last_round:
                raise Failure(where, "a round that was started and not closed", "another")
            if body["model_digest"] != current:
                raise Failure(where, f"model {current}", body["model_digest"])
            same = begun[key]["kind"] != "evaluate" or body["next_model_digest"] == current
            if not same and not _keeps_best(case):  # else see step_choice
                raise Failure(where, f"the same model {current} after an evaluation", body["next_model_digest"])
            current, last_round, closed = body["next_model_digest"], key[0], closed + 1
            ended[key] = (leaf, body["next_model_digest"])
        elif kind in ("study.completed", "model.released") and body["model_digest"] != current:
            raise Failure(where, f"model {current}", body["model_digest"])
    confirmed = 0
    for leaf, record in case.of("model.verified"):
        key = (record["round"], record["attempt"])
        if key in ended and record["body"]["next_model_digest"] != ended[key][1]:
            where = f"leaf {leaf} (model.verified of {record['actor']}, round {key[0]})"
            raise Failure(where, f"model {ended[key][1]}", record["body"]["next_model_digest"])
        confirmed += key in ended
    return f"{closed} rounds, {confirmed} confirmations signed by sites, last model {current}"


def _keeps_best(case: Case) -> str | None:
    """The metric by which the study chooses its model, if it does."""
    metric = _inside(case.document or {}, "evaluation", "keep_best")
    return metric if isinstance(metric, str) else None


def _has_validation(document: Record) -> bool:
    """Whether the study chooses its model by patients who are neither trained on nor tested on."""
    return _inside(document, "data", "split", "validation_fraction") is not None


def step_choice(case: Case) -> str:
    """Where a study keeps its best model: the choice, and the end of training, follow from the figures in the log.

    With validation patients one evaluation follows the choice, on the test patients, and nothing it shows changes it.
    """
    case.created()
    if case.document is None:
        raise NotChecked("the study document could not be read")
    metric, chosen = _keeps_best(case), case.of("model.chosen")
    if metric is None:
        if chosen:
            raise Failure(f"leaf {chosen[0][0]} (model.chosen)", "no such entry: the study keeps its last model", "one")
        return "the study keeps its last model"
    patience = _inside(case.document, "evaluation", "stop_early", "patience")
    least = round((_inside(case.document, "evaluation", "stop_early", "min_delta") or 0.0) * 1_000_000)
    figures = {(e["round"], e["attempt"]): e["body"]["metrics"].get(metric) for _, e in case.of("model.evaluated")}
    kinds = {(e["round"], e["attempt"]): e["body"]["kind"] for _, e in case.of("round.started")}
    said = {(e["round"], e["attempt"]): (leaf, e["body"]) for leaf, e in chosen}
    apart = _has_validation(case.document)
    best, origin, since, made, ended = None, 0, 0, 0, 0
    for leaf, record in case.of("round.closed", "round.started", "study.completed"):
        if record["type"] == "study.completed":
            if not ended:
                raise Failure(f"leaf {leaf} (study.completed)", "the rounds that the study's rule asks for", "fewer")
            continue
        key = (record["round"], record["attempt"])
        where = f"leaf {leaf} ({record['type']}, round {key[0]})"
        if ended:
            raise Failure(where, f"nothing after round {ended}, which ended the study", "one more")
        if made and kinds.get(key) != "evaluate":
            raise Failure(where, f"the test of the model that was chosen after round {made}", "a round of training")
        if record["type"] == "round.started":
            continue
        figure = None if made else figures.get(key)
        if figure is not None:
            found = round(min(max(figure, 0.0), 16.0) * 1_000_000)
            gain = None if best is None else (best - found if metric in ("loss", "brier") else found - best)
            if gain is None or gain > least:
                best, origin, since = found, key[0] - 1, 0
            else:
                since += 1
        if not made and (kinds.get(key) == "evaluate" or (patience is not None and since >= patience)):
            made = key[0]
            if apart:
                continue
        if made:
            ended = key[0]
            right = (None if best is None else best / 1_000_000, origin, metric, record["body"]["next_model_digest"])
            _check_chosen(where, said.pop(key, None), right)
    if said:
        raise Failure(
            f"leaf {min(leaf for leaf, _ in said.values())} (model.chosen)", "a round that ends the study", "none"
        )
    if not ended:
        return f"by {metric}: no choice yet" if not made else f"by {metric}: chosen after round {made}, not tested yet"
    _note_choice(case, metric, tested_in=ended if apart else None)
    shown = "no figure" if best is None else f"{metric} {best / 1_000_000:g}"
    return f"{shown} of the model of round {origin}, chosen after round {made}"


def _check_chosen(where: str, said: tuple[int, Record] | None, right: tuple[Any, ...]) -> None:
    """The entry about a choice says what follows from the figures: figure, round, metric and model."""
    if said is None:
        raise Failure(where, "a model.chosen: the figures end the study here", "none")
    leaf, body = said
    found = (body["figure"], body["origin"], body["metric"], body["model_digest"])
    if found != right:
        raise Failure(f"leaf {leaf} (model.chosen)", f"figure, round, metric and model {right}", found)


def _note_choice(case: Case, metric: str, *, tested_in: int | None) -> None:
    """What choosing by figures does to them, and what it says about patients.

    Args:
        case: The case.
        metric: Which figure it was.
        tested_in: The round on other patients than the model was chosen by, if there was one.
    """
    note = f"The model was chosen by {metric} of the patients it was tested on: that figure is optimistic"
    if tested_in is not None:
        note = (
            f"The model was chosen by {metric} of validation patients: that figure is optimistic. The figures of round "
            f"{tested_in} are of test patients, whom nothing was chosen by"
        )
    if isinstance(_inside(case.document or {}, "evaluation", "privacy"), dict):
        case.notes.append(f"{note}. The figures have noise and a budget.")
    else:
        case.notes.append(f"{note}. What the choice says about the patients it was made by is in no epsilon.")


def step_model_file(case: Case) -> str:
    """model.safetensors is the last global model of the log."""
    last = case.of("study.started", "round.closed")
    if not last:
        return "no model was made"
    body = last[-1][1]["body"]
    expected = body.get("next_model_digest", body["model_digest"])
    if "model.safetensors" not in case.bundle.sizes:
        released = case.of("model.released")
        if released and case.site is None:
            raise Failure("model.safetensors", f"the released model {expected}", "no file")
        why = f"{case.site} does not have the released one" if released else "no model was released"
        case.notes.append(f"The evidence holds no model file; {why}.")
        return "no file"
    digest, count = model_digest(case.bundle)
    if digest != expected:
        raise Failure(f"model.safetensors (leaf {last[-1][0]})", f"model {expected}", digest)
    return f"{count} parameters, {digest}"


def model_digest(bundle: Bundle) -> tuple[str, int]:
    """SHA-256 over names and shapes as canonical JSON, a newline, and the float32 values sorted by name."""
    name = "model.safetensors"
    pieces = bytearray()
    for piece in bundle.chunks(name):
        pieces += piece
    data = memoryview(pieces)
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, 16 << 20):
        raise Failure(name, "a safetensors file", f"{len(data)} bytes with a header of {length}")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode("utf-8"))
        header.pop("__metadata__", None)
        layout = [(key, *_tensor(header[key], len(data) - 8 - length)) for key in sorted(header)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Failure(name, "float32 tensors with sound offsets", f"{type(error).__name__}: {error}") from None
    described = {"schema": "consortium/global-model/v1", "parameters": [[key, shape] for key, shape, _, _ in layout]}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    hasher = hashlib.sha256(text.encode() + b"\n")
    for _, _, start, stop in layout:
        hasher.update(data[8 + length + start : 8 + length + stop])
    # A model between rounds may carry its optimizer's state, under names that begin with "~".
    return hasher.hexdigest(), sum(math.prod(shape) for name, shape, _, _ in layout if not name.startswith("~"))


def _tensor(tensor: Record, available: int) -> tuple[list[int], int, int]:
    """Shape, start and stop of a tensor in a safetensors file; raises ValueError."""
    shape, (start, stop) = tensor["shape"], tensor["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)) or tensor["dtype"] != "F32":
        raise ValueError("a tensor that is not float32 with whole numbers for shape and offsets")
    if stop - start != 4 * math.prod(shape) or stop > available:
        raise ValueError("offsets that do not fit the shape or the file")
    return shape, start, stop


def step_survivors(case: Case) -> str:
    """No sum was opened below the threshold, or over sites that were not invited; nobody was invited out of turn."""
    _, created = case.created()
    turns = _check_turns(case)
    begun = {(e["round"], e["attempt"]): e["body"] for _, e in case.of("round.started")}
    uploads = {(e["round"], e["attempt"], e["actor"][5:]) for _, e in case.of("update.submitted")}
    alone, counted = 0, 0
    for leaf, record in case.of("round.closed", "secagg.dropout", "update.submitted"):
        key = (record["round"], record["attempt"])
        where = f"leaf {leaf} ({record['type']}, round {key[0]}, attempt {key[1]})"
        if key not in begun:
            raise Failure(where, "a round that was started", "none")
        invited, body = set(begun[key]["participants"]), record["body"]
        if record["type"] == "update.submitted":
            if record["actor"][5:] not in invited:
                raise Failure(where, f"one of {', '.join(sorted(invited))}", record["actor"])
            continue
        if record["type"] == "secagg.dropout":
            if body["site"] not in invited:
                raise Failure(where, f"one of {', '.join(sorted(invited))}", body["site"])
            continue
        survivors = set(body["survivors"])
        if not survivors <= invited or len(survivors) != len(body["survivors"]):
            raise Failure(where, f"survivors among {', '.join(sorted(invited))}", ", ".join(body["survivors"]))
        needed = max(begun[key]["threshold"], created["body"]["threshold"])
        if len(survivors) < needed:
            raise Failure(where, f"at least {needed} survivors", len(survivors))
        counted += len(survivors)
        alone += sum((*key, name) not in uploads for name in survivors)
    if alone:
        case.notes.append(f"{alone} of {counted} contributions are not confirmed by an update.submitted of the site.")
    return f"{counted} contributions, threshold {created['body']['threshold']}{turns}"


def _check_turns(case: Case) -> str:
    """Where not all sites train in every round: those whose turn it is by the digest, and figures only at the end."""
    per_round, rounds = (
        _inside(case.document or {}, "training", name) for name in ("participants_per_round", "rounds")
    )
    if per_round is None:
        return ""
    roster = tuple(sorted(_inside(case.document or {}, "sites", "required")))
    if not 0 < per_round <= len(set(roster)) == len(roster) <= ROSTER_MAX:
        raise Failure("study.json training.participants_per_round", f"1 to {len(set(roster))} sites", per_round)
    digest = hashlib.sha256(case.bundle.read("study.json")).digest()
    for leaf, record in case.of("round.started", "dp.spent", "model.evaluated"):
        number, body = record["round"], record["body"]
        if number > rounds:
            continue
        where = f"leaf {leaf} ({record['type']}, round {number})"
        if record["type"] == "model.evaluated":
            raise Failure(where, f"no figures before round {rounds + 1}: each round is over other sites", "figures")
        allowed = sites_in_turn(digest, roster, per_round, number)
        found = set(body["participants"] if record["type"] == "round.started" else [record["actor"][5:]])
        if not found <= set(allowed):
            raise Failure(where, f"among {', '.join(allowed)}, whose turn it was", ", ".join(sorted(found)))
    return f"; {per_round} of {len(roster)} sites in turn"


def sites_in_turn(digest: bytes, roster: tuple[str, ...], per_round: int, number: int) -> tuple[str, ...]:
    """Whose turn a training round is: permutations of the roster, dealt out a round at a time.

    A pass is the roster sorted by SHA-256(label, study digest, number of the pass in 8 bytes, name), but for those that
    the pass before left in the same round: they come last. After n / gcd rounds, in K / gcd passes, it begins afresh.
    """
    divisor = math.gcd(len(roster), per_round)
    cycle, place = divmod(number - 1, len(roster) // divisor)
    return _cycle_of_turns(digest, roster, per_round, cycle * (per_round // divisor))[place]


@lru_cache(maxsize=16)
def _cycle_of_turns(digest: bytes, roster: tuple[str, ...], per_round: int, first: int) -> list[tuple[str, ...]]:
    """The rounds of the cycle that begins with the pass `first`."""
    rounds: list[tuple[str, ...]] = []
    current: list[str] = []
    for number in range(first, first + per_round // math.gcd(len(roster), per_round)):
        label = b"consortium/participation/v1\n" + digest + number.to_bytes(8, "big")
        keyed = sorted((name in current, hashlib.sha256(label + name.encode()).digest(), name) for name in roster)
        for _, _, name in keyed:
            current.append(name)
            if len(current) == per_round:
                rounds.append(tuple(sorted(current)))
                current = []
    return rounds


def step_privacy(case: Case) -> str:
    """What each site spent adds up, stays within the study's epsilon, and lies between two independent bounds."""
    _, created = case.created()
    if created["body"]["mechanism"] == NO_PRIVACY:
        for leaf, record in case.of("dp.configured", "dp.spent", "dp.certificate", "figures.spent"):
            raise Failure(f"leaf {leaf} ({record['type']})", "none: the study promises no privacy", record["actor"][5:])
        case.notes.append("No patient has differential privacy in this study: its sums and its model are exact.")
        return "the study promises patients no differential privacy"
    budget, delta = created["body"]["epsilon"], created["body"]["delta"]
    plans: dict[str, Record] = {}
    totals: dict[str, dict[tuple[float, float], int]] = {}
    last: dict[str, tuple[int, Record]] = {}
    for leaf, record in case.of("dp.configured", "dp.spent"):
        name, body = record["actor"][5:], record["body"]
        where = f"leaf {leaf} ({record['type']} of {name})"
        if record["type"] == "dp.configured":
            if planned_steps(case.document) not in (None, body["steps_planned"]):
                raise Failure(f"{where}, steps_planned", planned_steps(case.document), body["steps_planned"])
            plans[name] = body
            continue
        if name not in plans:
            raise Failure(where, "a dp.configured of the site before it", "none")
        plan, event = plans[name], body["event"]
        pair = _check_event(where, event, plan, case.document)
        if not 0 < body["delta"] < 1:
            raise Failure(where, "0 < delta < 1", body["delta"])
        steps = totals.setdefault(name, {})
        steps[pair] = steps.get(pair, 0) + event["steps"]
        if sum(steps.values()) != body["steps_total"] or body["steps_total"] > plan["steps_planned"]:
            where = f"{where}, steps_total"
            raise Failure(where, f"{sum(steps.values())}, at most {plan['steps_planned']}", body["steps_total"])
        # Accountants round up on a grid that gets finer as steps are added: by up to 1e-3, and then less.
        if name in last and body["epsilon"] < last[name][1]["epsilon"] - ROUNDED_UP:
            raise Failure(f"{where}, epsilon", f"at least {last[name][1]['epsilon']}", body["epsilon"])
        if body["delta"] != delta or body["epsilon"] > budget:
            where = f"{where}, epsilon and delta"
            raise Failure(where, f"epsilon up to {budget} at delta {delta}", f"{body['epsilon']} at {body['delta']}")
        last[name] = (leaf, body)
    parts = []
    for name, (leaf, body) in sorted(last.items()):
        upper, lower = epsilon_upper(totals[name], _for_noise(plans[name], delta)), epsilon_lower(totals[name], delta)
        if not lower - 1e-6 <= body["epsilon"] <= upper + 1e-6:
            where = f"leaf {leaf} (dp.spent of {name}, epsilon)"
            raise Failure(where, f"between {lower:.4f} and {upper:.4f} for these steps", body["epsilon"])
        parts.append(f"{name} {body['epsilon']:.4f} (bounds {lower:.4f} to {upper:.4f})")
    _note_unaccounted(case)
    parts += _check_figures(case)
    return "; ".join(parts) or "no site spent any budget"


def _check_figures(case: Case) -> list[str]:
    """What test figures cost each site adds up, stays within their own budget, and lies between the same bounds."""
    totals: dict[str, dict[tuple[float, float], int]] = {}
    last: dict[str, tuple[int, Record]] = {}
    for leaf, record in case.of("figures.spent"):
        if case.document is None:
            raise NotChecked("what the study allows its test figures is in study.json, which could not be read")
        name, body = record["actor"][5:], record["body"]
        where = f"leaf {leaf} (figures.spent of {name}"
        budget = _inside(case.document, "evaluation", "privacy")
        if not isinstance(budget, dict):
            raise Failure(f"{where})", "a study whose test figures have a budget", "none in study.json")
        event, steps = body["event"], totals.setdefault(name, {})
        pair = _check_draw(where, event, case.document)
        steps[pair] = steps.get(pair, 0) + event["steps"]
        planned = planned_draws(case.document)
        if sum(steps.values()) != body["steps_total"] or body["steps_total"] > planned:
            allowed = f"{sum(steps.values())}, at most {planned}"
            raise Failure(f"{where}, steps_total)", allowed, body["steps_total"])
        if name in last and body["epsilon"] < last[name][1]["epsilon"] - ROUNDED_UP:
            raise Failure(f"{where}, epsilon)", f"at least {last[name][1]['epsilon']}", body["epsilon"])
        if body["delta"] != budget["delta"] or not 0 < body["delta"] < 1 or body["epsilon"] > budget["epsilon"]:
            allowed = f"epsilon up to {budget['epsilon']} at delta {budget['delta']} for test figures"
            raise Failure(f"{where}, epsilon and delta)", allowed, f"{body['epsilon']} at {body['delta']}")
        last[name] = (leaf, body)
    parts = []
    for name, (leaf, body) in sorted(last.items()):
        lower, upper = figures_bounds(totals[name], body["delta"])
        if not lower - 1e-6 <= body["epsilon"] <= upper + 1e-6:
            where = f"leaf {leaf} (figures.spent of {name}, epsilon)"
            raise Failure(where, f"between {lower:.4f} and {upper:.4f} for these draws", body["epsilon"])
        parts.append(f"test figures of {name} {body['epsilon']:.4f} (bounds {lower:.4f} to {upper:.4f})")
    _note_figures_unaccounted(case)
    return parts


def _check_draw(where: str, event: Record, document: Record) -> tuple[float, float]:
    """One draw of test figures is of the one kind there is: noise of the site alone, on counts of all test patients.

    One patient is in the count, in at least one bin over everybody, and in one of each subgroup: an event that says a
    smaller norm would state less than it cost.
    """
    if event["kind"] != "poisson-sampled-discrete-gaussian":
        raise Failure(f"{where}, event)", "a kind of event with a rule for counts", event["kind"])
    if event["shares"] != 1 or event["sampling_rate"] != 1:
        said = f"{event['shares']} shares, q {event['sampling_rate']}"
        raise Failure(f"{where}, event)", "all the noise of the site's own, and every test patient", said)
    least = math.sqrt(2 + len(_inside(document, "evaluation", "subgroups") or ()))
    if event["clip_norm_l2"] < least * (1 - 1e-12):
        raise Failure(f"{where}, event.clip_norm_l2)", f"at least {least}", event["clip_norm_l2"])
    _check_grid(f"{where}, event", event)
    return float(event["noise_multiplier"]), 1.0


def planned_steps(document: Record | None) -> int | None:
    """How many steps the noise of a study is for: of the site that is in most rounds, spare ones included."""
    names = ("rounds", "spare_rounds", "local_steps")
    rounds, spare, local = (_inside(document or {}, "training", name) for name in names)
    if not all(type(number) is int and number >= 0 for number in (rounds, spare, local)):
        return None
    per_round = _inside(document or {}, "training", "participants_per_round")
    if per_round is not None:
        rounds = -(-rounds * per_round // len(_inside(document or {}, "sites", "required")))
    return int((rounds + spare) * local)


def planned_draws(document: Record | None) -> float:
    """How many draws of test figures a study plans for: measured rounds of training, the last ones, spare ones."""
    rounds, spare = _inside(document or {}, "training", "rounds"), _inside(document or {}, "training", "spare_rounds")
    every = _inside(document or {}, "evaluation", "every_rounds")
    if not all(type(number) is int and number >= 0 for number in (rounds, spare, every)) or not every:
        return math.inf
    if _inside(document or {}, "training", "participants_per_round") is not None:
        return int(1 + spare)  # no round of training is measured
    return int(-(-rounds // every) + (2 if _has_validation(document or {}) else 1) + spare)


def figures_bounds(steps: dict[tuple[float, float], int], delta: float) -> tuple[float, float]:
    """Below and above what these draws can cost; as for shared noise, a hundredth of delta may be set aside."""
    return epsilon_lower(steps, delta), epsilon_upper(steps, 0.99 * delta)


def _note_figures_unaccounted(case: Case) -> None:
    """Contributions to test figures with a budget for which the site logged no draw for the model that was measured.

    Other attempts at the same model, and the same model in a later round, get the figures that were paid for.
    """
    if not isinstance(_inside(case.document or {}, "evaluation", "privacy"), dict):
        return
    models = {(e["round"], e["attempt"]): e["body"]["model_digest"] for _, e in case.of("round.started")}
    drawn = {(e["actor"][5:], models.get((e["round"], e["attempt"]))) for _, e in case.of("figures.spent")}
    survivors = {(e["round"], e["attempt"]): e["body"]["survivors"] for _, e in case.of("round.closed")}
    missing = [
        f"{name} in round {e['round']}"
        for _, e in case.of("model.evaluated")
        for name in survivors.get((e["round"], e["attempt"]), ())
        if (name, models.get((e["round"], e["attempt"]))) not in drawn
    ]
    if missing:
        case.notes.append(f"Test figures without a figures.spent entry of the site: {', '.join(missing)[:300]}.")


def _check_event(where: str, event: Record, plan: Record, document: Record | None) -> tuple[float, float]:
    """One event is the site's plan but for its steps, and of a kind that the bounds hold for; sigma and q of it.

    The sum of discrete Gaussian shares has the Renyi divergences of a Gaussian at integer orders, for contributions in
    whole grid steps, and shares of 256 grid steps or wider add up to a discrete Gaussian to within any rounding here
    (Kairouz, Liu, Steinke 2021, theorem 9). So both kinds are held against the bounds of a Gaussian.
    """
    pair = (float(event["noise_multiplier"]), float(event["sampling_rate"]))
    planned = plan["event"]
    for field, said in (
        ("noise_multiplier", planned["noise_multiplier"]),
        ("sampling_rate", planned["sampling_rate"]),
        ("steps_planned", planned["steps"]),
        ("clip_norm_l2", planned.get("clip_norm_l2", plan["clip_norm_l2"])),
    ):
        if plan[field] != said:
            raise Failure(f"{where}, the site's dp.configured, {field}", plan[field], said)
    if event != {**planned, "steps": event["steps"]}:
        raise Failure(where, f"sigma {plan['noise_multiplier']}, q {plan['sampling_rate']}: {planned}", event)
    if pair[0] <= 0 or not 0 < pair[1] <= 1:
        raise Failure(where, "sigma > 0, 0 < q <= 1", event)
    if event["kind"] == "poisson-sampled-discrete-gaussian":
        _check_grid(where, event)
        if document is not None:
            honest = _inside(document, "aggregation", "threshold") - (_inside(document, "privacy", "colluding") or 0)
            if event["shares"] > honest:
                raise Failure(f"{where}, shares", f"at most {honest}, as the study says", event["shares"])
    elif event["kind"] != "poisson-sampled-gaussian":
        raise Failure(where, "a kind of event with a rule", event["kind"])
    return pair


def _check_grid(where: str, event: Record) -> None:
    """Shares of discrete Gaussian noise must be wide enough for the bounds of a Gaussian to hold for their sum."""
    step = event["grid_spacing"] * math.sqrt(event["shares"])
    if step <= 0 or event["noise_multiplier"] * event["clip_norm_l2"] < 256 * step:
        raise Failure(f"{where}, grid_spacing", "shares of noise of at least 256 grid steps", event)


def _for_noise(plan: Record, delta: float) -> float:
    """Of delta, what is left for the bound: a site may set a hundredth aside for noise in whole grid steps."""
    return delta * 0.99 if plan["event"]["kind"] == "poisson-sampled-discrete-gaussian" else delta


def step_certificates(case: Case) -> str:
    """A certificate says no less than the site spent, for the mechanism it configured, and the model's no less still.

    The last certificate of a site speaks for all its dp.spent entries, those written after it too: a training may end
    later than its study. What it may say more is a reservation whose training was lost; never more than was planned.
    """
    plans = {e["actor"][5:]: e["body"] for _, e in case.of("dp.configured")}
    spent: dict[str, list[Record]] = {}
    drawn: dict[str, list[Record]] = {}
    audits: dict[str, Record] = {}
    last: dict[str, tuple[int, Record]] = {}
    model: tuple[int, Record] | None = None
    for leaf, record in case.everything():
        kind, body, name = record["type"], record["body"], record["actor"][5:]
        if record.get("study") != case.study:
            continue
        if kind == "dp.spent":
            spent.setdefault(name, []).append(body)
        elif kind == "figures.spent":
            drawn.setdefault(name, []).append(body)
        elif kind == "dp.audited":
            audits[name] = body
        elif kind == "dp.certificate":
            last[name] = (leaf, body)
            _check_audit(leaf, name, body, audits.get(name))
        elif kind == "model.certificate":
            model = (leaf, body)
    if model is not None:
        _check_model_certificate(case, *model)
    for name, (leaf, body) in sorted(last.items()):
        _check_certificate(case, f"leaf {leaf} (dp.certificate of {name}", body, plans.get(name), spent.get(name, []))
        exact = planned_draws(case.document) <= EXACT_STEPS_MAX
        where = f"leaf {leaf} (dp.certificate of {name}"
        _check_certified_figures(where, body, drawn.get(name, []), exact=exact)
        _check_dataset(case, leaf, name, body)
    missing = sorted(set(spent) - set(last))
    if missing:
        case.notes.append(f"Sites that spent privacy and signed no certificate: {', '.join(missing)[:300]}.")
    failed = sorted(name for name, (_, body) in last.items() if body["audit"] != "passed")
    if failed:
        case.notes.append(f"Certificates without an audit of the mechanism that passed: {', '.join(failed)[:300]}.")
    parts = [f"{name} {body['epsilon']:.4f}" for name, (_, body) in sorted(last.items())]
    return "; ".join(parts) or "no site signed one"


def _check_audit(leaf: int, name: str, body: Record, audited: Record | None) -> None:
    """What a certificate says about the audit is what the site logged of it before."""
    where = f"leaf {leaf} (dp.certificate of {name}, audit)"
    expected = "not run" if audited is None else "failed" if audited["failed"] else "passed"
    if body["audit"] != expected:
        raise Failure(where, expected, body["audit"])
    if body["audit_figures"] != ({} if audited is None else audited["figures"]):
        raise Failure(where, "the figures of the site's dp.audited", body["audit_figures"])


def _check_certificate(case: Case, where: str, body: Record, plan: Record | None, spent: list[Record]) -> None:
    """The mechanism is the one configured, the steps and epsilon no less than were spent, the epsilon one they cost."""
    created = case.created()[1]["body"]
    if plan is None:
        raise Failure(f"{where})", "a dp.configured of the site", "none")
    if body["study_digest"] != created["study_digest"]:
        raise Failure(f"{where}, study_digest)", created["study_digest"], body["study_digest"])
    for field in ("dataset", "unit", "relation", "clip_norm_l2", "steps_planned", "delta"):
        if body[field] != plan[field]:
            raise Failure(f"{where}, {field})", plan[field], body[field])
    event = body["event"]
    for field in sorted((event.keys() | plan["event"].keys()) - {"steps"}):
        if event.get(field) != plan["event"].get(field):
            raise Failure(f"{where}, event.{field})", plan["event"].get(field), event.get(field))
    for field in ("noise_multiplier", "sampling_rate"):
        if event[field] != plan[field]:
            raise Failure(f"{where}, event.{field})", plan[field], event[field])
    steps = sum(one["event"]["steps"] for one in spent)
    if not steps <= event["steps"] <= plan["steps_planned"]:
        raise Failure(f"{where}, event.steps)", f"{steps} to {plan['steps_planned']}", event["steps"])
    # In a longer study entries may say upper bounds, which the exact figure of a certificate is below.
    said = [one["epsilon"] for one in spent] if plan["steps_planned"] <= EXACT_STEPS_MAX else []
    if body["epsilon"] < max(said, default=0.0) - ROUNDED_UP:
        raise Failure(f"{where}, epsilon)", f"at least {max(said)}, which the site spent", body["epsilon"])
    executed = {(float(event["noise_multiplier"]), float(event["sampling_rate"])): event["steps"]}
    lower, upper = epsilon_lower(executed, body["delta"]), epsilon_upper(executed, _for_noise(plan, body["delta"]))
    if not lower - 1e-6 <= body["epsilon"] <= upper + 1e-6:
        raise Failure(f"{where}, epsilon)", f"between {lower:.4f} and {upper:.4f} for its steps", body["epsilon"])
    _check_trust(f"{where}, trust)", body, executed)


def _check_certified_figures(where: str, body: Record, drawn: list[Record], *, exact: bool) -> None:
    """What a certificate says its test figures cost is what the site's figures.spent entries come to; 0 if none are.

    `exact`: the study is so short that its entries say exactly what was spent, and no upper bound.
    """
    if not drawn:
        if (body["epsilon_figures"], body["delta_figures"]) != (0, 0):
            said = f"{body['epsilon_figures']} at {body['delta_figures']}"
            raise Failure(f"{where}, epsilon_figures)", "0 at 0: the site drew no test figures with a budget", said)
        return
    if body["delta_figures"] != drawn[-1]["delta"]:
        raise Failure(f"{where}, delta_figures)", drawn[-1]["delta"], body["delta_figures"])
    steps: dict[tuple[float, float], int] = {}
    for one in drawn:
        pair = (float(one["event"]["noise_multiplier"]), 1.0)
        steps[pair] = steps.get(pair, 0) + one["event"]["steps"]
    lower, upper = figures_bounds(steps, body["delta_figures"])
    if exact:
        lower = max(lower, drawn[-1]["epsilon"] - ROUNDED_UP)
    if not lower - 1e-6 <= body["epsilon_figures"] <= upper + 1e-6:
        allowed = f"between {lower:.4f} and {upper:.4f} for its draws"
        raise Failure(f"{where}, epsilon_figures)", allowed, body["epsilon_figures"])


def _check_trust(where: str, body: Record, executed: dict[tuple[float, float], int]) -> None:
    """Local noise needs nobody else; under distributed noise a site's own share is worth less."""
    shares = body["event"].get("shares")
    if (body["trust"] == "local") != (shares is None):
        raise Failure(where, "local" if shares is None else "distributed", body["trust"])
    if body["trust"] == "local":
        if body["honest"] != 1 or body["epsilon_unmasked"] != body["epsilon"]:
            said = f"{body['honest']} shares, {body['epsilon_unmasked']} without aggregation"
            raise Failure(where, "one share of noise, and the same epsilon without secure aggregation", said)
        return
    enough = body["honest"] == shares and shares <= body["threshold"] - body["colluding"]
    if body["trust"] != "distributed" or not enough:
        said = f"{body['trust']}, h {body['honest']}, t {body['threshold']}, c {body['colluding']}"
        raise Failure(where, f"distributed, with h {shares}, at most t - c", said)
    alone = {(sigma / math.sqrt(body["honest"]), q): count for (sigma, q), count in executed.items()}
    least = epsilon_lower(alone, body["delta"])
    if body["epsilon_unmasked"] < max(body["epsilon"], least - 1e-6):
        raise Failure(where, f"epsilon without aggregation of at least {least:.4f}", body["epsilon_unmasked"])


def _check_dataset(case: Case, leaf: int, name: str, body: Record) -> None:
    """The dataset's total covers every study this site is known to have spent it on before."""
    used: dict[str, dict[tuple[float, float], int]] = {}
    for at, _, record in case.signed:
        about = record["body"]
        if record["type"] not in ("dp.spent", "figures.spent") or about["dataset"] != body["dataset"]:
            continue
        if record["actor"] != f"site:{name}":
            continue
        if at < leaf:
            event, steps = about["event"], used.setdefault(str(record["study"]), {})
            pair = (float(event["noise_multiplier"]), float(event["sampling_rate"]))
            steps[pair] = steps.get(pair, 0) + event["steps"]
    where = f"leaf {leaf} (dp.certificate of {name}, "
    if not set(used) <= set(body["studies"]):
        raise Failure(f"{where}studies)", ", ".join(sorted(used)), ", ".join(body["studies"]))
    together: dict[tuple[float, float], int] = {}
    for steps in used.values():
        for pair, count in steps.items():
            together[pair] = together.get(pair, 0) + count
    least = epsilon_lower(together, body["delta_dataset"]) if together and 0 < body["delta_dataset"] < 1 else 0.0
    if body["epsilon_dataset"] < least - 1e-6:
        raise Failure(f"{where}epsilon_dataset)", f"at least {least:.4f}", body["epsilon_dataset"])
    for part in ("", "_figures"):
        own, at_delta = body[f"epsilon{part}"], body[f"delta{part}"]
        if body["delta_dataset"] <= at_delta and body["epsilon_dataset"] < own - 1e-9:
            raise Failure(f"{where}epsilon_dataset)", f"at least this study's {own}", body["epsilon_dataset"])


def _check_model_certificate(case: Case, leaf: int, body: Record) -> None:
    """Composed again, from the entries it says: the largest of the sites' epsilons, and what two of them come to."""
    where = f"leaf {leaf} (model.certificate"
    if body["log_size"] > leaf:
        raise Failure(f"{where}, log_size)", f"at most the {leaf} entries before it", body["log_size"])
    sites: dict[str, Record] = {}
    spent: set[str] = set()
    current: str | None = None
    for at, record in case.everything():
        if at >= body["log_size"] or record.get("study") != case.study:
            continue
        kind, said = record["type"], record["body"]
        if kind == "dp.spent":
            spent.add(record["actor"][5:])
        elif kind == "dp.certificate":
            sites[record["actor"][5:]] = said
        elif kind in ("study.started", "round.closed"):
            current = said.get("next_model_digest", said["model_digest"])
    if body["model_digest"] != current:
        raise Failure(f"{where}, model_digest)", f"model {current}", body["model_digest"])
    if not sites:
        raise Failure(f"{where})", "certificates of sites before it", "none")
    later = sorted(e["actor"][5:] for at, e in case.of("dp.certificate") if at >= body["log_size"])
    if later:
        case.notes.append(f"Certificates that the model's does not know of yet: {', '.join(later)[:300]}.")
    distributed = any(one["trust"] == "distributed" for one in sites.values())
    epsilons = sorted((one["epsilon"] for one in sites.values()), reverse=True)
    deltas = sorted((one["delta"] for one in sites.values()), reverse=True)
    two = (2 * epsilons[0], (1 + math.exp(min(epsilons[0], 700.0))) * deltas[0])
    if not distributed:
        two = (sum(epsilons[:2]), sum(deltas[:2]))
    expected = {
        "trust": "distributed" if distributed else "local",
        "sites": sorted(sites),
        "missing": sorted(spent - set(sites)),
        "epsilon": epsilons[0],
        "delta": deltas[0],
        "epsilon_two_sites": min(two[0], 1e9),
        "delta_two_sites": min(two[1], 1.0),
        "epsilon_unmasked": max(one["epsilon_unmasked"] for one in sites.values()),
    }
    for field, value in expected.items():
        exact = not isinstance(value, float)
        if body[field] != value if exact else not math.isclose(body[field], value, rel_tol=1e-9):
            raise Failure(f"{where}, {field})", value, body[field])


def _statements(policy: bytes) -> list[bytes]:
    """A policy's lines without comments and blank lines."""
    return [line.strip() for line in policy.split(b"\n") if line.strip() and not line.strip().startswith(b"#")]


def _note_unaccounted(case: Case) -> None:
    """Contributions to training for which the site logged no spend, in that attempt or an earlier one of the round.

    A retry may mask the private update of an attempt that was aborted: it was paid for once.
    """
    spent = {(e["round"], e["actor"][5:]) for _, e in case.of("dp.spent")}
    train = {(e["round"], e["attempt"]) for _, e in case.of("round.started") if e["body"]["kind"] == "train"}
    missing = [
        f"{name} in round {e['round']}"
        for _, e in case.of("round.closed")
        if (e["round"], e["attempt"]) in train
        for name in e["body"]["survivors"]
        if (e["round"], name) not in spent
    ]
    if missing:
        case.notes.append(f"Contributions without a dp.spent entry of the site: {', '.join(missing)[:300]}.")


def step_report(case: Case) -> str:
    """The figures of report.json are those of the entries."""
    origin, size, root = case.signed_tree()
    counted = Figures(case.study)
    for leaf, record in case.everything():
        counted.count(leaf, record)
    expected = counted.result(origin, size, root)
    report = case.bundle.read_json("report.json")
    difference = first_difference("figures", expected, report.get("figures"))
    if difference:
        raise Failure(f"report.json, {difference[0]}", difference[1], difference[2])
    _check_leaves("report.json", report, size)
    types = {leaf: record["type"] for leaf, record in case.everything()}
    for number, row in enumerate(report["clauses"]):
        _check_clause(f"report.json, clauses[{number}]", row, counted.kinds, types)
    return f"{len(expected['rounds'])} rounds, {len(expected['sites'])} sites, {len(report['clauses'])} clauses"


def _check_leaves(where: str, value: object, size: int) -> None:
    """Every list called `leaves`, wherever it is, holds indices of this log."""
    for name, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name == "leaves" and not all(type(leaf) is int and 0 <= leaf < size for leaf in one):
            raise Failure(where, f"leaves below {size}", repr(one)[:120])
        _check_leaves(f"{where}, {name}", one, size)


def _check_clause(where: str, row: Record, kinds: Mapping[str, Record], types: Mapping[int, str]) -> None:
    """What a row of the clause matrix says it found is in the log, and its status claims no more than that."""
    found = set()
    for one in row["found"]:
        kind, count = one["type"], one["count"]
        if not 0 < count <= kinds.get(kind, {"count": 0})["count"] or len(one["leaves"]) > count:
            raise Failure(f"{where}, {row['id']}", f"at most {kinds.get(kind, {'count': 0})['count']} {kind}", count)
        for leaf in one["leaves"]:
            if types.get(leaf) != kind:
                raise Failure(f"{where}, {row['id']}", f"a {kind} at leaf {leaf}", types.get(leaf, "another study's"))
        found.add(kind)
    met = [need for need in row["needs"] if found & set(need["entries"])]
    status = "not evidenced by software" if not met else "evidenced" if len(met) == len(row["needs"]) else "partly"
    allowed = {"evidenced": CLAUSE_STATUSES, "partly": CLAUSE_STATUSES[:3]}.get(status, CLAUSE_STATUSES[:2])
    if row["status"] not in allowed:
        raise Failure(f"{where}, {row['id']}", f"at most {status!r} of these entries", row["status"])


def step_egress(case: Case) -> str:
    """What the hospital that exported this says has left it is what it signed for in the log; byte for byte."""
    own = [name for name in case.bundle.sizes if name.startswith("egress/")]
    if case.site is None:
        if case.bundle.read("manifest.note").startswith(SITE_MANIFEST.encode()):
            raise NotChecked("it is not known which hospital exported this")
        if own:
            raise Failure("egress", "files there only where a hospital exported", ", ".join(sorted(own))[:200])
        return "the coordinator exported this: no hospital's own log is in it"
    key, (origin, size, root) = egress_tree(case.bundle)
    if not 1 <= size <= sum(case.bundle.sizes.values()):
        raise Failure("egress/checkpoint", "1 entry or more, and no more than the archive has bytes", size)
    leaves = [leaf_hash(entry) for _, entry in entries_of(case.bundle, size, "egress")]
    if tree_root(leaves) != root:
        raise Failure("egress/tile/entries", f"root {root.hex()}", tree_root(leaves).hex())
    check_tiles(case.bundle, leaves, "egress")
    enrolled = [e["body"] for _, e in case.everything() if e["type"] == "site.enrolled"]
    mine = [body for body in enrolled if body["site"] == case.site]
    _check_site_certificate(case, mine)
    records = [(leaf, _entry(leaf, data)) for leaf, data in entries_of(case.bundle, size, "egress")]
    for leaf, record in records:
        opened = record["type"] == "egress.opened"
        known = record["type"] in ("egress.opened", "egress.sent", "export.created")
        if not known or opened != (leaf == 0) or record["actor"] != f"site:{case.site}":
            said = f"{record['type']} of {record['actor']}"
            raise Failure(f"egress leaf {leaf}", f"egress.opened first, then what left site:{case.site}", said)
    said_keys = {name: records[0][1]["body"].get(name) for name in ("log_vkey", "site", "signing_key")}
    right = {"log_vkey": key.vkey, "site": case.site, "signing_key": mine[-1]["signing_key"]}
    if said_keys != right and said_keys not in [{**right, "signing_key": body["signing_key"]} for body in mine]:
        raise Failure("egress leaf 0", right, said_keys)
    if records[0][1]["body"].get("lost_entries"):
        lost = records[0][1]["body"]["lost_entries"]
        case.notes.append(f"The hospital set aside logs of what left it, with {lost} entries, as damaged.")
    sent = [(leaf, e["body"]) for leaf, e in records if e["type"] == "egress.sent"]
    return f"{origin}, {len(sent)} things left, root {root.hex()}; {_compare_egress(case, case.site, sent)}"


def _check_site_certificate(case: Case, enrolled: list[Record]) -> None:
    """egress/certificate.pem is one that the log says this hospital got."""
    text = case.bundle.read("egress/certificate.pem").decode("ascii", "replace")
    body = re.search(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE-----", text)
    digest = hashlib.sha256(base64.b64decode(body[1]) if body else b"").hexdigest()
    if digest not in [one["certificate_sha256"] for one in enrolled]:
        expected = ", ".join(one["certificate_sha256"] for one in enrolled)
        raise Failure("egress/certificate.pem", f"a certificate of {case.site}: {expected}"[:400], digest)


def _compare_egress(case: Case, site: str, sent: list[tuple[int, Record]]) -> str:
    """Every masked update that left is one that the hospital signed for in the log, under an approval; and back."""
    _, created = case.created()
    digest = created["body"]["study_digest"]
    mine = [(data, e) for _, data, e in case.signed if e["actor"] == f"site:{site}"]
    approvals = {hashlib.sha256(data).hexdigest() for data, e in mine if e["type"] == "study.approved"}
    left: dict[str, list[tuple[int, Record]]] = {}
    unknown: list[tuple[int, str, str]] = []  # of what left, and is not in the log: leaf, what was found, what expected
    unapproved = 0
    for leaf, body in sent:
        if body["study_digest"] != digest:
            continue
        if body["approval"] is not None and body["approval"] not in approvals:
            unknown.append((leaf, f"approval {body['approval']}", f"a study.approved entry of site:{site} in the log"))
        if body["kind"] == "masked-update":
            left.setdefault(body["sha256"], []).append((leaf, body))
            unapproved += body["approval"] is None
    counted = {
        (e["round"], e["attempt"]) for _, e in case.of("round.closed") if site in e["body"]["survivors"]
    }  # attempts whose sum has an update of this hospital in it
    signed: set[str] = set()
    matched, unsent, size_bytes = 0, 0, 0
    for leaf, record in case.of("update.submitted"):
        if record["actor"] != f"site:{site}":
            continue
        body = record["body"]
        where = f"leaf {leaf} (update.submitted of site:{site})"
        signed.add(body["masked_update_sha256"])
        found = left.get(body["masked_update_sha256"], [])
        for own, one in found:
            if one["size_bytes"] != body["size_bytes"]:
                raise Failure(where, f"{one['size_bytes']} bytes, as egress leaf {own} says", body["size_bytes"])
        if not found and (record["round"], record["attempt"]) in counted:
            wanted = f"an egress.sent entry of {body['size_bytes']} bytes with SHA-256 {body['masked_update_sha256']}"
            raise Failure(where, wanted, "none in the hospital's own log")
        matched, unsent = matched + bool(found), unsent + (not found)
        size_bytes += body["size_bytes"] if found else 0
    last = max((leaf for sha in signed for leaf, _ in left.get(sha, [])), default=-1)
    over = bool(case.of("study.completed", "study.aborted"))
    wanted = f"an update.submitted entry of site:{site} in the log"
    unknown += [(leaf, "none", wanted) for sha, found in left.items() if sha not in signed for leaf, _ in found]
    if unknown and (over or min(unknown)[0] < last):
        leaf, what, wanted = min(unknown)
        raise Failure(f"egress leaf {leaf}", wanted, what)
    if unknown:
        case.notes.append(f"{len(unknown)} entries of what left {site} are newer than this state of the log.")
    if unsent:
        case.notes.append(f"{unsent} updates that {site} signed for never left: the connection broke before.")
    if unapproved:
        case.notes.append(f"{unapproved} masked updates left {site} with no approval noted beside them.")
    return f"{matched} masked updates of {size_bytes} bytes in all, as {site} signed for in the log"


SALT_BYTES = 32


def step_payloads(case: Case) -> str:
    """What was kept beside the log: payloads in the bundle are what entries committed to, and erased ones are gone.

    A file payloads/COMMITMENT is a salt of 32 bytes and the payload; SHA-256(0x01 || file) is the commitment.
    """
    mine = {leaf for leaf, _ in case.everything()}
    gone: dict[str, int] = {}
    for leaf, record in case.erased:
        where = f"leaf {leaf} (erasure.executed)"
        named = record["body"]["commitments"]
        if not isinstance(named, list) or record["body"]["what"] != "payload":
            raise Failure(where, "a list of commitments, of payloads", record["body"]["what"])
        for commitment in named:
            since, by = case.payloads.get(commitment, (-1 if case.lost else leaf, record))  # a lost one may have had it
            if since >= leaf or by["actor"] != record["actor"]:
                raise Failure(where, f"an entry of {record['actor']} before it that commits to {commitment}", "none")
            gone.setdefault(commitment, leaf)
    shown = sorted(name for name in case.bundle.sizes if name.startswith("payloads/"))
    for name in shown:
        commitment = name[len("payloads/") :]
        since, _ = case.payloads.get(commitment, (-1, {}))
        if since not in mine:
            raise Failure(name, "a commitment in an entry of this study, or of the whole consortium", "none")
        if commitment in gone:
            raise Failure(name, f"no such file: leaf {gone[commitment]} says that it was erased", "the file")
        data = case.bundle.read(name)
        found = hashlib.sha256(b"\x01" + data).hexdigest()
        if found != commitment or len(data) <= SALT_BYTES:
            raise Failure(f"{name}, leaf {since}", f"SHA-256 {commitment} of 01, salt and payload", found)
    here = {commitment: leaf for commitment, (leaf, _) in case.payloads.items() if leaf in mine}
    for commitment, leaf in here.items():
        if commitment in gone:
            case.notes.append(f"The payload of leaf {leaf} ({commitment[:16]}) was erased: leaf {gone[commitment]}.")
    lost = sum(commitment in gone for commitment in here)
    kept = len(here) - len(shown) - lost
    return f"{len(here)} committed to: {len(shown)} in this bundle, {kept} kept by who recorded them, {lost} erased"


STEPS: list[tuple[str, Callable[[Case], str]]] = [
    ("files are those of the manifest", step_files),
    ("policy names the log's key", step_policy),
    ("checkpoint is signed by the log", step_checkpoint),
    ("root recomputed from all entries", step_root),
    ("tiles agree with the entries", step_tiles),
    ("inclusion proofs", step_proofs),
    ("entries are well formed", step_entries),
    ("manifest is signed by the export key", step_manifest),
    ("the export is in the log", step_export),
    ("sites signed their own entries", step_signatures),
    ("no entry of a site is missing", step_chains),
    ("study document", step_study),
    ("approvals before the first round", step_approvals),
    ("chain of models", step_models),
    ("model file", step_model_file),
    ("survivors and threshold", step_survivors),
    ("privacy spent", step_privacy),
    ("privacy certificates", step_certificates),
    ("figures of the report", step_report),
    ("choice of the model", step_choice),
    ("the hospital's own log of what left it", step_egress),
    ("payloads kept beside the log", step_payloads),
]


def check(path: str, policy: bytes | None = None, known_checkpoint: bytes | None = None) -> Record:
    """Run every step on a zip archive or folder.

    Args:
        path: The evidence.
        policy: Content of a policy obtained out of band.
        known_checkpoint: Content of a checkpoint of this log that the reader has from elsewhere, an older export or a
            hospital: the evidence must be of a log that has grown from it.

    Returns:
        {"verified", "policy": {"independent", "sha256"}, "steps": [{"number", "title", "status", "detail", ...}],
        "notes"}; status is PASS, FAIL (with "where", "expected", "found") or SKIP (with the reason as detail).
    """
    steps: list[Record] = []
    result: Record = {"verified": False, "steps": steps, "notes": []}
    try:
        case = Case(Bundle(path), policy, known_checkpoint)
    except Failure as failure:
        steps.append({"number": 0, "title": "archive can be read safely", "status": "FAIL", **_fields(failure)})
        return result
    for number, (title, step) in enumerate(STEPS, start=1):
        line: Record = {"number": number, "title": title}
        try:
            line.update({"status": "PASS", "detail": step(case)})
        except Failure as failure:
            line.update({"status": "FAIL", **_fields(failure)})
        except NotChecked as reason:
            line.update({"status": "SKIP", "detail": str(reason)})
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            # An entry of the right type without the fields of its type: malformed evidence, never a traceback.
            found = f"{type(error).__name__}: {error}"[:200]
            line.update({"status": "FAIL", "where": "entries", "expected": "the fields of their types", "found": found})
        steps.append(line)
    result["verified"] = all(line["status"] == "PASS" for line in steps)
    result["notes"] = case.notes
    policies = policy if policy is not None else _maybe(case.bundle, "log/policy.txt")
    result["policy"] = {"independent": policy is not None, "sha256": hashlib.sha256(policies).hexdigest()}
    return result


def _fields(failure: Failure) -> Record:
    return {"where": failure.where, "expected": failure.expected, "found": failure.found}


def _maybe(bundle: Bundle, name: str) -> bytes:
    try:
        return bundle.read(name)
    except Failure:
        return b""


def render(result: Record) -> str:
    """The result for people."""
    lines = []
    for step in result["steps"]:
        lines.append(f"{step['status']} {step['number']:>2}  {step['title']}")
        if step["status"] == "FAIL":
            lines += [f"         where:    {step['where']}", f"         expected: {step['expected']}"]
            lines.append(f"         found:    {step['found']}")
        elif step.get("detail"):
            lines.append(f"         {step['detail']}")
    lines += [f"NOTE     {note}" for note in result["notes"]]
    lines.append("VERIFIED" if result["verified"] else "NOT VERIFIED")
    if not FAST_SIGNATURES:
        lines.append("(signatures checked by this file's own arithmetic; the package `cryptography` is faster)")
    return "\n".join(lines) + "\n"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _Parser(prog="verify.py", description="Check a study's evidence without trusting who made it.")
    parser.add_argument("evidence", help="evidence.zip, or the folder it was unpacked to")
    parser.add_argument("--policy", metavar="FILE", help="the policy you were given by somebody you trust")
    parser.add_argument("--checkpoint", metavar="FILE", help="a checkpoint of this log that you have from elsewhere")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    if not Path(options.evidence).exists():
        parser.error(f"there is no file {options.evidence}")
    given: dict[str, bytes | None] = {"policy": None, "checkpoint": None}
    for what in given:
        if getattr(options, what) is not None:
            try:
                with Path(getattr(options, what)).open("rb") as file:
                    given[what] = file.read(1 << 20)
            except OSError as error:
                parser.error(f"the {what} cannot be read: {error.strerror}")
    result = check(options.evidence, given["policy"], given["checkpoint"])
    sys.stdout.write(json.dumps(result, indent=2) + "\n" if options.json else render(result))
    return 0 if result["verified"] else 1


if __name__ == "__main__":
    sys.exit(main())
