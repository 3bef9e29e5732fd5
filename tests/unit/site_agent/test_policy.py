"""The hospital's rules, one by one: each stands alone between the study and the hospital."""

import dataclasses
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from site_agent.policy import BUDGET_REFUSED, Accept, Refuse, SiteFacts, StudyFacts, decide
from site_agent.site_file import Policy

ROOT = Path(__file__).resolve().parents[3]
STUDY = StudyFacts(
    network="logistic",
    mechanism="local-dp-sgd",
    suite="hybrid-pq",
    epsilon=1.0,
    delta=1e-3,
    minimum_patients=30,
    participants=3,
    threshold=3,
    witnesses=3,
    upload_bytes=1000,
    expires=date(2035, 12, 31),
)
SITE = SiteFacts(approved=True, patients=46, today=date(2026, 1, 1))


def test_a_study_within_every_rule_is_accepted():
    assert decide(Policy(), STUDY, SITE) == Accept()


@pytest.mark.parametrize(
    ("epsilon", "figures", "cap", "fits"), [(1.1, 2.2, 3.3, True), (1.0, 0.01, 1.0, False), (0.5, 0.5, 1.0, True)]
)
def test_training_and_test_figures_are_one_studys_epsilon(epsilon, figures, cap, fits):
    study = dataclasses.replace(STUDY, epsilon=epsilon, figures_epsilon=figures, figures_delta=1e-4)
    answer = decide(Policy(max_epsilon_per_study=cap, max_epsilon_total=9.0), study, SITE)
    assert (answer == Accept()) is fits
    assert fits or answer.rule == "max_epsilon_per_study"


@pytest.mark.parametrize(
    ("policy", "study", "site", "rule"),
    [
        ({}, {}, {"approved": False}, "require_approval"),
        ({}, {}, {"today": date(2036, 1, 1)}, "governance.expires"),
        ({"allowed_networks": ("mlp",)}, {}, {}, "allowed_networks"),
        ({"allowed_mechanisms": ()}, {}, {}, "allowed_mechanisms"),
        ({"allowed_suites": ("hybrid-pq",)}, {"suite": "p256"}, {}, "allowed_suites"),
        ({"allowed_suites": ("p256",)}, {}, {}, "allowed_suites"),
        ({"max_epsilon_per_study": 0.99}, {}, {}, "max_epsilon_per_study"),
        ({"max_delta": 9e-4}, {}, {}, "max_delta"),
        ({"minimum_patients": 47}, {}, {}, "minimum_patients"),
        ({"minimum_patients": 1}, {"minimum_patients": 47}, {}, "minimum_patients"),
        ({"minimum_sites": 4}, {}, {}, "minimum_sites"),
        ({"minimum_threshold": 4}, {}, {}, "minimum_threshold"),
        ({"minimum_witnesses": 4}, {}, {}, "minimum_witnesses"),
        ({"max_egress_bytes_per_round": 999}, {}, {}, "max_egress_bytes_per_round"),
    ],
)
def test_each_rule_refuses_alone(policy, study, site, rule):
    answer = decide(Policy(**policy), dataclasses.replace(STUDY, **study), dataclasses.replace(SITE, **site))
    assert isinstance(answer, Refuse)
    assert answer.rule == rule


@pytest.mark.parametrize(
    ("policy", "study", "site"),
    [
        ({"max_epsilon_per_study": 1.0, "max_delta": 1e-3, "minimum_patients": 46}, {}, {}),
        ({"minimum_sites": 3, "minimum_threshold": 3, "max_egress_bytes_per_round": 1000}, {}, {}),
        ({}, {}, {"today": date(2035, 12, 31)}),
    ],
)
def test_a_bound_itself_is_allowed(policy, study, site):
    answer = decide(Policy(**policy), dataclasses.replace(STUDY, **study), dataclasses.replace(SITE, **site))
    assert answer == Accept()


def test_a_refusal_never_tells_the_hospitals_numbers():
    secret = {"max_epsilon_per_study": 0.731, "max_delta": 7.31e-4, "minimum_patients": 731, "minimum_sites": 73}
    for name, value in secret.items():
        answer = decide(Policy(**{name: value}), STUDY, dataclasses.replace(SITE, patients=137))
        assert isinstance(answer, Refuse)
        assert not re.search(r"73|137", answer.explanation)
    assert not re.search(r"\d", BUDGET_REFUSED.explanation)


def test_the_first_rule_that_fails_is_the_one_named():
    answer = decide(Policy(minimum_sites=4, max_delta=1e-6), STUDY, SITE)
    assert isinstance(answer, Refuse)
    assert answer.rule == "max_delta"


def test_what_a_waiting_agent_needs_loads_no_heavy_library():
    # An agent that waits stays below 120 MB: torch, pandas and the accountant come with the first training.
    code = (
        "import sys, site_agent.policy, site_agent.ledger, site_agent.training_spec, site_agent.errors\n"
        "heavy = {'torch', 'opacus', 'pandas', 'sklearn', 'scipy', 'dp_accounting', 'monai'} & set(sys.modules)\n"
        "print(*sorted(heavy), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == ""
