"""A-20: whoever holds the evidence, and sometimes the coordinator's keys too, changes it before the auditor sees it.

One test for each way, and each by the command that an auditor types: `verify.py` as a process of a Python without any
package. It must exit with 1 and print the file, the leaf, and the expected and the found hash. Most of these tamperers
make the manifest anew, which anybody can (its signature is then what fails), so that the check below it speaks.

Held by: steps 1 and 3 to 5, 8, 9 and 19 of `verify.py`. Tried: rows a20 of `mutations.py` (the root, the quorum, the
known checkpoint's size, the figures); and by hand the leaf's name in step 4 (`test_two_entries_swapped*` fail), the
tiles (`test_a_bit_of_an_entry`), a file that is not there (`test_a_tile_dropped`) and the known checkpoint's root
(`test_a_fork_that_a_whole_quorum_signed`).
"""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from audit import merkle, tiles, verify
from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.cosignature import WitnessSigner
from audit.entries import AuthzDenied
from audit.evidence import policy_text
from audit.note import Note, NoteSigner, sign_note
from audit.policy import policy_for
from tests.fakes.sample_study_log import (
    ORIGIN,
    SITES,
    SampleConsortium,
    key,
    log_files,
    pack,
    unpack,
)

WITNESSES = {site: WitnessSigner(f"{site}.example/witness", key(f"witness {site}")) for site in SITES}
COSIGNED_S = 1_795_000_900
FAILED = re.compile(
    r"^FAIL +\d+  (?P<title>.*)\n +where: +(?P<where>.*)\n +expected: (?P<expected>.*)\n +found: +(?P<found>.*)$",
    re.MULTILINE,
)
OLDER, FILLER = 40, 230  # leaves of an older checkpoint; entries put in so that there are tiles of level 1


def cosigned(checkpoint, names, witnesses=WITNESSES):
    """A checkpoint file with lines of these witnesses."""
    own = sign_checkpoint(checkpoint, SampleConsortium().log_signer).note
    lines = tuple(witnesses[name].cosign(own.text, COSIGNED_S) for name in names)
    return Note(text=own.text, signatures=(*own.signatures, *lines)).to_bytes()


class Held:
    """Evidence of a log with 3 of 4 witnesses, as its holder has it, with the policy an auditor got elsewhere."""

    def __init__(self, folder):
        self.sample = SampleConsortium(rounds=1)
        self.sample.opening()
        for _ in range(FILLER):
            self.sample.coordinator(AuthzDenied, subject="site:hungary", action="study abort", rule="only the lead may")
        self.sample.agreeing()
        self.sample.one_round(1)
        log = self.sample.open_log(folder / "log")
        head = log.checkpoint()
        lines = tuple(WITNESSES[name].cosign(head.note.text, COSIGNED_S) for name in SITES[:3])
        log._signed = replace(head, note=Note(text=head.note.text, signatures=(*head.note.signatures, *lines)))
        self.files = unpack(self.sample.export(log, folder / "evidence.zip").path)
        self.policy = policy_for(log.verifier.vkey(), {name: one.key for name, one in WITNESSES.items()}, needed=3)
        self.plain_policy = policy_text(log)
        self.size = head.checkpoint.size
        log.close()


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return Held(tmp_path_factory.mktemp("held"))


def listed_anew(files):
    """With a manifest over what the files are now; its signature is the old one."""
    names = sorted(name for name in files if not name.startswith("manifest."))
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in names)
    return files | {"manifest.sha256": "".join(lines).encode()}


def signed_anew(files, sample):
    """The same by somebody with the export key."""
    files = listed_anew(files)
    head = files["manifest.note"].decode().split("manifest-sha256 ")[0]
    text = f"{head}manifest-sha256 {hashlib.sha256(files['manifest.sha256']).hexdigest()}\n"
    return files | {"manifest.note": sign_note(text, sample.export_signer).to_bytes()}


