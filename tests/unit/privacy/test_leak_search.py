"""The search that other tests rely on to find nothing: it finds what is there."""

import base64
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.leak_search import Search

SECRET = bytes.fromhex("5c27225cff00810a7b9e41d2c3b4a5968778695a4b3c2d1e0ff1e2d3c4b5a697")  # with \\, ' and " in it
OTHER = hashlib.sha256(SECRET).digest()

SPELLINGS = {
    "raw": b"..." + SECRET + b"...",
    "hexadecimal": b"key=" + SECRET.hex().encode(),
    "HEXADECIMAL": SECRET.hex().upper().encode(),
    "base64": base64.b64encode(SECRET),
    "base64 after one byte": base64.b64encode(b"x" + SECRET + b"yz"),
    "base64 after two": base64.b64encode(b"xx" + SECRET + b"y"),
    "url-safe": base64.urlsafe_b64encode(b"xx" + SECRET),
    "a repr": repr({"key": SECRET}).encode(),
    "a repr with other quotes": repr(b"'" + SECRET).encode(),
    "a repr in JSON": json.dumps({"error": repr(SECRET)}).encode(),
    "a repr in a repr": repr([repr(SECRET)]).encode(),
    "JSON": json.dumps(SECRET.decode("latin-1")).encode(),
    "a list": json.dumps(list(SECRET)).encode(),
    "a number": str(int.from_bytes(SECRET, "big")).encode(),
    "a number of a machine": str(int.from_bytes(SECRET, "little")).encode(),
    "the first half": SECRET[:16] + b"-- end of the page --",
    "the second half": b"-- the next page --" + SECRET[16:].hex().encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_found_in_every_spelling(spelling: str) -> None:
    search = Search()
    search.add_secret("the key", SECRET)
    found = search.in_bytes(SPELLINGS[spelling], "here")
    assert {one.what for one in found} == {"the key"}
    other = Search()
    other.add_secret("another key", OTHER)
    assert other.in_bytes(SPELLINGS[spelling], "here") == set()


@pytest.mark.parametrize("kind", ["<f4", "<u4"])
def test_a_stretch_of_a_vector_is_found(kind: str) -> None:
    generator = np.random.default_rng(7)
    vector = generator.normal(0, 0.01, 500).astype("<f4")
    if kind == "<u4":
        vector = generator.integers(2**20, 2**32, 500).astype("<u4")
    search = Search()
    search.add_vector("the update", vector)
    for data in (
        vector[100:130].tobytes(),
        b"." + vector[100:130].tobytes(),
        vector[100:130].tobytes().hex().encode(),
        repr(vector[:40].tolist()).encode(),
        json.dumps(vector[:40].tolist()).encode(),
        repr(vector[:40]).encode(),
    ):
        assert {one.what for one in search.in_bytes(data, "here")} == {"the update"}
    assert search.in_bytes(generator.normal(0, 0.01, 500).astype("<f4").tobytes(), "here") == set()
    assert search.in_bytes(bytes(4096), "here") == set()


def test_folders_hidden_files_and_archives(tmp_path: Path) -> None:
    search = Search()
    search.add_secret("the key", SECRET)
    (tmp_path / "deep" / "down").mkdir(parents=True)
    (tmp_path / "deep" / "innocent.log").write_text("nothing")
    assert search.in_folder(tmp_path) == set()
    (tmp_path / "deep" / "down" / ".hidden").write_bytes(bytes(5001) + SECRET)
    with zipfile.ZipFile(tmp_path / "kit.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/key", SECRET.hex() * 3)
    assert {one.where for one in search.in_folder(tmp_path)} == {"deep/down/.hidden", "kit.zip!a/key"}
