"""Write tests/vectors/secagg/*.json: known answers of the secure-aggregation protocol, frozen.

    python -m tests.vectors.make_secagg_vectors          write the files
    python -m tests.vectors.make_secagg_vectors --check  compare instead, exit 1 if anything differs

Everything is a function of the inputs written beside it, except sealed boxes: HPKE draws ephemeral keys. The boxes
that are in the files are therefore kept as long as they still fit the keys, so that a second run changes nothing.
A change of any other value is a change of the protocol, and needs a new version in `privacy.secagg.context.PROTOCOL`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from privacy import p256
from privacy.encoding import Lane, Layout, encode
from privacy.keystream import Keystream
from privacy.secagg import keys, site
from privacy.secagg.masks import MaskSeeds, apply_masks
from privacy.secagg.messages import KeyBundle, Phase, SealedShares, SiteId
from privacy.secagg.shares import split
from privacy.secagg.suites import SUITES, SuiteName
from privacy.secagg.transcript import members_hash, self_mask_commitment
from privacy.secret import Secret
from tests.fakes.memory_round import Link, Member, MemoryRound, consortium, deterministic_entropy, site_name
from tests.vectors.bad_cases import bad_cases
from tests.vectors.plain import from_plain, to_plain

FOLDER = Path(__file__).parent / "secagg"
ALICE, BOB = SiteId("alice"), SiteId("bob")
MASK_OFFSETS = (0, 1, 3, 4, 1000, 65_535, 65_536, 2**32 + 7)


def context_vectors() -> dict[str, Any]:
    """ctx for three rosters in each suite."""
    contexts = [consortium(n, suite=suite).context for suite in SuiteName for n in (3, 4, 7)]
    return {"contexts": [{"context": to_plain(context), "digest": context.digest().hex()} for context in contexts]}


def key_schedule() -> dict[str, Any]:
    """Everything that is derived from a site's seeds."""
    context, t1 = bytes([1]) * 32, bytes([2]) * 32
    long_term, draw = Secret(bytes([3]) * 32), "key schedule"
    seeds = keys.draw_seeds(deterministic_entropy(draw), long_term, context, ALICE)
    entropy = deterministic_entropy(draw)
    members = (ALICE, BOB)
    k = keys.pair_seed(seeds.root, t1, ALICE, BOB)
    derived = {
        "root": seeds.root,
        "self_mask": seeds.self_mask,
        "private": seeds.private,
        "pair_seed": k,
        "pair_mask_seed": keys.pair_mask_seed(k, t1, members, ALICE, BOB),
        "self_mask_seed": keys.self_mask_seed(seeds.self_mask, t1, members, ALICE),
        "dither": keys.dither_seed(seeds, t1, ALICE),
        "polynomial_root": keys.polynomial_seed(seeds, context, "root"),
        "polynomial_self_mask": keys.polynomial_seed(seeds, context, "self-mask"),
    }
    return {
        "site": ALICE,
        "peer": BOB,
        "members": list(members),
        "context": context.hex(),
        "key_transcript": t1.hex(),
        "long_term_secret": long_term.expose().hex(),
        "entropy": [entropy(32).hex() for _ in range(3)],
        "members_hash": members_hash(members).hex(),
        "self_mask_commitment": self_mask_commitment(seeds.self_mask.expose()).hex(),
        "public_keys": {
            suite.name.value: {
                "pair": keys.pair_key(suite, seeds.root, context, ALICE).public.hex(),
                "box": keys.box_key(suite, seeds, context, ALICE).public.hex(),
            }
            for suite in SUITES.values()
        },
        "derived": {name: seed.expose().hex() for name, seed in derived.items()},
    }