def told(folder, files, policy, *, checkpoint=None):
    """What the auditor's command says: title -> step that failed. Its exit status and its words are looked at here."""
    archive = pack(folder / "evidence.zip", files)
    (folder / "policy.txt").write_bytes(policy)
    command = [sys.executable, "-I", "-S", verify.__file__, str(archive), "--policy", str(folder / "policy.txt")]
    if checkpoint is not None:
        (folder / "known").write_bytes(checkpoint)
        command += ["--checkpoint", str(folder / "known")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    failed = {step["title"]: step.groupdict() for step in FAILED.finditer(ended.stdout)}
    assert ended.returncode == (1 if failed else 0), ended.stdout + ended.stderr
    assert ended.stdout.count("\nFAIL ") + ended.stdout.startswith("FAIL ") == len(failed)
    return failed


def entries_of(held):
    return list(held.sample.lines)


def bundle_of(entries):
    return tiles.pack_bundle(entries)


def leaf(entry):
    return merkle.leaf_hash(entry).hex()


def test_nothing_changed(held, tmp_path):
    assert told(tmp_path, held.files, held.policy) == {}
    assert told(tmp_path, held.files, held.policy, checkpoint=held.files["log/checkpoint"]) == {}


def test_a_bit_of_an_entry(held, tmp_path):
    name, number = "log/tile/entries/000", 200
    data = bytearray(held.files[name])
    at = sum(len(entry) + 2 for entry in held.sample.lines[:number]) + 2 + 60
    data[at] ^= 1
    changed = bytearray(held.sample.lines[number])
    changed[60] ^= 1
    failed = told(tmp_path, listed_anew(held.files | {name: bytes(data)}), held.policy)
    step = failed["root recomputed from all entries"]
    assert step["where"] == f"{name}, leaf {number}"
    assert (
        f"leaf {number} hashes to {leaf(bytes(changed))}, its tile says {leaf(held.sample.lines[number])}"
        in step["found"]
    )
    tile = failed["tiles agree with the entries"]
    assert tile["where"] == f"log/tile/0/000, leaf {number}"
    assert (tile["expected"], tile["found"]) == (leaf(bytes(changed)), leaf(held.sample.lines[number]))


@pytest.mark.parametrize("name", ["log/tile/0/000", "log/tile/1/000.p/1", "log/tile/entries/000"])
def test_a_tile_dropped(held, tmp_path, name):
    files = {other: data for other, data in held.files.items() if other != name}
    assert told(tmp_path, files, held.policy)["files are those of the manifest"]["where"] == name
    failed = told(tmp_path, listed_anew(files), held.policy)
    step = failed["root recomputed from all entries" if "entries" in name else "tiles agree with the entries"]
    assert (step["where"], step["expected"], step["found"]) == (name, "a file", "none")
    assert "manifest is signed by the export key" in failed or "entries" in name


def test_two_entries_swapped(held, tmp_path):
    name, first, second = "log/tile/entries/000", 20, 30
    part = entries_of(held)[:256]
    held_leaf, new_leaf = leaf(part[first]), leaf(part[second])
    part[first], part[second] = part[second], part[first]
    failed = told(tmp_path, listed_anew(held.files | {name: bundle_of(part)}), held.policy)
    step = failed["root recomputed from all entries"]
    assert step["where"] == f"{name}, leaf {first}"
    assert f"hashes to {new_leaf}, its tile says {held_leaf}" in step["found"]


def test_two_entries_swapped_in_the_tile_of_hashes_too(held, tmp_path):
    part = entries_of(held)[:256]
    part[20], part[30] = part[30], part[20]
    tile = b"".join(merkle.leaf_hash(entry) for entry in part)
    files = held.files | {"log/tile/entries/000": bundle_of(part), "log/tile/0/000": tile}
    step = told(tmp_path, listed_anew(files), held.policy)["root recomputed from all entries"]
    own = merkle.Tree(merkle.leaf_hash(entry) for entry in part).root().hex()
    assert step["where"] == "log/tile/entries/000, leaves 0 to 255"
    assert (
        f"leaves 0 to 255 hash to {own}, log/tile/1/000.p/1 says {held.files['log/tile/1/000.p/1'][:32].hex()}"
        in step["found"]
    )


def test_two_entries_swapped_in_all_tiles(held, tmp_path):
    """Every file agrees with every other: only the signed root, and the receipts of the entries, do not."""
    lines = entries_of(held)
    lines[0], lines[1] = lines[1], lines[0]
    files = held.files | log_files(lines, held.sample.log_signer)
    files["log/checkpoint"] = held.files["log/checkpoint"]
    failed = told(tmp_path, listed_anew(files), held.policy)
    step = failed["root recomputed from all entries"]
    root = merkle.Tree(merkle.leaf_hash(line) for line in lines).root().hex()
    assert (step["where"], step["found"]) == ("log/tile/entries", root)
    assert step["expected"].startswith("root ")
    assert failed["inclusion proofs"]["where"] == "proofs/0.tlog-proof, leaf 0"


def test_truncated(held, tmp_path):
    """The last entry is cut off, from the bundle and then from its tile as well."""
    number, width = held.size - 1, held.size % 256
    name, tile = f"log/tile/entries/001.p/{width}", f"log/tile/0/001.p/{width}"
    short = bundle_of(entries_of(held)[256:-1])
    failed = told(tmp_path, listed_anew(held.files | {name: short, tile: held.files[tile][:-32]}), held.policy)
    step = failed["root recomputed from all entries"]
    assert step["where"] == f"{name}, leaf {number}"
    assert (step["expected"], step["found"]) == ("an entry of 0 bytes", "0")


def older_log(held):
    """Files of the log as it was when it had `OLDER` entries, with the checkpoint of that time, cosigned by all."""
    lines = entries_of(held)[:OLDER]
    files = {name: data for name, data in held.files.items() if not name.startswith("log/tile/")}
    head = Checkpoint(origin=ORIGIN, size=OLDER, root=merkle.root(merkle.leaf_hash(line) for line in lines))
    return files | log_files(lines, held.sample.log_signer) | {"log/checkpoint": cosigned(head, SITES)}


def test_an_older_checkpoint_replayed(held, tmp_path):
    files = held.files | {"log/checkpoint": older_log(held)["log/checkpoint"]}
    step = told(tmp_path, listed_anew(files), held.policy)["root recomputed from all entries"]
    assert (step["where"], step["expected"], step["found"]) == (f"log/tile/entries/000.p/{OLDER}", "a file", "none")


def test_an_older_checkpoint_with_everything_of_its_time(held, tmp_path):
    """The log of its time with it; the reader who has the newer checkpoint is told what is missing."""
    files = listed_anew(older_log(held))
    failed = told(tmp_path, files, held.policy, checkpoint=held.files["log/checkpoint"])
    step = failed["root recomputed from all entries"]
    assert step["where"] == "log/checkpoint"
    assert (step["expected"], step["found"]) == (
        f"at least the {held.size} entries of the checkpoint you gave",
        str(OLDER),
    )
    manifest = told(tmp_path, files, held.policy)["manifest is signed by the export key"]
    assert (manifest["where"], f"log {ORIGIN} {OLDER}" in manifest["expected"]) == ("manifest.note", True)
    assert f"log {ORIGIN} {held.size}" in manifest["found"]


@pytest.mark.parametrize("left", [SITES[:2], ()])
def test_cosignatures_removed(held, tmp_path, left):
    root = merkle.root(merkle.leaf_hash(line) for line in held.sample.lines)
    thin = cosigned(Checkpoint(origin=ORIGIN, size=held.size, root=root), left)
    step = told(tmp_path, listed_anew(held.files | {"log/checkpoint": thin}), held.policy)[
        "checkpoint is signed by the log"
    ]
    assert step["where"] == "log/checkpoint, cosignatures"
    assert step["expected"] == f"cosignatures of 3 of {', '.join(sorted(SITES))}"
    assert step["found"] == (", ".join(left) or "none")


def forked(held, names, witnesses=WITNESSES):
    """Another history under the true key of the log, exported with the true export key, cosigned by `names`."""
    lines = entries_of(held)
    lines[30] = lines[30].replace(b"site:hungary", b"site:germany")
    head = Checkpoint(origin=ORIGIN, size=len(lines), root=merkle.root(merkle.leaf_hash(line) for line in lines))
    files = held.files | log_files(lines, held.sample.log_signer)
    return listed_anew(files | {"log/checkpoint": cosigned(head, names, witnesses)})


def test_a_fork_with_the_witnesses_that_lie(held, tmp_path):
    """One of four may lie: with it and the one that never saw the other history there are two, and three are needed."""
    step = told(tmp_path, forked(held, SITES[2:]), held.policy)["checkpoint is signed by the log"]
    assert step["found"] == ", ".join(sorted(SITES[2:]))


def test_a_fork_with_a_second_set_of_cosignatures(held, tmp_path):
    """Keys of the forger's own, under the names of the witnesses."""
    own = {site: WitnessSigner(one.key.name, key(f"forged {site}")) for site, one in WITNESSES.items()}
    step = told(tmp_path, forked(held, SITES, own), held.policy)["checkpoint is signed by the log"]
    assert step["found"] == "none"


def test_a_fork_that_a_whole_quorum_signed(held, tmp_path):
    """More witnesses lie than the policy allows for. A reader who kept a checkpoint has the proof of it."""
    files = forked(held, SITES[1:])
    assert "root recomputed from all entries" not in told(tmp_path, files, held.policy)
    known = held.files["log/checkpoint"]
    step = told(tmp_path, files, held.policy, checkpoint=known)["root recomputed from all entries"]
    root = merkle.root(merkle.leaf_hash(line) for line in held.sample.lines).hex()
    assert step["where"] == f"log/tile/entries, leaves 0 to {held.size - 1}"
    assert step["expected"] == f"root {root}, as in the checkpoint you gave"


def test_signed_again_with_another_key(held, tmp_path):
    text = held.files["log/checkpoint"].decode().rpartition("\n\n")[0] + "\n"
    forger = NoteSigner(ORIGIN, key("forger"))
    again = sign_note(text, forger).to_bytes()
    step = told(tmp_path, listed_anew(held.files | {"log/checkpoint": again}), held.plain_policy)[
        "checkpoint is signed by the log"
    ]
    assert step["where"] == "log/checkpoint"
    assert step["expected"] == f"a signature by {held.sample.log_signer.verifier.vkey()}"
    assert step["found"] == f"only lines of other keys ({ORIGIN})"
    note = sign_note(
        held.files["manifest.note"].decode().rpartition("\n\n")[0] + "\n", NoteSigner(f"{ORIGIN}/export", key("forger"))
    )
    step = told(tmp_path, held.files | {"manifest.note": note.to_bytes()}, held.policy)[
        "manifest is signed by the export key"
    ]
    assert step["expected"] == f"a signature by {held.sample.export_signer.verifier.vkey()}"


def test_a_number_of_the_report(held, tmp_path):
    report = json.loads(held.files["report.json"])
    line = report["figures"]["sites"][0]
    true, line["steps"] = line["steps"], line["steps"] + 1
    changed = json.dumps(report).encode()
    files = held.files | {"report.json": changed}
    step = told(tmp_path, files, held.policy)["files are those of the manifest"]
    assert step["where"] == "report.json"
    assert step["expected"] == f"SHA-256 {hashlib.sha256(held.files['report.json']).hexdigest()}"
    assert step["found"] == hashlib.sha256(changed).hexdigest()
    step = told(tmp_path, signed_anew(files, held.sample), held.policy)["figures of the report"]
    assert step["where"] == "report.json, figures.sites[0].steps"
    assert (step["expected"], step["found"]) == (str(true), str(true + 1))


def test_wrong_usage_is_neither(held, tmp_path):
    pack(tmp_path / "evidence.zip", held.files)
    for words in (["none.zip"], ["evidence.zip", "--checkpoint", "none"], ["evidence.zip", "--policy", "none"]):
        command = [sys.executable, "-I", "-S", verify.__file__, *words]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "none" in ended.stderr or "cannot be read" in ended.stderr
