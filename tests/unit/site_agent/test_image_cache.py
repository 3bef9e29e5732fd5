"""Prepared images on disk: found again for the same bytes and contract, never half, never more than the quota."""

import os

import numpy as np
import pytest

from site_agent.cohort import read_cohort
from site_agent.image_cache import ImageCache, PreparedImage
from site_agent.imaging import loader
from tests.fakes.imaging_study import PICTURES, dataset, imaging_study, write_folder, write_png

KEY, OTHER, THIRD = (letter * 64 for letter in "abc")


def prepared(value=1.0, *, mask=True):
    return PreparedImage(
        image=np.full((2, 8, 8), value, dtype=np.float32),
        mask=np.arange(64, dtype=np.float32).reshape(8, 8) if mask else None,
        spacing=(0.5, 0.75),
        cut=True,
    )


def test_what_was_put_is_what_comes_back(tmp_path):
    cache = ImageCache(folder=tmp_path / "images", quota_bytes=2**20)
    assert cache.get(KEY, (2, 8, 8), (8, 8)) is None
    cache.put(KEY, prepared())
    held = cache.get(KEY, (2, 8, 8), (8, 8))
    assert held is not None
    assert (held.image == 1).all()
    assert (held.mask == np.arange(64).reshape(8, 8)).all()
    assert (held.spacing, held.cut) == ((0.5, 0.75), True)
    assert cache.get(KEY, (2, 8, 9), (8, 8)) is None
    assert cache.get(OTHER, (2, 8, 8), (8, 8)) is None
    (entry,) = (tmp_path / "images").iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert entry.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1], lambda b: b[:100], lambda b: b"", lambda b: b[:-9] + b"x" + b[-8:]]
)
def test_an_entry_that_is_cut_off_or_changed_is_not_there(tmp_path, spoil):
    cache = ImageCache(folder=tmp_path, quota_bytes=2**20)
    cache.put(KEY, prepared(mask=False))
    (tmp_path / KEY).write_bytes(spoil((tmp_path / KEY).read_bytes()))
    assert cache.get(KEY, (2, 8, 8), ()) is None
    cache.put(KEY, prepared(mask=False))
    assert cache.get(KEY, (2, 8, 8), ()) is not None


def test_the_quota_holds_and_what_was_used_last_stays(tmp_path):
    size = ImageCache(folder=tmp_path, quota_bytes=2**20)
    size.put(KEY, prepared())
    one = size.size_bytes()
    cache = ImageCache(folder=tmp_path, quota_bytes=2 * one + 10)
    cache.put(OTHER, prepared())
    os.utime(tmp_path / KEY, (1, 1))
    os.utime(tmp_path / OTHER, (2, 2))
    assert cache.get(KEY, (2, 8, 8), (8, 8)) is not None  # now the younger of the two
    (tmp_path / "left.partial").write_bytes(b"x" * 5)  # of a process that died
    os.utime(tmp_path / "left.partial", (1, 1))
    cache.put(THIRD, prepared())
    assert cache.size_bytes() <= cache.quota_bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY, THIRD]
    ImageCache(folder=tmp_path / "none", quota_bytes=one - 1).put(KEY, prepared())
    assert not (tmp_path / "none").exists()


def test_a_disk_that_refuses_costs_nothing_but_time(tmp_path):
    (tmp_path / "images").write_text("a file where the folder should be")
    cache = ImageCache(folder=tmp_path / "images", quota_bytes=2**20)
    cache.put(KEY, prepared())
    assert cache.get(KEY, (2, 8, 8), (8, 8)) is None


def test_a_cohort_is_the_same_from_the_cache_and_made_anew_after_any_change(tmp_path, monkeypatch):
    data = dataset(tmp_path / "films", "image-folder", table=str(write_folder(tmp_path / "films", list("abcdef"))))
    cache = ImageCache(folder=tmp_path / "images", quota_bytes=2**20)
    made = []
    prepare = loader._prepared
    monkeypatch.setattr(loader, "_prepared", lambda *given: made.append(1) or prepare(*given))

    def read(study):
        made.clear()
        return read_cohort(study, data, cache), len(made)

    first, work = read(imaging_study(PICTURES))
    again, none = read(
        imaging_study(PICTURES, minimum_patients=5, split={"test_fraction": 0.25, "seed": 1, "stratify": False})
    )
    assert (work, none) == (6, 0)
    assert (first.train.features == again.train.features).all()
    assert (first.train.labels == again.train.labels).all()
    assert first.summary == again.summary  # notes and reasons too
    _, other = read(imaging_study(PICTURES, shape=(16, 18)))
    write_png(tmp_path / "films" / "3.png", seed=77)
    changed, one = read(imaging_study(PICTURES))
    assert (other, one) == (6, 1)
    assert (
        not (changed.train.features == first.train.features).all()
        or not (changed.test.features == first.test.features).all()
    )
