"""A-15: a privacy certificate says less than was spent, or a model's certificate less than the sites' together.

Held by: step 18. Tried: rows a15 of `mutations.py`; and by hand: without `step_certificates` in STEPS every case below
verifies; without `_check_certificate`, `_check_audit`, `_check_dataset`, `_check_trust` or `_check_model_certificate`
those that name its field do.
"""

from typing import Any

import pytest

from audit import entries, verify
from tests.fakes.sample_study_log import (
    RATE,
    SIGMA,
    SITES,
    STEPS,
    STUDY,
    SampleConsortium,
    digest,
    evidence,
    failed_steps,
    key,
    plausible_epsilon,
)

CERTIFICATES = "privacy certificates"
OTHER = "other-study"


def study(certified):
    sample = SampleConsortium(rounds=2)
    sample.opening()
    sample.agreeing()
    for number in (1, 2):
        sample.one_round(number)
    sample.ending(certified=certified)
    return sample


def failure(tmp_path, certified):
    archive, policy = evidence(tmp_path, study(certified))
    return failed_steps(verify.check(str(archive), policy)).get(CERTIFICATES)


def event(**changed):
    fields = {"noise_multiplier": SIGMA, "sampling_rate": RATE, "steps": 2 * STEPS}
    return entries.PoissonSampledGaussian(**(fields | changed))


def test_honest_certificates_verify(tmp_path):
    def certified(sample):
        for site in SITES:
            sample.certificate(site)
        sample.model_certificate()

    assert failure(tmp_path, certified) is None


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"epsilon": plausible_epsilon(STEPS), "epsilon_unmasked": plausible_epsilon(STEPS)}, "epsilon"),
        ({"event": event(steps=STEPS)}, "event.steps"),
        ({"event": event(noise_multiplier=2 * SIGMA)}, "event.noise_multiplier"),
        ({"event": event(sampling_rate=RATE / 2)}, "event.sampling_rate"),
        (
            {
                "event": entries.PoissonSampledDiscreteGaussian(
                    noise_multiplier=SIGMA,
                    sampling_rate=RATE,
                    steps=2 * STEPS,
                    clip_norm_l2=1.0,
                    shares=3,
                    grid_spacing=2.0**-20,
                    dimension=14,
                )
            },
            "event.clip_norm_l2",
        ),
        ({"delta": 1e-6}, "delta"),
        ({"clip_norm_l2": 0.1}, "clip_norm_l2"),
        ({"steps_planned": 100}, "steps_planned"),
        ({"unit": "record"}, "unit"),
        ({"relation": "replace-one"}, "relation"),
        ({"dataset": "another"}, "dataset"),
        ({"study_digest": digest("another")}, "study_digest"),
        ({"epsilon_unmasked": 0.01}, "trust"),
        ({"trust": "distributed", "honest": 3, "epsilon_unmasked": plausible_epsilon(2 * STEPS)}, "trust"),
        ({"trust": "distributed", "honest": 4, "epsilon_unmasked": 9.0}, "trust"),
        ({"epsilon_dataset": plausible_epsilon(STEPS)}, "epsilon_dataset"),
        ({"studies": ("another",)}, "studies"),
        ({"audit_figures": (("epsilon_low", 0.01),)}, "audit"),
        ({"audit": "not run", "audit_figures": ()}, "audit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_certificate_that_says_less_or_something_else(tmp_path, changed, field):
    found = failure(tmp_path, lambda sample: sample.certificate("hungary", **changed))
    assert f"dp.certificate of hungary, {field}" in found["where"]


@pytest.mark.parametrize(("planned", "holds"), [(verify.EXACT_STEPS_MAX, False), (verify.EXACT_STEPS_MAX + 1, True)])
def test_only_in_a_long_study_may_a_certificate_be_below_what_entries_said(tmp_path, planned, holds):
    """There a dp.spent may say an upper bound; a certificate is held to the bounds for its steps all the same."""

    def certified(less, folder):
        folder.mkdir()
        sample = SampleConsortium(rounds=2, steps_planned=planned)
        sample.opening()
        sample.agreeing()
        for number in (1, 2):
            sample.one_round(number)
        exact = plausible_epsilon(2 * STEPS) - less
        sample.certificate("hungary", epsilon=exact, epsilon_unmasked=exact)
        archive, policy = evidence(folder, sample)
        return CERTIFICATES not in failed_steps(verify.check(str(archive), policy))

    assert certified(2 * verify.ROUNDED_UP, tmp_path / "a-little") is holds
    assert not certified(0.9 * plausible_epsilon(2 * STEPS), tmp_path / "too-little")


def test_steps_after_the_certificate_count_too(tmp_path):
    """A site cannot certify after the first round and go on spending."""
    sample = SampleConsortium(rounds=2)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    sample.certificate("cleveland")
    sample.one_round(2)
    archive, policy = evidence(tmp_path, sample)
    found = failed_steps(verify.check(str(archive), policy))[CERTIFICATES]
    assert (found["where"].endswith("event.steps)"), found["found"]) == (True, str(STEPS))


def test_another_study_on_the_same_dataset_cannot_be_left_out(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    fields: dict[str, Any] = {"round": 1, "attempt": 1, "dataset": "heart", "event": event(steps=STEPS)}
    fields |= {"epsilon": plausible_epsilon(STEPS), "delta": 1e-3, "steps_total": STEPS}
    elsewhere(sample, "hungary", entries.DpSpent, OTHER, fields)
    sample.one_round(1)
    sample.ending(certified=lambda one: one.certificate("hungary"))
    archive, policy = evidence(tmp_path, sample)
    found = failed_steps(verify.check(str(archive), policy))[CERTIFICATES]
    assert found["expected"] == f"{STUDY}, {OTHER}"


def elsewhere(sample, site, kind, study_name, fields):
    """An entry of the site about another study, in the same chain."""
    chain = sample.chains[site]
    names = {"actor": f"site:{site}", "site_seq": chain.next_seq, "site_prev": chain.previous, "study": study_name}
    entry = kind(**sample.stamp(), **names, **fields)
    data = entries.sign_site_entry(entry, key(site))
    sample.chains[site] = chain.admit(data, entry)
    sample.lines.append(data)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"epsilon": 0.01}, "epsilon"),
        ({"epsilon_two_sites": plausible_epsilon(2 * STEPS)}, "epsilon_two_sites"),
        ({"epsilon_unmasked": 0.01}, "epsilon_unmasked"),
        ({"delta": 1e-9}, "delta"),
        ({"missing": ()}, "missing"),
        ({"sites": SITES}, "sites"),
        ({"model_digest": digest("another")}, "model_digest"),
        ({"log_size": 10_000}, "log_size"),
        ({"log_size": 40}, "(model.certificate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_certificate_that_says_less_than_the_sites(tmp_path, changed, field):
    def certified(sample):
        for site in SITES[:3]:
            sample.certificate(site)
        sample.model_certificate(**changed)

    found = failure(tmp_path, certified)
    assert "(model.certificate" in found["where"]
    assert field in found["where"]
