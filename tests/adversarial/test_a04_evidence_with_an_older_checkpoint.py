"""A-04: evidence is shown under an older, validly signed checkpoint, so that later entries disappear.

Held by: the manifest's signature over size and hash, the tiles that must be exactly those of the checkpoint, and the
logged export, whose consistency proof starts at the size the evidence claims (steps 1, 5, 8, 9).
Tried: row a04 of `mutations.py`.
"""

from audit import verify
from tests.fakes.sample_study_log import SampleConsortium, evidence, failed_steps, pack, unpack


def test_replayed_checkpoint_with_the_tiles_of_its_time(tmp_path):
    whole = SampleConsortium().whole_study()
    older = SampleConsortium().whole_study()
    older.lines = older.lines[:-30]
    older.open_log(tmp_path / "older").close()
    archive, policy = evidence(tmp_path, whole)
    files = {name: data for name, data in unpack(archive).items() if not name.startswith("log/tile/")}
    public = tmp_path / "older/public"
    files |= {f"log/{p.relative_to(public)}": p.read_bytes() for p in public.rglob("*") if p.is_file()}
    result = verify.check(str(pack(tmp_path / "bad.zip", files)), policy)
    failed = failed_steps(result)
    # The forger's log is sound in itself: that is the point.
    assert not {"checkpoint is signed by the log", "root recomputed from all entries"} & set(failed)
    assert {"manifest is signed by the export key", "the export is in the log", "inclusion proofs"} <= set(failed)
    assert "files are those of the manifest" in failed
    assert not result["verified"]


def test_a_whole_older_bundle_shows_how_far_it_reaches(tmp_path):
    # An older export is honest about an older log: it verifies, and prints the size it was made at.
    sample = SampleConsortium().whole_study()
    archive, policy = evidence(tmp_path, sample)
    result = verify.check(str(archive), policy)
    assert result["verified"]
    assert f"{len(sample.lines)} entries" in result["steps"][2]["detail"]
