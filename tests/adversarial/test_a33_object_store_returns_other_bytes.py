"""A-33: an object store returns other bytes than were put there: altered, another object's, half of them, or too many.

Whoever has no copy of its own fetches from there, so the bytes are held against a digest that the store does not know:
a model's own digest and an aggregate's are in the database and in the log, a masked sum's in the journal.

Tried: rows a33 of `mutations.py`, which delete `self._check(digest, temporary)` in `VectorStore._fetched`, `raise
ObjectAltered` in `Attempt._require_kept_sum`, the bound in `Objects.fetch` and both checks in `_read`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from consortium.contract.messages import RoundResult
from consortium.contract.names import Digest
from consortium.models import Models
from consortium.objects import OBJECT_BYTES_MAX, ObjectAltered, Objects
from consortium.vectors import VectorStore
from tests.fakes.coordinator_home import new_home
from tests.fakes.odd_objects import OddObjects
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, first_model, small_study
from tests.integration.test_coordinator_rounds import close_to, crashed_while_shares_came_in, mean_update

ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "another": lambda data: bytes(len(data)),
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("how", ALTERED)
def test_a_model_is_held_against_its_digest(tmp_path: Path, how: str) -> None:
    odd = OddObjects()
    digest = Models(tmp_path / "one", Objects(odd, "b/models")).save(first_model(fill=0.5))
    odd.kept = {path: ALTERED[how](data) for path, data in odd.kept.items()}
    other = Models(tmp_path / "two", Objects(odd, "b/models"))
    for use in (other.load, other.parameters, other.store.describe, other.file):
        with pytest.raises(ObjectAltered):
            use(digest)
    assert list((tmp_path / "two").iterdir()) == []


def test_a_sound_model_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    odd = OddObjects()
    models = Models(tmp_path / "one", Objects(odd, "b/models"))
    good, bad = models.save(first_model(fill=0.5)), models.save(first_model(fill=-0.5))
    odd.kept[f"b/models/{good}"] = odd.kept[f"b/models/{bad}"]
    with pytest.raises(ObjectAltered, match="another model"):
        Models(tmp_path / "two", Objects(odd, "b/models")).load(good)


@pytest.mark.parametrize("how", ALTERED)
def test_an_aggregate_is_held_against_its_digest(tmp_path: Path, how: str) -> None:
    odd = OddObjects()
    digest = VectorStore(tmp_path / "one", Objects(odd, "b/v")).put(b"an aggregate")
    odd.kept = {path: ALTERED[how](data) for path, data in odd.kept.items()}
    other = VectorStore(tmp_path / "two", Objects(odd, "b/v"))
    for use in (other.path, other.describe, lambda name: list(other.chunks(name)), lambda name: other.small(name, 99)):
        with pytest.raises(ObjectAltered):
            use(digest)
    assert list((tmp_path / "two").iterdir()) == []


async def test_a_masked_sum_is_held_against_the_journal(tmp_path: Path) -> None:
    """The study stops and says why; nobody hears a result; with the right object it goes on from where it was."""
    file = new_home(tmp_path) / "coordinator.yaml"
    file.write_text(file.read_text().replace("objects: null", f"objects: file://{tmp_path}/shared"))
    study = small_study(rounds=1)
    sites = await crashed_while_shares_came_in(tmp_path, study)
    shutil.rmtree(tmp_path / "home" / "uploads")
    (kept,) = (tmp_path / "shared" / "sums").iterdir()
    right = kept.read_bytes()
    kept.write_bytes(ALTERED["one bit"](right))
    async with serving(tmp_path, sites) as world:
        world.join(*SITES)
        await world.until(lambda: world.state(study) == "paused")
        assert "masked sum of round 1 is another" in str(world.home.bodies("study.paused"))
        assert world.history(study) == []
        assert not any(site.told(RoundResult) for site in sites.values())
        kept.write_bytes(right)
        await world.command("study.resume", study=study.id)
        await world.until(lambda: len(world.history(study)) == 1)
        assert world.model(study) == close_to(mean_update(*SITES))


@pytest.mark.parametrize(
    ("claims", "returns", "words"),
    [
        (lambda _: OBJECT_BYTES_MAX + 1, bytes, "claims"),
        (lambda _: -1, bytes, "claims"),
        (lambda _: "many", bytes, "claims"),
        (lambda size: size + 1, bytes, "ends 1 bytes before"),
        (lambda size: size, lambda data: data[:-1], "ends 1 bytes before"),
    ],
    ids=["too many", "negative", "no number", "more than there are", "cut off"],
)
def test_a_size_is_bounded_before_anything_is_read_and_kept_to(
    tmp_path: Path, claims: Callable[[int], Any], returns: Callable[[bytes], bytes], words: str
) -> None:
    odd = OddObjects()
    digest = VectorStore(tmp_path / "one", Objects(odd, "b/v")).put(b"an aggregate")
    odd.claims, odd.returns = claims, returns
    with pytest.raises(ObjectAltered, match=words):
        VectorStore(tmp_path / "two", Objects(odd, "b/v")).path(digest)
    assert ("open" in odd.calls) == (words != "claims")
    assert list((tmp_path / "two").iterdir()) == []


def test_a_store_that_sends_more_than_was_asked_for_is_not_believed(tmp_path: Path) -> None:
    class Flood(OddObjects):
        def open(self, path: str, mode: str = "rb") -> Any:
            class Endless:
                def __enter__(self) -> Self:
                    return self

                def __exit__(self, *_: object) -> None: ...

                def read(self, wanted: int) -> bytes:
                    return bytes(wanted + 1)

            return Endless()

    odd = Flood()
    odd.kept["b/v/" + "a1" * 32] = b"twelve bytes"
    taken: list[int] = []
    with pytest.raises(ObjectAltered, match="longer"):
        Objects(odd, "b/v").fetch(Digest("a1" * 32), lambda piece: taken.append(len(piece)), 2**30)
    assert taken == []
