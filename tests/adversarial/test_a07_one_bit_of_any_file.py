"""A-07: one bit of one file of the evidence is flipped, a file is dropped, added, emptied or cut.

Held by: the manifest (step 1), and for the manifest's own files by the steps that check each of them.
Tried: rows a07 of `mutations.py`.
"""

import pytest

from audit import verify
from tests.fakes.sample_study_log import SampleConsortium, evidence, failed_steps, pack, unpack


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    consortium = SampleConsortium(rounds=1)
    consortium.opening()
    consortium.agreeing()
    consortium.one_round(1)
    archive, policy = evidence(tmp_path_factory.mktemp("evidence"), consortium)
    return unpack(archive), policy


def test_every_file(sample, tmp_path):
    files, policy = sample
    assert len(files) > 25
    for name, data in files.items():
        for bit in {0, len(data) * 4, len(data) * 8 - 1} if data else ():
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            result = verify.check(str(pack(tmp_path / "bad.zip", files | {name: bytes(changed)})), policy)
            assert not result["verified"], (name, bit)
            said = " ".join(f"{step['where']} {step['found']}" for step in failed_steps(result).values())
            assert name in said or name.startswith("manifest."), (name, bit, said)


def test_every_file_dropped(sample, tmp_path):
    files, policy = sample
    for name in files:
        rest = {other: data for other, data in files.items() if other != name}
        result = verify.check(str(pack(tmp_path / "bad.zip", rest)), policy)
        assert failed_steps(result)["files are those of the manifest"]["where"] == name


def test_a_file_added(sample, tmp_path):
    files, policy = sample
    for extra in ("appendix.html", "log/tile/0/001", "proofs/99999.tlog-proof"):
        result = verify.check(str(pack(tmp_path / "bad.zip", files | {extra: b"more"})), policy)
        assert extra in failed_steps(result)["files are those of the manifest"]["found"]


def test_every_file_cut_short(sample, tmp_path):
    files, policy = sample
    for name, data in files.items():
        if data:
            result = verify.check(str(pack(tmp_path / "bad.zip", files | {name: data[:-1]})), policy)
            assert not result["verified"], name


def test_a_truncated_archive(sample, tmp_path):
    files, policy = sample
    whole = pack(tmp_path / "whole.zip", files).read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.zip").write_bytes(whole[:length])
        result = verify.check(str(tmp_path / "cut.zip"), policy)
        assert result["steps"][0]["title"] == "archive can be read safely"
        assert not result["verified"]


def test_damage_inside_the_archive(sample, tmp_path):
    files, policy = sample
    whole = bytearray(pack(tmp_path / "whole.zip", files).read_bytes())
    for place in range(50, len(whole) - 4000, 1499):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (tmp_path / "damaged.zip").write_bytes(damaged)
        verify.check(str(tmp_path / "damaged.zip"), policy)  # whatever it finds, it finds without a traceback
