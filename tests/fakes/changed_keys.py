"""A log that changes its key: the entries that say so, and archives of evidence from after it.

log.add(rotated(SIGNER, SECOND))
world = ChangedLog(tmp_path)             # the sample consortium, whose log changed its key at the end
archive = world.export(world.stone())
"""

from collections.abc import Sequence
from pathlib import Path

from audit import entries, merkle
from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.cosignature import WitnessSigner
from audit.note import Note, NoteSigner, parse_note
from audit.policy import policy_for
from consortium.record import now_stamp
from tests.fakes.sample_study_log import ORIGIN, SITES, SampleConsortium, key

UNTIL = "2027-01-01T00:00:00.000Z"
NEXT = NoteSigner(ORIGIN, key("the next log key"))
WITNESSES = {site: WitnessSigner(f"{ORIGIN}/witness/{site}", key(f"witness {site}")) for site in SITES}


def rotated(old: NoteSigner, new: NoteSigner) -> bytes:
    """An entry that says that a key follows another."""
    return entries.entry_bytes(
        entries.KeyRotated(
            **now_stamp(),
            old_vkey=old.verifier.vkey(),
            new_vkey=new.verifier.vkey(),
            overlap_until=UNTIL,
            reason="planned",
        )
    )


def retired(old: NoteSigner) -> bytes:
    """An entry that says that a key signs no more."""
    return entries.entry_bytes(entries.KeyRetired(**now_stamp(), vkey=old.verifier.vkey()))


def checkpoint(lines: Sequence[bytes], signers: Sequence[NoteSigner], witnesses: Sequence[str] = ()) -> bytes:
    """A checkpoint of all these entries, cosigned by hospitals of the sample consortium."""
    tree = merkle.Tree(merkle.leaf_hash(line) for line in lines)
    head = Checkpoint(origin=ORIGIN, size=tree.size, root=tree.root())
    note = sign_checkpoint(head, *signers).note
    cosigned = [WITNESSES[site].cosign(note.text, 1_795_000_000) for site in witnesses]
    return Note(text=note.text, signatures=(*note.signatures, *cosigned)).to_bytes()


class ChangedLog:
    """The sample consortium after its study, after which the log changed its key; its evidence."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.consortium = SampleConsortium().whole_study()
        self.old = self.consortium.log_signer
        self.leaf = len(self.consortium.lines)
        self.consortium.lines += [rotated(self.old, NEXT), retired(self.old)]

    def policy(self, signer: NoteSigner, needed: int = 3) -> bytes:
        """What an auditor has, with one of the log's keys."""
        keys = {site: one.key for site, one in WITNESSES.items()} if needed else {}
        return policy_for(signer.verifier.vkey(), keys, needed=needed)

    def stone(self, witnesses: Sequence[str] = SITES, signers: Sequence[NoteSigner] = ()) -> bytes:
        """The checkpoint over key.rotated that both keys signed."""
        return checkpoint(self.consortium.lines[: self.leaf + 1], signers or [self.old, NEXT], witnesses)

    def export(self, stone: bytes) -> Path:
        """Evidence under a checkpoint that the new key and every hospital signed."""
        opened = self.consortium.open_log(self.folder / "log")
        opened.sign_with([NEXT])
        opened.append([entries.entry_bytes(entries.SiteInvited(**now_stamp(), site="later-clinic"))])
        self.consortium.lines = list(opened.entries())
        signed = checkpoint(self.consortium.lines, [NEXT], SITES)
        opened.keep_stepping_stone(self.leaf, stone)
        try:
            head = opened.checkpoint()
            cosigned = type(head)(checkpoint=head.checkpoint, note=parse_note(signed))
            return self.consortium.export(opened, self.folder / "evidence.zip", cosigned=cosigned).path
        finally:
            opened.close()
