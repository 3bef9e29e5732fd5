"""Patients who withdraw: marks, the cohort without them, what the log hears, and what is kept of it."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from audit import entries
from privacy.secret import Secret
from site_agent.cli import app
from site_agent.data_faults import DataInvalid
from site_agent.left_out import withdrawn_at
from site_agent.preparation import order_for
from site_agent.store import Store
from site_agent.tables import read_table
from site_agent.training_child.orders import order_fields, order_of
from site_agent.withdrawals import WithdrawalsUnreadable, Withdrawn, key_id, marks_under, recognition_key
from site_agent.withdrawing import DatasetUnknown, ListRefused, read_identifiers, withdraw
from tests.fakes.site_world import make_world, small_study

KEY = recognition_key(Secret(b"s" * 32))
STUDY = small_study()


def without(*identifiers):
    return Withdrawn(key=KEY, marks=marks_under(identifiers, KEY), times=1)


@pytest.fixture
def world(tmp_path):
    """A hospital whose coordinator is not there: `hand_over` says so, and changes nothing."""
    made = make_world(tmp_path, STUDY)
    yield made
    made.store.close()


async def gone(world, *identifiers, dataset="ward"):
    return await withdraw(world.home, world.store, world.ledger, dataset, identifiers)


def cohort(world, withdrawn):
    return read_table(STUDY, STUDY.data, world.home.config.datasets["ward"], withdrawn)


def ages(records):
    return sorted(float(value) for value in records.features[:, 0])


# --- marks ---------------------------------------------------------------------------------------------------------


def test_a_mark_recognises_its_patient_however_blanks_stand_and_says_nothing_else():
    one = without("SECRET-001", "  SECRET-002 ", "")
    assert one.has("SECRET-001")
    assert one.has(" SECRET-002")
    assert not one.has("SECRET-003")
    assert not one.has("")
    assert len(one.marks) == 2
    assert "SECRET" not in repr(one)
    assert not any(mark.hex() in repr(one) for mark in one.marks)
    other = recognition_key(Secret(b"t" * 32))
    assert marks_under(["SECRET-001"], other).isdisjoint(one.marks)
    assert KEY != b"s" * 32
    assert key_id(KEY) != key_id(other)


# --- the cohort ----------------------------------------------------------------------------------------------------


def test_the_others_stay_on_the_side_they_were_on(world):
    whole = cohort(world, Withdrawn())
    less = cohort(world, without("SECRET-000", "SECRET-001", "SECRET-002", "SECRET-003"))
    assert less.summary.patients == whole.summary.patients - 4
    assert less.train.patient_count + less.test.patient_count == less.summary.patients
    for side in ("train", "test"):
        assert set(ages(getattr(less, side))) <= set(ages(getattr(whole, side)))
    lost = sorted(set(ages(whole.train) + ages(whole.test)) - set(ages(less.train) + ages(less.test)))
    assert lost == pytest.approx([(30 + n - 50) / 10 for n in range(4)])
    assert less.test_groups.shape[0] == less.test.patient_count


def test_too_few_that_stay_are_too_few(world):
    everybody = [f"SECRET-{n:03}" for n in range(200)]
    stay = cohort(world, Withdrawn()).summary.patients - 19
    with pytest.raises(DataInvalid, match="19 patients"):
        cohort(world, without(*everybody[:stay]))


# --- the command ---------------------------------------------------------------------------------------------------


async def test_marks_are_kept_and_the_studies_are_signed_for(world):
    done = await gone(world, "SECRET-001", "SECRET-002", "NOBODY-9")
    assert (done.found, done.unknown, done.studies, done.told) == (2, 1, (STUDY.id,), False)
    kept = withdrawn_at(world.home, world.store)
    assert kept.times == 1
    assert all(kept.has(one) for one in ("SECRET-001", "SECRET-002", "NOBODY-9"))
    assert not kept.has("SECRET-003")
    (entry,) = [e for e in signed(world.store) if isinstance(e, entries.PatientsWithdrawn)]
    assert (entry.study, entry.dataset) == (STUDY.id, "ward")
    assert [row.dataset for row in world.store.withdrawals()] == ["ward"]


def signed(store):
    return [entries.parse_entry(data) for data in store.signed_entries()]


async def test_nothing_that_identifies_anybody_is_kept(world, capsys):
    await gone(world, "SECRET-001", "NOBODY-9")
    world.store.close()
    for path in sorted(world.home.folder.rglob("*")):
        if path.is_file() and path.name != "patients.csv":
            data = path.read_bytes()
            assert b"SECRET-001" not in data, path.name
            assert b"NOBODY-9" not in data, path.name
    said = capsys.readouterr()
    assert "SECRET" not in said.out + said.err
    world.store = Store(world.home.folder / "agent.db")


async def test_a_dataset_that_nobody_of_them_was_in_is_not_spoken_of(world):
    done = await gone(world, "NOBODY-9")
    assert done.studies == ()
    assert not [e for e in signed(world.store) if isinstance(e, entries.PatientsWithdrawn)]
    assert withdrawn_at(world.home, world.store).has("NOBODY-9")  # in case of a later extract


async def test_images_and_pictures_that_were_made_are_gone(world):
    images, pictures = world.home.folder / "images", world.home.folder / "overlays/study"
    for folder, name in ((images, "a" * 64), (pictures, "001.png")):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(b"of somebody")
    await gone(world, "SECRET-001")
    assert not list(images.iterdir())
    assert not list(pictures.iterdir())


async def test_what_is_wrong_changes_nothing(world, tmp_path, monkeypatch):
    with pytest.raises(DatasetUnknown, match="'clinic'"):
        await gone(world, "SECRET-001", dataset="clinic")
    path = tmp_path / "ids.txt"
    for data, why in ((b"\xff\xfe\xff", "not UTF-8"), (b"\n \n", "empty"), (b"a" * 201, "line 1 has more than")):
        path.write_bytes(data)
        with pytest.raises(ListRefused, match=why):
            read_identifiers(path)
    with pytest.raises(ListRefused, match="cannot be read"):
        read_identifiers(tmp_path / "nothing.txt")
    path.write_bytes(b"\xef\xbb\xbfSECRET-001\r\n\n SECRET-002 \nSECRET-001\n")
    assert read_identifiers(path) == ("SECRET-001", "SECRET-002")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"SECRET-007\n")))
    assert read_identifiers(Path("-")) == ("SECRET-007",)
    assert world.store.withdrawals() == ()


async def test_without_the_key_that_made_the_marks_nobody_is_prepared(world):
    await gone(world, "SECRET-001")
    path = world.home.folder / "keys/hedge.key"
    path.write_bytes(b"x" * 32)
    with pytest.raises(WithdrawalsUnreadable) as caught:
        withdrawn_at(world.home, world.store)
    assert "keys folder" in caught.value.advice()


def test_an_order_tells_the_training_process_who_is_left_out(world):
    """Fails when `orders.py` leaves the field out."""
    who = without("SECRET-001", "SECRET-002")
    order = order_for(world.home, STUDY, STUDY.digest(), world.home.config.datasets["ward"], who)
    assert order_of(order_fields(order), STUDY.document()).withdrawn == who


def test_the_commands(world, tmp_path):
    """Identifiers come from a file or from standard input; the list shows when and of which dataset."""
    world.store.close()
    home = ["--home", str(world.home.folder)]
    shown = CliRunner().invoke(
        app, ["patients", "withdraw", *home, "--dataset", "ward", "--file", "-"], input="SECRET-001\nNOBODY-9\n"
    )
    assert shown.exit_code == 0, shown.output
    assert "1 found in the data, 1 not" in shown.output
    assert "The coordinator could not be reached" in shown.output
    assert "SECRET" not in shown.output
    shown = CliRunner().invoke(app, ["patients", "list", *home, "--json"])
    assert [row["dataset"] for row in json.loads(shown.stdout)] == ["ward"]
    shown = CliRunner().invoke(app, ["patients", "list", *home])
    assert "ward" in shown.output
    assert "SECRET" not in shown.output
    world.store = Store(world.home.folder / "agent.db")
