"""A-08: the archive attacks whoever checks it: bombs, paths that leave the folder, doubled names, lying sizes.

Held by: names, sizes and ratios are checked before anything is read, and nothing is ever extracted.
Tried: rows a08 of `mutations.py`.
"""

import io
import json
import stat
import struct
import warnings
import zipfile

import pytest

from audit import verify
from tests.fakes.sample_study_log import evidence, failed_steps, pack, unpack


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    archive, policy = evidence(tmp_path_factory.mktemp("evidence"))
    return unpack(archive), policy


def first_failure(path):
    result = verify.check(str(path))
    assert not result["verified"]
    return next(step for step in result["steps"] if step["status"] == "FAIL")


@pytest.mark.parametrize(
    "name",
    [
        "../escape",
        "/etc/passwd",
        "a/../../b",
        "c:\\windows",
        "a//b",
        ".hidden",
        "a/.b",
        "folder/",
        "x" * 250,
        "na me",
        "\u202e",
    ],
)
def test_names_that_are_no_plain_paths(tmp_path, sample, name):
    assert first_failure(pack(tmp_path / "bad.zip", sample[0] | {name: b"x"}))["number"] == 0
    assert not (tmp_path.parent / "escape").exists()


def test_a_name_twice(tmp_path, sample):
    path = pack(tmp_path / "bad.zip", sample[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("study.json", b"{}")
    assert "twice" in first_failure(path)["found"]


def test_a_link(tmp_path):
    member = zipfile.ZipInfo("study.json")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    assert first_failure(tmp_path / "bad.zip")["found"] == "a link or a folder"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("model.safetensors", "w") as member,
    ):
        for _ in range(64):
            member.write(bytes(1 << 20))
    assert "times its packed size" in first_failure(tmp_path / "bad.zip")["expected"]


def test_files_larger_than_their_kind_allows(tmp_path, sample):
    found = first_failure(pack(tmp_path / "bad.zip", sample[0] | {"log/tile/0/000": bytes(8193)}))
    assert (found["where"], found["found"]) == ("log/tile/0/000", "8193")


def test_a_size_that_lies(tmp_path, sample):
    path = pack(tmp_path / "bad.zip", sample[0])
    data = bytearray(path.read_bytes())
    place = data.rindex(b"study.json") - 46  # its record in the central directory
    assert data[place : place + 4] == b"PK\x01\x02"
    (size,) = struct.unpack_from("<I", data, place + 24)
    for lie in (size - 1, size + 1, 0, 1 << 30):
        struct.pack_into("<I", data, place + 24, lie)
        path.write_bytes(data)
        assert not verify.check(str(path))["verified"]


def test_encrypted_and_odd_methods(tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w", method) as archive:
            archive.writestr("study.json", b"{}" * 50)
        assert "not encrypted" in first_failure(tmp_path / "bad.zip")["expected"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("study.json", b"{}")
    data = bytearray(buffer.getvalue())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "bad.zip").write_bytes(data)
    assert "not encrypted" in first_failure(tmp_path / "bad.zip")["expected"]


@pytest.mark.parametrize(
    "model",
    [
        b"",
        b"\xff" * 8,
        b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
        struct.pack("<Q", 60_000) + b"[" * 60_000,
        *(
            struct.pack("<Q", len(text)) + text + bytes(4)
            for header in (
                {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}},
                {"w": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
                {"w": {"dtype": "F64", "shape": [1], "data_offsets": [0, 4]}},
                {"w": {"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4 * 10**30]}},
                {"w": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
                {"w": 1},
            )
            for text in (json.dumps(header).encode(),)
        ),
    ],
)
def test_model_files(tmp_path, sample, model):
    result = verify.check(str(pack(tmp_path / "bad.zip", sample[0] | {"model.safetensors": model})), sample[1])
    assert "model file" in failed_steps(result)


def test_a_checkpoint_that_claims_a_gigantic_log(tmp_path, sample):
    files = dict(sample[0])
    files["log/checkpoint"] = files["log/checkpoint"].replace(b"\n", b"\n9223372036854775", 1)
    assert not verify.check(str(pack(tmp_path / "bad.zip", files)), sample[1])["verified"]
    assert verify.decimal("size", "9223372036854775807") == 2**63 - 1
    with pytest.raises(verify.Failure):
        verify.decimal("size", "9" * 100_000)
