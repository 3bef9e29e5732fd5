"""Evidence of a small study in the log of a large consortium: a folder that every step of `verify.py` accepts.

`export` parses every entry to write a report. Here the report of the small study alone is taken, and the log, its
tiles, the receipts and the signatures are made anew around it, so that a million entries take seconds.
"""

import hashlib
import json
from pathlib import Path

from audit import merkle, tiles
from audit.checkpoint import Checkpoint, Receipt, encode_hashes, sign_checkpoint
from audit.entries import ExportCreated, RoundRefused, entry_bytes
from audit.evidence import policy_text
from audit.note import sign_note
from tests.fakes.sample_study_log import STUDY, SampleConsortium, unpack

OTHER_STUDY = "another-study"


def write_evidence(folder: Path, entries: int) -> tuple[Path, Path]:
    """A folder of evidence under a checkpoint over so many entries, and the policy to check it with."""
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    lines = list(sample.lines)
    log = sample.open_log(folder / "log")
    files = unpack(sample.export(log, folder / "small.zip").path)
    (folder / "policy.txt").write_bytes(policy_text(log))
    log.close()
    lines += fillers(sample, entries - len(lines))
    tree = merkle.Tree(map(merkle.leaf_hash, lines))
    head = Checkpoint(origin=sample.log_signer.name, size=tree.size, root=tree.root())
    signed = sign_checkpoint(head, sample.log_signer)
    kept = {name: data for name, data in files.items() if not name.startswith(("log/tile/", "manifest."))}
    for name in kept:
        if name.startswith("proofs/"):
            index = int(Path(name).stem)
            proof = tree.inclusion_proof(index)
            kept[name] = Receipt(index=index, proof=proof, signed_checkpoint=signed).to_bytes()
    report = json.loads(kept["report.json"])
    report["figures"]["log"] = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    kept |= {"log/checkpoint": signed.to_bytes(), "report.json": json.dumps(report).encode()}
    for tile in tiles.tiles_of(head.size):
        kept[f"log/{tile.path()}"] = tile.content(tree)
        if tile.level == 0:
            kept[f"log/{tile.bundle_path()}"] = tiles.pack_bundle(lines[tile.start : tile.start + tile.width])
    manifest = "".join(f"{hashlib.sha256(kept[name]).hexdigest()}  {name}\n" for name in sorted(kept)).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    text = f"consortium/evidence-manifest/v1\nstudy {STUDY}\nlog {head.origin} {head.size}\nmanifest-sha256 {digest}\n"
    entry = entry_bytes(ExportCreated(**sample.stamp(), study=STUDY, manifest_sha256=digest, log_size=head.size))
    tree.extend([merkle.leaf_hash(entry)])
    later = sign_checkpoint(Checkpoint(origin=head.origin, size=tree.size, root=tree.root()), sample.log_signer)
    receipt = Receipt(index=head.size, proof=tree.inclusion_proof(head.size), signed_checkpoint=later)
    kept["manifest.sha256"] = manifest
    kept["manifest.note"] = sign_note(text, sample.export_signer).to_bytes()
    kept["manifest.entry"] = entry
    kept["manifest.tlog-proof"] = receipt.to_bytes()
    kept["manifest.consistency"] = encode_hashes(tree.consistency_proof(head.size))
    out = folder / "evidence"
    for name, data in kept.items():
        path = out.joinpath(*name.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return out, folder / "policy.txt"


def fillers(sample: SampleConsortium, count: int) -> list[bytes]:
    """Entries of another study, as long as most are; only their identities differ."""
    line = sample.coordinator(
        RoundRefused,
        study=OTHER_STUDY,
        round=1,
        attempt=1,
        site="hungary",
        rule="the site's own limit on epsilon is reached",
    )
    before, identity, after = line.partition(json.loads(line)["id"].encode())
    return [b"%b%b%012x%b" % (before, identity[:-12], number, after) for number in range(count)]
