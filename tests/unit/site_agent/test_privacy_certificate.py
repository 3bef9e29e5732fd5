"""A hospital's certificate: made from its ledger and its own entries, signed once, and what stays beside it."""

import json

import pytest
from typer.testing import CliRunner

from audit import entries
from audit.certificate import percent_right
from consortium.contract.software import code_digest, software
from site_agent import admission_audit, preparation
from site_agent.certification import certificate_of, local_figures, sign_certificate
from site_agent.cli import app
from site_agent.clipping_record import ClippingRecord, Totals
from site_agent.mechanism_findings import Finding, MechanismAudit
from site_agent.privacy_certificate import CertificateRefused, describe_certificate, outside_of
from site_agent.room_in_process import RoomInProcess
from site_agent.signed_events import SignedEvents
from site_agent.site_file import Policy
from site_agent.training_room import LocalFigures
from tests.fakes.site_world import hospital, make_world, small_study


def test_a_study_that_was_never_announced_or_spent_nothing_has_none(tmp_path):
    world = make_world(tmp_path)
    with pytest.raises(CertificateRefused, match="never announced"):
        certificate_of(world.home, world.store, world.ledger, world.digest)
    events = SignedEvents(world.home, world.store)
    assert sign_certificate(world.home, world.store, world.ledger, events, world.digest) is None


async def test_what_was_spent_is_certified_once_and_shown_with_what_stays_here(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        certificate = certificate_of(world.home, world.store, world.ledger, world.digest)
        (row,) = world.ledger.report()
        assert (certificate.epsilon, certificate.event.steps) == (row.epsilon, row.steps)
        assert (certificate.trust, certificate.honest, certificate.epsilon_unmasked) == ("local", 1, row.epsilon)
        assert (certificate.audit, certificate.studies) == ("passed", ("small-study",))
        assert certificate.epsilon_dataset == certificate.epsilon
        assert json.loads(certificate.canonical()) == json.loads(json.dumps(certificate.to_json()))
        events = SignedEvents(world.home, world.store)
        signed = sign_certificate(world.home, world.store, world.ledger, events, world.digest)
        assert signed == certificate
        assert sign_certificate(world.home, world.store, world.ledger, events, world.digest) is None
        local = local_figures(tmp_path, "small-study")
        assert local[0][0] == "Clipped"
        said = describe_certificate(certificate, local)
        assert "at most" in said
        assert "Stays in this building" in said
        # What carries no noise is in no entry that leaves.
        entry = next(e for e in world.store.signed_entries() if b"dp.certificate" in e)
        assert b"lipped" not in entry
        shown = CliRunner().invoke(app, ["certificate", "small-study", "--home", str(tmp_path), "--json"])
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["certificate"]["epsilon"] == certificate.epsilon


async def test_test_figures_with_a_budget_are_certified_beside_the_training(tmp_path):
    study = small_study(evaluation={"privacy": {"epsilon": 0.5, "delta": 1e-4}, "score_bins": 20, "subgroup_bins": 10})
    async with hospital(tmp_path, study, max_epsilon_per_study=1.5) as world:
        await world.attempt()
        training, figures = world.ledger.report()
        events = SignedEvents(world.home, world.store)
        certificate = sign_certificate(world.home, world.store, world.ledger, events, world.digest)
        assert (certificate.epsilon, certificate.delta) == (training.epsilon, 1e-3)
        assert (certificate.epsilon_figures, certificate.delta_figures) == (figures.epsilon, 1e-4)
        assert 0 < figures.epsilon < 0.5
        assert certificate.epsilon_dataset > max(training.epsilon, figures.epsilon)
        assert certificate.studies == ("small-study",)
        both = certificate.epsilon + certificate.epsilon_figures
        said = " ".join(describe_certificate(certificate, []).split())
        assert f"right at most {percent_right(both):g}% of the time" in said
        assert f"epsilon {figures.epsilon:.4f} at delta 0.0001 more; with the training at most {both:.4f} at" in said
        (entry,) = [e for e in map(entries.parse_entry, world.store.signed_entries()) if e.TYPE == "figures.spent"]
        assert entry.epsilon == figures.epsilon
        # Another draw, and there is more to say.
        await world.attempt()
        again = sign_certificate(world.home, world.store, world.ledger, events, world.digest)
        assert again.epsilon_figures > certificate.epsilon_figures


async def test_a_mechanism_that_fails_its_audit_is_declined_and_the_measurement_signed(tmp_path, monkeypatch):
    failing = MechanismAudit(
        findings=(Finding(check="noise", passed=False, found="0", allowed="2"),), figures=(("noise_high", 0.0),)
    )
    monkeypatch.setattr(admission_audit, "audited", lambda *_: failing)
    world = make_world(tmp_path)
    prepared = preparation.prepare(world.home, world.store, world.ledger, world.digest, RoomInProcess)
    events = SignedEvents(world.home, world.store)
    for _ in range(2):  # announced once, and a failure signed each time
        with pytest.raises(preparation.Declined, match="mechanism_audit"):
            preparation.announce(prepared, events)
    found = [entries.parse_entry(entry) for entry in world.store.signed_entries()]
    audits = [entry for entry in found if isinstance(entry, entries.DpAudited)]
    assert [(entry.failed, entry.outcome) for entry in audits] == [(("noise",), "8"), (("noise",), "8")]


@pytest.mark.parametrize(("shares", "word"), [(True, "secure aggregation"), (False, "shared none")])
def test_what_is_outside_depends_on_the_hospitals_own_rules(shares, word):
    first, *others = outside_of(small_study(), Policy(share_exact_metrics=shares))
    assert word in first
    assert len(others) == 5


def test_clipping_is_counted_over_rounds_and_a_damaged_file_is_nothing(tmp_path):
    record = ClippingRecord(tmp_path / "results/a.clipping.json")
    assert record.read() == Totals()
    for _ in range(2):
        record.add(LocalFigures(sampled_patients=(3, 1), clipped_patients=2, broken_patients=1))
    assert record.read() == Totals(steps=4, sampled=8, clipped=4, broken=2)
    assert record.read().clipped_fraction == 0.5
    assert repr(record.read()) == "Totals()"
    (tmp_path / "results/a.clipping.json").write_text("{")
    assert record.read() == Totals()


def test_the_software_is_named_and_its_files_digested():
    assert software()[0].startswith("hospital-consortium ")
    assert len(code_digest()) == 64
