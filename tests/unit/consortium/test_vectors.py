"""Files by digest: whole or not at all, whatever the disk does."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consortium.contract.names import Digest
from consortium.errors import HomeUnwritable
from consortium.vectors import CHUNK_BYTES, VectorMissing, VectorStore

DATA = bytes(range(256)) * 10_000  # two and a half chunks
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())


async def chunks_of(data: bytes, fail_after: int | None = None) -> AsyncIterator[bytes]:
    for number, start in enumerate(range(0, len(data), 500_000)):
        if number == fail_after:
            raise ConnectionError("the line broke")
        yield data[start : start + 500_000]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_whole_upload_is_kept_and_read_back_in_chunks(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors")
    path = await store.receive(DIGEST, chunks_of(DATA))
    assert path.read_bytes() == DATA
    assert store.path(DIGEST) == path
    assert store.describe(DIGEST) == (bytes.fromhex(DIGEST), len(DATA))
    assert b"".join(store.chunks(DIGEST)) == DATA
    assert max(len(chunk) for chunk in store.chunks(DIGEST)) == CHUNK_BYTES
    assert names(tmp_path / "vectors") == [DIGEST]


async def test_half_an_upload_leaves_nothing(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors")
    with pytest.raises(ConnectionError):
        await store.receive(DIGEST, chunks_of(DATA, fail_after=3))
    assert names(tmp_path / "vectors") == []
    with pytest.raises(VectorMissing):
        store.path(DIGEST)


async def test_an_upload_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors")
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"first"
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.receive(DIGEST, stuck()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path / "vectors") == []


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_a_disk_that_refuses_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = VectorStore(tmp_path / "vectors")

    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(HomeUnwritable) as caught:
        store.put(DATA)
    if call == "write":  # an upload is not forced to the disk: a crash of the machine ends its attempt anyway
        with pytest.raises(HomeUnwritable):
            await store.receive(DIGEST, chunks_of(DATA))
    assert caught.value.code == "try_later"
    assert os.strerror(number) in str(caught.value)
    assert names(tmp_path / "vectors") == []


async def test_a_disk_that_takes_less_than_it_is_given_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VectorStore(tmp_path / "vectors")
    write: Callable[..., int] = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:70_001]))
    assert (await store.receive(DIGEST, chunks_of(DATA))).read_bytes() == DATA
    store.discard(DIGEST)
    store.put(DATA)
    assert store.path(DIGEST).read_bytes() == DATA


def test_leftovers_of_an_earlier_process_are_removed_and_vectors_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    VectorStore(folder).put(DATA)
    (folder / ".incoming-abc").write_bytes(b"half")
    store = VectorStore(folder)
    assert names(folder) == [DIGEST]
    assert store.path(DIGEST).is_file()


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    VectorStore(tmp_path / "vectors").put(DATA)
    assert (tmp_path / "vectors").stat().st_mode & 0o077 == 0
    assert (tmp_path / "vectors" / DIGEST).stat().st_mode & 0o077 == 0


def test_putting_under_another_name(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "models")
    assert store.put(b"model", name=Digest("a1" * 32)) == "a1" * 32
    assert store.path(Digest("a1" * 32)).read_bytes() == b"model"


def test_discarding_is_for_good_and_may_be_repeated(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors")
    digest = store.put(DATA)
    store.discard(digest)
    store.discard(digest)
    with pytest.raises(VectorMissing) as caught:
        store.describe(digest)
    assert caught.value.code == "not_found"
    with pytest.raises(VectorMissing):
        next(store.chunks(digest))


def test_discarding_all_but_some(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "uploads")
    kept, gone = store.put(b"kept"), store.put(b"gone")
    (tmp_path / "uploads" / "README").write_text("not ours")
    store.discard_all_but({kept})
    assert names(tmp_path / "uploads") == sorted([kept, "README"])
    with pytest.raises(VectorMissing):
        store.path(gone)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HomeUnwritable):
        VectorStore(tmp_path / "file" / "vectors")


def test_a_vector_may_be_put_in_parts_and_from_where_it_lies(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors")
    numbers = np.arange(1000, dtype="<u4")
    digest = store.put(b"head", numbers.data, memoryview(b""))
    whole = b"head" + numbers.tobytes()
    assert digest == hashlib.sha256(whole).hexdigest()
    assert store.path(digest).read_bytes() == whole


def test_a_file_is_read_once_to_be_described_and_again_if_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = VectorStore(tmp_path / "vectors").put(DATA)
    store = VectorStore(tmp_path / "vectors")  # one that has not seen it being written
    reads: list[int] = []
    digest_of_file = hashlib.file_digest

    def counted(*arguments: Any) -> Any:
        reads.append(1)
        return digest_of_file(*arguments)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert [store.describe(digest) for _ in range(3)] == [(bytes.fromhex(DIGEST), len(DATA))] * 3
    assert len(reads) == 1
    store.describe(store.put(b"of one's own"))
    assert len(reads) == 1  # what was written here need not be read
    store.path(digest).write_bytes(b"altered")
    assert store.describe(digest) == (hashlib.sha256(b"altered").digest(), 7)
    for number in range(20):  # of many files, the ones asked for last are remembered
        store.describe(store.put(bytes([number])))
    assert len(store._described) <= 16
    store.discard(digest)
    with pytest.raises(VectorMissing):
        store.describe(digest)
