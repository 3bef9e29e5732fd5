"""W-11: an outside witness, or whoever sits at its address, lies to the coordinator, or keeps it waiting.

Held by: `consortium/outside_witness.py` and `audit/witness_protocol.py`, which believe a cosignature that verifies and
nothing else. Tried: rows w11 of `mutations.py` (the signature, the look whether the witness is ahead, the bound on an
answer's size); and by hand the limit of tries and the time for a call.
"""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from audit.witness import Remembered
from audit.witness_protocol import Answer, cosignature_answer
from consortium import outside_witness as asking
from consortium.contract.errors import FileInvalid
from consortium.coordinator_file import CoordinatorFile, load_coordinator_file, render
from consortium.outside_witness import (
    WitnessIsAhead,
    WitnessNotBelieved,
    WitnessRefused,
    WitnessUnreachable,
    cosign,
)
from tests.fakes.outside_witness import SIGNER, Witness, outside_witness
from tests.fakes.wire_world import pki
from tests.interop.grown_logs import LOG, NOW, WITNESSES, entry, grown

ANOTHER = replace(LOG.verifier, name="fl.example.org/another")
"""A log that the witness knows, and not ours."""


async def asked(witness: Witness, folder: Path, *, old: int = 0):
    log, _ = grown(folder, (5,))
    try:
        return await cosign(
            witness.configured, old=old, proof_of=log.consistency_proof, note=log.checkpoint().to_bytes()
        )
    finally:
        log.close()


async def test_an_honest_witness_follows_a_log_that_grows(tmp_path: Path) -> None:
    with outside_witness() as witness:
        log, _ = grown(tmp_path, (3,))
        found = []
        for size, old in ((3, 0), (8, 3), (8, 8), (20, 5), (21, 0)):
            log.append([entry(at) for at in range(log.size, size)])
            one = await cosign(
                witness.configured, old=old, proof_of=log.consistency_proof, note=log.checkpoint().to_bytes()
            )
            assert SIGNER.key.verify(log.checkpoint().note.text, one.signature) == NOW
            found.append(one.size)
        log.close()
    assert found == [3, 8, 8, 20, 21]
    # What it was asked first, and where it named another size, again.
    assert [old for old, _ in witness.asked] == [0, 3, 8, 5, 8, 0, 20]


def forged(answer: Answer) -> Answer:
    return cosignature_answer(SIGNER.cosign("fl.example.org/log\n5\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", 1))


def of_another(answer: Answer) -> Answer:
    line = answer.body.decode()
    return replace(answer, body=line.replace(SIGNER.key.name, WITNESSES[1].key.name).encode())


@pytest.mark.parametrize(
    "lie",
    [
        forged,
        of_another,
        lambda answer: replace(answer, body=b"<html>welcome</html>\n"),
        lambda answer: replace(answer, body=b""),
        lambda answer: Answer(status=409, content_type="text/html", body=b"5\n"),
        lambda answer: Answer(status=409, content_type="text/x.tlog.size", body=b"many\n"),
    ],
)
async def test_nothing_but_a_cosignature_is_believed(tmp_path: Path, lie) -> None:
    with outside_witness() as witness:
        witness.lie = lie
        with pytest.raises(WitnessNotBelieved) as refused:
            await asked(witness, tmp_path)
    assert SIGNER.key.name in str(refused.value)
    assert "vkey" in refused.value.advice()


async def test_a_witness_that_has_seen_more_stops_the_log(tmp_path: Path) -> None:
    with outside_witness() as witness:
        witness.remembered = Remembered(size=9, root=bytes(32))
        with pytest.raises(WitnessIsAhead, match="cosigned 9 entries of this log, which has 5") as refused:
            await asked(witness, tmp_path)
    assert (refused.value.seen, refused.value.ours) == (9, 5)
    assert "older backup" in refused.value.advice()


async def test_one_that_never_agrees_on_a_size_is_left(tmp_path: Path) -> None:
    sizes = iter(range(1, 5))
    with outside_witness() as witness:
        witness.lie = lambda _: Answer(status=409, content_type="text/x.tlog.size", body=b"%d\n" % next(sizes))
        with pytest.raises(WitnessUnreachable, match="named another size 3 times"):
            await asked(witness, tmp_path)
    assert len(witness.asked) == 3


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "does not know this log"), (403, "does not accept"), (422, "contradicts"), (400, "answers 400")],
)
async def test_a_refusal_says_whose_fault_it_is(tmp_path: Path, status: int, words: str) -> None:
    with outside_witness() as witness:
        witness.lie = lambda _: Answer(status=status, content_type="text/plain", body=b"no\x1b[31m " + b"x" * 5000)
        with pytest.raises(WitnessRefused, match=words) as refused:
            await asked(witness, tmp_path)
    assert refused.value.status == status
    assert len(str(refused.value)) < 400
    assert "\x1b" not in str(refused.value)


