"""`aics-witness`, which nobody here wrote, cosigns a log that we wrote, asked over HTTP as the coordinator asks."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.cosignature import WitnessSigner
from audit.witness_protocol import Cosigned
from consortium.coordinator_file import OutsideWitness
from consortium.outside_witness import WitnessIsAhead, WitnessRefused, cosign
from tests.interop.grown_logs import LOG, entry, grown

config = pytest.importorskip("aics_witness.config", reason="aics-witness is not installed")
service = pytest.importorskip("aics_witness.service")
store = pytest.importorskip("aics_witness.store")

NAME, KEY = "irb.example.org/witness", Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
VKEY = WitnessSigner(NAME, KEY).key.vkey()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[OutsideWitness]:
    """One that knows our log, at a free port."""
    memory = store.WitnessStore(tmp_path / "witness.db", create=True)
    known = config.LogConfig(origin=LOG.verifier.name, vkeys=(config.parse_log_vkey(LOG.verifier.vkey()),))
    one = service.Witness(NAME, KEY, memory, [known])
    server = service.make_server(one, prefix="/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    assert one.vkey_text == VKEY
    yield OutsideWitness(url=f"http://127.0.0.1:{server.server_port}/v1", vkey=VKEY)
    server.shutdown()
    thread.join()
    server.server_close()
    memory.close()


async def test_a_log_that_grows_is_cosigned_and_one_that_was_rolled_back_is_not(
    tmp_path: Path, witness: OutsideWitness
) -> None:
    log, _ = grown(tmp_path / "log", (3,))

    async def asked(old: int) -> Cosigned:
        return await cosign(witness, old=old, proof_of=log.consistency_proof, note=log.checkpoint().to_bytes())

    for size, old in ((3, 0), (300, 3), (300, 300), (301, 0)):  # the last time, it has to say what it has
        log.append([entry(at) for at in range(log.size, size)])
        assert (await asked(old)).size == size
    log.close()

    log, _ = grown(tmp_path / "backup", (290,))
    with pytest.raises(WitnessIsAhead, match="301 entries of this log, which has 290"):
        await asked(0)
    log.append([b"another history"] * 11)
    with pytest.raises(WitnessRefused, match="contradicts what it has cosigned"):
        await asked(301)
    log.close()
