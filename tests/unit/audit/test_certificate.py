"""The sites' certificates composed for a model, and in words for a board."""

import math
from dataclasses import replace

import pytest

from audit import entries
from audit.certificate import against_cohort, compose, due, percent_right
from audit.report.certificate_view import GUESSES, after, view
from tests.fakes.sample_study_log import SITES, STUDY, SampleConsortium, digest

MODEL = digest("model")


def certificates(*, epsilons=(0.3, 0.5), **changed):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    found = {}
    for site, epsilon in zip(SITES, epsilons, strict=False):
        entry = entries.parse_entry(sample.certificate(site))
        found[site] = replace(entry, epsilon=epsilon, epsilon_unmasked=epsilon, **changed)
    return found


def test_under_local_noise_the_largest_counts_and_two_add():
    found = compose(certificates(), spent=SITES[:3], model_digest=MODEL, log_size=30)
    assert (found.trust, found.epsilon, found.delta) == ("local", 0.5, 1e-3)
    assert (found.epsilon_two_sites, found.delta_two_sites) == (0.8, 2e-3)
    assert (found.sites, found.missing) == (SITES[:2], (SITES[2],))
    assert found.epsilon_unmasked == 0.5


def test_under_distributed_noise_two_hospitals_are_a_group_of_two():
    shared = certificates(epsilons=(0.5, 0.5), trust="distributed", honest=3)
    shared = {site: replace(one, epsilon_unmasked=1.2) for site, one in shared.items()}
    found = compose(shared, spent=SITES[:2], model_digest=MODEL, log_size=30)
    assert found.trust == "distributed"
    assert found.epsilon_two_sites == 1.0
    assert found.delta_two_sites == pytest.approx((1 + math.exp(0.5)) * 1e-3)
    assert found.epsilon_unmasked == 1.2


def test_one_site_alone():
    found = compose(certificates(epsilons=(0.4,)), spent=SITES[:1], model_digest=MODEL, log_size=30)
    assert (found.epsilon, found.epsilon_two_sites, found.missing) == (0.4, 0.4, ())


def test_a_models_certificate_is_due_once_and_again_when_another_hospital_signs():
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    assert due(sample.lines, study=STUDY) is None
    sample.certificate(SITES[0])
    first = due(sample.lines, study=STUDY)
    assert first.sites == SITES[:1]
    assert first.log_size == len(sample.lines)
    assert first.missing == SITES[1:]
    sample.model_certificate()
    assert due(sample.lines, study=STUDY) is None
    sample.certificate(SITES[1])
    assert due(sample.lines, study=STUDY).sites == SITES[:2]
    assert due(sample.lines, study="another") is None


@pytest.mark.parametrize(("epsilon", "percent"), [(0.0, 50), (1.0, 73.2), (3.0, 95.3), (10.0, 100), (1e6, 100)])
def test_a_guess_at_even_odds(epsilon, percent):
    assert percent_right(epsilon) == percent
    assert percent >= 100 / (1 + math.exp(-min(epsilon, 700)))


@pytest.mark.parametrize("before", GUESSES)
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_no_guess_is_rounded_below_its_bound(epsilon, before):
    odds = math.exp(epsilon) * before / (1 - before)
    said = after(epsilon, before)
    assert said == "over 99 %" if odds > 99 else float(said.removesuffix(" %")) >= 100 * odds / (1 + odds)


def test_delta_beside_the_number_of_patients():
    assert against_cohort(1e-3, "100-199") == "at most 0.2 / n, with n patients (100-199)"
    assert against_cohort(1.01e-3, "100-199") == "at most 0.21 / n, with n patients (100-199)"
    assert against_cohort(1e-3, "100-300").startswith("at most 0.3 /")
    assert against_cohort(1e-6, "100000+") == "at least 0.1 / n, with n patients (100000+)"


def test_the_view_says_what_hospitals_have_in_common_and_what_not():
    first, second = certificates().items()
    changed = replace(second[1], generator="another generator", audit="failed")
    shown = view([(7, *first), (8, second[0], changed)], None)
    facts = dict(shown.facts)
    assert facts["Mechanism"].startswith("poisson-sampled-gaussian; noise 4 times the clip norm 1")
    assert facts["Generator"] == f"{SITES[0]}: AES-256-CTR; {SITES[1]}: another generator"
    assert [row.audit_good for row in shown.rows] == [True, False]
    assert [one.whose for one in shown.odds] == ["a patient of one hospital"]
    assert view([], None) is None


def test_with_test_figures_the_view_says_what_both_promise_together():
    measured = certificates(epsilon_figures=0.25, delta_figures=1e-4)
    promise = compose(measured, spent=SITES[:2], model_digest=MODEL, log_size=30)
    entry = entries.ModelCertificate(**entries.stamp(1, bytes(10)), study=STUDY, **promise.fields())
    shown = view([(7, site, one) for site, one in measured.items()], (9, entry))
    alone, together = "from the model alone", "from the model and the test figures"
    assert [(one.whose.partition(", ")[2], one.epsilon, one.delta) for one in shown.odds] == [
        (alone, 0.5, 1e-3),
        (alone, 0.8, 2e-3),
        (together, 0.75, pytest.approx(1.1e-3)),
        (together, pytest.approx(1.3), pytest.approx(2.2e-3)),
    ]
    assert [row.figures for row in shown.rows] == ["0.2500 at delta 0.0001"] * 2


def test_under_distributed_noise_the_view_says_what_is_left_without_aggregation():
    shared = certificates(epsilons=(0.5, 0.5), trust="distributed", honest=3)
    promise = compose(shared, spent=SITES[:2], model_digest=MODEL, log_size=30)
    entry = entries.ModelCertificate(**entries.stamp(1, bytes(10)), study=STUDY, **promise.fields())
    shown = view([(7, site, one) for site, one in shared.items()], (9, entry))
    assert [one.whose for one in shown.odds][2] == "the same patient if secure aggregation failed"
    assert shown.distributed
    assert "at least 3 honest hospitals" in dict(shown.facts)["Trust model"]