async def test_the_real_reasons(tmp_path: Path) -> None:
    with outside_witness(ANOTHER) as witness, pytest.raises(WitnessRefused, match="does not know this log"):
        await asked(witness, tmp_path / "unknown")
    with outside_witness() as witness:
        witness.remembered = Remembered(size=5, root=bytes(32))
        with pytest.raises(WitnessRefused, match="contradicts what it has cosigned"):
            await asked(witness, tmp_path / "another", old=5)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    with outside_witness() as elsewhere, outside_witness() as witness:
        witness.lie = lambda _: Answer(status=status, content_type="text/plain", body=b"")
        witness.headers = {"Location": f"{elsewhere.configured.url}/add-checkpoint"}
        with pytest.raises(WitnessRefused, match=f"answers {status}"):
            await asked(witness, tmp_path)
    assert elsewhere.asked == []


async def test_answers_are_bounded_in_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with outside_witness() as witness:
        witness.lie = lambda answer: replace(answer, body=answer.body + b"x" * 2_000_000)
        with pytest.raises(WitnessUnreachable, match="an answer of more than 65536 bytes"):
            await asked(witness, tmp_path / "long")
        witness.lie = lambda _: Answer(status=503, content_type="text/plain", body=b"later")
        with pytest.raises(WitnessUnreachable, match="cannot answer now"):
            await asked(witness, tmp_path / "later")
    monkeypatch.setattr(asking, "ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system answers, and nobody after it
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        log, _ = grown(tmp_path / "silent", (5,))
        where = witness.configured.model_copy(update={"url": url})
        asking_it = cosign(where, old=0, proof_of=log.consistency_proof, note=log.checkpoint().to_bytes())
        with pytest.raises(WitnessUnreachable, match="no whole answer within"):
            await asyncio.wait_for(asking_it, 60)
        log.close()


async def test_the_connection_is_to_whom_the_system_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = pki().server("127.0.0.1")
    (tmp_path / "own.pem").write_bytes(own.certificate_pem + own.key_pem)
    (tmp_path / "ca.pem").write_bytes(pki().authority.certificate_pem)
    with outside_witness(tls=tmp_path / "own.pem") as witness:
        assert witness.configured.url.startswith("https://")
        with pytest.raises(WitnessUnreachable, match="is not trusted"):
            await asked(witness, tmp_path / "stranger")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert (await asked(witness, tmp_path / "trusted")).size == 5


async def test_nobody_there(tmp_path: Path) -> None:
    with outside_witness() as witness:
        pass
    with pytest.raises(WitnessUnreachable, match="is not reached"):
        await asked(witness, tmp_path)


# --- coordinator.yaml ------------------------------------------------------------------------------------------------


def file_with(folder: Path, *witnesses: tuple[str, str]) -> CoordinatorFile:
    rows = "".join(f"\n  - {{url: '{url}', vkey: '{vkey}'}}" for url, vkey in witnesses)
    path = folder / "coordinator.yaml"
    text = render(name="cardio", address="hub.example.org:8443")
    path.write_text(text.replace("outside_witnesses: []", f"outside_witnesses:{rows}"))
    return load_coordinator_file(path)


VKEY, OTHER = (one.key.vkey() for one in WITNESSES[:2])


def test_witnesses_in_the_coordinators_file(tmp_path: Path) -> None:
    found = file_with(tmp_path, ("https://irb.example.org/witness/v1", VKEY), ("http://127.0.0.1:7380", OTHER))
    assert [one.key for one in found.outside_witnesses] == [one.key for one in WITNESSES[:2]]


@pytest.mark.parametrize(
    ("url", "vkey"),
    [
        ("http://irb.example.org", VKEY),
        ("https://user:word@irb.example.org", VKEY),
        ("https://irb.example.org/?next=1", VKEY),
        ("https://irb.example.org/../x y", VKEY),
        ("ftp://irb.example.org", VKEY),
        ("https://irb.example.org", LOG.verifier.vkey()),  # a log's key, not a witness's
        ("https://irb.example.org", VKEY[:-3] + "AA="),
    ],
)
def test_urls_and_keys_that_are_none(tmp_path: Path, url: str, vkey: str) -> None:
    with pytest.raises(FileInvalid) as refused:
        file_with(tmp_path, (url, vkey))
    assert "outside_witnesses[0]" in str(refused.value)
    assert "word@" not in str(refused.value)


def test_one_witness_twice(tmp_path: Path) -> None:
    with pytest.raises(FileInvalid, match="stand here twice"):
        file_with(tmp_path, ("https://one.example.org", VKEY), ("https://two.example.org", VKEY))
