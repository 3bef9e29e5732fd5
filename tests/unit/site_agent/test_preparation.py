"""What is checked before a hospital says that it is ready."""

import pytest
import yaml

from audit import entries
from privacy.errors import BudgetExceeded
from site_agent.data_faults import DataInvalid
from site_agent.home import open_home
from site_agent.ledger import Limits
from site_agent.preparation import Declined, announce, approved_study, prepare
from site_agent.room_in_process import RoomInProcess
from site_agent.signed_events import SignedEvents
from site_agent.store import Decision
from tests.fakes.imaging_study import whole_study, write_folder
from tests.fakes.site_world import make_world, small_study, write_patients, write_site_file
from tests.fakes.stewards import signed


def prepared(world):
    return prepare(world.home, world.store, world.ledger, world.digest, RoomInProcess)


def test_what_a_round_will_need(tmp_path):
    world = make_world(tmp_path)
    ready = prepared(world)
    assert (ready.study, ready.digest, ready.dataset) == (world.study, world.digest, "ward")
    assert ready.first_model.vector.size == 4
    assert ready.seen.patients == 45
    assert ready.spec.privacy.mechanism.steps == 2
    # The first model is a function of the study and nothing else.
    assert prepared(make_world(tmp_path / "other")).first_model.digest() == ready.first_model.digest()
    assert world.ledger.report() == ()


def test_a_study_of_images_is_announced_in_words(tmp_path):
    world = make_world(tmp_path)
    study = whole_study()
    write_folder(tmp_path / "films", [f"SECRET-{number}" for number in range(30)])
    record = yaml.safe_load((tmp_path / "site.yaml").read_text())
    own = {"path": "films", "format": "image-folder", "table": "list.csv", "declared_patients": 20}
    policy = record["policy"] | {"allowed_networks": ["cnn"]}
    record |= {"datasets": {"films": own}, "studies": {study.id: "films"}, "policy": policy}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(record))
    approved = Decision(
        study_digest=study.digest(), study=study.study_id, document=study.document(), decision="approved",
        steward="Dr Somebody", statement="", at=1.0, signatures=signed(world.home, world.store, study),
    )  # fmt: skip
    world.store.add_events([], decision=approved)
    ready = prepare(open_home(tmp_path), world.store, world.ledger, study.digest(), RoomInProcess)
    assert ready.room._cohort.train.features.shape[1:] == ready.spec.network.input_shape == (1, 28, 28)
    assert len(list((tmp_path / "images").iterdir())) == 30
    announce(ready, SignedEvents(world.home, world.store))
    snapshot = entries.parse_entry(world.store.pending_events()[0][1])
    assert isinstance(snapshot, entries.CohortSnapshot)
    reads = ("X-ray images (DX), 1 channel", "cut or padded to 28 x 28", "with a label: above 0 or not")
    assert (snapshot.patients, snapshot.columns) == ("20-49", reads)
    assert "SECRET" not in str(snapshot)


def test_only_an_approved_study_by_its_digest(tmp_path):
    world = make_world(tmp_path, approved=False)
    for decision in (None, "rejected", "withdrawn"):
        if decision:
            world.decide(decision)
        with pytest.raises(Declined) as caught:
            prepared(world)
        assert caught.value.refusal.rule == ("withdrawn" if decision == "withdrawn" else "require_approval")
    world.decide()
    assert approved_study(world.home, world.store, world.digest) == world.study
    with pytest.raises(Declined):
        approved_study(world.home, world.store, small_study(training={"rounds": 3}).digest())


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        ({"minimum_patients": 46}, "minimum_patients"),
        ({"minimum_sites": 4}, "minimum_sites"),
        ({"minimum_threshold": 4}, "minimum_threshold"),
        ({"max_delta": 1e-6}, "max_delta"),
        ({"allowed_networks": ["mlp"]}, "allowed_networks"),
        ({"max_egress_bytes_per_round": 100}, "max_egress_bytes_per_round"),
    ],
)
def test_the_hospitals_rules(tmp_path, policy, rule):
    world = make_world(tmp_path, **policy)
    with pytest.raises(Declined) as caught:
        prepared(world)
    assert caught.value.refusal.rule == rule


def test_a_study_that_no_dataset_is_named_for(tmp_path):
    world = make_world(tmp_path)
    write_site_file(tmp_path, world.study, dataset=None)
    with pytest.raises(Declined) as caught:
        prepared(world)
    assert caught.value.refusal.rule == "studies"


def test_data_that_do_not_fit(tmp_path):
    world = make_world(tmp_path)
    write_patients(tmp_path / "patients.csv", count=5)
    with pytest.raises(DataInvalid):
        prepared(world)


def test_a_study_that_would_not_fit_the_budget_to_its_end(tmp_path):
    world = make_world(tmp_path)
    event = prepared(world).spec.privacy.study_event()
    world.ledger.reserve(
        dataset="ward",
        study=world.study.study_id,
        study_digest="e" * 64,
        round_number=1,
        attempt=1,
        event=event,
        limits=Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3),
    )
    write_site_file(tmp_path, world.study, max_epsilon_total=1.2)
    with pytest.raises(BudgetExceeded):
        prepared(world)


def test_announced_once_and_whole(tmp_path):
    world = make_world(tmp_path)
    ready, events = prepared(world), SignedEvents(world.home, world.store)
    announce(ready, events)
    announce(ready, events)
    cohort, cost, audited = (entries.parse_entry(entry) for _, entry in world.store.pending_events())
    assert isinstance(cohort, entries.CohortSnapshot)
    assert (cohort.patients, cohort.columns) == ("20-49", ("age", "kind"))
    assert isinstance(cost, entries.DpConfigured)
    assert cost.epsilon_planned <= 1.0
    assert cost.steps_planned == 2
    assert cost.engine == ready.engine == "bookkeeping"
    assert isinstance(audited, entries.DpAudited)
    assert audited.failed == ()


def test_announced_whole_or_not_at_all(tmp_path, monkeypatch):
    world = make_world(tmp_path)
    ready, events = prepared(world), SignedEvents(world.home, world.store)
    sign, calls = entries.sign_site_entry, []

    def fails_at_the_second(entry, key):
        calls.append(entry)
        if len(calls) == 2:
            raise OSError
        return sign(entry, key)

    monkeypatch.setattr(entries, "sign_site_entry", fails_at_the_second)
    with pytest.raises(OSError):
        announce(ready, events)
    assert world.store.pending_events() == ()
    monkeypatch.undo()
    announce(ready, events)
    assert len(world.store.pending_events()) == 3
