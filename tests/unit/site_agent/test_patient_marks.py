"""Keyed hashes of patients: equal for equal patients under one secret only; datasets that share any have one budget."""

import pytest

from consortium.contract.names import Digest, StudyId
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledGaussian
from privacy.errors import BudgetExceeded
from privacy.secret import Secret
from site_agent.datasets import CsvDataset
from site_agent.ledger import Ledger, Limits, Overlap
from site_agent.patient_marks import identifiers_in, marks_of

SECRET = Secret(bytes(range(32)))
EVENT = DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=3.4484, sampling_rate=0.2, steps=40, clip_norm_l2=1))
LIMITS = Limits(study_epsilon=1.0, study_delta=1e-3, total_epsilon=1.9, total_delta=1e-3)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.db")


def reserve(ledger, dataset, study):
    return ledger.reserve(
        dataset=dataset,
        study=StudyId(f"study-{study}"),
        study_digest=Digest(study * 64),
        round_number=1,
        attempt=1,
        event=EVENT,
        limits=LIMITS,
    )


def people(*numbers):
    return marks_of([f"patient {n}" for n in numbers], SECRET)


def test_a_mark_says_nothing_without_the_secret():
    one, other = marks_of(["Maria"], SECRET), marks_of(["Maria"], Secret(bytes(32)))
    assert one.marks.tolist() != other.marks.tolist()
    assert one.key_id != other.key_id
    assert marks_of(["Maria", "", "Maria", "Jan"], SECRET).marks.size == 2
    assert "marks" not in repr(one)


def test_patients_are_read_by_their_own_column(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("\ufeffage, patient\n50, P1\n60,P2 \n70\n51,P1\n")
    dataset = CsvDataset(path=str(path), format="csv", patient_id="patient", declared_patients=2)
    assert list(identifiers_in(dataset)) == ["P1", "P2", "P1"]
    assert list(identifiers_in(dataset.model_copy(update={"patient_id": "other"}))) == []


def test_overlaps_are_counted_both_ways(ledger):
    assert ledger.register("heart", people(1, 2, 3)) == ()
    assert ledger.register("ward", people(3, 4)) == (Overlap(dataset="heart", patients=1),)
    assert ledger.register("lung", people(5)) == ()
    assert ledger.overlaps("heart") == (Overlap(dataset="ward", patients=1),)


def test_patients_are_never_forgotten(ledger):
    """A patient who left the file has been trained on all the same."""
    ledger.register("heart", people(1, 2))
    ledger.register("heart", people(2, 3))
    assert ledger.register("ward", people(1)) == (Overlap(dataset="heart", patients=1),)


def test_datasets_with_a_patient_in_common_have_one_budget(ledger):
    ledger.register("heart", people(*range(100)))
    ledger.register("ward", people(99, *range(1000, 1100)))
    ledger.register("lung", people(5000))
    reserve(ledger, "heart", "a")
    both = ledger.spent("ward", delta=1e-3).epsilon
    assert both == ledger.spent("heart", delta=1e-3).epsilon > 0.99
    assert ledger.spent("lung", delta=1e-3).epsilon == 0
    reserve(ledger, "ward", "b")
    with pytest.raises(BudgetExceeded):
        reserve(ledger, "heart", "c")
    reserve(ledger, "lung", "c")


def test_only_neighbours_count_not_neighbours_of_neighbours(ledger):
    """No patient is in both the first and the last of three, so neither pays for the other."""
    ledger.register("first", people(1, 2))
    ledger.register("middle", people(2, 3))
    ledger.register("last", people(3, 4))
    reserve(ledger, "first", "a")
    assert ledger.spent("middle", delta=1e-3).epsilon > 0
    assert ledger.spent("last", delta=1e-3).epsilon == 0


def test_one_study_under_two_names_is_one_study(ledger):
    ledger.register("heart", people(1))
    ledger.register("ward", people(1))
    reserve(ledger, "heart", "a")
    with pytest.raises(BudgetExceeded) as caught:  # its own epsilon, although the attempt is another row
        reserve(ledger, "ward", "a")
    assert caught.value.cap == 1.0


def test_what_cannot_be_compared_is_taken_to_overlap(ledger):
    reserve(ledger, "old", "a")  # by a version that registered nobody
    assert ledger.register("heart", people(1)) == (Overlap(dataset="old", patients=None),)
    assert ledger.spent("heart", delta=1e-3).epsilon > 0
    assert ledger.register("old", people(2)) == ()
    assert ledger.spent("heart", delta=1e-3).epsilon == 0
    # Under another secret nothing can be compared with what was registered before.
    reserve(ledger, "heart", "b")
    assert ledger.register("old", marks_of(["patient 1"], Secret(bytes(32)))) == (
        Overlap(dataset="heart", patients=None),
    )
