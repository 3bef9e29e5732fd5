"""Studies of which some hospitals train in each round: which there may be, whose turn it is, and what it is charged."""

import json
from datetime import date
from typing import Any

import pytest

from consortium.contract.figures_budget import measured_rounds
from consortium.contract.layout import LaneName, largest_layout, measures, round_layout
from consortium.contract.names import Digest, RoundNumber, SiteId
from consortium.contract.participation_schedule import in_turn
from consortium.contract.plan import RoundKind
from consortium.contract.schema import problems_of
from consortium.contract.study import StudyFile
from consortium.study_plan import describe_plan, plan
from site_agent.policy import limits_of
from site_agent.site_file import Policy
from site_agent.training_spec import spec_of
from tests.fakes.small_study import DOCUMENT, SITES, small_study

ROUNDS = 5
NO_PRIVACY = {
    "mechanism": "none", "unit": "patient", "justification": "Made-up patients.", "max_records_per_patient": 1,
}  # fmt: skip


def document(per_round: int = 3, **sections: dict[str, Any]) -> dict[str, Any]:
    """Five rounds of three of the four hospitals, unless `sections` say otherwise."""
    record: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"rounds": ROUNDS, "participants_per_round": per_round}
    record["evaluation"]["every_rounds"] = ROUNDS
    for name, changed in sections.items():
        record[name] = changed if "mechanism" in changed else record[name] | changed
    return record


def study_of(**training: Any) -> StudyFile:
    return StudyFile.model_validate_json(json.dumps(document(training=training)))


def problems(**changes: Any) -> dict[str, str]:
    def as_read(value: object) -> object:  # as the YAML reader makes it
        if isinstance(value, dict):
            return {key: as_read(inner) for key, inner in value.items()}
        return tuple(map(as_read, value)) if isinstance(value, list) else value

    record: Any = as_read(document(**changes))
    record["governance"] |= {"expires": date(2099, 12, 31)}
    return {problem.path: problem.allowed for problem in problems_of(StudyFile, record)}


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"per_round": 4}, "training.participants_per_round", "from 3 to 3: as many as sites.minimum"),
        ({"per_round": 3, "aggregation": {"threshold": 4}}, "training.participants_per_round", "nothing: as many"),
        ({"training": {"algorithm": "scaffold"}}, "training.algorithm", "control variates"),
        ({"training": {"weighting": "patients"}}, "training.weighting", "would show in the sums"),
        ({"privacy": NO_PRIVACY}, "training.participants_per_round", "could be subtracted"),
        (
            {"privacy": DOCUMENT["privacy"] | {"mechanism": "distributed-dp-sgd"}},
            "training.participants_per_round",
            "shares of the noise",
        ),
        ({"evaluation": {"every_rounds": 1}}, "evaluation.every_rounds", "training.rounds, 5"),
        ({"evaluation": {"keep_best": "accuracy"}}, "evaluation.keep_best", "only the last model is measured"),
        (
            {"evaluation": {"keep_best": "accuracy", "stop_early": {"patience": 1}}},
            "evaluation.stop_early",
            "only the last model is measured",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused_with_the_reason(changes: Any, path: str, words: str) -> None:
    assert words in problems(**changes)[path]


def test_groups_are_refused() -> None:
    required = [f"site-{number:03}" for number in range(130)]
    found = problems(
        per_round=100, sites={"required": required, "minimum": 64}, aggregation={"threshold": 67, "group_size": 64}
    )
    assert "has everybody" in found["training.participants_per_round"]


def test_a_study_that_does_not_ask_for_it_is_what_it_was() -> None:
    study = small_study()
    assert b"participants_per_round" not in study.document()
    assert study.sites_of_round(1) == study.sites.roster
    assert study.rounds_of_a_site == study.training.rounds


def test_the_schedule_is_a_known_one() -> None:
    """Evidence of years ago is held against it: it must never change."""
    roster = [SiteId(name) for name in ("alder", "birch", "cedar", "dogwood", "elm")]
    found = ["".join(s[0] for s in in_turn(Digest("ab" * 32), roster, 3, number)) for number in range(1, 11)]
    assert " ".join(found) == "ade bcd ace bde abc ace abd bce bcd ade"


def test_noise_and_caps_are_for_the_most_rounds_that_one_hospital_is_in() -> None:
    """5 rounds of 3 places are 15, for 4 hospitals: 4 rounds at most, where without turns it would be 5."""
    study, all_in = study_of(spare_rounds=1), small_study(rounds=5, every_rounds=5)
    turns = [study.sites_of_round(number) for number in range(1, ROUNDS + 1)]
    assert max(sum(site in turn for turn in turns) for site in SITES) == study.rounds_of_a_site == 4
    assert study.steps_of_a_site == 5
    mechanism = spec_of(study, declared_patients=1).privacy.mechanism
    assert mechanism.steps == 5 == limits_of(Policy(), study).study_steps
    assert plan(study).design.mechanism == mechanism
    assert spec_of(all_in, declared_patients=1).privacy.mechanism.steps == 5
    assert "in turn" in describe_plan(plan(study))


def test_only_the_last_model_is_measured_and_by_everybody() -> None:
    study = study_of()
    assert study.sites_of_round(ROUNDS + 1) == study.sites.roster
    for number in range(1, ROUNDS + 1):
        assert len(study.sites_of_round(number)) == 3
        assert not measures(study, RoundKind.TRAIN, RoundNumber(number))
    assert measures(study, RoundKind.EVALUATE, RoundNumber(ROUNDS + 1))
    assert measured_rounds(study) == 1
    parameters = (("w", (3,)),)
    largest = largest_layout(study, parameters=parameters)
    assert largest == round_layout(study, parameters=parameters, kind=RoundKind.TRAIN, measured=False)
    assert LaneName.TEST_PATIENTS not in {lane.name for lane in largest.lanes}
