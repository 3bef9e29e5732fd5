"""D-21: a hospital registers the same patients under a second name, and their budget is there twice.

Held by: `patient_marks.py` and `ledger.register`, asked in `preparation.prepare`. Tried:
rows d21 of `mutations.py` (nobody registers; no patient is ever in common).
"""

import pytest
import yaml

from privacy.errors import BudgetExceeded
from site_agent.app import dataset_budgets
from site_agent.description import describe
from site_agent.ledger_caps import Limits
from site_agent.preparation import prepare
from site_agent.room_in_process import RoomInProcess
from tests.fakes.site_world import CAP, make_world, small_study

STUDY = small_study()


def second_name(folder, patients):
    """The hospital's own file gets a dataset `clinic`, and the study is pointed at it."""
    (folder / "clinic.csv").write_text(patients)
    record = yaml.safe_load((folder / "site.yaml").read_text())
    record["datasets"]["clinic"] = {**record["datasets"]["ward"], "path": "clinic.csv"}
    record["studies"] = {STUDY.id: "clinic"}
    (folder / "site.yaml").write_text(yaml.safe_dump(record))


def use_up(world, dataset):
    """Other studies leave less of the ward's cap than this study needs."""
    event = prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess).spec.privacy.study_event()
    limits = Limits(study_epsilon=CAP, study_delta=1e-3, total_epsilon=CAP, total_delta=1e-3)
    number = 0
    while True:
        number += 1
        try:
            world.ledger.reserve(
                dataset=dataset,
                study=STUDY.study_id,
                study_digest=format(number, "064x"),
                round_number=1,
                attempt=1,
                event=event,
                limits=limits,
            )
        except BudgetExceeded:
            return


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path, STUDY)
    use_up(made, "ward")
    return made


def test_the_same_file_under_another_name_has_nothing_left(world, tmp_path):
    second_name(tmp_path, (tmp_path / "patients.csv").read_text())
    with pytest.raises(BudgetExceeded):
        prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess)
    (clinic,) = dataset_budgets(tmp_path, "clinic")
    assert clinic.shares == (("ward", 45),)
    assert clinic.epsilon == dataset_budgets(tmp_path, "ward")[0].epsilon > 3
    text = " ".join(describe(STUDY, STUDY.digest(), world.home.config, world.ledger).split())
    assert "patients in common with ward, and one budget with it" in text
    assert "do NOT allow it" in text


def test_one_patient_in_common_is_enough(world, tmp_path):
    lines = (tmp_path / "patients.csv").read_text().splitlines()
    others = [line.replace("SECRET-", "OTHER-") for line in lines[1:]]
    second_name(tmp_path, "\n".join([lines[0], lines[1], *others]) + "\n")
    with pytest.raises(BudgetExceeded):
        prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess)
    assert world.ledger.overlaps("clinic")[0].patients == 1


def test_other_patients_have_a_budget_of_their_own(world, tmp_path):
    second_name(tmp_path, (tmp_path / "patients.csv").read_text().replace("SECRET-", "OTHER-"))
    prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess)
    assert world.ledger.spent("clinic", delta=1e-3).epsilon == 0


def test_no_identifier_is_in_the_file(world, tmp_path):
    world.ledger.close()
    for path in tmp_path.glob("ledger.db*"):
        assert b"SECRET-0" not in path.read_bytes()
