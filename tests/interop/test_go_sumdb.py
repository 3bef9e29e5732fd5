"""Go's own `sumdb/note` and `sumdb/tlog` verify logs that we wrote (`go/verify_log.go`).

On Debian: `apt-get install golang-1.19-go golang-golang-x-mod-dev`. Without them these tests are skipped.
"""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from audit import merkle
from audit.checkpoint import Checkpoint, sign_checkpoint
from tests.interop.grown_logs import EDGES, LOG, SECOND_LEVEL, WITNESSES, cosigned, grown

GOPATH = Path("/usr/share/gocode")
X_MOD = GOPATH / "src/golang.org/x/mod/sumdb/tlog"


def go():
    installed = sorted(Path("/usr/lib").glob("go-*/bin/go"))
    return shutil.which("go") or (str(installed[-1]) if installed else None)


pytestmark = pytest.mark.skipif(
    go() is None or not X_MOD.is_dir(), reason="Go and golang-golang-x-mod-dev are not installed"
)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("go")
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
    }
    subprocess.run(
        [go(), "build", "-o", str(folder / "verify_log"), "."],
        cwd=Path(__file__).parent / "go",
        env=environment,
        check=True,
        timeout=300,
    )
    return folder / "verify_log"


def verified(verifier, folder, *, quorum=0, indices=(), older=()):
    """What the program prints, and its exit status."""
    vkeys = ",".join(one.key.vkey() for one in WITNESSES)
    arguments = [folder / "public", LOG.verifier.vkey(), str(quorum), vkeys, ",".join(map(str, indices)), *older]
    return subprocess.run([verifier, *arguments], check=False, capture_output=True, text=True, timeout=60)


def require_agreement(verifier, folder, sizes, generator):
    log, notes = grown(folder / "log", sizes)
    log.close()
    older = []
    for size, note in notes.items():
        older.append(folder / f"{size}.checkpoint")
        older[-1].write_bytes(note)
    last = max(sizes)
    indices = sorted({0, last - 1, *(generator.randrange(last) for _ in range(5))})
    done = verified(verifier, folder / "log", indices=indices, older=older)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint: {last} entries" in done.stdout
    assert [f"entry {index}: included" in done.stdout for index in indices] == [True] * len(indices)
    assert [f"grew from {size} entries" in done.stdout for size in sizes] == [True] * len(sizes)


def test_small_logs_and_the_edges_of_tiles(verifier, tmp_path):
    require_agreement(verifier, tmp_path, EDGES, random.Random(1))


@pytest.mark.slow
def test_the_edge_of_the_second_level(verifier, tmp_path):
    require_agreement(verifier, tmp_path, SECOND_LEVEL, random.Random(3))


@pytest.mark.parametrize("count", [2, 3])
def test_witnesses_and_their_quorum(verifier, tmp_path, count):
    log, _ = grown(tmp_path, (300,))
    log.close()
    (tmp_path / "public/checkpoint").write_bytes(cosigned(log, count))
    done = verified(verifier, tmp_path, quorum=3)
    assert done.returncode == (0 if count == 3 else 1)
    assert ("cosigned by 2 witnesses, not 3" in done.stderr) == (count == 2)


def test_it_sees_a_bit_in_a_tile_and_a_history_that_was_not(verifier, tmp_path):
    log, _ = grown(tmp_path, (300,))
    log.close()
    other = tmp_path / "other.checkpoint"
    other.write_bytes(
        sign_checkpoint(Checkpoint(origin=LOG.name, size=299, root=merkle.leaf_hash(b"x")), LOG).to_bytes()
    )
    assert "invalid" in verified(verifier, tmp_path, older=[other]).stderr
    tile = tmp_path / "public/tile/0/000"
    data = bytearray(tile.read_bytes())
    data[99] ^= 1  # in the hash of entry 3, which stands in the proof of entry 2
    tile.write_bytes(data)
    assert "invalid transparency proof" in verified(verifier, tmp_path, indices=[2]).stderr
