"""Objects in a store that works, and in one that fails in the middle, shows things late, or returns other bytes."""

import hashlib
import threading
from pathlib import Path

import fsspec
import pytest

from consortium import objects
from consortium.app import opened
from consortium.contract.names import Digest
from consortium.models import Models
from consortium.objects import (
    ObjectAltered,
    ObjectMissing,
    Objects,
    ObjectsUnreachable,
    is_objects_url,
    open_objects,
)
from consortium.vectors import VectorMissing, VectorStore
from tests.fakes.coordinator_home import new_home
from tests.fakes.odd_objects import OddObjects
from tests.fakes.s3_server import S3Server
from tests.fakes.small_study import first_model

DATA = bytes(range(256)) * 40
NAME = Digest(hashlib.sha256(DATA).hexdigest())


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SEEN_PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture
def odd() -> OddObjects:
    return OddObjects()


@pytest.fixture
def store(odd: OddObjects, tmp_path: Path) -> VectorStore:
    return VectorStore(tmp_path / "one", Objects(odd, "bucket/p"))


def elsewhere(odd: OddObjects, tmp_path: Path) -> VectorStore:
    """Another machine, with the same object store."""
    return VectorStore(tmp_path / "two", Objects(odd, "bucket/p"))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["folder", "memory", "dir", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    match request.param:
        case "folder":
            yield open_objects(f"file://{tmp_path}/shared")
        case "memory":
            yield Objects(fsspec.filesystem("memory"), f"/{tmp_path.name}")
        case "dir":
            yield Objects(fsspec.filesystem("dir", path=f"/{tmp_path.name}", target_protocol="memory"), "below")
        case _:
            pytest.importorskip("obstore")
            with S3Server(bucket="hub") as server:
                for name, value in server.environment.items():
                    monkeypatch.setenv(name, value)
                yield open_objects("s3://hub/cardio")


def test_what_one_machine_puts_another_has(place: Objects, tmp_path: Path) -> None:
    one, two = (VectorStore(tmp_path / name, place.room("vectors")) for name in ("one", "two"))
    assert one.put(DATA[:100], DATA[100:]) == NAME
    assert place.room("vectors").digests() == {NAME}
    assert two.describe(NAME) == (bytes.fromhex(NAME), len(DATA))
    assert b"".join(two.chunks(NAME)) == DATA
    with pytest.raises(VectorMissing):
        two.path(Digest("a1" * 32))
    one.discard_all_but(())
    assert place.room("vectors").digests() == set()
    with pytest.raises(ObjectMissing):
        place.room("vectors").fetch(NAME, lambda _: None, 2**30)


def test_a_model_comes_back_by_its_own_digest(place: Objects, tmp_path: Path) -> None:
    one, two = (Models(tmp_path / name, place.room("models")) for name in ("one", "two"))
    digest = one.save(first_model(fill=0.25))
    assert two.load(digest).digest() == digest
    assert two.parameters(digest) == first_model().parameters


def test_what_was_there_before_the_store_goes_to_it(odd: OddObjects, tmp_path: Path) -> None:
    VectorStore(tmp_path / "one").put(DATA)
    (tmp_path / "one" / "README").write_text("not ours")
    store = VectorStore(tmp_path / "one", Objects(odd, "bucket/p"))
    store.share_all()
    assert odd.kept == {f"bucket/p/{NAME}": DATA}
    odd.calls.clear()
    store.share_all()
    assert "put_file" not in odd.calls


def test_an_error_in_the_middle_of_a_write_keeps_nothing(odd: OddObjects, store: VectorStore, tmp_path: Path) -> None:
    odd.fails["put_file"] = OSError("https://store/?X-Amz-Signature=SECRET")
    with pytest.raises(ObjectsUnreachable) as caught:
        store.put(DATA)
    assert "SECRET" not in str(caught.value)
    assert "account" in caught.value.advice()
    assert files(tmp_path / "one") == []


def test_half_an_object_that_is_called_written_is_found(odd: OddObjects, store: VectorStore, tmp_path: Path) -> None:
    odd.cut = 100
    with pytest.raises(ObjectsUnreachable, match="not in the object store as it was written"):
        store.put(DATA)
    assert odd.kept == {}
    assert files(tmp_path / "one") == []


def test_half_an_object_of_a_broken_write_is_never_used(odd: OddObjects, store: VectorStore, tmp_path: Path) -> None:
    odd.cut, odd.fails["put_file"] = 100, ConnectionResetError()
    with pytest.raises(ObjectsUnreachable):
        store.put(DATA)
    with pytest.raises(ObjectAltered):
        elsewhere(odd, tmp_path).path(NAME)
    assert files(tmp_path / "two") == []
    odd.fails.clear()
    store.put(DATA)
    assert elsewhere(odd, tmp_path).path(NAME).read_bytes() == DATA


def test_an_object_that_shows_late_is_waited_for_and_one_that_never_does_is_an_error(
    odd: OddObjects, store: VectorStore
) -> None:
    odd.late = 3
    assert store.put(DATA) == NAME
    odd.late = 4
    with pytest.raises(ObjectsUnreachable):
        store.put(DATA + b"!")


@pytest.mark.parametrize("call", ["info", "open", "ls", "rm_file"])
def test_a_store_that_does_not_answer_is_named_and_leaves_nothing(
    odd: OddObjects, store: VectorStore, tmp_path: Path, call: str
) -> None:
    store.put(DATA)
    odd.fails[call] = PermissionError("403 AKIAIOSFODNN7EXAMPLE")
    other = elsewhere(odd, tmp_path)
    if call in ("info", "open"):
        with pytest.raises(ObjectsUnreachable, match="PermissionError") as caught:
            other.path(NAME)
        assert "AKIA" not in str(caught.value)
    elif call == "ls":
        with pytest.raises(ObjectsUnreachable):
            store.share_all()
    else:
        store.discard_all_but(())  # what cannot be removed now is removed at the next start
        assert len(odd.kept) == 1
    assert files(tmp_path / "two") == []


def test_everybody_asks_and_it_is_fetched_once(odd: OddObjects, store: VectorStore, tmp_path: Path) -> None:
    store.put(DATA)
    other = elsewhere(odd, tmp_path)
    threads = [threading.Thread(target=other.path, args=(NAME,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert odd.calls.count("open") == 1


def test_an_object_that_does_not_fit_on_the_disk_is_not_begun(odd: OddObjects, store: VectorStore) -> None:
    store.put(DATA)
    with pytest.raises(ObjectsUnreachable, match="are free"):
        Objects(odd, "bucket/p").fetch(NAME, lambda _: None, len(DATA) - 1)
    assert "open" not in odd.calls


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("file:///srv/hub", True),
        ("s3://hub", True),
        ("s3://hub/cardio/2026", True),
        ("abfs://hub/cardio", True),
        ("gs://hub/", True),
        ("s3://KEY:SECRET@hub/cardio", False),
        ("s3://hub/cardio?secret=1", False),
        ("file://srv/hub", False),
        ("file:///srv/../etc", False),
        ("memory://hub", False),
        ("simplecache::s3://hub", False),
        ("http://hub/cardio", False),
        ("", False),
    ],
)
def test_which_places_a_configuration_may_name(url: str, allowed: bool) -> None:
    assert is_objects_url(url) is allowed


def test_a_home_that_gets_a_store_shares_what_it_has_when_it_serves(tmp_path: Path) -> None:
    folder = new_home(tmp_path)
    with opened(folder) as coordinator:
        digest = coordinator.rooms.models.save(first_model(fill=0.5))
    file = folder / "coordinator.yaml"
    file.write_text(file.read_text().replace("objects: null", f"objects: file://{tmp_path}/shared"))
    with opened(folder):  # for one command, as `consortium status` does
        assert not (tmp_path / "shared").exists()
    with opened(folder, to_serve=True):
        assert files(tmp_path / "shared" / "models") == [digest]