def mask_vectors() -> dict[str, Any]:
    """The first mask elements at several offsets, in every ring, and two masks on a small vector."""
    seed = Secret(bytes(range(32)))
    prefixes = [
        {
            "modulus_bits": bits,
            "first_element": offset,
            "elements": [
                str(word)
                for word in Keystream(seed, offset_bytes=offset * bits // 8).words(4, np.dtype(f"<u{bits // 8}"))
            ],
        }
        for bits in (16, 32, 64)
        for offset in MASK_OFFSETS
    ]
    masked = []
    for bits in (16, 32, 64):
        vector = np.arange(6, dtype=f"<u{bits // 8}")
        apply_masks(vector, MaskSeeds(add=(seed,), subtract=(Secret(bytes(32)),)))
        masked.append({"modulus_bits": bits, "masked": [str(word) for word in vector]})
    return {"seed": seed.expose().hex(), "subtracted_seed": bytes(32).hex(), "prefixes": prefixes, "masked": masked}


def share_vectors() -> dict[str, Any]:
    """Shares of two secrets."""
    cases = []
    for secret, threshold, count in ((bytes(range(32)), 3, 4), (b"\xff" * 32, 5, 7), (bytes(32), 1, 1)):
        shares = split(Secret(secret), threshold=threshold, count=count, seed=Secret(b"p" * 32))
        cases.append(
            {
                "secret": secret.hex(),
                "seed": (b"p" * 32).hex(),
                "threshold": threshold,
                "shares": [share.expose().hex() for share in shares],
            }
        )
    good = cases[0]["shares"]
    return {
        "cases": cases,
        "bad_shares": {
            "too few": [[1, good[0]], [2, good[1]]],
            "one number twice": [[1, good[0]], [1, good[0]], [2, good[1]]],
            "not a field element": [[1, good[0]], [2, good[1]], [3, "ff" * 33]],
            "a byte short": [[1, good[0]], [2, good[1]], [3, good[2][2:]]],
        },
    }


def encoding_vectors() -> dict[str, Any]:
    """Encoded updates in every ring."""
    values = {"update": [0.1, -0.1, 0.999, -1.5, 1 / 3], "weight": [37.0]}
    cases = []
    for bits in (16, 32, 64):
        lanes = (
            Lane(name="update", length=5, clip=1.0, scale=2.0**10),
            Lane(name="weight", length=1, clip=100.0, scale=1.0),
        )
        layout = Layout(modulus_bits=bits, lanes=lanes)
        vector = encode({name: np.array(v) for name, v in values.items()}, layout, Secret(b"d" * 32))
        cases.append({"layout": to_plain(layout), "encoded": [str(word) for word in vector]})
    return {"values": values, "dither": (b"d" * 32).hex(), "cases": cases}


def signature_vectors() -> dict[str, Any]:
    """ECDSA as suite p256 signs, with signatures that only look like it. (Those of hybrid-pq are plain Ed25519.)"""
    scalar, payload = bytes(range(1, 33)), b"consortium/secagg/v1 known answer"
    signer = p256.EcdsaSigner(p256.private_key(Secret(bytes(16) + scalar)).expose())
    good = signer.sign(payload)
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")
    bad = {
        "the other half of s": good[:32] + (p256.ORDER - s).to_bytes(32, "big"),
        "r and n": good[:32] + p256.ORDER.to_bytes(32, "big"),
        "zeros": bytes(64),
        "DER": encode_dss_signature(r, s),
        "a byte short": good[:-1],
        "one bit": good[:-1] + bytes([good[-1] ^ 1]),
    }
    y = int.from_bytes(signer.public[33:], "big")
    bad_keys = {
        "compressed": bytes([2 + y % 2]) + signer.public[1:33],
        "hybrid form": bytes([6 + y % 2]) + signer.public[1:],
        "not on the curve": signer.public[:-1] + bytes([signer.public[-1] ^ 1]),
        "the identity": b"\0",
        "zeros": bytes(65),
    }
    return {
        "seed": (bytes(16) + scalar).hex(),
        "public_key": signer.public.hex(),
        "payload": payload.hex(),
        "signature": good.hex(),
        "bad_signatures": {name: value.hex() for name, value in bad.items()},
        "bad_keys": {name: value.hex() for name, value in bad_keys.items()},
    }


def golden_round(
    suite: SuiteName, participants: int, dropout: SiteId | None, frozen: dict[str, Any] | None
) -> dict[str, Any]:
    """One whole round: inputs, every message and every result."""
    group = consortium(participants, suite=suite)
    sent: list[tuple[SiteId, Any]] = []
    old_bundles = {b["site"]: b for b in frozen["bundles"]} if frozen else {}
    old_boxes = {b["site"]: b for b in frozen["sealed"]} if frozen else {}

    def record(name: SiteId, message: Any) -> Any:
        if isinstance(message, SealedShares) and all(
            old_bundles.get(m.site) == to_plain(m) for _, m in sent if isinstance(m, KeyBundle)
        ):
            message = from_plain(SealedShares, old_boxes[name]) if name in old_boxes else message
        sent.append((name, message))
        return message

    class RecordedRound(MemoryRound):
        def __post_init__(self) -> None:
            self.tamper_to_coordinator = record
            super().__post_init__()

    links = {dropout: Link(lose_request=Phase.MASK)} if dropout else {}
    round_ = RecordedRound(group, links=links, seed="golden")
    round_.run()
    by_kind: dict[str, list[Any]] = {}
    for _, message in sorted(sent, key=lambda pair: pair[0]):
        by_kind.setdefault(type(message).__name__, []).append(to_plain(message))
    transcript = round_.coordinator_state.transcript  # type: ignore[union-attr]  # the round is Done
    t1 = by_kind["UploadHeader"][0]["keying_hash"]
    return {
        "context": to_plain(group.context),
        "context_digest": group.context.digest().hex(),
        "members": [
            {
                "site": member.site,
                "signing_key": private_signing_key(member).hex(),
                "long_term_secret": member.long_term_secret.expose().hex(),
                "entropy_seed": f"golden of {member.site}",
            }
            for member in group.members
        ],
        "dropout": dropout,
        "values": {name: {lane: v.tolist() for lane, v in lanes.items()} for name, lanes in round_.values.items()},
        "bundles": by_kind["KeyBundle"],
        "sealed": by_kind["SealedShares"],
        "keying_hash": t1,
        "encoded": {name: vector.tobytes().hex() for name, vector in sorted(round_.encoded.items())},
        "masked": {name: vector.tobytes().hex() for name, vector in sorted(round_.masked.items())},
        "headers": by_kind["UploadHeader"],
        "survivors": list(round_.survivors),
        "transcript": transcript.hex(),
        "confirmations": by_kind["Confirmation"],
        "unmask_shares": by_kind["UnmaskShares"],
        "aggregate": round_.aggregate().tobytes().hex(),
        "sums": round_.sums(),
        "released": [
            to_plain(effect)
            for name in sorted(round_.site_effects)
            for effect in round_.site_effects[name]
            if isinstance(effect, site.PersistReleased)
        ],
    }


def private_signing_key(member: Member) -> bytes:
    """32 bytes: the Ed25519 key, or the P-256 scalar."""
    if member.suite is SuiteName.HYBRID_PQ:
        return member.signing_key.private_bytes_raw()
    key = member.ecdsa_key._key.expose()
    return key.private_numbers().private_value.to_bytes(32, "big")


def all_vectors() -> dict[str, dict[str, Any]]:
    """File name -> content."""
    made = {
        "context.json": context_vectors(),
        "key_schedule.json": key_schedule(),
        "masks.json": mask_vectors(),
        "shares.json": share_vectors(),
        "encoding.json": encoding_vectors(),
        "signatures.json": signature_vectors(),
    }
    for name, suite, participants, dropout in (
        ("golden_round.json", SuiteName.HYBRID_PQ, 3, None),
        ("golden_round_with_dropout.json", SuiteName.HYBRID_PQ, 4, site_name(1)),
        ("golden_round_p256.json", SuiteName.P256, 3, None),
        ("golden_round_p256_with_dropout.json", SuiteName.P256, 4, site_name(1)),
    ):
        path = FOLDER / name
        frozen = json.loads(path.read_text()) if path.exists() else None
        made[name] = golden_round(suite, participants, dropout, frozen)
    made["bad_messages.json"] = bad_cases(made)
    return made


def main(arguments: list[str]) -> int:
    """Write the files, or compare them."""
    FOLDER.mkdir(exist_ok=True)
    different = []
    for name, content in all_vectors().items():
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            different.append(name)
            if "--check" not in arguments:
                path.write_text(text)
    print("changed:" if different else "nothing changed", *different)
    return 1 if different and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
